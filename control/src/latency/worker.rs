//! The thread: takes samples, learns, retrains in slices, makes documents, saves.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use inlane_latency::{Progress, RECORD_FORMAT, Sample, Trainer};
use inlane_segment::{SampleCounters, SampleSet};

use super::{Place, Status, Update, state};

/// How often the proxies' rings are emptied. Each holds some thousand samples.
const TURN: Duration = Duration::from_millis(50);
/// Longest time that forests grow without a pause.
const SLICE: Duration = Duration::from_millis(5);
/// Share of one core that all this may take: after work of some length comes a pause of thrice that.
const PAUSE_PER_WORK: u32 = 3;
/// Between two documents, unless a retrain has landed.
const PUBLISH: Duration = Duration::from_secs(1);
/// Between two starts of a retrain at most. The first ones follow each other faster.
const RETRAIN: Duration = Duration::from_secs(10);
/// Between two saves.
const SAVE: Duration = Duration::from_secs(30);
/// Between two attempts to become the one who collects samples.
const REOPEN: Duration = Duration::from_secs(1);

/// All that the thread owns.
pub(super) struct Worker {
    place: Place,
    updates: Sender<Update>,
    trainer: Trainer,
    samples: Option<SampleSet>,
    /// Whether a retrain is under way.
    retraining: bool,
    unreadable: u64,
    published: u64,
    saves: u64,
    save_errors: u64,
    /// Samples that the last document, and the last file, know of.
    published_at: u64,
    saved_at: u64,
    learned: u64,
    due: Due,
    /// The last complaint, so that it is logged once.
    complaint: String,
}

/// When each thing may happen again.
struct Due {
    open: Instant,
    publish: Instant,
    retrain: Instant,
    save: Instant,
}

impl Worker {
    pub(super) fn new(place: Place, updates: Sender<Update>) -> Self {
        let now = Instant::now();
        let trainer = state::load(&place);
        let learned = trainer.report().observations;
        Self {
            place,
            updates,
            trainer,
            samples: None,
            retraining: false,
            unreadable: 0,
            published: 0,
            saves: 0,
            save_errors: 0,
            published_at: 0,
            saved_at: learned,
            learned,
            due: Due { open: now, publish: now, retrain: now, save: now + SAVE },
            complaint: String::new(),
        }
    }

    /// Works until the other end of `endpoints` is dropped.
    pub(super) fn run(mut self, endpoints: &Receiver<Vec<u64>>) {
        self.publish();
        let mut pause = Duration::ZERO;
        loop {
            match endpoints.recv_timeout(pause) {
                Ok(mut keys) => {
                    keys.sort_unstable();
                    let known = self.trainer.report().endpoints;
                    self.trainer.retain(|key| keys.binary_search(&key).is_ok());
                    if self.trainer.report().endpoints != known {
                        self.publish();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let began = Instant::now();
            self.turn(began);
            let rest = began.elapsed() * PAUSE_PER_WORK;
            pause = if self.retraining { rest } else { rest.max(TURN) };
        }
        self.drain(Instant::now());
        self.save();
    }

    /// Does what is due.
    fn turn(&mut self, now: Instant) {
        self.drain(now);
        let landed = self.retrain(now);
        if landed || (self.learned != self.published_at && now >= self.due.publish) {
            self.due.publish = now + PUBLISH;
            self.publish();
        }
        if self.learned != self.saved_at && now >= self.due.save {
            self.due.save = now + SAVE;
            self.save();
        }
    }

    fn drain(&mut self, now: Instant) {
        if self.samples.is_none() && now >= self.due.open {
            self.due.open = now + REOPEN;
            match SampleSet::open(&self.place.segment_dir, RECORD_FORMAT) {
                Ok(set) => self.samples = Some(set),
                Err(error) => self.complain(&error),
            }
        }
        let Some(set) = &mut self.samples else { return };
        let (trainer, learned, unreadable) =
            (&mut self.trainer, &mut self.learned, &mut self.unreadable);
        let drained = set.drain(|words| match Sample::from_words(words) {
            Ok(sample) if trainer.observe(&sample).is_ok() => *learned += 1,
            _ => *unreadable += 1,
        });
        if let Err(error) = drained {
            self.complain(&error);
        }
    }

    /// Grows forests for a slice. Answers whether new ones are in service.
    fn retrain(&mut self, now: Instant) -> bool {
        if !self.retraining {
            if now < self.due.retrain || !self.trainer.is_retrain_due() {
                return false;
            }
            let starts = self.trainer.report().retrains.saturating_add(1);
            let wait = Duration::from_secs(starts.min(RETRAIN.as_secs()));
            self.due.retrain = now + wait;
        }
        let until = Instant::now() + SLICE;
        let progress = self.trainer.retrain(|| Instant::now() < until);
        self.retraining = progress == Progress::Working;
        progress == Progress::Landed
    }

    fn publish(&mut self) {
        self.published_at = self.learned;
        let knows = self.learned > 0;
        self.published += u64::from(knows);
        let model = knows.then(|| self.trainer.publish());
        let status = Status {
            report: self.trainer.report(),
            samples: self.samples.as_ref().map_or(SampleCounters::default(), |s| s.counters()),
            unreadable: self.unreadable,
            published: self.published,
            saves: self.saves,
            save_errors: self.save_errors,
        };
        // An error means that the process is ending.
        let _ = self.updates.send(Update { model, status });
    }

    fn save(&mut self) {
        if self.learned == self.saved_at {
            return;
        }
        match state::save(&self.place.state, &self.trainer.save()) {
            Ok(()) => {
                self.saves += 1;
                self.saved_at = self.learned;
            }
            Err(error) => {
                self.save_errors += 1;
                let path = self.place.state.display();
                self.complain(&format!("the latency models cannot be saved to {path}: {error}"));
            }
        }
    }

    fn complain(&mut self, what: &dyn std::fmt::Display) {
        let what = what.to_string();
        if self.complaint != what {
            tracing::warn!("latency models: {what}");
            self.complaint = what;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use inlane_latency::{Options, Prediction, Predictor, RECORD_WORDS, Row, Target, endpoint_key};
    use inlane_segment::{SampleShape, SampleWriter, Shape, Writer};

    use super::*;

    /// The time to the first token of a pod that takes `slow` times 5 ms and 0.1 ms per token.
    fn sample(n: u64, id: &str, slow: f32) -> Sample {
        let tokens = (n * 37 % 400) as f32;
        let row = Row { input_token_length: tokens, ..Row::default() };
        let y_ms = (5.0 + 0.1 * tokens) * slow;
        Sample { row, target: Target::FirstToken, y_ms, endpoint: endpoint_key(id) }
    }

    fn place(dir: &Path) -> Place {
        Place {
            segment_dir: dir.join("segment"),
            state: dir.join("state"),
            options: Options::default(),
        }
    }

    fn expected_ms(model: &[u8], id: &str) -> f32 {
        let predictor = Predictor::decode(model).unwrap();
        let rows = [Row { input_token_length: 200.0, ..Row::default() }];
        let mut out = [Prediction::UNKNOWN];
        let factors = [predictor.factors(endpoint_key(id))];
        predictor.predict(Target::FirstToken, &rows, &factors, &mut out);
        out[0].first.expected_ms
    }

    /// Works through what waits, without pauses; the last document.
    fn work(worker: &mut Worker, updates: &Receiver<Update>) -> Option<Vec<u8>> {
        let mut now = Instant::now();
        loop {
            now += PUBLISH;
            worker.turn(now);
            if !worker.retraining {
                return updates.try_iter().filter_map(|update| update.model).last();
            }
        }
    }

    #[test]
    fn samples_become_models_that_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let _writer = Writer::open_or_create(&place.segment_dir, Shape::default()).unwrap();
        let shape = SampleShape::new(RECORD_FORMAT, RECORD_WORDS as u32);
        let mut ring = SampleWriter::create(&place.segment_dir, shape).unwrap();
        for n in 0..600 {
            assert!(ring.push(&sample(n, "d/fast", 1.0).to_words()));
            assert!(ring.push(&sample(n, "d/slow", 3.0).to_words()));
        }
        ring.push(&[u64::MAX; RECORD_WORDS]);
        let (send, updates) = mpsc::channel();
        let mut worker = Worker::new(place.clone(), send);
        let model = work(&mut worker, &updates).unwrap();
        for (id, expected) in [("d/fast", 25.0), ("d/slow", 75.0)] {
            let said = expected_ms(&model, id);
            assert!((said / expected - 1.0).abs() < 0.25, "{id}: {said}");
        }
        assert_eq!((worker.learned, worker.unreadable), (1_200, 1));
        worker.save();
        drop(worker);

        let (send, updates) = mpsc::channel();
        let mut worker = Worker::new(place, send);
        worker.publish();
        let again = updates.try_iter().filter_map(|update| update.model).last().unwrap();
        assert_eq!(expected_ms(&again, "d/slow"), expected_ms(&model, "d/slow"));
    }

    #[test]
    fn nothing_is_published_or_saved_before_there_is_something() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let (send, updates) = mpsc::channel();
        let mut worker = Worker::new(place.clone(), send);
        // No segment yet: that is no reason to end.
        assert_eq!(work(&mut worker, &updates), None);
        worker.save();
        assert!(!place.state.exists());
        assert!(worker.complaint.contains("segment"), "{}", worker.complaint);
    }

    #[test]
    fn an_endpoint_that_is_gone_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let (send, updates) = mpsc::channel();
        let mut worker = Worker::new(place, send);
        for n in 0..300 {
            worker.trainer.observe(&sample(n, "d/a", 1.0)).unwrap();
            worker.trainer.observe(&sample(n, "d/b", 2.0)).unwrap();
        }
        worker.learned = 600;
        let (endpoints, commands) = mpsc::channel();
        endpoints.send(vec![endpoint_key("d/a")]).unwrap();
        drop(endpoints);
        worker.run(&commands);
        let last = updates.try_iter().last().unwrap();
        assert_eq!(last.status.report.endpoints, 1);
    }
}

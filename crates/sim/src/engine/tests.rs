//! The engine under a clock that the tests move.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use fastrand::Rng;
use proptest::prelude::*;
use serde_json::json;

use super::{job::Finish, *};
use crate::text::reply::Reply;

#[derive(Clone, Default)]
struct Log(Rc<RefCell<(usize, Option<End>)>>);

impl Log {
    fn released(&self) -> usize {
        self.0.borrow().0
    }

    fn end(&self) -> Option<End> {
        self.0.borrow().1.clone()
    }
}

impl Listener for Log {
    fn released(&self, tokens: usize) {
        self.0.borrow_mut().0 = tokens;
    }

    fn finished(&self, end: End) {
        self.0.borrow_mut().1 = Some(end);
    }
}

const LIMITS: Limits = Limits {
    running: 4,
    waiting: 10,
    adapters: 1,
    block_size: 4,
    blocks: Some(100),
    model_len: 1024,
    events: true,
};

fn tunables(fields: &serde_json::Value) -> Tunables {
    Tunables::default().patched(fields.as_object().unwrap()).unwrap()
}

/// 1 ms per prompt token, 1 ms per answer token.
fn millisecond_tokens() -> Tunables {
    tunables(&json!({"prefill-time-per-token": "1ms", "inter-token-latency": "1ms"}))
}

fn job(prompt: std::ops::Range<u32>, answer: usize) -> (Job<Log>, Log) {
    let log = Log::default();
    let job = Job {
        prompt: prompt.collect(),
        reply: Arc::new(Reply::random(answer, &mut Rng::with_seed(1))),
        finish: Finish::Stop,
        adapter: None,
        chain: hash::Chain::default(),
        origin: Arc::default(),
        report_reused: false,
        max_tokens: None,
        choices: 1,
        remote_prefill: false,
        cache_threshold: None,
        stepwise: true,
        listener: log.clone(),
    };
    (job, log)
}

/// Drives `engine` through every deadline up to `until`.
fn run(engine: &mut Engine<Log>, mut now: Instant, until: Instant) {
    while let Some(due) = engine.poll(now).filter(|due| *due <= until) {
        assert!(due > now, "a poll leaves nothing that is due");
        now = due;
    }
    engine.poll(until);
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn without_latencies_a_job_is_done_at_once() {
    let mut engine = Engine::new(LIMITS, Tunables::default(), 0);
    let (job, log) = job(0..10, 50);
    let now = Instant::now();
    engine.submit(job, now).unwrap();
    assert_eq!(engine.poll(now), None);
    assert_eq!(log.released(), 50);
    assert_eq!(log.end().unwrap().finish, Finish::Stop);
    assert_eq!(engine.cache().unwrap().referenced(), 0);
}

#[test]
fn tokens_appear_when_they_are_due() {
    let mut engine = Engine::new(LIMITS, millisecond_tokens(), 0);
    let (job, log) = job(0..10, 3);
    let start = Instant::now();
    engine.submit(job, start).unwrap();
    for (after, released) in [(9, 0), (10, 1), (11, 2), (12, 3)] {
        run(&mut engine, start, start + ms(after));
        assert_eq!(log.released(), released, "after {after} ms");
    }
    assert_eq!(log.end().unwrap().elapsed, ms(12));
    assert_eq!(engine.stats()[Distribution::FirstToken].sum(), 0.010);
    assert_eq!(engine.stats()[Distribution::InterToken].count(), 2);
}

#[test]
fn cached_tokens_shorten_the_prefill() {
    let mut engine = Engine::new(LIMITS, millisecond_tokens(), 0);
    let start = Instant::now();
    let (first, _) = job(0..13, 1);
    engine.submit(first, start).unwrap();
    run(&mut engine, start, start + ms(13));
    let (second, log) = job(0..13, 1);
    engine.submit(second, start + ms(20)).unwrap();
    run(&mut engine, start + ms(20), start + ms(40));
    let end = log.end().unwrap();
    assert_eq!((end.cached, end.elapsed), (12, ms(1)));
    assert_eq!(engine.stats()[Counter::PrefixQueries], 26);
    assert_eq!(engine.stats()[Counter::PrefixHits], 12);
}

#[test]
fn the_last_prompt_token_is_always_computed() {
    let mut engine = Engine::new(LIMITS, Tunables::default(), 0);
    let now = Instant::now();
    for expected in [0, 8] {
        let (job, log) = job(0..12, 1);
        engine.submit(job, now).unwrap();
        engine.poll(now);
        assert_eq!(log.end().unwrap().cached, expected);
    }
}

#[test]
fn generated_blocks_are_cached() {
    let mut engine = Engine::new(LIMITS, Tunables::default(), 0);
    let now = Instant::now();
    let (first, _) = job(0..4, 9);
    let mut follow: Vec<u32> = first.prompt.iter().chain(first.reply.ids()).copied().collect();
    engine.submit(first, now).unwrap();
    engine.poll(now);
    follow.push(5);
    let (mut second, log) = job(0..0, 1);
    second.prompt = follow;
    engine.submit(second, now).unwrap();
    engine.poll(now);
    // 4 + 9 tokens, of which the last was never computed on: three full blocks.
    assert_eq!(log.end().unwrap().cached, 12);
}

#[test]
fn the_queue_is_bounded_and_in_order() {
    let limits = Limits { running: 1, waiting: 1, ..LIMITS };
    let mut engine = Engine::new(limits, millisecond_tokens(), 0);
    let now = Instant::now();
    let jobs: Vec<_> = (0..3).map(|n| job(n * 10..n * 10 + 5, 1)).collect();
    let logs: Vec<_> = jobs.iter().map(|(_, log)| log.clone()).collect();
    let results: Vec<_> = jobs
        .into_iter()
        .map(|(job, _)| {
            let result = engine.submit(job, now).map(|_| ());
            engine.poll(now);
            result
        })
        .collect();
    assert_eq!(results, [Ok(()), Ok(()), Err(Rejection::QueueFull)]);
    assert_eq!((engine.running(), engine.waiting()), (1, 1));
    run(&mut engine, now, now + ms(5));
    assert!(logs[0].end().is_some() && logs[1].end().is_none());
    run(&mut engine, now + ms(5), now + ms(10));
    assert_eq!(logs[1].end().unwrap().elapsed, ms(10));
    assert_eq!(engine.stats()[Counter::RejectedQueueFull], 1);
    assert_eq!(engine.stats()[Distribution::Queue].sum(), 0.005);
}

#[test]
fn a_job_larger_than_the_cache_is_refused() {
    let mut engine = Engine::new(Limits { blocks: Some(3), ..LIMITS }, Tunables::default(), 0);
    let now = Instant::now();
    assert_eq!(engine.submit(job(0..12, 2).0, now), Err(Rejection::CacheTooSmall));
    assert!(engine.submit(job(0..12, 1).0, now).is_ok());
}

#[test]
fn the_youngest_is_preempted_and_finishes_later() {
    let limits = Limits { blocks: Some(4), ..LIMITS };
    let mut engine = Engine::new(limits, millisecond_tokens(), 0);
    let start = Instant::now();
    let (old, old_log) = job(0..4, 9);
    let (young, young_log) = job(100..104, 9);
    engine.submit(old, start).unwrap();
    engine.submit(young, start).unwrap();
    // Both need a second block at 4 ms, and a third at 8 ms, which only one can have.
    run(&mut engine, start, start + ms(8));
    assert_eq!((engine.running(), engine.waiting()), (1, 1));
    assert_eq!(engine.stats()[Counter::Preemptions], 1);
    run(&mut engine, start + ms(8), start + ms(12));
    assert_eq!(old_log.end().unwrap().elapsed, ms(12), "the older one is not delayed");
    assert!(young_log.end().is_none());
    run(&mut engine, start + ms(12), start + ms(100));
    assert_eq!(young_log.released(), 9);
    assert!(young_log.end().unwrap().elapsed > ms(12));
    assert_eq!(engine.stats()[Distribution::Preemptions].sum(), 1.0);
    assert_eq!(engine.cache().unwrap().referenced(), 0);
}

#[test]
fn adapters_wait_for_a_slot_and_others_pass() {
    let mut engine = Engine::new(LIMITS, millisecond_tokens(), 0);
    let now = Instant::now();
    let mut submit = |adapter: Option<&str>, n: u32| {
        let (mut job, log) = job(n * 10..n * 10 + 5, 1);
        job.adapter = adapter.map(Arc::from);
        engine.submit(job, now).unwrap();
        engine.poll(now);
        log
    };
    let logs = [submit(Some("a"), 0), submit(Some("b"), 1), submit(None, 2), submit(Some("a"), 3)];
    assert_eq!((engine.running(), engine.waiting(), engine.deferred()), (3, 1, 1));
    let shown: Vec<_> =
        engine.adapters().history().iter().map(|s| (&*s.running, &*s.waiting)).collect();
    assert!(shown.contains(&("a", "b")), "{shown:?}");
    run(&mut engine, now, now + ms(10));
    assert_eq!(logs.map(|log| log.end().unwrap().elapsed), [ms(5), ms(10), ms(5), ms(5)]);
}

#[test]
fn a_cold_prompt_below_the_threshold_ends_at_once() {
    let mut engine = Engine::new(LIMITS, millisecond_tokens(), 0);
    let now = Instant::now();
    let mut ends = vec![];
    for _ in 0..2 {
        let (mut job, log) = job(0..13, 2);
        job.cache_threshold = Some(0.9);
        engine.submit(job, now).unwrap();
        run(&mut engine, now, now + ms(50));
        ends.push((log.end().unwrap().finish, log.released()));
    }
    assert_eq!(ends, [(Finish::CacheThreshold, 0), (Finish::Stop, 2)]);
}

#[test]
fn an_aborted_job_frees_its_place() {
    let limits = Limits { running: 1, ..LIMITS };
    let mut engine = Engine::new(limits, millisecond_tokens(), 0);
    let now = Instant::now();
    let (first, _) = job(0..5, 1);
    let (second, log) = job(10..15, 1);
    let id = engine.submit(first, now).unwrap();
    engine.poll(now);
    engine.submit(second, now).unwrap();
    engine.abort(id);
    run(&mut engine, now, now + ms(5));
    assert!(log.end().is_some());
    assert_eq!(engine.stats()[Counter::FinishedAbort], 1);
}

#[derive(Clone, Debug)]
enum Action {
    Submit { prompt: u32, shared: bool, answer: usize, stepwise: bool },
    Abort(usize),
    Advance(u64),
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        5 => (0_u32..20, any::<bool>(), 0_usize..20, any::<bool>()).prop_map(
            |(prompt, shared, answer, stepwise)| Action::Submit { prompt, shared, answer, stepwise }
        ),
        1 => (0_usize..10).prop_map(Action::Abort),
        4 => (0_u64..40).prop_map(Action::Advance),
    ];
    proptest::collection::vec(action, 1..60)
}

proptest! {
    /// Whatever comes, every accepted job ends, complete, and nothing is left behind.
    #[test]
    fn everything_ends(
        actions in actions(), blocks in proptest::option::of(1_u32..20), timeless: bool, running in 1_usize..5,
    ) {
        let limits = Limits { running, waiting: 8, blocks, ..LIMITS };
        let tunables = if timeless { Tunables::default() } else { millisecond_tokens() };
        let mut engine = Engine::new(limits, tunables, 0);
        let mut now = Instant::now();
        let mut jobs: Vec<(JobId, Log, usize)> = vec![];
        for (n, action) in actions.into_iter().enumerate() {
            match action {
                Action::Submit { prompt, shared, answer, stepwise } => {
                    let base = if shared { 0 } else { 1000 * n as u32 };
                    let (mut job, log) = job(base..base + prompt, answer);
                    job.stepwise = stepwise;
                    if let Ok(id) = engine.submit(job, now) {
                        jobs.push((id, log, answer));
                    }
                    engine.poll(now);
                }
                Action::Abort(at) => {
                    if at < jobs.len() {
                        let (id, ..) = jobs.remove(at);
                        engine.abort(id);
                        engine.poll(now);
                    }
                }
                Action::Advance(millis) => {
                    run(&mut engine, now, now + ms(millis));
                    now += ms(millis);
                }
            }
            prop_assert!(engine.running() <= running);
            prop_assert!(engine.running() > 0 || engine.waiting() == 0);
        }
        run(&mut engine, now, now + Duration::from_secs(3600));
        for (_, log, answer) in jobs {
            prop_assert_eq!(log.released(), answer);
            prop_assert!(log.end().is_some());
        }
        prop_assert_eq!((engine.running(), engine.waiting()), (0, 0));
        prop_assert_eq!(engine.cache().map_or(0, BlockCache::referenced), 0);
        prop_assert_eq!(engine.next_due(), None);
    }
}

//! Observations of latencies on their way to the control plane.
//!
//! Plugins leave them in queues; the owner thread, the one writer of this process's ring, moves them
//! there. What finds no room is dropped and counted where that happens: in the queue, whose metrics the
//! plugin shows, or in the ring, whose metrics the control plane shows.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use envoy_proxy_dynamic_modules_rust_sdk::envoy_log_warn;
use inlane_latency::{RECORD_FORMAT, RECORD_WORDS};
use inlane_plugins::predicted_latency::LatencyState;
use inlane_segment::{SampleShape, SampleWriter};

use super::Runtime;

/// How often the ring is made, where that failed, or looked for, where it was made.
const LOOK: Duration = Duration::from_secs(1);
/// Observations moved in one pass at most, so that prefixes are not kept waiting.
const MOST: usize = 1024;

/// The owner thread's end.
#[derive(Debug, Default)]
pub(super) struct Observations {
    ring: Option<(SampleWriter, PathBuf)>,
    next_look: Option<Instant>,
    complained: bool,
}

impl Observations {
    /// Moves what waits. Answers how many there were.
    pub(super) fn pass(&mut self, runtime: &Runtime) -> usize {
        let states = runtime.kept.all::<LatencyState>();
        if states.is_empty() {
            // Nobody observes any more; whoever collects takes what is left in the ring.
            self.ring = None;
            return 0;
        }
        self.look(runtime);
        let Some((ring, _)) = &mut self.ring else { return 0 };
        let mut moved = 0;
        for (_, state) in &states {
            while moved < MOST
                && let Some(sample) = state.samples.pop()
            {
                ring.push(&sample.to_words());
                moved += 1;
            }
        }
        moved
    }

    /// Sees to it that there is a ring, in the directory that is there now: it may have been made anew.
    fn look(&mut self, runtime: &Runtime) {
        let now = Instant::now();
        if self.next_look.is_some_and(|next| now < next) {
            return;
        }
        self.next_look = Some(now + LOOK);
        if self.ring.as_ref().is_some_and(|(_, file)| file.exists()) {
            return;
        }
        let dir = runtime.segment_dir();
        match SampleWriter::create(dir, SampleShape::new(RECORD_FORMAT, RECORD_WORDS as u32)) {
            Ok(ring) => {
                let file = dir.join(ring.file_name());
                self.ring = Some((ring, file));
                self.complained = false;
            }
            Err(error) => {
                self.ring = None;
                if !std::mem::replace(&mut self.complained, true) {
                    envoy_log_warn!("inlane: observed latencies are not passed on: {error}");
                }
            }
        }
    }
}

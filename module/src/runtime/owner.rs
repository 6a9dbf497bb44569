//! The owner thread: the one writer of the prefix indexes, of what engines are expected to hold, and of
//! the ring of observed latencies of this process.
//!
//! Workers leave picks and latencies in bounded rings. The thread applies them soon while there are any, and
//! looks seldom while there are none.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use envoy_proxy_dynamic_modules_rust_sdk::envoy_log_warn;
use inlane_plugins::precise::PreciseSource;
use inlane_plugins::precise::truth::JUDGED_EVERY_MS;
use inlane_plugins::prefix::PrefixIndex;

use super::Runtime;
use super::observations::Observations;
use crate::clock;

/// Pause after a pass that found something. Wake-ups are most of what this thread costs, and a
/// prefix that is known a millisecond later is known long before the engine has computed it.
const BUSY: Duration = Duration::from_millis(1);
/// Longest pause.
const IDLE: Duration = Duration::from_millis(4);

/// Starts the thread.
pub(super) fn start(runtime: Weak<Runtime>) -> Result<(), String> {
    let run = move || {
        let (mut pause, mut progress) = (IDLE, Progress::default());
        let mut observations = Observations::default();
        while let Some(runtime) = runtime.upgrade() {
            let applied = pass(&runtime, &mut progress) + observations.pass(&runtime);
            drop(runtime);
            pause = if applied > 0 { BUSY } else { (pause * 2).min(IDLE) };
            std::thread::sleep(pause);
        }
    };
    std::thread::Builder::new()
        .name("inlane-owner".into())
        .spawn(run)
        .map(drop)
        .map_err(|e| format!("the owner thread cannot be started: {e}"))
}

/// What is remembered from pass to pass.
#[derive(Default)]
pub(super) struct Progress {
    topology: u64,
    /// When predictions were last judged.
    judged_ms: Option<u64>,
}

impl Progress {
    /// Whether it is time to judge.
    fn judges(&mut self, now_ms: u64) -> bool {
        let due = self.judged_ms.is_none_or(|last| now_ms.saturating_sub(last) >= JUDGED_EVERY_MS);
        if due {
            self.judged_ms = Some(now_ms);
        }
        due
    }
}

/// Applies what waits; with a new topology forgets the endpoints that left; judges predictions now and
/// then. Answers how many picks there were.
pub(super) fn pass(runtime: &Runtime, progress: &mut Progress) -> usize {
    let prefixes = runtime.kept.all::<PrefixIndex>();
    let precise = runtime.kept.all::<PreciseSource>();
    let now_ms = clock::now_ms();
    if runtime.reset_prefixes.swap(false, Ordering::AcqRel) {
        prefixes.iter().for_each(|(_, index)| index.reset());
    }
    let served = runtime.served();
    if let Some(serving) = served.serving()
        && progress.topology != serving.topology_generation
    {
        progress.topology = serving.topology_generation;
        let endpoints = serving.endpoints();
        prefixes.iter().for_each(|(_, index)| index.retain(endpoints));
        precise.iter().for_each(|(_, source)| source.engines().retain(endpoints, now_ms));
    }
    if let Some(serving) = served.serving()
        && progress.judges(now_ms)
    {
        for (name, source) in &precise {
            for notice in source.judge(now_ms, serving.endpoints(), |slot| serving.row(slot)) {
                envoy_log_warn!("inlane: plugin '{name}': {notice}");
            }
        }
    }
    let drained: usize = prefixes.iter().map(|(_, index)| index.drain()).sum();
    let passed: usize = precise.iter().map(|(_, source)| source.engines().pass(now_ms)).sum();
    drained + passed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_are_judged_in_a_time_of_their_own() {
        let mut progress = Progress::default();
        let times = [7, 8, 4_999 + 7, 5_000 + 7, 5_008, 9_000, 10_007, 60_000, 59_000];
        let judged = times.map(|now_ms| progress.judges(now_ms));
        assert_eq!(judged, [true, false, false, true, false, false, true, true, false]);
    }
}

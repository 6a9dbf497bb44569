//! What a pool has done, as plain numbers for whoever exports metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::encoder::Work;
use super::error::PromptError;

/// Counts since the pool was made. Reading waits for nobody.
#[derive(Debug, Default)]
pub struct Counters {
    seconds: [AtomicU64; Counters::BOUNDS.len() + 1],
    nanos: AtomicU64,
    failures: [AtomicU64; PromptError::REASONS.len()],
    refused: AtomicU64,
    bytes: AtomicU64,
    cached: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) queued_bytes: AtomicU64,
}

impl Counters {
    /// Upper bounds in seconds of the buckets of preprocessing time; one more follows for the rest.
    pub const BOUNDS: [f64; 12] =
        [0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0];

    /// Jobs by the time from submission to result, waiting included: one count per bucket of
    /// [`BOUNDS`](Self::BOUNDS), not cumulative, and the rest.
    pub fn buckets(&self) -> [u64; Self::BOUNDS.len() + 1] {
        self.seconds.each_ref().map(|count| count.load(Relaxed))
    }

    /// Sum of these times.
    pub fn seconds(&self) -> f64 {
        self.nanos.load(Relaxed) as f64 / 1e9
    }

    /// Failures by reason.
    pub fn failures(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = self.failures.iter().map(|count| count.load(Relaxed));
        PromptError::REASONS.into_iter().zip(counts)
    }

    /// Jobs that found the queue full.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// Bytes of text that became tokens.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Of these, bytes whose tokens were known.
    pub fn cached_bytes(&self) -> u64 {
        self.cached.load(Relaxed)
    }

    /// Jobs that wait for a thread.
    pub fn queued(&self) -> u64 {
        self.queued.load(Relaxed)
    }

    pub(super) fn done(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64();
        let bucket = Self::BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.seconds.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.nanos.fetch_add(u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn worked(&self, work: Work) {
        self.bytes.fetch_add(work.bytes, Relaxed);
        self.cached.fetch_add(work.cached, Relaxed);
    }

    pub(super) fn failed(&self, error: &PromptError) {
        if let Some(count) = self.failures.get(error.index()) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_in_the_first_bucket_that_holds_it() {
        let counters = Counters::default();
        for micros in [100, 101, 2_000_000] {
            counters.done(Duration::from_micros(micros));
        }
        let buckets = counters.buckets();
        assert_eq!((buckets[0], buckets[1], buckets[12]), (1, 1, 1));
        assert_eq!(buckets.iter().sum::<u64>(), 3);
    }

    #[test]
    fn every_error_has_a_reason_of_its_own() {
        let counters = Counters::default();
        counters.failed(&PromptError::Template("x".into()));
        let failed: Vec<_> = counters.failures().filter(|(_, count)| *count > 0).collect();
        assert_eq!(failed, [("template", 1)]);
    }
}

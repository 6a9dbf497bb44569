//! The last decisions of every worker, for `/debug/decisions`.
//!
//! Each worker has a ring of its own. Filing a decision swaps it with the ring's oldest, so that
//! neither copies nor, after warm-up, allocates. The ring has a lock that the worker only tries: while
//! somebody reads the ring, a decision is dropped from the log, not held up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use inlane_core::decision::Decision;
use inlane_core::plan::Plan;
use inlane_core::record::Inputs;
use parking_lot::Mutex;

/// Bytes that the decisions of one worker may take; large pools keep fewer.
const RING_BYTES: usize = 1 << 20;
/// What a ring keeps however large the pool is.
const RING_MIN: usize = 4;

/// One decision and what it was about.
#[derive(Debug)]
pub struct Entry {
    /// Grows with time, across workers.
    pub sequence: u64,
    /// Request id.
    pub request_id: String,
    /// The model that the client named.
    pub model: String,
    /// Wall-clock time in ms since 1970.
    pub unix_ms: u64,
    /// How long the decision took, in ns.
    pub duration_ns: u64,
    /// Tokens of the prompts, estimated.
    pub prompt_tokens: u64,
    /// The step that the decision was made on.
    pub step: &'static str,
    /// How often booking conflicted.
    pub conflicts: u32,
    /// Why there was no decision; empty when there was one.
    pub error: String,
    /// What was served when it was made: differs between any two configurations or topologies.
    pub epoch: u64,
    /// Generation of the configuration.
    pub config_generation: u64,
    /// Generation of the topology.
    pub topology_generation: u64,
    /// Configuration and endpoints; no more than these, so that an old entry keeps no ledger alive.
    pub plan: Option<Arc<Plan>>,
    /// The decision.
    pub decision: Decision,
    /// What it was made of, where that is recorded.
    pub inputs: Option<Box<Inputs>>,
}

impl Entry {
    fn empty() -> Self {
        Self {
            sequence: 0,
            request_id: String::new(),
            model: String::new(),
            unix_ms: 0,
            duration_ns: 0,
            prompt_tokens: 0,
            step: "",
            conflicts: 0,
            error: String::new(),
            epoch: 0,
            config_generation: 0,
            topology_generation: 0,
            plan: None,
            decision: Decision::default(),
            inputs: None,
        }
    }
}

/// The ring of one worker.
#[derive(Debug)]
pub struct Ring {
    entries: Mutex<Entries>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Entries {
    entries: Vec<Entry>,
    next: usize,
}

impl Ring {
    /// Lets `write` fill the oldest entry of a ring of `limit`. Nothing is filed while the ring is
    /// being read.
    pub fn file(&self, limit: usize, write: impl FnOnce(&mut Entry)) {
        let Some(mut ring) = self.entries.try_lock() else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let Entries { entries, next } = &mut *ring;
        entries.truncate(limit);
        let at = if *next < limit { *next } else { 0 };
        if entries.len() <= at {
            entries.push(Entry::empty());
        }
        let at = at.min(entries.len() - 1);
        write(&mut entries[at]);
        *next = at + 1;
    }
}

/// The rings of all workers.
#[derive(Debug)]
pub struct DecisionLog {
    limit: AtomicUsize,
    sequence: AtomicU64,
    rings: Mutex<Vec<Arc<Ring>>>,
}

impl DecisionLog {
    /// A log of at most `limit` decisions per worker.
    pub fn new(limit: usize) -> Self {
        Self {
            limit: AtomicUsize::new(limit),
            sequence: AtomicU64::new(0),
            rings: Mutex::default(),
        }
    }

    /// Changes how many decisions a worker keeps; at least one.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// A ring for a worker.
    pub fn ring(&self) -> Arc<Ring> {
        let entries = Mutex::new(Entries { entries: Vec::new(), next: 0 });
        let ring = Arc::new(Ring { entries, dropped: AtomicU64::new(0) });
        self.rings.lock().push(Arc::clone(&ring));
        ring
    }

    /// How many decisions a worker keeps when one takes about `bytes`.
    pub fn limit(&self, bytes: usize) -> usize {
        let fitting = (RING_BYTES / bytes.max(1)).max(RING_MIN);
        self.limit.load(Ordering::Relaxed).clamp(1, fitting)
    }

    /// The next sequence number.
    pub fn next_sequence(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Shows every decision to `read`, in no particular order.
    pub fn read(&self, mut read: impl FnMut(&Entry)) {
        for ring in self.rings.lock().iter() {
            let ring = ring.entries.lock();
            ring.entries.iter().filter(|entry| entry.sequence > 0).for_each(&mut read);
        }
    }

    /// Decisions that were not filed because somebody was reading.
    pub fn dropped(&self) -> u64 {
        self.rings.lock().iter().map(|ring| ring.dropped.load(Ordering::Relaxed)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(log: &DecisionLog) -> Vec<u64> {
        let mut ids = Vec::new();
        log.read(|entry| ids.push(entry.sequence));
        ids.sort_unstable();
        ids
    }

    #[test]
    fn the_ring_keeps_the_last() {
        let log = DecisionLog::new(3);
        let ring = log.ring();
        for _ in 0..5 {
            ring.file(3, |entry| entry.sequence = log.next_sequence());
        }
        assert_eq!(ids(&log), [3, 4, 5]);
        ring.file(2, |entry| entry.sequence = log.next_sequence());
        assert_eq!(ids(&log).len(), 2);
        assert!(ids(&log).contains(&6));
    }

    #[test]
    fn nothing_is_filed_while_somebody_reads() {
        let log = DecisionLog::new(3);
        let ring = log.ring();
        ring.file(3, |entry| entry.sequence = 1);
        log.read(|_| ring.file(3, |entry| entry.sequence = 2));
        assert_eq!(ids(&log), [1]);
        assert_eq!(log.dropped(), 1);
    }

    #[test]
    fn large_pools_keep_fewer() {
        let log = DecisionLog::new(100);
        assert_eq!(log.limit(100), 100);
        assert_eq!(log.limit(100_000), 10);
        assert_eq!(log.limit(10_000_000), RING_MIN);
    }
}

//! Picks on their way from the workers to the thread that owns the table.
//!
//! Workers must not wait and must not allocate, and only one thread may write the table. A pick (an
//! endpoint, and the blocks it will hold once it has served the request) is copied into a buffer
//! from a fixed pool and queued; the owner applies it and returns the buffer. When the owner is
//! behind by a whole ring, picks are dropped and counted: the index then learns of those blocks with
//! the next request that shares them.
//!
//! Both queues are bounded, lock-free, and many-producer. A push costs two queue operations and the
//! copy; the memory is `picks` × `chain` × 8 bytes, touched only as far as it is used.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_queue::ArrayQueue;

/// A bounded ring of picks and the pool of its buffers.
#[derive(Debug)]
pub struct PickRing {
    queued: ArrayQueue<Pick>,
    spare: ArrayQueue<Vec<u64>>,
    chain: usize,
    dropped: AtomicU64,
}

/// An endpoint that was picked, and the blocks of the request, front to back.
#[derive(Debug)]
pub struct Pick {
    /// The endpoint's slot.
    pub slot: u16,
    /// Its capacity in blocks, if it is known and this turns out to be its first use.
    pub capacity: Option<NonZeroU32>,
    /// Block hashes; the buffer goes back to the ring that it came from.
    pub hashes: Vec<u64>,
}

impl PickRing {
    /// A ring for `picks` buffers of `chain` hashes each (at least one of both). A longer chain takes
    /// several buffers.
    pub fn new(picks: usize, chain: usize) -> Self {
        let (picks, chain) = (picks.max(1), chain.max(1));
        let spare = ArrayQueue::new(picks);
        while spare.push(Vec::with_capacity(chain)).is_ok() {}
        Self { queued: ArrayQueue::new(picks), spare, chain, dropped: AtomicU64::new(0) }
    }

    /// Queues a pick. Returns `false` if the ring was full: the pick, or the rear of a long one, was
    /// dropped and counted.
    pub fn push(&self, slot: u16, capacity: Option<NonZeroU32>, hashes: &[u64]) -> bool {
        for part in hashes.chunks(self.chain) {
            let Some(mut buffer) = self.spare.pop() else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return false;
            };
            buffer.clear();
            buffer.extend_from_slice(part);
            // There are as many places as buffers, so there is a place for this one.
            let _ = self.queued.push(Pick { slot, capacity, hashes: buffer });
        }
        true
    }

    /// The oldest pick, for the owner. Give it back with [`PickRing::recycle`].
    pub fn pop(&self) -> Option<Pick> {
        self.queued.pop()
    }

    /// Returns the buffer of a pick to the pool.
    pub fn recycle(&self, pick: Pick) {
        // Only buffers that were popped come back, so there is a place.
        let _ = self.spare.push(pick.hashes);
    }

    /// Picks that are queued.
    pub fn len(&self) -> usize {
        self.queued.len()
    }

    /// Whether no pick is queued.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Picks that may be queued at once.
    pub fn capacity(&self) -> usize {
        self.queued.capacity()
    }

    /// Picks dropped so far because the ring was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_come_out_in_order_and_long_ones_in_parts() {
        let ring = PickRing::new(4, 3);
        assert!(ring.push(7, NonZeroU32::new(5), &[1, 2, 3, 4]));
        assert!(ring.push(8, None, &[9]));
        let parts: Vec<_> = std::iter::from_fn(|| ring.pop())
            .map(|pick| {
                let part = (pick.slot, pick.capacity.map(NonZeroU32::get), pick.hashes.clone());
                ring.recycle(pick);
                part
            })
            .collect();
        let expected = [(7, Some(5), vec![1, 2, 3]), (7, Some(5), vec![4]), (8, None, vec![9])];
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_full_ring_drops_and_counts_and_recovers() {
        let ring = PickRing::new(2, 4);
        assert!(ring.push(1, None, &[1]));
        assert!(!ring.push(2, None, &[1, 2, 3, 4, 5]), "the rear does not fit");
        assert!(!ring.push(3, None, &[1]));
        assert_eq!((ring.len(), ring.dropped()), (2, 2));
        for slot in [1, 2] {
            let pick = ring.pop().unwrap();
            assert_eq!(pick.slot, slot);
            ring.recycle(pick);
        }
        assert!(ring.is_empty());
        assert!(ring.push(4, None, &[1]) && ring.push(5, None, &[1]));
    }

    #[test]
    fn buffers_are_never_reallocated() {
        let ring = PickRing::new(1, 8);
        for length in [8, 3, 8, 1] {
            assert!(ring.push(0, None, &[0; 8][..length]));
            let pick = ring.pop().unwrap();
            assert_eq!(pick.hashes.capacity(), 8);
            ring.recycle(pick);
        }
    }
}

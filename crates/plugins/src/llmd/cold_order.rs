//! Which endpoints were given a cold request, the one that was longest ago first.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, PoisonError};

use inlane_core::endpoint::{EndpointIx, EndpointSet, Slot};
use inlane_segment::table::MAX_SLOTS;

/// How often a reader starts again when a writer was faster.
const ATTEMPTS: usize = 3;

/// Least-recently-used order of endpoints, shared by all workers.
///
/// Writers move one entry at a time under a mutex, once per cold request. Readers copy the order
/// without waiting: when the copy was disturbed they try again, three times at most, and then use
/// it as it is. Such a copy has an endpoint twice or lacks one, which misplaces a score once.
///
/// An endpoint is its slot and generation, so a pod that comes back is a new one. Memory: 8 bytes
/// per entry; a move and a copy are linear in the entries.
#[derive(Debug)]
pub(super) struct ColdOrder {
    /// Oldest first; those below `len` count.
    entries: Box<[AtomicU64]>,
    len: AtomicUsize,
    /// Odd while a writer is at work.
    version: AtomicU64,
    writer: Mutex<()>,
}

fn pack(slot: Slot) -> u64 {
    u64::from(slot.generation) << 32 | u64::from(slot.index)
}

impl ColdOrder {
    /// An empty order of at most `size` endpoints. A pool has no more slots than `MAX_SLOTS`.
    pub(super) fn new(size: usize) -> Self {
        let size = size.clamp(1, MAX_SLOTS);
        Self {
            entries: (0..size).map(|_| AtomicU64::new(0)).collect(),
            len: AtomicUsize::new(0),
            version: AtomicU64::new(0),
            writer: Mutex::new(()),
        }
    }

    /// Makes the endpoint the most recent one; the oldest goes when there is no room.
    pub(super) fn touch(&self, slot: Slot) {
        let _writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version | 1, Ordering::Relaxed);
        fence(Ordering::Release);
        let (word, len) = (pack(slot), self.len.load(Ordering::Relaxed));
        let held = self.entries.iter().take(len);
        let known = held.clone().position(|entry| entry.load(Ordering::Relaxed) == word);
        let full = len == self.entries.len();
        let len = len + usize::from(known.is_none() && !full);
        // Without a place of its own, it takes the new one at the end or pushes the oldest out.
        let from = known.unwrap_or(if full { 0 } else { len - 1 });
        let moved = self.entries.get(from..len).unwrap_or_default();
        for (older, newer) in moved.iter().zip(moved.iter().skip(1)) {
            older.store(newer.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        if let Some(newest) = moved.last() {
            newest.store(word, Ordering::Relaxed);
        }
        self.len.store(len, Ordering::Relaxed);
        self.version.store((version | 1).wrapping_add(1), Ordering::Release);
    }

    /// Copies the order into `out`, oldest first.
    pub(super) fn read(&self, out: &mut Vec<u64>) {
        out.clear();
        out.reserve(self.entries.len());
        for _ in 0..ATTEMPTS {
            let before = self.version.load(Ordering::Acquire);
            out.clear();
            let held = self.entries.iter().take(self.len.load(Ordering::Relaxed));
            out.extend(held.map(|entry| entry.load(Ordering::Relaxed)));
            fence(Ordering::Acquire);
            if before & 1 == 0 && self.version.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }

    /// Calls `found` with the place of every endpoint of the pool that is in `order`, a copy from
    /// [`read`](Self::read). `by_slot` is memory to work in. Linear in both.
    pub(super) fn places(
        order: &[u64],
        endpoints: &EndpointSet,
        by_slot: &mut Vec<u32>,
        mut found: impl FnMut(EndpointIx, u32),
    ) {
        let bound = endpoints.slots().iter().map(|slot| slot.index as usize + 1).max();
        by_slot.clear();
        by_slot.resize(bound.unwrap_or(0).min(MAX_SLOTS), 0);
        for (word, place) in order.iter().zip(1..) {
            // Of two tenants of a slot the later one is the more recent.
            if let Some(cell) = by_slot.get_mut((word & u64::from(u32::MAX)) as usize) {
                *cell = place;
            }
        }
        for (slot, ix) in endpoints.slots().iter().zip(0..) {
            let place = by_slot.get(slot.index as usize).and_then(|place| place.checked_sub(1));
            if let Some(place) = place.filter(|&at| order.get(at as usize) == Some(&pack(*slot))) {
                found(ix, place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    fn slot(index: u32) -> Slot {
        Slot { index, generation: 1 }
    }

    fn held(order: &ColdOrder) -> Vec<u64> {
        let mut out = Vec::new();
        order.read(&mut out);
        out
    }

    proptest! {
        #[test]
        fn orders_like_a_list(size in 1..6usize, touched in proptest::collection::vec(0..8u32, 0..60)) {
            let (order, mut reference) = (ColdOrder::new(size), VecDeque::new());
            for index in touched {
                order.touch(slot(index));
                let word = pack(slot(index));
                reference.retain(|&held| held != word);
                reference.push_back(word);
                if reference.len() > size {
                    reference.pop_front();
                }
                prop_assert_eq!(&held(&order), reference.make_contiguous());
            }
        }
    }

    #[test]
    fn memory_is_bounded_by_the_slots_there_are() {
        assert_eq!(ColdOrder::new(usize::MAX).entries.len(), MAX_SLOTS);
    }

    #[test]
    fn readers_beside_writers_see_entries_that_were_written() {
        let order = Arc::new(ColdOrder::new(4));
        let writer = std::thread::spawn({
            let order = Arc::clone(&order);
            move || (0..20_000).for_each(|i| order.touch(slot(i % 6 + 1)))
        });
        while !writer.is_finished() {
            let known = held(&order);
            assert!(known.len() <= 4);
            assert!(known.iter().all(|word| (1..=6).any(|i| *word == pack(slot(i)))));
        }
        writer.join().unwrap();
        assert_eq!(held(&order).len(), 4);
    }
}

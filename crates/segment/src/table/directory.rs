//! Giving a key its position and taking it back.
//!
//! Buckets of four, probed linearly. A key never moves, so a reader can never miss a key that is
//! there. Each bucket counts the keys that had to pass it; a probe ends at the first bucket that
//! nobody passed. Deleting a key therefore needs no tombstone: the counts on its way go down again,
//! and probes are as short as before it came.

use super::holders::Holders;
use super::layout::WAYS;
use super::memory::Table;
use crate::words::WordsMut;

impl<M: WordsMut> Table<M> {
    /// Enters `key` with `slot` as its only holder and owner.
    ///
    /// `None`: every bucket within reach is full, which takes hashes chosen for it or a table that
    /// is fuller than it is ever allowed to be.
    pub(super) fn occupy(&self, key: u64, slot: u16) -> Option<usize> {
        let (position, bucket) = self.probe(key).find_map(|bucket| {
            let mut ways = bucket * WAYS..(bucket + 1) * WAYS;
            ways.find(|&position| self.holders(position).is_free()).map(|free| (free, bucket))
        })?;
        for passed in self.probe(key).take_while(|&passed| passed != bucket) {
            self.set_overflow(passed, self.overflow(passed).saturating_add(1));
        }
        let version = self.holders(position).version().wrapping_add(1);
        self.set_key(position, key);
        self.set_holders(position, Holders::single(slot, version));
        Some(position)
    }

    /// Undoes the counts of a key whose position has just been freed.
    pub(super) fn vacate(&self, position: usize) {
        let bucket = position / WAYS;
        for passed in self.probe(self.key(position)).take_while(|&passed| passed != bucket) {
            self.set_overflow(passed, self.overflow(passed).saturating_sub(1));
        }
    }

    /// Buckets between the key's home and its position, or `None` if a probe would not get there.
    pub(super) fn displacement(&self, position: usize) -> Option<usize> {
        self.probe(self.key(position)).position(|bucket| bucket == position / WAYS)
    }
}

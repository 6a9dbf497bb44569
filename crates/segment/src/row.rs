//! Rows: a fixed number of words per endpoint slot, read by every worker for every decision.
//!
//! ```text
//! flips           one word per slot, densely: how often the row was published; low bit = the copy
//! rows            per slot two copies of `width` words, each in whole cache lines
//! ```
//!
//! The protocol is that of a [document](crate::document) without the header: the writer fills the copy
//! that does not count, then stores the next flip; the reader loads the flip, the words, and the flip
//! again. The memory-ordering argument is the same. A row whose writer died halfway is the row before.
//!
//! A reader makes at most [`TRIES`] attempts. It needs a second one only when the writer published
//! that very row within the few nanoseconds of the first, so to run out of attempts is not a load to
//! plan for; the caller treats such a row as stale.
//!
//! Cost of a read: two loads of one dense word and `width` loads, about 5 ns for a line. No lock, no
//! system call, no allocation.

use std::sync::atomic::Ordering;

use crate::layout::LINE;
use crate::words::{Words, WordsMut};

/// Attempts of a read.
const TRIES: u32 = 3;

/// Where the rows are, in words from the start of the memory they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowRegion {
    flips: usize,
    rows: usize,
    slots: usize,
    width: usize,
}

impl RowRegion {
    /// Words that the two copies of all rows take; the flips take one per slot beside that.
    pub(crate) fn words(slots: usize, width: usize) -> usize {
        slots * 2 * width
    }

    /// Rows for `slots` slots of `width` words, a whole number of cache lines.
    pub(crate) fn new(flips: usize, rows: usize, slots: usize, width: usize) -> Self {
        debug_assert_eq!(width % LINE, 0);
        Self { flips, rows, slots, width }
    }

    /// How often the row of `slot` was published; 0 for a slot that does not exist.
    #[inline]
    pub(crate) fn published(&self, words: &impl Words, slot: usize) -> u64 {
        if slot >= self.slots {
            return 0;
        }
        words.load(self.flips + slot, Ordering::Acquire)
    }

    /// Copies the first `out.len()` words of the newest row of `slot`.
    ///
    /// `false`, with `out` unspecified, where the row kept changing, where there is no such slot, or
    /// where a row is shorter than `out`.
    #[inline]
    pub(crate) fn read(&self, words: &impl Words, slot: usize, out: &mut [u64]) -> bool {
        if slot >= self.slots || out.len() > self.width {
            return false;
        }
        for _ in 0..TRIES {
            let flip = words.load(self.flips + slot, Ordering::Acquire);
            words.load_run(self.copy_at(slot, flip), out);
            words.fence(Ordering::Acquire);
            if words.load(self.flips + slot, Ordering::Relaxed) == flip {
                return true;
            }
        }
        false
    }

    /// Publishes a row; words that `values` does not have are zero. `false` for no such slot or a
    /// row too long.
    #[inline]
    pub(crate) fn publish(&self, words: &impl WordsMut, slot: usize, values: &[u64]) -> bool {
        let flip = self.published(words, slot).wrapping_add(1);
        self.publish_as(words, slot, flip, values)
    }

    /// Publishes a row under a count of the caller's choice: another one than the present.
    pub(crate) fn publish_as(
        &self,
        words: &impl WordsMut,
        slot: usize,
        flip: u64,
        values: &[u64],
    ) -> bool {
        if slot >= self.slots || values.len() > self.width {
            return false;
        }
        // As in `DocumentRegion::publish_as`: the stores below come after the present flip.
        words.fence(Ordering::Release);
        let at = self.copy_at(slot, flip);
        words.store_run(at, values);
        for offset in values.len()..self.width {
            words.store(at + offset, 0, Ordering::Relaxed);
        }
        words.store(self.flips + slot, flip, Ordering::Release);
        true
    }

    #[inline]
    fn copy_at(&self, slot: usize, flip: u64) -> usize {
        self.rows + (slot * 2 + (flip & 1) as usize) * self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Mortal;
    use crate::words::HeapWords;

    const SLOTS: usize = 3;
    const WIDTH: usize = 8;

    fn rows() -> (HeapWords, RowRegion) {
        let words = HeapWords::new(SLOTS + RowRegion::words(SLOTS, WIDTH));
        (words, RowRegion::new(0, SLOTS, SLOTS, WIDTH))
    }

    #[test]
    fn rows_do_not_touch_each_other() {
        let (words, region) = rows();
        for count in 1..=3 {
            for slot in 0..SLOTS {
                assert!(region.publish(&words, slot, &[slot as u64 * 10 + count; WIDTH]));
            }
            for slot in 0..SLOTS {
                let mut row = [0; WIDTH];
                assert!(region.read(&words, slot, &mut row));
                assert_eq!(row, [slot as u64 * 10 + count; WIDTH]);
                assert_eq!(region.published(&words, slot), count);
            }
        }
    }

    #[test]
    fn a_writer_may_die_after_any_store() {
        for stores in 0.. {
            let (words, region) = rows();
            assert!(region.publish(&words, 1, &[1; WIDTH]));
            let mortal = Mortal::new(words.clone(), stores);
            assert!(region.publish(&mortal, 1, &[2; WIDTH]));
            let mut row = [0; WIDTH];
            assert!(region.read(&words, 1, &mut row));
            if !mortal.is_dead() {
                assert_eq!(row, [2; WIDTH]);
                assert_eq!(stores, WIDTH as u64 + 1);
                break;
            }
            assert_eq!(row, [1; WIDTH]);
            assert!(region.publish(&words, 1, &[3; WIDTH]));
            assert!(region.read(&words, 1, &mut row));
            assert_eq!(row, [3; WIDTH]);
        }
    }
}

//! The slots that have held every block of a prefix so far.

use super::cursor::{MAX_WORDS, Set};

/// A shrinking set of slots, and the holders of the block looked at last.
///
/// Only words with a bit set are ever visited: a handful of endpoints among thousands costs a
/// handful of words.
pub(super) struct Live {
    slots: [u64; MAX_WORDS],
    /// Bit i: `slots[i]` is not zero.
    active: [u64; MAX_WORDS / 64],
    /// Holders of the last block, among the active words.
    holders: [u64; MAX_WORDS],
}

impl Live {
    pub(super) fn new() -> Self {
        Self { slots: [0; MAX_WORDS], active: [0; MAX_WORDS / 64], holders: [0; MAX_WORDS] }
    }

    /// Starts with the holders of the first block.
    pub(super) fn begin(&mut self, holders: &Set) {
        holders.for_each(|slot| {
            let word = usize::from(slot) / 64;
            if let Some(bits) = self.slots.get_mut(word) {
                *bits |= 1 << (slot % 64);
                self.active[word / 64] |= 1 << (word % 64);
            }
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.active.iter().all(|&words| words == 0)
    }

    /// Whether all of the set are among these holders, which are kept for [`Live::retain`].
    pub(super) fn within(&mut self, holders: &Set) -> bool {
        if let Some(bits) = holders.bits() {
            for_each_active(self.active, |word| {
                self.holders[word] = bits.get(word).copied().unwrap_or(0);
            });
        } else {
            for_each_active(self.active, |word| self.holders[word] = 0);
            holders.for_each(|slot| {
                if let Some(bits) = self.holders.get_mut(usize::from(slot) / 64) {
                    *bits |= 1 << (slot % 64);
                }
            });
        }
        let mut within = true;
        for_each_active(self.active, |word| within &= self.slots[word] & !self.holders[word] == 0);
        within
    }

    /// Drops the slots that do not hold the last block; their prefix is `length` blocks long.
    pub(super) fn retain(&mut self, length: u32, out: &mut [u32]) {
        for_each_active(self.active, |word| {
            add(self.slots[word] & !self.holders[word], word, length, out);
            self.slots[word] &= self.holders[word];
            if self.slots[word] == 0 {
                self.active[word / 64] &= !(1 << (word % 64));
            }
        });
    }

    /// Ends with everyone who is left.
    pub(super) fn finish(&mut self, length: u32, out: &mut [u32]) {
        for_each_active(self.active, |word| add(self.slots[word], word, length, out));
    }
}

#[inline]
fn for_each_active(active: [u64; MAX_WORDS / 64], mut visit: impl FnMut(usize)) {
    for (index, mut words) in active.into_iter().enumerate() {
        while words != 0 {
            visit(index * 64 + words.trailing_zeros() as usize);
            words &= words - 1;
        }
    }
}

fn add(mut bits: u64, word: usize, length: u32, out: &mut [u32]) {
    while bits != 0 {
        if let Some(count) = out.get_mut(word * 64 + bits.trailing_zeros() as usize) {
            *count += length;
        }
        bits &= bits - 1;
    }
}

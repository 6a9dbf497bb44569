//! Stretches: where a prompt goes on in the next entry, with the same holders.
//!
//! A bit per entry, thirty-two to a word whose upper half counts how often bits of it were taken back.
//! The bit of an entry says two things: its block is the child of the block in the entry before
//! (which the holders word of the entry says as well, for a successor of the writer), and the
//! holders words of the two are equal to a reader. So a reader passes over a stretch by its bits: one
//! word says who holds all of it, and its last key says that it is the prompt's, since a chained
//! key belongs to one prefix only.
//!
//! *A bit is never wrong.* The writer takes bits back before it changes a word that they speak of,
//! and gives them when it has. A reader looks at the bits, at a holders word, at keys, and at the bits
//! again: if these, and their count, are the same, no word of the stretch has been changed between.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::super::memory::Table;
use super::word::{SEEN, Word};
use crate::words::{Words, WordsMut};

/// Entries per word.
pub(super) const ENTRIES: usize = 32;

/// The bits of thirty-two entries and how often some were taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch(u64);

impl Stretch {
    /// How many entries from this one on, in the same word, go on from the one before.
    #[inline]
    pub(super) fn run(self, entry: usize) -> usize {
        (self.0 as u32 >> (entry % ENTRIES)).trailing_ones() as usize
    }

    fn bits(self) -> u32 {
        self.0 as u32
    }

    fn without(self, bits: u32) -> Self {
        let count = (self.0 >> 32) as u32;
        Self(u64::from(count.wrapping_add(1)) << 32 | u64::from(self.bits() & !bits))
    }
}

/// Words of stretches in a table.
pub(super) fn words(entries: usize) -> usize {
    entries.div_ceil(ENTRIES)
}

impl<M: Words> Table<M> {
    /// Acquire: holders words are at least as new.
    #[inline]
    pub(super) fn stretch(&self, entry: usize) -> Stretch {
        Stretch(self.words.load(self.stretch_word(entry), Acquire))
    }

    /// The word after every load that came before.
    #[inline]
    pub(super) fn stretch_again(&self, entry: usize) -> Stretch {
        self.words.fence(Acquire);
        Stretch(self.words.load(self.stretch_word(entry), Relaxed))
    }
}

impl<M: WordsMut> Table<M> {
    /// Takes back what speaks of entries that are to be changed, and of the one behind them.
    #[inline]
    pub(super) fn cut(&self, first: usize, last: usize) {
        let last = (last + 1).min(self.layout.entries - 1);
        for_each_word(first, last, |entry, bits| {
            let is = Stretch(self.load(self.stretch_word(entry)));
            if is.bits() & bits != 0 {
                // Before every change that follows, all of which are stores that release.
                self.words.store(self.stretch_word(entry), is.without(bits).0, Release);
            }
        });
    }

    /// Gives the bits of entries that have been changed, and of the one behind them, where
    /// they are due.
    #[inline]
    pub(super) fn join(&self, first: usize, last: usize) {
        let last = (last + 1).min(self.layout.entries - 1);
        let mut before = match first.checked_sub(1) {
            Some(before) => self.load(self.layout.holders_word(before)),
            None => 0,
        };
        for_each_word(first, last, |entry, bits| {
            let base = entry / ENTRIES * ENTRIES;
            let mut due = 0;
            let mut left = bits;
            while left != 0 {
                let at = left.trailing_zeros() as usize;
                let word = self.load(self.layout.holders_word(base + at));
                let holders = super::super::holders::Holders(word);
                let goes_on = holders.is_child() && (word ^ before) & SEEN == 0;
                due |= u32::from(goes_on && !holders.is_free()) << at;
                before = word;
                left &= left - 1;
            }
            let is = self.load(self.stretch_word(entry));
            if due & !(is as u32) != 0 {
                self.words.store(self.stretch_word(entry), is | u64::from(due), Release);
            }
        });
    }

    /// Takes all bits back: of a mirror that another writer has left.
    pub(super) fn cut_all(&self) {
        for entry in (0..self.layout.entries).step_by(ENTRIES) {
            let is = Stretch(self.load(self.stretch_word(entry)));
            if is.bits() != 0 {
                self.words.store(self.stretch_word(entry), is.without(u32::MAX).0, Release);
            }
        }
    }
}

/// Visits the words of entries `first` to `last`: an entry of each, and the bits that are meant.
#[inline]
fn for_each_word(first: usize, last: usize, mut visit: impl FnMut(usize, u32)) {
    let mut entry = first;
    while entry <= last {
        let until = last.min(entry | (ENTRIES - 1));
        let count = (until - entry) as u32 + 1;
        visit(entry, (u32::MAX >> (ENTRIES as u32 - count)) << (entry % ENTRIES));
        entry = until + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_a_range_are_in_their_words() {
        for first in [0, 1, 31, 32, 40] {
            for last in [first, first + 1, first + 31, first + 70] {
                let mut seen = Vec::new();
                for_each_word(first, last, |entry, bits| {
                    let of = |at: &usize| bits >> at & 1 == 1;
                    seen.extend((0..ENTRIES).filter(of).map(|at| entry / ENTRIES * ENTRIES + at));
                });
                assert_eq!(seen, (first..=last).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn a_run_ends_with_its_word() {
        let stretch = Stretch(0b1101 | 1 << 31);
        assert_eq!([0, 1, 2, 3, 4, 31].map(|at| stretch.run(at + 64)), [1, 0, 2, 1, 0, 1]);
        let cut = stretch.without(4);
        assert_ne!(cut, stretch.without(0));
        assert_eq!((cut.run(2), cut.run(3)), (0, 1));
    }
}

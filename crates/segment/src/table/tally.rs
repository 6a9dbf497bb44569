//! Counting blocks per slot without touching every slot for every block.
//!
//! A run of blocks with the same holders is added once, with its length. Bitmaps differ in a few
//! places more often than they are the same, so they are counted per word: a word is added when it
//! changes, for as many blocks as it lasted. A thousand slots that hold the same hundred blocks cost
//! a hundred comparisons of sixteen words and one addition per slot.

use super::cursor::{Cursor, MAX_WORDS, Set, Step};
use crate::words::Words;

pub(super) struct Tally {
    /// Length of the current run, when its holders are not a bitmap.
    run: u32,
    /// Bitmaps counted so far.
    bitmaps: u32,
    /// The words of the last bitmap.
    bits: [u64; MAX_WORDS],
    /// What `bitmaps` was when the word took its value.
    since: [u32; MAX_WORDS],
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { run: 0, bitmaps: 0, bits: [0; MAX_WORDS], since: [0; MAX_WORDS] }
    }

    /// Counts the block that `cursor` is at.
    #[inline]
    pub(super) fn add<M: Words>(&mut self, step: Step, cursor: &Cursor<'_, M>, out: &mut [u32]) {
        let bits = cursor.current().bits();
        if step == Step::Same {
            if bits.is_some() {
                self.bitmaps += 1;
            } else {
                self.run += 1;
            }
            return;
        }
        self.add_run(cursor.previous(), out);
        let Some(bits) = bits else {
            self.run = 1;
            return;
        };
        for (index, &word) in bits.iter().enumerate() {
            if self.bits[index] != word {
                self.add_word(index, out);
                self.bits[index] = word;
            }
        }
        self.bitmaps += 1;
    }

    /// Adds what is still pending, `last` being the holders of the last block counted.
    pub(super) fn finish(&mut self, last: &Set, out: &mut [u32]) {
        self.add_run(last, out);
        if self.bitmaps > 0 {
            for index in 0..out.len().div_ceil(64).min(MAX_WORDS) {
                self.add_word(index, out);
            }
        }
    }

    fn add_run(&mut self, holders: &Set, out: &mut [u32]) {
        let run = std::mem::take(&mut self.run);
        if run > 0 {
            holders.for_each(|slot| {
                if let Some(count) = out.get_mut(usize::from(slot)) {
                    *count += run;
                }
            });
        }
    }

    fn add_word(&mut self, index: usize, out: &mut [u32]) {
        let run = self.bitmaps - self.since[index];
        self.since[index] = self.bitmaps;
        let word = self.bits[index];
        if run == 0 || word == 0 {
            return;
        }
        let first = (index * 64).min(out.len());
        let last = (first + 64).min(out.len());
        let counts = &mut out[first..last];
        if word == u64::MAX {
            counts.iter_mut().for_each(|count| *count += run);
            return;
        }
        for (bit, count) in counts.iter_mut().enumerate() {
            *count += run * (word >> bit & 1) as u32;
        }
    }
}

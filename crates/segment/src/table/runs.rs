//! Adding up bitmaps of consecutive blocks without touching every slot for every block.
//!
//! Consecutive blocks of a prompt mostly have the same holders. Each word of the bitmap is kept as
//! long as it does not change, and only when it does is the number of blocks it lasted for added to
//! its slots. A thousand slots that hold the same hundred blocks cost a hundred comparisons of
//! sixteen words and one addition per slot.

use super::reader::{Buffer, MAX_WORDS};

pub(super) struct Runs {
    /// The words as of the last block.
    current: Buffer,
    /// How many blocks had been added when the word took its value.
    since: [u32; MAX_WORDS],
    blocks: u32,
}

impl Runs {
    pub(super) fn new() -> Self {
        Self { current: [0; MAX_WORDS], since: [0; MAX_WORDS], blocks: 0 }
    }

    /// One more block with these holders. All blocks of a table have bitmaps of the same length.
    pub(super) fn add(&mut self, words: &[u64], out: &mut [u32]) {
        if self.current[..words.len()] != *words {
            for (index, &word) in words.iter().enumerate() {
                if self.current[index] != word {
                    self.flush(index, out);
                    self.current[index] = word;
                }
            }
        }
        self.blocks += 1;
    }

    /// Adds what has not been added yet.
    pub(super) fn finish(&mut self, out: &mut [u32]) {
        if self.blocks > 0 {
            for index in 0..out.len().div_ceil(64).min(MAX_WORDS) {
                self.flush(index, out);
            }
        }
    }

    fn flush(&mut self, index: usize, out: &mut [u32]) {
        let run = self.blocks - self.since[index];
        self.since[index] = self.blocks;
        let word = self.current[index];
        if run == 0 || word == 0 {
            return;
        }
        let first = (index * 64).min(out.len());
        let last = (first + 64).min(out.len());
        for (bit, count) in out[first..last].iter_mut().enumerate() {
            *count += run * (word >> bit & 1) as u32;
        }
    }
}

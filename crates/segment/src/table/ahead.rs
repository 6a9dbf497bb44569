//! Looking ahead: where a group of blocks probably is.
//!
//! In a table much larger than the caches a lookup waits for memory: for the bucket, the entry, the
//! record; 100 ns and more each time. Two things shorten that. A chain's blocks got consecutive
//! entries when they were inserted, so where one block was found, the next one probably follows, in
//! the same or the next cache line. And where it does not, the group's loads are issued together and
//! waited for together.
//!
//! What is found is only a hint: the cursor validates it like anything else and probes from the start
//! if it is wrong.

use super::holders::Kind;
use super::memory::Table;
use crate::words::Words;

/// Blocks per group: enough loads in flight, few enough to be still cached when they are used.
pub(super) const GROUP: usize = 16;

/// No hint.
pub(super) const UNKNOWN: u32 = u32::MAX;

impl<M: Words> Table<M> {
    /// Entries of up to [`GROUP`] hashes, or [`UNKNOWN`], with their cache lines loaded. `previous`
    /// is the entry of the block before the first.
    pub(super) fn locate(&self, hashes: &[u64], previous: u32) -> [u32; GROUP] {
        let mut hints = [UNKNOWN; GROUP];
        if cfg!(loom) {
            // Loads without consequence only multiply the executions to explore.
            return hints;
        }
        let mut expected = previous;
        let mut all = true;
        for (hint, &hash) in hints.iter_mut().zip(hashes) {
            expected = expected.wrapping_add(1);
            if self.has_key(expected, hash) {
                *hint = expected;
            } else {
                all = false;
            }
        }
        if !all {
            self.locate_by_index(hashes, &mut hints);
        }
        for &hint in hints.iter().filter(|&&hint| hint != UNKNOWN) {
            if let Kind::Record(record) = self.holders(hint as usize).kind() {
                let word = self.layout.arena_word(record.unit);
                if word < self.layout.total_words {
                    self.words.prefetch(word);
                }
            }
        }
        hints
    }

    #[cold]
    fn locate_by_index(&self, hashes: &[u64], hints: &mut [u32; GROUP]) {
        // First nothing that waits: a core keeps only so many instructions waiting.
        for (hint, &hash) in hints.iter().zip(hashes) {
            if *hint == UNKNOWN {
                self.words.prefetch(self.layout.bucket_word(self.layout.home(hash).0));
            }
        }
        let mut expected = UNKNOWN;
        for (hint, &hash) in hints.iter_mut().zip(hashes) {
            expected = expected.wrapping_add(1);
            if *hint == UNKNOWN {
                *hint = if self.has_key(expected, hash) {
                    expected
                } else {
                    let (home, tag) = self.layout.home(hash);
                    let mut entries = self.matches(home, tag).filter_map(|way| self.way(home, way));
                    entries.next().map_or(UNKNOWN, |entry| entry as u32)
                };
            }
            expected = *hint;
        }
        for &hint in hints.iter().filter(|&&hint| hint != UNKNOWN) {
            self.words.prefetch(self.layout.key_word(hint as usize));
        }
    }

    #[inline]
    fn has_key(&self, entry: u32, hash: u64) -> bool {
        (entry as usize) < self.layout.entries && self.key(entry as usize) == hash
    }
}

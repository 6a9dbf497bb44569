//! Looking ahead: where a group of blocks probably is.
//!
//! In a table much larger than the caches a lookup waits for memory, once for the bucket and once
//! for a record. Waiting for one block at a time costs 100 ns and more each; a group of independent
//! loads in a row is waited for together. What is found is only a hint: the cursor validates it like
//! any other position and probes from the start if it is wrong.

use super::layout::WAYS;
use super::memory::Table;
use crate::words::Words;

/// Blocks per group: enough loads in flight, few enough to be still cached when they are used.
pub(super) const GROUP: usize = 16;

/// No hint.
pub(super) const UNKNOWN: u32 = u32::MAX;

/// Buckets from home looked at for a hint.
const DEPTH: usize = 2;

impl<M: Words> Table<M> {
    /// Positions of up to [`GROUP`] hashes, or [`UNKNOWN`], with their cache lines loaded.
    pub(super) fn locate(&self, hashes: &[u64]) -> [u32; GROUP] {
        let mut hints = [UNKNOWN; GROUP];
        if cfg!(loom) {
            // Loads without consequence only multiply the executions to explore.
            return hints;
        }
        // First nothing but loads: a core keeps only so many instructions waiting.
        for &hash in hashes {
            self.load(self.layout.key_word(self.layout.home(hash) * WAYS));
        }
        for depth in 0..DEPTH {
            for (hint, &hash) in hints.iter_mut().zip(hashes) {
                if *hint == UNKNOWN {
                    *hint = self.way((self.layout.home(hash) + depth) % self.layout.buckets, hash);
                }
            }
        }
        for &hint in hints.iter().filter(|&&hint| hint != UNKNOWN) {
            if let super::holders::Kind::Record(record) = self.holders(hint as usize).kind() {
                let word = self.layout.arena_word(record.unit);
                if word < self.layout.total_words {
                    self.load(word);
                }
            }
        }
        hints
    }

    /// The bucket's position with this key. Without branches, so that nothing waits for the keys.
    #[inline]
    fn way(&self, bucket: usize, hash: u64) -> u32 {
        let first = bucket * WAYS;
        let matches =
            (0..WAYS).fold(0, |set, way| set | u32::from(self.key(first + way) == hash) << way);
        if matches == 0 { UNKNOWN } else { first as u32 + matches.trailing_zeros() }
    }
}

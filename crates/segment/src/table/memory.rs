//! The words of a table, addressed by meaning.
//!
//! Everything the table keeps in shared memory is read and written through [`Table`]; nothing else
//! in this module knows an offset. Orderings are chosen here too: words that publish are stored with
//! Release and loaded with Acquire, words that only the writer reads are relaxed.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::holders::Holders;
use super::layout::{
    H_BLOCKS, H_CAPACITY, H_MAGIC, H_PAGES, H_SEED, H_SLOTS, HEADER_WORDS, Layout, MAGIC,
    TableError, TableSpec,
};
use crate::words::{Words, WordsMut};

/// A memory and the validated layout of the table in it.
#[derive(Clone, Debug)]
pub(super) struct Table<M> {
    pub(super) words: M,
    pub(super) layout: Layout,
}

impl<M: Words> Table<M> {
    /// Finds the table that begins with `magic`, trusting nothing that does not fit.
    pub(super) fn open(words: M, magic: u64) -> Result<Self, TableError> {
        if words.len() < HEADER_WORDS {
            let needed = HEADER_WORDS;
            return Err(TableError::Short { found: words.len(), needed });
        }
        let found = words.load(H_MAGIC, Acquire);
        if found != magic {
            return Err(TableError::Magic { found, expected: magic });
        }
        let size = |word| usize::try_from(words.load(word, Relaxed)).unwrap_or(usize::MAX);
        let seed = words.load(H_SEED, Relaxed);
        let layout = Layout::new(size(H_SLOTS), size(H_BLOCKS), size(H_PAGES), seed)?;
        fits(&words, &layout)?;
        Ok(Self { words, layout })
    }

    #[inline]
    pub(super) fn load(&self, word: usize) -> u64 {
        self.words.load(word, Relaxed)
    }

    pub(super) fn default_capacity(&self) -> u32 {
        u32::try_from(self.load(H_CAPACITY)).unwrap_or(u32::MAX).max(1)
    }

    // === entries ===

    #[inline]
    pub(super) fn key(&self, entry: usize) -> u64 {
        self.load(self.layout.key_word(entry))
    }

    /// Acquire: what the word refers to, and the entry's key, are at least as new.
    #[inline]
    pub(super) fn holders(&self, entry: usize) -> Holders {
        Holders(self.words.load(self.layout.holders_word(entry), Acquire))
    }

    /// Loads the word again, after every load that came before.
    #[inline]
    pub(super) fn holders_again(&self, entry: usize) -> Holders {
        self.words.fence(Acquire);
        Holders(self.load(self.layout.holders_word(entry)))
    }

    // === slots ===

    pub(super) fn ends(&self, slot: u16) -> u64 {
        self.load(self.layout.slot_base + usize::from(slot) * 2)
    }

    /// Blocks held by the slot, and its capacity (0: not yet fixed).
    #[inline]
    pub(super) fn count(&self, slot: u16) -> (u32, u32) {
        let word = self.load(self.layout.slot_base + usize::from(slot) * 2 + 1);
        (word as u32, (word >> 32) as u32)
    }
}

impl<M: WordsMut> Table<M> {
    /// Makes a table in memory that is all zero. The magic is stored last: a creator that dies
    /// before leaves no table.
    pub(super) fn create(words: M, spec: &TableSpec, seed: u64) -> Result<Self, TableError> {
        let table = Self::lay_out(words, spec.layout(seed)?)?;
        table.store(H_CAPACITY, u64::from(spec.default_capacity.max(1)));
        for slot in 0..table.layout.slots {
            table.set_ends(slot as u16, u64::MAX);
        }
        table.publish(MAGIC);
        Ok(table)
    }

    /// Stores the sizes. There is no table before [`Table::publish`].
    pub(super) fn lay_out(words: M, layout: Layout) -> Result<Self, TableError> {
        fits(&words, &layout)?;
        let table = Self { words, layout };
        table.store(H_SLOTS, layout.slots as u64);
        table.store(H_BLOCKS, layout.entries as u64);
        table.store(H_PAGES, layout.pages as u64);
        table.store(H_SEED, layout.seed);
        Ok(table)
    }

    /// Makes a table of what was laid out.
    pub(super) fn publish(&self, magic: u64) {
        self.words.store(H_MAGIC, magic, Release);
    }

    #[inline]
    pub(super) fn store(&self, word: usize, value: u64) {
        self.words.store(word, value, Relaxed);
    }

    /// Gives a free entry its next key. Ordered after the store that freed it.
    pub(super) fn set_key(&self, entry: usize, key: u64) {
        self.words.store(self.layout.key_word(entry), key, Release);
    }

    /// Publishes the word and, with it, everything stored before.
    pub(super) fn set_holders(&self, entry: usize, holders: Holders) {
        self.words.store(self.layout.holders_word(entry), holders.0, Release);
    }

    pub(super) fn set_ends(&self, slot: u16, ends: u64) {
        self.store(self.layout.slot_base + usize::from(slot) * 2, ends);
    }

    pub(super) fn set_count(&self, slot: u16, held: u32, capacity: u32) {
        let word = u64::from(capacity) << 32 | u64::from(held);
        self.store(self.layout.slot_base + usize::from(slot) * 2 + 1, word);
    }
}

fn fits(words: &impl Words, layout: &Layout) -> Result<(), TableError> {
    if words.len() < layout.total_words {
        return Err(TableError::Short { found: words.len(), needed: layout.total_words });
    }
    Ok(())
}

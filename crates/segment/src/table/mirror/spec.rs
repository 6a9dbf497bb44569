//! Sizes of a mirror, and where its own words lie.
//!
//! The layout is that of a block table ([`layout`](super::super::layout)). The two words of a slot are
//! its position and its counts; eight words of the header count the tiers; behind the arena there
//! are the [stretches](super::stretch) and a bit per page that says whether it holds aliases.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::super::layout::{Layout, PAGE_UNITS, PAGE_WORDS, TableError, TableSpec};
use super::super::memory::Table;
use super::{cells, stretch};
use crate::words::{Words, WordsMut};

/// Storage tiers that a mirror tells apart.
pub const MAX_TIERS: usize = 8;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"inlnmir\x02");
/// Bit per tier that somebody uses. In the header's first line, which hardly ever changes.
const H_TIERS: usize = 6;
const H_EPOCH: usize = 7;
/// Holdings per tier.
const H_COUNTS: usize = 8;
/// No block's key, as far as anybody who does not know the seed can bring about.
const BURIED: u64 = 0x94d0_49bb_1331_11eb;
/// Set in a slot's position while changes have been made that it does not cover.
const DIRTY: u64 = 1 << 63;

/// Private bytes per block: the index of engine hashes, and three bits.
const PRIVATE_BLOCK_BYTES: (usize, usize) = (64 * cells::LOAD.1 + 45, 15 * cells::LOAD.0);
/// Private bytes per page: its descriptor, and two indices over the aliases that may lie in it, or
/// the counts and the index of records. Indices that grow are at half of their load in the middle.
const PRIVATE_PAGE_BYTES: usize = 64 + PAGE_UNITS * 14;
const PRIVATE_SLOT_BYTES: usize = 64;

/// The sizes of a mirror, fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorSpec {
    /// Endpoint slots, at most [`MAX_SLOTS`](super::super::MAX_SLOTS).
    pub slots: usize,
    /// Distinct blocks (a block in two tiers is two) that can be held at once.
    pub blocks: usize,
    /// Pages of 4 KiB for sets of more than three holders, and for aliases.
    pub pages: usize,
}

impl MirrorSpec {
    /// The largest mirror whose words and private state together stay within `bytes`.
    ///
    /// Three quarters go to distinct blocks (35 bytes each), one to sets of holders and aliases:
    /// enough for half as many aliases as blocks.
    pub fn within(slots: usize, bytes: usize) -> Self {
        let least = Self { slots, blocks: 1, pages: 1 };
        let rest = bytes.saturating_sub(least.bytes().unwrap_or(bytes));
        let pages = rest / 4 / (PAGE_WORDS * 8 + PRIVATE_PAGE_BYTES);
        let pages = pages.clamp(1, super::super::holders::MAX_UNITS / PAGE_UNITS);
        let directory = rest.saturating_sub(pages * (PAGE_WORDS * 8 + PRIVATE_PAGE_BYTES));
        // 21 blocks have two buckets.
        let (private, per) = PRIVATE_BLOCK_BYTES;
        let per_21 = 21 * 24 + 2 * 64 + 21 / 4 + (21 * private).div_ceil(per);
        let blocks = directory.saturating_sub(256) / per_21 * 21;
        let mut spec = Self { slots, blocks: blocks.clamp(1, 1 << 28), pages };
        while spec.blocks > 21 && spec.bytes().is_ok_and(|used| used > bytes) {
            spec.blocks -= 21;
        }
        spec
    }

    /// Words of memory that the mirror needs.
    ///
    /// # Errors
    /// [`TableError::Size`] if a size is out of range.
    pub fn words(&self) -> Result<usize, TableError> {
        let layout = self.layout(0)?;
        Ok(layout.total_words + own_words(&layout))
    }

    /// All bytes of the mirror: its words, and the writer's private state when all is in use.
    ///
    /// # Errors
    /// [`TableError::Size`] if a size is out of range.
    pub fn bytes(&self) -> Result<usize, TableError> {
        let (private, per) = PRIVATE_BLOCK_BYTES;
        Ok(self.words()? * 8
            + (self.blocks * private).div_ceil(per)
            + self.pages * PRIVATE_PAGE_BYTES
            + self.slots * PRIVATE_SLOT_BYTES)
    }

    fn layout(&self, seed: u64) -> Result<Layout, TableError> {
        let Self { slots, blocks, pages } = *self;
        TableSpec { slots, blocks, pages, default_capacity: 1 }.layout(seed)
    }
}

/// Words behind those of a block table.
fn own_words(layout: &Layout) -> usize {
    stretch_words(layout) + layout.pages.div_ceil(64)
}

/// Whole cache lines.
fn stretch_words(layout: &Layout) -> usize {
    stretch::words(layout.entries).next_multiple_of(8)
}

/// What a slot's second word says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Slot {
    /// Holdings, over all tiers.
    pub(super) held: u32,
    /// Bit per tier the slot has used since it was cleared.
    pub(super) tiers: u8,
    /// Most keys, less one, that one of its engine hashes stood for in one call.
    pub(super) fan: u8,
    /// How often it was cleared, wrapping.
    pub(super) clears: u16,
}

impl<M: Words> Table<M> {
    /// Finds the mirror in `words`, trusting nothing that does not fit.
    pub(super) fn open_mirror(words: M) -> Result<Self, TableError> {
        let table = Self::open(words, MAGIC)?;
        table.fits_mirror()?;
        Ok(table)
    }

    fn fits_mirror(&self) -> Result<(), TableError> {
        let needed = self.layout.total_words + own_words(&self.layout);
        let found = self.words.len();
        if found < needed { Err(TableError::Short { found, needed }) } else { Ok(()) }
    }

    /// Acquire: what the writer gave up before this epoch, it has given up for the caller.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.words.load(H_EPOCH, Acquire)
    }

    /// The epoch after every load that came before.
    #[inline]
    pub(super) fn epoch_again(&self) -> u64 {
        self.words.fence(Acquire);
        self.load(H_EPOCH)
    }

    #[inline]
    pub(super) fn tiers(&self) -> u8 {
        self.load(H_TIERS) as u8
    }

    pub(super) fn tier_count(&self, tier: u8) -> u64 {
        self.load(H_COUNTS + usize::from(tier) % MAX_TIERS)
    }

    pub(super) fn slot(&self, slot: u16) -> Slot {
        let word = self.load(self.layout.slot_base + usize::from(slot) * 2 + 1);
        let (tiers, fan, clears) = ((word >> 32) as u8, (word >> 40) as u8, (word >> 48) as u16);
        Slot { held: word as u32, tiers, fan, clears }
    }

    pub(super) fn position(&self, slot: u16) -> u64 {
        self.load(self.position_word(slot)) & !DIRTY
    }

    /// Whether changes were made since the position was set.
    pub(super) fn is_dirty(&self, slot: u16) -> bool {
        self.load(self.position_word(slot)) & DIRTY != 0
    }

    #[inline]
    pub(super) fn engine(&self, entry: usize) -> u64 {
        self.load(self.layout.link_base + entry)
    }

    /// Whether a free entry has lost its key.
    pub(super) fn is_buried(&self, entry: usize) -> bool {
        self.key(entry) == self.layout.seed ^ BURIED
    }

    /// Whether a page holds aliases.
    pub(super) fn has_aliases(&self, page: usize) -> bool {
        self.load(self.kind_word(page)) >> (page % 64) & 1 == 1
    }

    fn kind_word(&self, page: usize) -> usize {
        self.layout.total_words + stretch_words(&self.layout) + page / 64
    }

    #[inline]
    pub(super) fn stretch_word(&self, entry: usize) -> usize {
        self.layout.total_words + entry / stretch::ENTRIES
    }

    fn position_word(&self, slot: u16) -> usize {
        self.layout.slot_base + usize::from(slot) * 2
    }
}

impl<M: WordsMut> Table<M> {
    pub(super) fn create_mirror(
        words: M,
        spec: &MirrorSpec,
        seed: u64,
    ) -> Result<Self, TableError> {
        let table = Self::lay_out(words, spec.layout(seed)?)?;
        table.fits_mirror()?;
        table.publish(MAGIC);
        Ok(table)
    }

    /// Moves the epoch. Whatever is written after this is written after it for readers as well.
    pub(super) fn advance(&self) {
        self.words.store(H_EPOCH, self.load(H_EPOCH).wrapping_add(1), Release);
        self.words.fence(Release);
    }

    pub(super) fn set_tiers(&self, tiers: u8) {
        self.words.store(H_TIERS, u64::from(tiers), Release);
    }

    pub(super) fn set_tier_count(&self, tier: u8, count: u64) {
        self.store(H_COUNTS + usize::from(tier) % MAX_TIERS, count);
    }

    pub(super) fn set_slot(&self, slot: u16, is: Slot) {
        let low = u64::from(is.fan) << 40 | u64::from(is.tiers) << 32 | u64::from(is.held);
        let word = u64::from(is.clears) << 48 | low;
        self.store(self.layout.slot_base + usize::from(slot) * 2 + 1, word);
    }

    pub(super) fn set_position(&self, slot: u16, position: u64) {
        self.words.store(self.position_word(slot), position & !DIRTY, Release);
    }

    /// Says that the position no longer covers all that was done.
    #[inline]
    pub(super) fn set_dirty(&self, slot: u16) {
        let word = self.load(self.position_word(slot));
        if word & DIRTY == 0 {
            self.words.store(self.position_word(slot), word | DIRTY, Release);
        }
    }

    pub(super) fn set_engine(&self, entry: usize, engine: u64) {
        self.words.store(self.layout.link_base + entry, engine, Relaxed);
    }

    /// Takes the key out of an entry that was freed, before the epoch moves: whoever sees the
    /// entry's next holders sees this or the next key, however loads are ordered.
    pub(super) fn bury(&self, entry: usize) {
        self.words.store(self.layout.key_word(entry), self.layout.seed ^ BURIED, Release);
    }

    pub(super) fn mark_aliases(&self, page: usize, has: bool) {
        let word = self.load(self.kind_word(page)) & !(1 << (page % 64));
        self.words.store(self.kind_word(page), word | u64::from(has) << (page % 64), Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_and_used() {
        for slots in [1, 64, 1_000, 10_000] {
            for bytes in [8 << 20, 64 << 20, 4 << 30] {
                let used = MirrorSpec::within(slots, bytes).bytes().unwrap();
                assert!(used <= bytes, "{slots} slots: {used} of {bytes}");
                assert!(used > bytes - bytes / 50, "{slots} slots: only {used} of {bytes}");
            }
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        let good = MirrorSpec::within(64, 1 << 20);
        for bad in [
            MirrorSpec { slots: 0, ..good },
            MirrorSpec { slots: 16_385, ..good },
            MirrorSpec { blocks: 0, ..good },
            MirrorSpec { pages: usize::MAX, ..good },
        ] {
            assert!(matches!(bad.words(), Err(TableError::Size { .. })), "{bad:?}");
        }
        let tiny = MirrorSpec::within(64, 0);
        assert_eq!((tiny.blocks, tiny.pages), (1, 1));
    }
}

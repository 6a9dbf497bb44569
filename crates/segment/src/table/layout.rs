//! Where everything of a table lies, and what a byte budget buys.
//!
//! All offsets follow from three sizes in the header (slots, blocks, pages), so that a reader
//! recomputes them and trusts nothing else it finds in the memory.
//!
//! ```text
//! header    16 words   magic, format, slots, blocks, pages, seed, default capacity
//! slots      2 words per slot: recency ends (oldest, newest), held count and capacity
//! index      8 words (a cache line) per bucket of twelve ways: tags, overflow count, entry numbers
//! entries    2 words per block: key, holders
//! links      1 word per block: recency links of the owner
//! arena      pages of 512 words: recency nodes, lists, bitmaps
//! ```

use super::holders::MAX_UNITS;

/// Most endpoint slots a table can serve.
pub const MAX_SLOTS: usize = 16_384;

/// Entries held by one endpoint unless it is told otherwise
/// ([`TableWriter::set_capacity`](super::TableWriter::set_capacity)).
pub const DEFAULT_CAPACITY: u32 = 31_250;

/// Entry numbers per bucket of the index.
pub(super) const WAYS: usize = 12;
pub(super) const BUCKET_WORDS: usize = 8;
/// Buckets that a key may be away from its home; bounds every probe.
pub(super) const MAX_PROBE: usize = 128;
/// Words per arena page. The model checker cannot afford real pages.
pub(super) const PAGE_WORDS: usize = if cfg!(loom) { 16 } else { 512 };
pub(super) const PAGE_UNITS: usize = PAGE_WORDS / 2;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"inlnblk\x01");
pub(super) const HEADER_WORDS: usize = 16;
pub(super) const H_MAGIC: usize = 0;
pub(super) const H_SLOTS: usize = 1;
pub(super) const H_BLOCKS: usize = 2;
pub(super) const H_PAGES: usize = 3;
pub(super) const H_SEED: usize = 4;
pub(super) const H_CAPACITY: usize = 5;

/// An entry number leaves room for the bit that marks recency nodes in the arena.
const MAX_BLOCKS: usize = 1 << 28;
const SLOT_WORDS: usize = 2;
/// Private bytes per page: its descriptor, and the index over the nodes that may lie in it.
const PRIVATE_PAGE_BYTES: usize = 48 + PAGE_UNITS * NODE_INDEX_NUM * 4 / NODE_INDEX_DEN;
/// The node index has 4/3 cells of four bytes per node.
pub(super) const NODE_INDEX_NUM: usize = 4;
pub(super) const NODE_INDEX_DEN: usize = 3;

/// Why a table cannot be made in, or read from, a piece of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// The memory does not begin with a table of this format: never created, another format, or
    /// its creator died before it was complete.
    #[error("not a block table: magic {found:#018x}, expected {expected:#018x}")]
    Magic {
        /// The first word.
        found: u64,
        /// What a table of this format begins with.
        expected: u64,
    },
    /// A size is zero or beyond what the format can address.
    #[error("block table: {field} is {found}, allowed are 1 to {max}")]
    Size {
        /// Which size.
        field: &'static str,
        /// Its value.
        found: u64,
        /// The largest allowed value.
        max: u64,
    },
    /// The memory is shorter than the table that it should hold.
    #[error("block table: needs {needed} words, the memory has {found}")]
    Short {
        /// Words in the memory.
        found: usize,
        /// Words that the sizes call for.
        needed: usize,
    },
}

/// The sizes of a table, fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSpec {
    /// Endpoint slots, at most [`MAX_SLOTS`].
    pub slots: usize,
    /// Distinct blocks that can be held at once.
    pub blocks: usize,
    /// Arena pages of 4 KiB. A block's first holder needs none; each further one takes 16 bytes,
    /// and beyond three holders there is a list (2 to 4 bytes per holder) or one bit per slot.
    pub pages: usize,
    /// Entries per endpoint for slots whose capacity is never set.
    pub default_capacity: u32,
}

impl TableSpec {
    /// The largest table whose words and private state together stay within `bytes`.
    ///
    /// Two thirds go to distinct blocks (30.1 bytes each), the rest to further holders: a mean of
    /// about 1.6 holders per block fills both at the same time. A workload with a different mean
    /// fills one of them earlier, and the fullest endpoints then give up their oldest blocks.
    pub fn within(slots: usize, bytes: usize) -> Self {
        let fixed = (HEADER_WORDS + slots * SLOT_WORDS) * 8;
        let rest = bytes.saturating_sub(fixed + PAGE_WORDS * 8);
        let pages = rest / 3 / (PAGE_WORDS * 8 + PRIVATE_PAGE_BYTES);
        let pages = pages.clamp(1, MAX_UNITS / PAGE_UNITS);
        let directory = rest.saturating_sub(pages * (PAGE_WORDS * 8 + PRIVATE_PAGE_BYTES));
        // Key, holders, links, and a share of an index that is never fuller than 7/8.
        // 21 blocks have two buckets.
        let blocks = directory.saturating_sub(64) / (21 * 24 + 2 * 64) * 21;
        let blocks = blocks.clamp(1, MAX_BLOCKS);
        Self { slots, blocks, pages, default_capacity: DEFAULT_CAPACITY }
    }

    /// Words of memory that the table needs.
    ///
    /// # Errors
    /// [`TableError::Size`] if a size is out of range.
    pub fn words(&self) -> Result<usize, TableError> {
        Ok(self.layout(0)?.total_words)
    }

    /// All bytes of the table: its words, and the writer's private state when every page is in use.
    ///
    /// # Errors
    /// [`TableError::Size`] if a size is out of range.
    pub fn bytes(&self) -> Result<usize, TableError> {
        Ok(self.words()? * 8 + self.pages * PRIVATE_PAGE_BYTES)
    }

    pub(super) fn layout(&self, seed: u64) -> Result<Layout, TableError> {
        Layout::new(self.slots, self.blocks, self.pages, seed)
    }
}

/// Validated sizes and the offsets that follow from them, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) slots: usize,
    pub(super) entries: usize,
    pub(super) pages: usize,
    pub(super) seed: u64,
    pub(super) buckets: usize,
    pub(super) bitmap_words: usize,
    pub(super) slot_base: usize,
    pub(super) index_base: usize,
    pub(super) entry_base: usize,
    pub(super) link_base: usize,
    pub(super) arena_base: usize,
    pub(super) total_words: usize,
}

impl Layout {
    pub(super) fn new(
        slots: usize,
        blocks: usize,
        pages: usize,
        seed: u64,
    ) -> Result<Self, TableError> {
        check("slots", slots, MAX_SLOTS)?;
        check("blocks", blocks, MAX_BLOCKS)?;
        check("pages", pages, MAX_UNITS / PAGE_UNITS)?;
        // One in eight ways stays free: probes stay short.
        let buckets = (blocks * 8).div_ceil(7 * WAYS);
        let slot_base = HEADER_WORDS;
        let index_base = (slot_base + slots * SLOT_WORDS).next_multiple_of(BUCKET_WORDS);
        let entry_base = index_base + buckets * BUCKET_WORDS;
        let link_base = (entry_base + blocks * 2).next_multiple_of(8);
        let arena_base = (link_base + blocks).next_multiple_of(8);
        Ok(Self {
            slots,
            entries: blocks,
            pages,
            seed,
            buckets,
            bitmap_words: slots.div_ceil(64),
            slot_base,
            index_base,
            entry_base,
            link_base,
            arena_base,
            total_words: arena_base + pages * PAGE_WORDS,
        })
    }

    pub(super) fn units(&self) -> usize {
        self.pages * PAGE_UNITS
    }

    /// Where the probe for `key` starts, and the tag (1 to 255) that stands for it there.
    ///
    /// The product's two halves folded together spread keys of any quality (engine hashes may be
    /// FNV); the seed keeps clients who choose prompts from choosing buckets.
    #[inline]
    pub(super) fn home(&self, key: u64) -> (usize, u8) {
        let product = u128::from(key ^ self.seed) * 0x9e37_79b9_7f4a_7c15;
        let mixed = product as u64 ^ (product >> 64) as u64;
        let bucket = ((u128::from(mixed) * self.buckets as u128) >> 64) as usize;
        (bucket, (mixed as u8).max(1))
    }

    #[inline]
    pub(super) fn bucket_word(&self, bucket: usize) -> usize {
        self.index_base + bucket * BUCKET_WORDS
    }

    #[inline]
    pub(super) fn key_word(&self, entry: usize) -> usize {
        self.entry_base + entry * 2
    }

    #[inline]
    pub(super) fn holders_word(&self, entry: usize) -> usize {
        self.key_word(entry) + 1
    }

    #[inline]
    pub(super) fn arena_word(&self, unit: u32) -> usize {
        self.arena_base + unit as usize * 2
    }
}

fn check(field: &'static str, found: usize, max: usize) -> Result<(), TableError> {
    if (1..=max).contains(&found) {
        return Ok(());
    }
    Err(TableError::Size { field, found: found as u64, max: max as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_kept_and_used() {
        for slots in [1, 64, 1_000, 10_000] {
            for bytes in [8 << 20, 100_000_000, 4 << 30] {
                let used = TableSpec::within(slots, bytes).bytes().unwrap();
                assert!(used <= bytes, "{slots} slots: {used} of {bytes}");
                assert!(used > bytes - bytes / 50, "{slots} slots: only {used} of {bytes}");
            }
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        let good = TableSpec::within(64, 1 << 20);
        for bad in [
            TableSpec { slots: 0, ..good },
            TableSpec { slots: MAX_SLOTS + 1, ..good },
            TableSpec { blocks: 0, ..good },
            TableSpec { blocks: usize::MAX, ..good },
            TableSpec { pages: usize::MAX, ..good },
        ] {
            assert!(matches!(bad.words(), Err(TableError::Size { .. })), "{bad:?}");
        }
    }
}

//! Lock-free readers.
//!
//! A lookup is a validated read of one entry: load the holders word, check that the position still
//! has the key, copy the record (if there is one), look at the holders word again. The same version
//! on both looks proves that key and record belonged together all the while
//! ([`holders`](super::holders)); otherwise the lookup starts over, at most twice, and then counts
//! the block as held by nobody. Changes inside a record are single stores, so the copy is a set of
//! holders in which each one was true at the moment it was read.
//!
//! No method allocates, locks, blocks, or makes a system call; every loop is bounded by the sizes in
//! the (validated) layout, whatever the memory contains.

use super::holders::{Holders, Kind, Shape};
use super::layout::{MAX_SLOTS, TableError, WAYS};
use super::live::Live;
use super::memory::Table;
use super::runs::Runs;
use crate::words::Words;

const ATTEMPTS: usize = 3;
pub(super) const MAX_WORDS: usize = MAX_SLOTS / 64;

/// Reads a block table. Cheap to clone; any number may read while the writer writes.
#[derive(Clone, Debug)]
pub struct TableReader<M> {
    table: Table<M>,
}

/// The holders of one block, as found by a validated lookup.
pub(super) enum Found {
    Nobody,
    /// Slots in the lanes of this word.
    Inline(Holders),
    /// So many words of list lanes in the caller's buffer.
    List(usize),
    /// So many words of bits in the caller's buffer.
    Bitmap(usize),
}

/// A record copied out of the table. Two kilobytes on the caller's stack.
pub(super) type Buffer = [u64; MAX_WORDS];

/// The position changed hands while it was read.
struct Moved;

impl<M: Words> TableReader<M> {
    /// Reads the table in `words`.
    ///
    /// # Errors
    /// If there is no complete table in the memory.
    pub fn open(words: M) -> Result<Self, TableError> {
        Ok(Self::over(Table::open(words)?))
    }

    pub(super) fn over(table: Table<M>) -> Self {
        Self { table }
    }

    /// Endpoint slots that the table serves.
    pub fn slots(&self) -> usize {
        self.table.layout.slots
    }

    /// Blocks held by a slot, as of the writer's last change.
    pub fn len(&self, slot: u16) -> usize {
        if usize::from(slot) < self.slots() { self.table.count(slot).0 as usize } else { 0 }
    }

    /// Holdings over all slots: a block counts once per holder. One load per slot.
    pub fn total(&self) -> u64 {
        (0..self.slots()).map(|slot| u64::from(self.table.count(slot as u16).0)).sum()
    }

    /// Whether the slot holds the block.
    pub fn holds(&self, slot: u16, hash: u64) -> bool {
        let mut held = false;
        let mut buffer = [0; MAX_WORDS];
        self.lookup(hash, &mut buffer).for_each(&buffer, |holder| held |= holder == slot);
        held
    }

    /// Adds to `out[slot]`, for every slot, the number of `hashes` it holds, up to the first hash
    /// that nobody holds. Returns how many hashes that were.
    ///
    /// A slot need not hold a hash to be counted for a later one: blocks are inserted front to back,
    /// so what an endpoint evicts first is the front of a prefix, and what is left still tells.
    /// Slots at or beyond `out.len()` are ignored.
    pub fn count_matches(&self, hashes: &[u64], out: &mut [u32]) -> usize {
        let mut runs = Runs::new();
        let mut buffer = [0; MAX_WORDS];
        let mut matched = hashes.len();
        for (index, &hash) in hashes.iter().enumerate() {
            match self.lookup(hash, &mut buffer) {
                Found::Nobody => {
                    matched = index;
                    break;
                }
                Found::Bitmap(words) => runs.add(&buffer[..words], out),
                found => found.for_each(&buffer, |slot| {
                    if let Some(count) = out.get_mut(usize::from(slot)) {
                        *count += 1;
                    }
                }),
            }
        }
        runs.finish(out);
        matched
    }

    /// Adds to `out[slot]`, for every slot, the length of the longest prefix of `hashes` it holds
    /// without a gap. Looks at every hash until no slot is left. Returns the longest of all.
    pub fn longest_prefix_exact(&self, hashes: &[u64], out: &mut [u32]) -> usize {
        let mut live = Live::new();
        let mut buffer = [0; MAX_WORDS];
        for (index, &hash) in hashes.iter().enumerate() {
            let found = self.lookup(hash, &mut buffer);
            if index == 0 {
                live.begin(&found, &buffer);
            } else if !live.within(&found, &buffer) {
                live.retain(index as u32, out);
            }
            if live.is_empty() {
                return index;
            }
        }
        live.finish(hashes.len() as u32, out);
        hashes.len()
    }

    /// Like [`longest_prefix_exact`](Self::longest_prefix_exact), but gallops: where the slots still
    /// in the race all hold a block further on, the blocks between are not looked at.
    ///
    /// Exact if a slot that holds `hashes[0]` and `hashes[i]` holds all between them. That is so for
    /// what an engine reports of itself: a block's hash covers everything before it, blocks are
    /// stored parents first and evicted children first. It is not so for the approximate index at
    /// an endpoint's capacity, which evicts fronts first; even there a slot is only overrated when
    /// its front was inserted again later than its tail and a gap is left between.
    ///
    /// Cost: O(d log n) lookups for d different prefix lengths, never more than about 3n.
    pub fn longest_prefix(&self, hashes: &[u64], out: &mut [u32]) -> usize {
        let Some((&first, rest)) = hashes.split_first() else { return 0 };
        let mut live = Live::new();
        let mut buffer = [0; MAX_WORDS];
        live.begin(&self.lookup(first, &mut buffer), &buffer);
        if live.is_empty() {
            return 0;
        }
        // All live slots hold hashes[..=held]; rest[i] is hashes[i + 1].
        let mut held = 0;
        let mut step = 1;
        while held < rest.len() {
            let mut next = (held + step).min(rest.len());
            let mut probe = |at: usize, live: &mut Live| {
                live.within(&self.lookup(rest[at - 1], &mut buffer), &buffer)
            };
            if probe(next, &mut live) {
                (held, step) = (next, step * 2);
                continue;
            }
            while next - held > 1 {
                let middle = held + (next - held) / 2;
                if probe(middle, &mut live) {
                    held = middle;
                } else {
                    next = middle;
                }
            }
            // `within` may have looked elsewhere since; what `retain` keeps must be what is there.
            if !probe(next, &mut live) {
                live.retain(next as u32, out);
                if live.is_empty() {
                    return next;
                }
            }
            (held, step) = (next, 1);
        }
        live.finish(hashes.len() as u32, out);
        hashes.len()
    }

    #[inline]
    fn lookup(&self, hash: u64, buffer: &mut Buffer) -> Found {
        for _ in 0..ATTEMPTS {
            if let Ok(found) = self.attempt(hash, buffer) {
                return found;
            }
        }
        Found::Nobody
    }

    #[inline]
    fn attempt(&self, hash: u64, buffer: &mut Buffer) -> Result<Found, Moved> {
        let table = &self.table;
        for bucket in table.probe(hash) {
            for position in bucket * WAYS..(bucket + 1) * WAYS {
                if table.key(position) != hash {
                    continue;
                }
                let holders = table.holders(position);
                if holders.is_free() || table.key(position) != hash {
                    continue;
                }
                let found = self.copy(holders, buffer);
                let again = table.holders_again(position);
                return if holders.same_version(again) { Ok(found) } else { Err(Moved) };
            }
            if table.overflow(bucket) == 0 {
                break;
            }
        }
        Ok(Found::Nobody)
    }

    #[inline]
    fn copy(&self, holders: Holders, buffer: &mut Buffer) -> Found {
        let record = match holders.kind() {
            Kind::Free => return Found::Nobody,
            Kind::Inline => return Found::Inline(holders),
            Kind::Record(record) => record,
        };
        let layout = &self.table.layout;
        let words = record.shape.words(layout);
        let first = layout.arena_word(record.unit);
        if first + words > layout.total_words {
            return Found::Nobody;
        }
        self.table.words.load_run(first, &mut buffer[..words]);
        match record.shape {
            Shape::List(_) => Found::List(words),
            Shape::Bitmap => Found::Bitmap(words),
        }
    }
}

impl Found {
    /// Visits every holder.
    #[inline]
    pub(super) fn for_each(&self, buffer: &Buffer, mut visit: impl FnMut(u16)) {
        match *self {
            Self::Nobody => {}
            Self::Inline(holders) => holders.lanes().for_each(visit),
            Self::List(words) => {
                for &lanes in &buffer[..words] {
                    for lane in 0..4 {
                        if let Some(slot) = ((lanes >> (lane * 16)) as u16).checked_sub(1) {
                            visit(slot);
                        }
                    }
                }
            }
            Self::Bitmap(words) => {
                for (index, &word) in buffer[..words].iter().enumerate() {
                    let mut bits = word;
                    while bits != 0 {
                        visit((index * 64) as u16 + bits.trailing_zeros() as u16);
                        bits &= bits - 1;
                    }
                }
            }
        }
    }
}

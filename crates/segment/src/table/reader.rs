//! Lock-free readers.
//!
//! No method allocates, locks, blocks, or makes a system call; every loop is bounded by the sizes in
//! the (validated) layout, whatever the memory contains. How one block is read beside a writer:
//! [`cursor`](super::cursor).

use super::ahead::{GROUP, UNKNOWN};
use super::cursor::{Cursor, Step};
use super::layout::{MAGIC, TableError};
use super::live::Live;
use super::memory::Table;
use super::tally::Tally;
use crate::words::Words;

/// Reads a block table. Cheap to clone; any number may read while the writer writes.
#[derive(Clone, Debug)]
pub struct TableReader<M> {
    table: Table<M>,
}

impl<M: Words> TableReader<M> {
    /// Reads the table in `words`.
    ///
    /// # Errors
    /// If there is no complete table in the memory.
    pub fn open(words: M) -> Result<Self, TableError> {
        Ok(Self::over(Table::open(words, MAGIC)?))
    }

    pub(super) fn over(table: Table<M>) -> Self {
        Self { table }
    }

    /// Bytes of the memory that the table is in.
    pub fn bytes(&self) -> usize {
        self.table.words.len() * size_of::<u64>()
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
        let mut cursor = Cursor::new(&self.table);
        cursor.look(hash, UNKNOWN);
        cursor.current().for_each(|holder| held |= holder == slot);
        held
    }

    /// Adds to `out[slot]`, for every slot, the number of `hashes` it holds, up to the first hash
    /// that nobody holds. Returns how many hashes that were.
    ///
    /// A slot need not hold a hash to be counted for a later one: blocks are inserted front to back,
    /// so what an endpoint evicts first is the front of a prefix, and what is left still tells.
    /// Slots at or beyond `out.len()` are ignored.
    pub fn count_matches(&self, hashes: &[u64], out: &mut [u32]) -> usize {
        let mut tally = Tally::new();
        let mut matched = 0;
        self.walk(hashes, |step, cursor| {
            if step == Step::Nobody {
                tally.finish(cursor.previous(), out);
                return false;
            }
            tally.add(step, cursor, out);
            matched += 1;
            if matched == hashes.len() {
                tally.finish(cursor.current(), out);
            }
            true
        });
        matched
    }

    /// Adds to `out[slot]`, for every slot, the length of the longest prefix of `hashes` it holds
    /// without a gap. Looks at every hash until no slot is left. Returns the longest of all.
    pub fn longest_prefix_exact(&self, hashes: &[u64], out: &mut [u32]) -> usize {
        let mut live = Live::new();
        let mut longest = 0;
        self.walk(hashes, |step, cursor| {
            if longest == 0 {
                live.begin(cursor.current());
            } else if step != Step::Same && !live.within(cursor.current()) {
                live.retain(longest as u32, out);
            }
            longest += usize::from(!live.is_empty());
            !live.is_empty()
        });
        live.finish(longest as u32, out);
        longest
    }

    /// Like [`longest_prefix_exact`](Self::longest_prefix_exact), but gallops: where the slots still
    /// in the race all hold a block further on, the blocks between are not looked at.
    ///
    /// Exact if a slot that holds `hashes[0]` and `hashes[i]` holds all between them. That is so for
    /// what an engine reports of itself: a block's hash covers everything before it, blocks are
    /// stored parents first and evicted children first. It is not so for the approximate index at
    /// an endpoint's capacity, which evicts fronts first; even there a slot is only overrated when
    /// its front was inserted again and a gap is left behind it.
    ///
    /// Cost: O(d log n) lookups for d different prefix lengths, never more than about 3n.
    pub fn longest_prefix(&self, hashes: &[u64], out: &mut [u32]) -> usize {
        let Some((&first, rest)) = hashes.split_first() else { return 0 };
        let mut cursor = Cursor::new(&self.table);
        let mut live = Live::new();
        cursor.look(first, UNKNOWN);
        live.begin(cursor.current());
        // All live slots hold hashes[..=held], and rest[i] is hashes[i + 1].
        let mut all_hold = |at: usize, live: &mut Live| {
            cursor.look(rest[at - 1], UNKNOWN);
            live.within(cursor.current())
        };
        let (mut held, mut step) = (0, 1);
        while held < rest.len() && !live.is_empty() {
            let mut next = (held + step).min(rest.len());
            if all_hold(next, &mut live) {
                (held, step) = (next, step * 2);
                continue;
            }
            while next - held > 1 {
                let middle = held + (next - held) / 2;
                if all_hold(middle, &mut live) {
                    held = middle;
                } else {
                    next = middle;
                }
            }
            // Once more, because `retain` goes by the block looked at last.
            if !all_hold(next, &mut live) {
                live.retain(next as u32, out);
            }
            (held, step) = (next, 1);
        }
        if live.is_empty() {
            return held;
        }
        live.finish(hashes.len() as u32, out);
        hashes.len()
    }

    /// Looks at the hashes in order until `visit` has seen enough.
    #[inline]
    fn walk(&self, hashes: &[u64], mut visit: impl FnMut(Step, &Cursor<'_, M>) -> bool) {
        let mut cursor = Cursor::new(&self.table);
        for group in hashes.chunks(GROUP) {
            let hints = self.table.locate(group, cursor.entry());
            for (&hash, &hint) in group.iter().zip(&hints) {
                let step = cursor.look(hash, hint);
                if !visit(step, &cursor) {
                    return;
                }
            }
        }
    }
}

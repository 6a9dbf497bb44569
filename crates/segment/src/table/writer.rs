//! The table's only writer.

use std::num::NonZeroU32;

use super::ahead::{GROUP, UNKNOWN};
use super::arena::{Arena, Cell};
use super::entries::Entries;
use super::holders::Holders;
use super::layout::{MAGIC, TableError, TableSpec};
use super::membership::Full;
use super::memory::Table;
use super::nodes::Nodes;
use super::reader::TableReader;
use super::recency::{ARENA, Held, NIL};
use super::recover;
use crate::words::WordsMut;

/// Rounds of making room before a block is refused.
const ROUNDS: usize = 4;
/// The fullest endpoint gives up this fraction of its blocks per round.
const SHARE: u32 = 64;

/// Writes a block table. There is one per memory; the caller sees to that (a lock file, or memory
/// that nobody else has).
///
/// Besides the words it owns the arena's allocator and the node index, which it rebuilds from the
/// words when it takes over ([`TableWriter::recover`]). Between its own stores it trusts the words;
/// memory that others write to as well is outside of the contract.
///
/// Slots at or beyond [`TableSpec::slots`] are ignored by every method.
#[derive(Debug)]
pub struct TableWriter<M> {
    pub(super) table: Table<M>,
    pub(super) entries: Entries,
    pub(super) arena: Arena,
    pub(super) nodes: Nodes,
    pub(super) blocks: usize,
    pub(super) held: u64,
    pub(super) stats: TableStats,
}

/// What an insertion was short of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scarce {
    /// Arena cells of the size needed.
    Cells,
    /// Entries.
    Entries,
}

/// What a writer did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TableStats {
    /// Blocks evicted because their endpoint was at its capacity.
    pub evicted: u64,
    /// Holdings given up, mostly by the fullest endpoint, because the table was at its budget.
    pub given_up: u64,
    /// Insertions that failed: no room in spite of that, or too many hashes with one home.
    pub refused: u64,
    /// Entries dropped on recovery because they did not validate.
    pub dropped: u64,
    /// Holders whose place in the recency order was lost and that became the newest on recovery:
    /// at most the one in flight when the predecessor died, unless the memory was damaged.
    pub relinked: u64,
}

impl<M: WordsMut> TableWriter<M> {
    /// Makes an empty table in `words`, which must all be zero (fresh anonymous memory, a new file).
    ///
    /// `seed` spreads the keys; a random one keeps clients from choosing where their blocks land.
    ///
    /// # Errors
    /// If a size is out of range or the memory too short.
    pub fn create(words: M, spec: &TableSpec, seed: u64) -> Result<Self, TableError> {
        Ok(Self::over(Table::create(words, spec, seed)?))
    }

    /// Takes over the table that a predecessor left in `words`, wherever it stopped.
    ///
    /// Every entry is validated; what does not hold together is dropped and counted. Time is linear
    /// in the size of the table.
    ///
    /// # Errors
    /// If there is no complete table in the memory.
    pub fn recover(words: M) -> Result<Self, TableError> {
        let mut writer = Self::over(Table::open(words, MAGIC)?);
        recover::rebuild(&mut writer);
        Ok(writer)
    }

    fn over(table: Table<M>) -> Self {
        let layout = table.layout;
        Self {
            table,
            entries: Entries::new(),
            arena: Arena::new(&layout),
            nodes: Nodes::new(&layout),
            blocks: 0,
            held: 0,
            stats: TableStats::default(),
        }
    }

    /// Fixes the capacity of an endpoint, in blocks. Only while it has none: a capacity is fixed at
    /// the first use of a slot (the default one, if nothing was set) until the slot is cleared.
    /// Returns whether it applied.
    pub fn set_capacity(&mut self, slot: u16, blocks: NonZeroU32) -> bool {
        if !self.serves(slot) || self.table.count(slot).1 != 0 {
            return false;
        }
        self.table.set_count(slot, 0, blocks.get());
        true
    }

    /// Makes `slot` a holder of every hash, front to back, each becoming its most recent; at
    /// capacity the least recent goes. Returns how many it did not hold before.
    pub fn insert_chain(&mut self, slot: u16, hashes: &[u64]) -> usize {
        if !self.serves(slot) {
            return 0;
        }
        let mut added = 0;
        // A chain that came before lies in the recency list in its own order: the node after that of
        // one block is that of the next, and no lookup is needed to find it.
        let mut expected = NIL;
        for group in hashes.chunks(GROUP) {
            let mut located = false;
            for (at, &hash) in group.iter().enumerate() {
                if let Some(node) = self.expected(slot, expected, hash) {
                    expected = self.make_newest(slot, node);
                    continue;
                }
                if !located {
                    // Only for its loads: what the group's buckets and records are waited for
                    // together.
                    self.table.locate(&group[at..], UNKNOWN);
                    located = true;
                }
                match self.known(slot, hash) {
                    Some(node) => expected = self.make_newest(slot, node),
                    None => {
                        expected = NIL;
                        added += usize::from(self.insert(slot, hash));
                    }
                }
            }
        }
        added
    }

    /// Ends the holding of one block. Returns whether the slot held it.
    pub fn remove(&mut self, slot: u16, hash: u64) -> bool {
        let Some(entry) = self.table.find(hash) else { return false };
        if !self.serves(slot) || !self.table.is_member(self.table.holders(entry), slot) {
            return false;
        }
        self.release(Held { entry, slot })
    }

    /// Ends every holding of a slot and forgets its capacity: the slot is as if never used.
    pub fn clear_slot(&mut self, slot: u16) {
        if !self.serves(slot) {
            return;
        }
        while self.release_oldest(slot) {}
        self.table.set_count(slot, 0, 0);
    }

    /// Clears every slot. Readers go on meanwhile.
    pub fn reset(&mut self) {
        for slot in 0..self.table.layout.slots {
            self.clear_slot(slot as u16);
        }
    }

    /// Blocks held by a slot.
    pub fn len(&self, slot: u16) -> usize {
        if self.serves(slot) { self.table.count(slot).0 as usize } else { 0 }
    }

    /// Holdings over all slots: a block counts once per holder.
    pub fn total(&self) -> u64 {
        self.held
    }

    /// Distinct blocks.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes in use: words of occupied entries and their share of the index, arena pages, and this
    /// writer's private state for them.
    pub fn bytes_in_use(&self) -> usize {
        let layout = &self.table.layout;
        let directory = self.blocks * (layout.arena_base - layout.index_base) * 8;
        directory / layout.entries + self.arena.bytes() + self.nodes.bytes()
    }

    /// The blocks of a slot, least recent first.
    pub fn iter(&self, slot: u16) -> impl Iterator<Item = u64> + '_ {
        let first = if self.serves(slot) { self.table.oldest_newest(slot).0 } else { NIL };
        let mut node = first;
        std::iter::from_fn(move || {
            let current = (node != NIL).then_some(node)?;
            node = self.table.links(current).1;
            Some(self.table.key(self.table.held(slot, current).entry))
        })
    }

    /// What was evicted, given up, refused and repaired.
    pub fn stats(&self) -> TableStats {
        self.stats
    }

    fn serves(&self, slot: u16) -> bool {
        usize::from(slot) < self.table.layout.slots
    }

    /// `node` of the slot's list, if it is that of `hash`.
    fn expected(&self, slot: u16, node: u32, hash: u64) -> Option<u32> {
        let is_it = node != NIL && self.table.key(self.table.held(slot, node).entry) == hash;
        is_it.then_some(node)
    }

    /// The node of a block that the slot holds.
    fn known(&self, slot: u16, hash: u64) -> Option<u32> {
        let entry = self.table.find(hash)?;
        if !self.table.is_member(self.table.holders(entry), slot) {
            return None;
        }
        self.node(Held { entry, slot })
    }

    /// Makes a node the slot's newest; answers which one followed it until now.
    fn make_newest(&mut self, slot: u16, node: u32) -> u32 {
        let (_, newer) = self.table.links(node);
        if newer != NIL {
            self.table.unlink(slot, node);
            self.table.append(slot, node);
        }
        newer
    }

    /// Adds a block that the slot does not hold. Whether it does now.
    fn insert(&mut self, slot: u16, hash: u64) -> bool {
        let (mut held, mut capacity) = self.table.count(slot);
        if capacity == 0 {
            capacity = self.table.default_capacity();
            self.table.set_count(slot, held, capacity);
        }
        while held >= capacity && self.release_oldest(slot) {
            self.stats.evicted += 1;
            held = self.table.count(slot).0;
        }
        for round in 0..ROUNDS {
            match self.try_insert(slot, hash) {
                Ok(true) => {
                    let held = self.table.count(slot).0;
                    self.table.set_count(slot, held + 1, capacity);
                    self.held += 1;
                    return true;
                }
                Ok(false) => break,
                Err(scarce) => self.make_room(scarce, round),
            }
        }
        self.stats.refused += 1;
        false
    }

    /// `Ok(false)`: the hash's buckets are all full, and no eviction elsewhere would change that.
    fn try_insert(&mut self, slot: u16, hash: u64) -> Result<bool, Scarce> {
        let Some(entry) = self.table.find(hash) else {
            let entry = self.entries.next(&self.table).ok_or(Scarce::Entries)?;
            let version = self.table.holders(entry).version();
            if !self.table.occupy(entry, hash, Holders::single(slot, version)) {
                return Ok(false);
            }
            self.entries.take(&self.table);
            self.table.append(slot, entry as u32);
            self.blocks += 1;
            return Ok(true);
        };
        let unit = self.arena.allocate(Cell::Node).ok_or(Scarce::Cells)?;
        if let Err(Full) = self.table.add_member(&mut self.arena, entry, slot) {
            self.arena.free(Cell::Node, unit);
            return Err(Scarce::Cells);
        }
        let held = Held { entry, slot };
        self.table.set_held(unit, held);
        self.table.append(slot, unit | ARENA);
        self.nodes.insert(held, unit);
        Ok(true)
    }

    fn node(&self, held: Held) -> Option<u32> {
        if self.table.holders(held.entry).owner() == Some(held.slot) {
            return Some(held.entry as u32);
        }
        self.nodes.find(&self.table, held).map(|unit| unit | ARENA)
    }

    /// The endpoint that holds most (the lowest slot of equals) gives up its oldest blocks. If that
    /// was not enough, they are given up by all who hold them, which frees entries; or a page of
    /// recency nodes is emptied, which frees room for a cell of any size.
    fn make_room(&mut self, scarce: Scarce, round: usize) {
        let before = self.held;
        if round > 0 && scarce == Scarce::Cells {
            for unit in self.arena.next_node_page() {
                self.release(self.table.held(0, unit | ARENA));
            }
        } else {
            let slots = 0..self.table.layout.slots as u16;
            let fullest = slots.rev().max_by_key(|&slot| self.table.count(slot).0).unwrap_or(0);
            for _ in 0..self.table.count(fullest).0.div_ceil(SHARE) {
                let (oldest, _) = self.table.oldest_newest(fullest);
                if oldest == NIL {
                    break;
                }
                let entry = self.table.held(fullest, oldest).entry;
                self.release(Held { entry, slot: fullest });
                while round > 0
                    && let Some(slot) = self.table.any_member(self.table.holders(entry))
                    && self.release(Held { entry, slot })
                {}
            }
        }
        self.stats.given_up += before - self.held;
    }

    fn release_oldest(&mut self, slot: u16) -> bool {
        let (oldest, _) = self.table.oldest_newest(slot);
        if oldest == NIL {
            return false;
        }
        self.release(self.table.held(slot, oldest))
    }

    /// Ends one holding: first for readers, then in the recency list, then in private state.
    /// Returns whether there was such a holding.
    pub(super) fn release(&mut self, held: Held) -> bool {
        let Held { entry, slot } = held;
        let unit = match self.table.holders(entry).owner() {
            Some(owner) if owner == slot => None,
            _ => match self.nodes.remove(&self.table, held) {
                Some(unit) => Some(unit),
                None => return false,
            },
        };
        self.table.remove_member(&mut self.arena, entry, slot);
        self.table.unlink(slot, unit.map_or(entry as u32, |unit| unit | ARENA));
        match unit {
            Some(unit) => self.arena.free(Cell::Node, unit),
            None => self.inherit(entry),
        }
        if self.table.holders(entry).is_free() {
            self.table.vacate(entry);
            self.entries.free(&self.table, entry);
            self.blocks -= 1;
        }
        let (count, capacity) = self.table.count(slot);
        self.table.set_count(slot, count.saturating_sub(1), capacity);
        self.held -= 1;
        true
    }

    /// Gives the embedded links of an entry without owner to one of its holders, which frees that
    /// holder's node: a block with one holder never needs the arena.
    pub(super) fn inherit(&mut self, entry: usize) {
        let Some(slot) = self.table.any_member(self.table.holders(entry)) else { return };
        let Some(unit) = self.nodes.remove(&self.table, Held { entry, slot }) else { return };
        self.table.set_owner(entry, slot);
        self.table.replace(slot, unit | ARENA, entry as u32);
        self.arena.free(Cell::Node, unit);
    }
}

impl<M: WordsMut + Clone> TableWriter<M> {
    /// A reader of the same words.
    pub fn reader(&self) -> TableReader<M> {
        TableReader::over(self.table.clone())
    }
}

//! Holdings that the entry's own engine hash does not describe.
//!
//! An alias is a node of two words in the arena: an engine hash (mixed as in the entries), and the
//! entry, the slot and a count. If a slot has aliases at an entry, they are all there is between the
//! two: the entry's own hash then counts for it only through an alias of that hash. Found through
//! two private indices, by hash and by holder. A node that is free has a second word of zero.

use std::sync::atomic::Ordering::Release;

use super::super::arena::Cell;
use super::super::layout::Layout;
use super::super::membership::Full;
use super::super::memory::Table;
use super::cells::Cells;
use super::pages::{For, Pages};
use crate::words::{Words, WordsMut};

const ENTRY_BITS: u32 = 28;
const SLOT_BITS: u32 = 14;
const COUNT_SHIFT: u32 = ENTRY_BITS + SLOT_BITS;
/// Counts stay here once they get here.
const MAX_COUNT: u32 = (1 << (64 - COUNT_SHIFT)) - 1;
/// Engine hashes that one key may have with one holder.
const MAX_PER_HOLDER: usize = 256;

/// An engine hash of a holder of an entry, held `count` times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Alias {
    pub(super) engine: u64,
    pub(super) entry: usize,
    pub(super) slot: u16,
    pub(super) count: u32,
}

#[derive(Debug)]
pub(super) struct Aliases {
    by_engine: Cells,
    by_holder: Cells,
}

impl<M: Words> Table<M> {
    /// What a node says, `None` if it is free or names what there is not.
    pub(super) fn alias(&self, unit: u32) -> Option<Alias> {
        let at = self.layout.arena_word(unit);
        let word = self.load(at + 1);
        let alias = Alias {
            engine: self.load(at),
            entry: (word & ((1 << ENTRY_BITS) - 1)) as usize,
            slot: (word >> ENTRY_BITS) as u16 & ((1 << SLOT_BITS) - 1),
            count: (word >> COUNT_SHIFT) as u32,
        };
        let possible = alias.count > 0
            && alias.entry < self.layout.entries
            && usize::from(alias.slot) < self.layout.slots;
        possible.then_some(alias)
    }
}

impl Aliases {
    pub(super) fn new(layout: &Layout) -> Self {
        let cells = || Cells::new(64, layout.units(), layout.seed);
        Self { by_engine: cells(), by_holder: cells() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_holder.len() == 0
    }

    /// Whether the slot has any alias at the entry.
    pub(super) fn any<M: Words>(&self, table: &Table<M>, entry: usize, slot: u16) -> bool {
        self.of_holder(table, entry, slot, |_| true).is_some()
    }

    /// The slot's alias of this hash at the entry.
    pub(super) fn find<M: Words>(
        &self,
        table: &Table<M>,
        engine: u64,
        entry: usize,
        slot: u16,
    ) -> Option<(u32, Alias)> {
        self.of_holder(table, entry, slot, |alias| alias.engine == engine)
    }

    /// Visits the slot's aliases of this hash, at whatever entry.
    pub(super) fn for_each<M: Words>(
        &self,
        table: &Table<M>,
        engine: u64,
        slot: u16,
        mut visit: impl FnMut(u32, Alias),
    ) {
        self.by_engine.find(engine, |unit| {
            if let Some(alias) = table.alias(unit)
                && alias.engine == engine
                && alias.slot == slot
            {
                visit(unit, alias);
            }
            false
        });
    }

    pub(super) fn add<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        pages: &mut Pages,
        alias: Alias,
    ) -> Result<(), Full> {
        let mut others = 0;
        self.of_holder(table, alias.entry, alias.slot, |_| {
            others += 1;
            false
        });
        if others >= MAX_PER_HOLDER {
            return Err(Full);
        }
        let unit = pages.allocate(table, Cell::Node, For::Adding).ok_or(Full)?;
        table.store(table.layout.arena_word(unit), alias.engine);
        table.set_alias(unit, alias);
        if self.enter(table, alias, unit) {
            return Ok(());
        }
        table.free_alias(unit);
        pages.free(Cell::Node, unit);
        Err(Full)
    }

    /// Adds a node found by recovery to the indices.
    pub(super) fn enter<M: Words>(&mut self, table: &Table<M>, alias: Alias, unit: u32) -> bool {
        if self.by_holder.is_full() {
            let engine = |unit| table.alias(unit).map_or(0, |alias| alias.engine);
            let holder =
                |unit| table.alias(unit).map_or(0, |alias| holder(alias.entry, alias.slot));
            self.by_engine = self.by_engine.grown(engine);
            self.by_holder = self.by_holder.grown(holder);
        }
        let key = holder(alias.entry, alias.slot);
        if !self.by_engine.insert(alias.engine, unit) {
            return false;
        }
        if !self.by_holder.insert(key, unit) {
            self.by_engine.remove(alias.engine, unit);
            return false;
        }
        true
    }

    /// Ends all aliases of the slot at the entry.
    pub(super) fn remove_all<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        pages: &mut Pages,
        entry: usize,
        slot: u16,
    ) {
        while let Some((unit, alias)) = self.of_holder(table, entry, slot, |_| true) {
            table.free_alias(unit);
            self.by_engine.remove(alias.engine, unit);
            self.by_holder.remove(holder(entry, slot), unit);
            pages.free(Cell::Node, unit);
        }
    }

    /// Private bytes for the aliases that there are.
    pub(super) fn bytes(&self) -> usize {
        self.by_engine.bytes() + self.by_holder.bytes()
    }

    /// The first of the slot's aliases at the entry that `is` accepts.
    pub(super) fn of_holder<M: Words>(
        &self,
        table: &Table<M>,
        entry: usize,
        slot: u16,
        mut is: impl FnMut(Alias) -> bool,
    ) -> Option<(u32, Alias)> {
        let mut found = None;
        self.by_holder.find(holder(entry, slot), |unit| {
            let alias = table.alias(unit);
            let alias = alias.filter(|alias| alias.entry == entry && alias.slot == slot);
            found = alias.filter(|&alias| is(alias)).map(|alias| (unit, alias));
            found.is_some()
        });
        found
    }
}

impl<M: WordsMut> Table<M> {
    /// Publishes a node, or another count of it, by a single store.
    pub(super) fn set_alias(&self, unit: u32, alias: Alias) {
        let count = u64::from(alias.count.min(MAX_COUNT));
        let word = count << COUNT_SHIFT | u64::from(alias.slot) << ENTRY_BITS | alias.entry as u64;
        self.words.store(self.layout.arena_word(unit) + 1, word, Release);
    }

    pub(super) fn free_alias(&self, unit: u32) {
        self.words.store(self.layout.arena_word(unit) + 1, 0, Release);
    }
}

fn holder(entry: usize, slot: u16) -> u64 {
    (entry as u64) << SLOT_BITS | u64::from(slot)
}

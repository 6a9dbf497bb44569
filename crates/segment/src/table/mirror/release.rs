//! How the writer lets a holding go, and what was given up comes back.

use super::super::holders::Holders;
use super::aliases::Alias;
use super::cells::Place;
use super::content::{Change, NoSet};
use super::spec::Slot;
use super::word::{FREE, Word};
use super::writer::MirrorWriter;
use crate::words::WordsMut;

/// Entries given up before the epoch moves of itself: more than are during a lookup, few beside a
/// table.
const YOUNG: usize = 4_096;
/// The share of the arena that may be given up before that.
const YOUNG_SHARE: usize = 32;

/// Entries to look ahead when a chain is released block by block.
const AHEAD: usize = 6;

/// A pair of a slot: an entry, and the alias that stands for it if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) entry: usize,
    pub(super) alias: Option<(u32, Alias)>,
}

impl<M: WordsMut> MirrorWriter<M> {
    /// The entry beside the one released last, if it is certain to be all that this hash means.
    #[inline]
    pub(super) fn neighbour(&mut self, slot: u16, tier: u8, engine: u64) -> Option<usize> {
        if !self.aliases.is_empty() {
            return None;
        }
        [self.last.wrapping_sub(1), self.last + 1].into_iter().find(|&entry| {
            if entry >= self.table.layout.entries || self.table.engine(entry) != engine {
                return false;
            }
            let holders = self.table.holders(entry);
            !holders.is_twin()
                && holders.tier() == tier
                && self.sets.times(&self.table, holders.set(), slot) > 0
        })
    }

    /// The slot's pairs with this (mixed) hash.
    pub(super) fn for_each_pair(
        &self,
        slot: u16,
        tier: u8,
        engine: u64,
        mut visit: impl FnMut(Pair),
    ) {
        self.engines.find(engine, |entry| {
            let entry = entry as usize;
            let holders = self.table.holders(entry);
            if self.table.engine(entry) == engine
                && holders.tier() == tier
                && self.table.is_member(holders.set(), slot)
                && !(holders.is_aliased() && self.aliases.any(&self.table, entry, slot))
            {
                visit(Pair { entry, alias: None });
            }
            false
        });
        self.aliases.for_each(&self.table, engine, slot, |unit, alias| {
            if self.table.holders(alias.entry).tier() == tier {
                visit(Pair { entry: alias.entry, alias: Some((unit, alias)) });
            }
        });
    }

    /// One count less of a holding that the entry's own hash describes. Whether that ended it.
    pub(super) fn take(&mut self, entry: usize, slot: u16) -> bool {
        let holders = self.table.holders(entry);
        if self.sets.times(&self.table, holders.set(), slot) < 2 {
            self.end(entry, slot);
            return true;
        }
        match self.changed(holders.set(), Change::Take(slot)) {
            Ok(to) => self.set_members(entry, holders, to),
            Err(_) if self.sets.take_in_place(&self.table, holders.set(), slot) => {}
            Err(_) => {
                // Without room for the smaller set: a count that stayed would claim too much later.
                self.end(entry, slot);
                self.stats.forgotten += 1;
                return true;
            }
        }
        self.last = entry;
        false
    }

    /// Ends the slot's holding of an entry: first for readers, then in private state.
    pub(super) fn end(&mut self, entry: usize, slot: u16) {
        let last = std::mem::replace(&mut self.last, entry);
        if last.abs_diff(entry) == 1 {
            // Probably the chain goes on as it came: what the next ones will need, on its way.
            self.approach(entry.wrapping_add(entry.wrapping_sub(last).wrapping_mul(AHEAD)));
        }
        let holders = self.table.holders(entry);
        let set = holders.set();
        if self.sets.times(&self.table, set, slot) == 0 {
            // Ended by another pair of the same key.
            return;
        }
        match self.changed(set, Change::Drop(slot)) {
            Ok(FREE) => {
                self.discard(entry);
                self.sets.moved(&self.table.layout, set, FREE, 1);
            }
            Ok(to) => self.set_members(entry, holders, to),
            Err(_) if self.sets.shrink_in_place(&self.table, set, slot) => {}
            Err(_) => {
                self.forget(entry);
                return;
            }
        }
        self.ended(entry, slot, holders);
        self.advance_if_due();
    }

    /// Has what freeing an entry takes on its way.
    #[inline]
    fn approach(&self, entry: usize) {
        let layout = &self.table.layout;
        if entry < layout.entries && self.table.holders(entry).lanes().count() < 2 {
            let bucket = layout.home(self.table.key(entry)).0;
            self.table.words.prefetch(layout.bucket_word(bucket));
            self.engines.touch(self.table.engine(entry));
        }
    }

    /// The set after a change, with everything that waits recycled if need be.
    #[inline]
    pub(super) fn changed(&mut self, set: Holders, change: Change) -> Result<Holders, NoSet> {
        match self.sets.changed(&self.table, &mut self.pages, set, change) {
            Err(NoSet::Full) if self.recycle() => {
                self.sets.changed(&self.table, &mut self.pages, set, change)
            }
            done => done,
        }
    }

    /// Publishes another set of an entry.
    #[inline]
    pub(super) fn set_members(&mut self, entry: usize, holders: Holders, to: Holders) {
        self.table.cut(entry, entry);
        self.table.set_holders(entry, holders.with_set(to));
        self.table.join(entry, entry);
        self.sets.moved(&self.table.layout, holders.set(), to, 1);
    }

    /// Publishes another set of entries that lie side by side and have this one.
    #[inline]
    pub(super) fn set_members_of(
        &mut self,
        first: usize,
        blocks: usize,
        set: Holders,
        to: Holders,
    ) {
        let last = first + blocks - 1;
        self.table.cut(first, last);
        for entry in first..=last {
            self.table.set_holders(entry, self.table.holders(entry).with_set(to));
        }
        self.table.join(first, last);
        self.sets.moved(&self.table.layout, set, to, blocks as u32);
    }

    /// Gives a block up for all of its holders: the set of those who are left has no room.
    #[cold]
    fn forget(&mut self, entry: usize) {
        let holders = self.table.holders(entry);
        let mut members = Vec::new();
        self.table.for_each_member(holders.set(), |slot| members.push(slot));
        members.dedup();
        self.discard(entry);
        self.sets.moved(&self.table.layout, holders.set(), FREE, 1);
        for slot in members {
            self.ended(entry, slot, holders);
            self.stats.forgotten += 1;
        }
    }

    /// What else ends with a holding.
    fn ended(&mut self, entry: usize, slot: u16, holders: Holders) {
        if holders.is_aliased() {
            self.aliases.remove_all(&self.table, &mut self.pages, entry, slot);
        }
        self.uncount(slot, holders.tier(), 1);
    }

    /// So many holdings less.
    pub(super) fn uncount(&mut self, slot: u16, tier: u8, ended: u32) {
        let is = self.table.slot(slot);
        self.table.set_slot(slot, Slot { held: is.held.saturating_sub(ended), ..is });
        let left = self.table.tier_count(tier).saturating_sub(u64::from(ended));
        self.table.set_tier_count(tier, left);
        self.settle_tier(tier);
        self.held -= u64::from(ended);
    }

    /// Frees an entry. It waits until no reader can be looking at it.
    fn discard(&mut self, entry: usize) {
        let home = self.table.layout.home(self.table.key(entry));
        let place = self.engines.touch(self.table.engine(entry));
        self.orphan(entry, entry);
        self.discard_at(entry, home, place);
    }

    /// Entries will be freed: nothing speaks of them any more, and the one behind them is nobody's
    /// child.
    #[inline]
    pub(super) fn orphan(&mut self, first: usize, last: usize) {
        self.table.cut(first, last);
        if last + 1 < self.table.layout.entries {
            let behind = self.table.holders(last + 1);
            if behind.is_child() {
                self.table.set_holders(last + 1, behind.child_if(false));
            }
        }
    }

    /// Frees an [orphaned](Self::orphan) entry whose key and engine hash are looked for here.
    #[inline]
    pub(super) fn discard_at(&mut self, entry: usize, home: (usize, u8), place: Place) {
        self.table.set_holders(entry, FREE);
        self.table.vacate_at(home.0, home.1, entry);
        self.engines.remove_at(place, self.table.engine(entry), entry as u32);
        self.table.bury(entry);
        self.free.retire(entry);
        self.blocks -= 1;
    }

    /// Makes everything that waits available. Whether there was anything.
    pub(super) fn recycle(&mut self) -> bool {
        if self.free.waiting() + self.sets.waiting() == 0 {
            return false;
        }
        self.advance();
        self.advance();
        true
    }

    /// Moves the epoch when enough has been given up.
    #[inline]
    pub(super) fn advance_if_due(&mut self) {
        let units = (self.table.layout.units() / YOUNG_SHARE).max(YOUNG_SHARE);
        if self.free.young() >= YOUNG || self.sets.young_units() >= units {
            self.advance();
        }
    }

    fn advance(&mut self) {
        self.table.advance();
        self.free.age();
        self.sets.age(&mut self.pages);
        self.stats.epochs += 1;
    }
}

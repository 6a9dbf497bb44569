//! How the writer takes a pair in.

use super::super::ahead::UNKNOWN;
use super::super::holders::Holders;
use super::super::membership::Full;
use super::aliases::Alias;
use super::content::{Change, NoSet};
use super::word::Word;
use super::writer::{MirrorWriter, engine_word};
use crate::words::WordsMut;

/// A pair on its way in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    pub(super) slot: u16,
    pub(super) tier: u8,
    /// The engine's hash as it came, and as it is stored.
    pub(super) hash: u64,
    pub(super) engine: u64,
    /// As it is stored.
    pub(super) key: u64,
    /// Whether it is the child of the block before.
    pub(super) child: bool,
}

impl<M: WordsMut> MirrorWriter<M> {
    /// One pair. Which entry has it now, and whether the slot did not hold the key before.
    #[inline]
    pub(super) fn store(
        &mut self,
        pair: Stored,
        hint: u32,
        previous: u32,
    ) -> Result<(usize, bool), Full> {
        let known = match hint {
            UNKNOWN => self.table.find(pair.key),
            hint => Some(hint as usize)
                .filter(|&entry| self.table.key(entry) == pair.key && self.is_used(entry))
                .or_else(|| self.table.find(pair.key)),
        };
        let Some(entry) = known else {
            return self.open(pair, previous).map(|entry| (entry, true));
        };
        let holders = self.table.holders(entry);
        // Another key of another tier, chosen to be this one when mixed.
        if holders.tier() != pair.tier {
            return Err(Full);
        }
        let set = holders.set();
        let new = self.sets.times(&self.table, set, pair.slot) == 0;
        let own = self.table.engine(entry) == pair.engine;
        // Where nobody has aliases, whoever is in the set is in it under the entry's own hash.
        if !own || (!new && holders.is_aliased()) {
            return self.store_alias(pair, entry, new).map(|()| (entry, new));
        }
        self.add(entry, pair.slot)?;
        Ok((entry, new))
    }

    fn is_used(&self, entry: usize) -> bool {
        !self.table.holders(entry).is_free()
    }

    /// The slot is in the entry's set once more.
    #[inline]
    fn add(&mut self, entry: usize, slot: u16) -> Result<(), Full> {
        let holders = self.table.holders(entry);
        match self.changed(holders.set(), Change::Add(slot)) {
            Ok(to) => {
                self.set_members(entry, holders, to);
                self.regions.add(slot, entry);
                Ok(())
            }
            Err(NoSet::Full) => Err(Full),
            Err(NoSet::Crowded) => self.spill(entry, slot),
        }
    }

    /// A block that nobody held.
    fn open(&mut self, pair: Stored, previous: u32) -> Result<usize, Full> {
        let Stored { slot, tier, engine, key, .. } = pair;
        let entry = match self.free.next(previous) {
            Some(entry) => entry,
            None if self.recycle() => self.free.next(previous).ok_or(Full)?,
            None => return Err(Full),
        };
        let twin = self.engines.find(engine, |other| self.table.engine(other as usize) == engine);
        if !self.engines.insert(engine, entry as u32) {
            return Err(Full);
        }
        let child = pair.child && entry == (previous as usize).wrapping_add(1);
        let mut holders = Holders::single(slot, 0).in_tier(tier).child_if(child);
        if let Some(twin) = twin {
            holders = holders.twin();
            let twin = twin as usize;
            self.table.set_holders(twin, self.table.holders(twin).twin());
        }
        self.table.set_engine(entry, engine);
        if !self.table.occupy(entry, key, holders) {
            self.engines.remove(engine, entry as u32);
            return Err(Full);
        }
        self.table.join(entry, entry);
        self.free.take(entry);
        self.regions.add(slot, entry);
        self.blocks += 1;
        Ok(entry)
    }

    /// A pair that the entry's own hash does not describe, or of a slot that has aliases here.
    #[cold]
    fn store_alias(&mut self, pair: Stored, entry: usize, new: bool) -> Result<(), Full> {
        let Stored { slot, tier, hash, engine, .. } = pair;
        let holders = self.table.holders(entry);
        if new {
            self.alias(Alias { engine, entry, slot, count: 1 })?;
            let added = self.add(entry, slot);
            if added.is_err() {
                self.aliases.remove_all(&self.table, &mut self.pages, entry, slot);
            }
            return added;
        }
        let own = self.table.engine(entry);
        let implicit = !(holders.is_aliased() && self.aliases.any(&self.table, entry, slot));
        // The same hash, whichever of its keys this one was when it came before.
        for ordinal in 0..=self.table.slot(slot).fan {
            let same = engine_word(hash, tier, ordinal);
            if implicit && own == same {
                return self.add(entry, slot);
            }
            if let Some((unit, alias)) = self.aliases.find(&self.table, same, entry, slot) {
                let count = alias.count.saturating_add(1);
                self.table.set_alias(unit, Alias { count, ..alias });
                return Ok(());
            }
        }
        if implicit {
            let count = self.sets.times(&self.table, holders.set(), slot);
            self.alias(Alias { engine: own, entry, slot, count })?;
        }
        self.alias(Alias { engine, entry, slot, count: 1 })
    }

    /// Adds a slot to a set that is too large to have slots in it more than once: their counts
    /// become aliases first.
    #[cold]
    fn spill(&mut self, entry: usize, slot: u16) -> Result<(), Full> {
        let engine = self.table.engine(entry);
        let set = self.table.holders(entry).set();
        let mut again = std::mem::take(&mut self.again);
        again.clear();
        self.table.for_each_again(set, |member| again.push(member));
        again.dedup();
        let spilled = again.iter().try_for_each(|&member| {
            if self.aliases.any(&self.table, entry, member) {
                return Ok(());
            }
            let count = self.sets.times(&self.table, set, member);
            self.alias(Alias { engine, entry, slot: member, count })
        });
        self.again = again;
        spilled?;
        let holders = self.table.holders(entry);
        let once = self.changed(set, Change::Once).map_err(|_| Full)?;
        self.set_members(entry, holders, once);
        if self.table.is_member(once, slot) {
            // In it already, and once is all that can be said there.
            let count = match self.aliases.find(&self.table, engine, entry, slot) {
                Some((unit, alias)) => {
                    let count = alias.count.saturating_add(1);
                    self.table.set_alias(unit, Alias { count, ..alias });
                    return Ok(());
                }
                None => 2,
            };
            return self.alias(Alias { engine, entry, slot, count });
        }
        let holders = self.table.holders(entry);
        let to = self.changed(once, Change::Add(slot)).map_err(|_| Full)?;
        self.set_members(entry, holders, to);
        self.regions.add(slot, entry);
        Ok(())
    }

    /// Adds an alias to an entry that says that it has some.
    fn alias(&mut self, alias: Alias) -> Result<(), Full> {
        let holders = self.table.holders(alias.entry);
        if !holders.is_aliased() {
            self.table.set_holders(alias.entry, holders.aliased());
        }
        match self.aliases.add(&self.table, &mut self.pages, alias) {
            Err(Full) if self.recycle() => self.aliases.add(&self.table, &mut self.pages, alias),
            done => done,
        }
    }
}

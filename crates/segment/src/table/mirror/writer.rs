//! The mirror's only writer.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::super::ahead::{GROUP, UNKNOWN};
use super::super::holders::Holders;
use super::super::layout::TableError;
use super::super::membership::Full;
use super::super::memory::Table;
use super::aliases::{Alias, Aliases};
use super::cells::Cells;
use super::free::Free;
use super::pages::Pages;
use super::reader::MirrorReader;
use super::recover;
use super::regions::Regions;
use super::sets::Sets;
use super::spec::{MAX_TIERS, MirrorSpec, Slot};
use super::word::{FREE, Word};
use crate::words::WordsMut;

/// Entries and records given up before the epoch moves of itself. Long beside what a lookup takes,
/// short beside a table.
const YOUNG: usize = 4_096;

/// Mixed into keys and engine hashes of a tier. The first tier costs nothing.
pub(super) const TIER_MIX: [u64; MAX_TIERS] = [
    0,
    0xe220_a839_7b1d_cdaf,
    0x6e78_9e6a_a1b9_65f4,
    0x06c4_5d18_8009_454f,
    0xf88b_b8a8_724c_81ec,
    0x1b39_896a_51a8_749b,
    0x53cb_9f0c_747e_a2ea,
    0x2c82_9abe_1f45_32e1,
];
/// Mixed into an engine hash once per key that it stands for before this one.
const ORDINAL_MIX: u64 = 0xd6e8_feb8_6659_fd93;

/// Writes a mirror. There is one per memory; the caller sees to that.
///
/// A *pair* is a block as an engine names it (its hash) and as requests name it (its key). A slot
/// holds a key in a tier from the first [`hold`](Self::hold) of a pair with that key until
/// some pair with that key is [released](Self::release) as often as it was held: a key that several
/// engine blocks make up is no longer held when one of them is gone.
///
/// Slots at or beyond [`MirrorSpec::slots`] and tiers at or beyond [`MAX_TIERS`] hold nothing: pairs
/// for them are refused.
#[derive(Debug)]
pub struct MirrorWriter<M> {
    pub(super) table: Table<M>,
    pub(super) free: Free,
    pub(super) pages: Pages,
    pub(super) sets: Sets,
    pub(super) aliases: Aliases,
    /// From the engine hashes of the entries to the entries.
    pub(super) engines: Cells,
    pub(super) regions: Regions,
    pub(super) blocks: usize,
    pub(super) held: u64,
    pub(super) stats: MirrorStats,
    /// Entry of what was asked for last: probably the parent of what is held next.
    parent: AtomicU32,
    /// Entry released last: a neighbour is probably next.
    last: usize,
    /// Pairs of one engine hash, reused.
    pairs: Vec<Pair>,
}

/// What a writer did since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MirrorStats {
    /// Pairs that found no room.
    pub refused: u64,
    /// Holdings given up because the arena had no room for what was left of a set of holders.
    pub forgotten: u64,
    /// Entries and aliases dropped on recovery because they did not validate.
    pub dropped: u64,
    /// Times the epoch has moved.
    pub epochs: u64,
}

/// A pair on its way in.
#[derive(Clone, Copy, Debug)]
struct Stored {
    slot: u16,
    tier: u8,
    /// The engine's hash as it came, and as it is stored.
    hash: u64,
    engine: u64,
    /// As it is stored.
    key: u64,
}

/// A pair of a slot: an entry, and the alias that stands for it if there is one.
#[derive(Clone, Copy, Debug)]
struct Pair {
    entry: usize,
    alias: Option<(u32, Alias)>,
}

impl<M: WordsMut> MirrorWriter<M> {
    /// Makes an empty mirror in `words`, which must all be zero (fresh anonymous memory, a new file).
    ///
    /// `seed` spreads keys and hashes; a random one keeps clients from choosing where blocks land.
    ///
    /// # Errors
    /// If a size is out of range or the memory too short.
    pub fn create(words: M, spec: &MirrorSpec, seed: u64) -> Result<Self, TableError> {
        Ok(Self::over(Table::create_mirror(words, spec, seed)?))
    }

    /// Takes over the mirror that a predecessor left in `words`, wherever it stopped.
    ///
    /// Everything is validated; what does not hold together is dropped and counted. A slot whose
    /// changes were not followed by [`set_position`](Self::set_position) has position 0. Time is
    /// linear in the size of the mirror and in the number of holdings.
    ///
    /// # Errors
    /// If there is no complete mirror in the memory.
    pub fn recover(words: M) -> Result<Self, TableError> {
        let mut writer = Self::over(Table::open_mirror(words)?);
        recover::rebuild(&mut writer);
        Ok(writer)
    }

    fn over(table: Table<M>) -> Self {
        let layout = table.layout;
        Self {
            table,
            free: Free::new(layout.entries),
            pages: Pages::new(&layout),
            sets: Sets::new(&layout),
            aliases: Aliases::new(&layout),
            engines: Cells::new(layout.entries, layout.entries, layout.seed),
            regions: Regions::new(layout.slots, layout.entries),
            blocks: 0,
            held: 0,
            stats: MirrorStats::default(),
            parent: AtomicU32::new(UNKNOWN),
            last: 0,
            pairs: Vec::new(),
        }
    }

    /// `slot` stores blocks in `tier` (0 = GPU): pairs of engine hash and key, parents first. A pair
    /// held already is counted once more. Where consecutive pairs have one engine hash, it stands
    /// for all of their keys, the last of which is the parent of what follows.
    ///
    /// At the budget nothing more is taken, and what follows a pair that was refused is refused as
    /// well, since nothing could reach it. Returns how many pairs were refused.
    pub fn hold(&mut self, slot: u16, tier: u8, engines: &[u64], keys: &[u64]) -> usize {
        let pairs = engines.len().min(keys.len());
        if !self.serves(slot) || usize::from(tier) >= MAX_TIERS {
            self.stats.refused += pairs as u64;
            return pairs;
        }
        if pairs == 0 {
            return 0;
        }
        self.table.set_dirty(slot);
        let before = self.use_tier(slot, tier);
        let (mut done, mut added) = (0, 0);
        let (mut previous, mut engine, mut ordinal) = (self.parent.swap(UNKNOWN, Relaxed), None, 0);
        'groups: for (engines, keys) in engines[..pairs].chunks(GROUP).zip(keys.chunks(GROUP)) {
            let stored = stored_keys(tier, &keys[..engines.len()]);
            let hints = self.table.locate(&stored[..engines.len()], previous);
            for (&hash, _) in engines.iter().zip(&hints).filter(|&(_, &hint)| hint == UNKNOWN) {
                self.engines.touch(engine_word(hash, tier, 0));
            }
            for ((&hash, &key), &hint) in engines.iter().zip(&stored).zip(&hints) {
                ordinal = if engine == Some(hash) { self.fan_out(slot, ordinal) } else { 0 };
                engine = Some(hash);
                let word = engine_word(hash, tier, ordinal);
                let pair = Stored { slot, tier, hash, engine: word, key };
                match self.store(pair, hint, previous) {
                    Ok((entry, new)) => {
                        previous = entry as u32;
                        added += u32::from(new);
                        done += 1;
                    }
                    Err(Full) => break 'groups,
                }
            }
        }
        if added > 0 {
            let held = self.table.slot(slot);
            self.table.set_slot(slot, Slot { held: before.held + added, ..held });
            self.table.set_tier_count(tier, self.table.tier_count(tier) + u64::from(added));
            self.held += u64::from(added);
        }
        self.settle_tier(tier);
        self.stats.refused += (pairs - done) as u64;
        pairs - done
    }

    /// One count of an engine hash less, for each key that belongs to it in this tier; a key whose
    /// pair is at zero is no longer held by the slot in the tier. Answers whether the hash went to
    /// zero: it was held, and no key belongs to it any more.
    pub fn release(&mut self, slot: u16, tier: u8, engine: u64) -> bool {
        if !self.serves(slot) || usize::from(tier) >= MAX_TIERS {
            return false;
        }
        let Slot { tiers, fan, .. } = self.table.slot(slot);
        if tiers >> tier & 1 == 0 {
            return false;
        }
        if fan == 0
            && let Some(entry) = self.neighbour(slot, tier, engine_word(engine, tier, 0))
        {
            self.table.set_dirty(slot);
            self.end(entry, slot);
            return true;
        }
        let mut pairs = std::mem::take(&mut self.pairs);
        for ordinal in 0..=fan {
            self.collect(slot, tier, engine_word(engine, tier, ordinal), &mut pairs);
        }
        let mut left = false;
        if !pairs.is_empty() {
            self.table.set_dirty(slot);
        }
        for &Pair { entry, alias } in &pairs {
            match alias {
                Some((unit, alias)) if alias.count > 1 => {
                    // Unless the key's holding has just been ended by another pair.
                    if self.table.alias(unit) == Some(alias) {
                        self.table.set_alias(unit, Alias { count: alias.count - 1, ..alias });
                        left = true;
                    }
                }
                _ => self.end(entry, slot),
            }
        }
        let released = !pairs.is_empty() && !left;
        pairs.clear();
        self.pairs = pairs;
        released
    }

    /// Adds to `out` the keys that belong to an engine hash of the slot, in any tier, in the order
    /// in which they were stored with it: the last is the parent of what follows.
    pub fn keys_of(&self, slot: u16, engine: u64, out: &mut Vec<u64>) {
        if !self.serves(slot) {
            return;
        }
        let Slot { tiers, fan, .. } = self.table.slot(slot);
        let first = out.len();
        for tier in (0..MAX_TIERS as u8).filter(|tier| tiers >> tier & 1 == 1) {
            for ordinal in 0..=fan {
                self.for_each_pair(slot, tier, engine_word(engine, tier, ordinal), |pair| {
                    let key = self.table.key(pair.entry) ^ TIER_MIX[usize::from(tier)];
                    if !out[first..].contains(&key) {
                        out.push(key);
                    }
                    self.parent.store(pair.entry as u32, Relaxed);
                });
            }
        }
    }

    /// Ends every holding of a slot, in all tiers. Its position stays.
    pub fn clear(&mut self, slot: u16) {
        if !self.serves(slot) {
            return;
        }
        self.table.set_dirty(slot);
        for entry in self.regions.entries(slot) {
            if self.table.slot(slot).held == 0 {
                break;
            }
            if self.holds(entry, slot) {
                self.end(entry, slot);
            }
        }
        self.regions.clear(slot);
        self.table.set_slot(slot, Slot { held: 0, tiers: 0, fan: 0 });
    }

    /// Clears every slot and forgets all positions. Readers go on meanwhile.
    pub fn reset(&mut self) {
        for slot in 0..self.table.layout.slots as u16 {
            self.clear(slot);
            self.table.set_position(slot, 0);
        }
    }

    /// The next sequence number expected of the slot's publisher, 0 if unknown.
    pub fn position(&self, slot: u16) -> u64 {
        if self.serves(slot) { self.table.position(slot) } else { 0 }
    }

    /// Says that everything before `next` (below 2⁶³) has been applied. To be called after each
    /// message: a successor does not trust a position that changes have followed.
    pub fn set_position(&mut self, slot: u16, next: u64) {
        if self.serves(slot) {
            self.table.set_position(slot, next);
        }
    }

    /// Keys held by a slot; a key in two tiers counts twice.
    pub fn len(&self, slot: u16) -> usize {
        if self.serves(slot) { self.table.slot(slot).held as usize } else { 0 }
    }

    /// Whether nobody holds anything.
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Holdings over all slots: a block counts once per holder.
    pub fn total(&self) -> u64 {
        self.held
    }

    /// Distinct blocks; a key in two tiers is two.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Bytes in use: words of occupied entries and their share of the indices, arena pages, and the
    /// writer's private state for them.
    pub fn bytes_in_use(&self) -> usize {
        let layout = &self.table.layout;
        let directory = self.blocks * (layout.arena_base - layout.index_base) * 8;
        directory / layout.entries
            + self.engines.bytes()
            + self.pages.bytes()
            + self.sets.bytes()
            + self.aliases.bytes()
    }

    /// The keys that a slot holds and their tiers, in no particular order. Looks at the parts of the
    /// mirror where the slot may hold something.
    pub fn iter(&self, slot: u16) -> impl Iterator<Item = (u8, u64)> + '_ {
        let entries = self.serves(slot).then(|| self.regions.entries(slot));
        entries.into_iter().flatten().filter(move |&entry| self.holds(entry, slot)).map(|entry| {
            let tier = self.table.holders(entry).tier();
            (tier, self.table.key(entry) ^ TIER_MIX[usize::from(tier)])
        })
    }

    /// What was refused, given up and repaired.
    pub fn stats(&self) -> MirrorStats {
        self.stats
    }

    fn serves(&self, slot: u16) -> bool {
        usize::from(slot) < self.table.layout.slots
    }

    fn holds(&self, entry: usize, slot: u16) -> bool {
        self.table.is_member(self.table.holders(entry).set(), slot)
    }

    /// Notes that the slot uses the tier, before it does.
    fn use_tier(&self, slot: u16, tier: u8) -> Slot {
        let is = self.table.slot(slot);
        if is.tiers >> tier & 1 == 0 {
            self.table.set_slot(slot, Slot { tiers: is.tiers | 1 << tier, ..is });
        }
        let tiers = self.table.tiers();
        if tiers >> tier & 1 == 0 {
            self.table.set_tiers(tiers | 1 << tier);
        }
        is
    }

    /// Notes that nobody uses the tier any more, if so.
    fn settle_tier(&self, tier: u8) {
        if self.table.tier_count(tier) == 0 {
            self.table.set_tiers(self.table.tiers() & !(1 << tier));
        }
    }

    /// The next key of an engine hash that has some already.
    fn fan_out(&self, slot: u16, ordinal: u8) -> u8 {
        let is = self.table.slot(slot);
        let next = ordinal.saturating_add(1);
        if next > is.fan {
            self.table.set_slot(slot, Slot { fan: next, ..is });
        }
        next
    }

    /// One pair. Which entry has it now, and whether the slot did not hold the key before.
    #[inline]
    fn store(&mut self, pair: Stored, hint: u32, previous: u32) -> Result<(usize, bool), Full> {
        let Stored { slot, tier, engine, key, .. } = pair;
        let known = match hint {
            UNKNOWN => self.table.find(key),
            hint => Some(hint as usize)
                .filter(|&entry| self.table.key(entry) == key && self.is_used(entry))
                .or_else(|| self.table.find(key)),
        };
        let Some(entry) = known else {
            return self.open(pair, previous).map(|entry| (entry, true));
        };
        let holders = self.table.holders(entry);
        // Another key of another tier, chosen to be this one when mixed.
        if holders.tier() != tier {
            return Err(Full);
        }
        let set = holders.set();
        let to = match self.sets.with(&self.table, &mut self.pages, set, slot) {
            Err(Full) if self.recycle() => self.sets.with(&self.table, &mut self.pages, set, slot),
            done => done,
        }?;
        if to == set {
            self.count(pair, entry)?;
            return Ok((entry, false));
        }
        let mut word = holders;
        if self.table.engine(entry) != engine {
            word = word.aliased();
            self.table.set_holders(entry, word);
            if let Err(Full) = self.alias(Alias { engine, entry, slot, count: 1 }) {
                self.sets.discard(to);
                return Err(Full);
            }
        }
        self.table.set_holders(entry, word.with_set(to));
        self.sets.moved(set, to);
        self.regions.add(slot, entry);
        Ok((entry, true))
    }

    fn is_used(&self, entry: usize) -> bool {
        !self.table.holders(entry).is_free()
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
        let mut holders = Holders::single(slot, 0).in_tier(tier);
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
        self.free.take(entry);
        self.regions.add(slot, entry);
        self.blocks += 1;
        Ok(entry)
    }

    /// One more pair of a key that the slot holds.
    #[cold]
    fn count(&mut self, pair: Stored, entry: usize) -> Result<(), Full> {
        let Stored { slot, tier, hash, engine, .. } = pair;
        let holders = self.table.holders(entry);
        if !holders.is_aliased() {
            self.table.set_holders(entry, holders.aliased());
        }
        let own = self.table.engine(entry);
        let implicit = !self.aliases.any(&self.table, entry, slot);
        // The same hash, whichever of its keys this one was when it came before.
        for ordinal in 0..=self.table.slot(slot).fan {
            let same = engine_word(hash, tier, ordinal);
            if let Some((unit, alias)) = self.aliases.find(&self.table, same, entry, slot) {
                let count = alias.count.saturating_add(1);
                self.table.set_alias(unit, Alias { count, ..alias });
                return Ok(());
            }
            if implicit && own == same {
                return self.alias(Alias { engine: own, entry, slot, count: 2 });
            }
        }
        if implicit {
            self.alias(Alias { engine: own, entry, slot, count: 1 })?;
        }
        self.alias(Alias { engine, entry, slot, count: 1 })
    }

    fn alias(&mut self, alias: Alias) -> Result<(), Full> {
        match self.aliases.add(&self.table, &mut self.pages, alias) {
            Err(Full) if self.recycle() => self.aliases.add(&self.table, &mut self.pages, alias),
            done => done,
        }
    }

    /// The entry beside the one released last, if it is certain to be all that this hash means.
    #[inline]
    fn neighbour(&self, slot: u16, tier: u8, engine: u64) -> Option<usize> {
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
                && self.table.is_member(holders.set(), slot)
        })
    }

    fn collect(&self, slot: u16, tier: u8, engine: u64, pairs: &mut Vec<Pair>) {
        self.for_each_pair(slot, tier, engine, |pair| pairs.push(pair));
    }

    /// The slot's pairs with this (mixed) hash.
    fn for_each_pair(&self, slot: u16, tier: u8, engine: u64, mut visit: impl FnMut(Pair)) {
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

    /// Ends the slot's holding of an entry: first for readers, then in private state.
    pub(super) fn end(&mut self, entry: usize, slot: u16) {
        self.last = entry;
        let holders = self.table.holders(entry);
        let set = holders.set();
        if !self.table.is_member(set, slot) {
            // Ended by another pair of the same key.
            return;
        }
        let to = match self.sets.without(&self.table, &mut self.pages, set, slot) {
            Err(Full) if self.recycle() => {
                self.sets.without(&self.table, &mut self.pages, set, slot)
            }
            done => done,
        };
        match to {
            Ok(FREE) => {
                self.discard(entry);
                self.sets.moved(set, FREE);
            }
            Ok(to) => {
                self.table.set_holders(entry, holders.with_set(to));
                self.sets.moved(set, to);
            }
            Err(Full) if self.sets.shrink_in_place(&self.table, set, slot) => {}
            Err(Full) => {
                self.forget(entry);
                return;
            }
        }
        self.ended(entry, slot, holders);
        if self.free.young() + self.sets.young() >= YOUNG {
            self.advance();
        }
    }

    /// Gives a block up for all of its holders: the set of those who are left has no room.
    #[cold]
    fn forget(&mut self, entry: usize) {
        let holders = self.table.holders(entry);
        let mut members = Vec::new();
        self.table.for_each_member(holders.set(), |slot| members.push(slot));
        self.discard(entry);
        self.sets.moved(holders.set(), FREE);
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
        let is = self.table.slot(slot);
        self.table.set_slot(slot, Slot { held: is.held.saturating_sub(1), ..is });
        let tier = holders.tier();
        self.table.set_tier_count(tier, self.table.tier_count(tier).saturating_sub(1));
        self.settle_tier(tier);
        self.held -= 1;
    }

    /// Frees an entry. It waits until no reader can be looking at it.
    fn discard(&mut self, entry: usize) {
        self.table.set_holders(entry, FREE);
        self.table.vacate(entry);
        self.engines.remove(self.table.engine(entry), entry as u32);
        self.free.retire(entry);
        self.blocks -= 1;
    }

    /// Makes everything that waits available. Whether there was anything.
    fn recycle(&mut self) -> bool {
        if self.free.waiting() + self.sets.waiting() == 0 {
            return false;
        }
        self.advance();
        self.advance();
        true
    }

    fn advance(&mut self) {
        self.table.advance();
        self.free.age();
        self.sets.age(&mut self.pages);
        self.stats.epochs += 1;
    }
}

impl<M: WordsMut + Clone> MirrorWriter<M> {
    /// A reader of the same words.
    pub fn reader(&self) -> MirrorReader<M> {
        MirrorReader::over(self.table.clone())
    }
}

/// An engine hash as it is stored: different for each tier, and for each of its keys.
fn engine_word(engine: u64, tier: u8, ordinal: u8) -> u64 {
    engine ^ TIER_MIX[usize::from(tier)] ^ ORDINAL_MIX.wrapping_mul(u64::from(ordinal))
}

/// Keys as they are stored.
fn stored_keys(tier: u8, keys: &[u64]) -> [u64; GROUP] {
    let mut stored = [0; GROUP];
    for (stored, &key) in stored.iter_mut().zip(keys) {
        *stored = key ^ TIER_MIX[usize::from(tier)];
    }
    stored
}

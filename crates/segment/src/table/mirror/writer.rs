//! The mirror's only writer.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use super::super::ahead::UNKNOWN;
use super::super::layout::TableError;
use super::super::memory::Table;
use super::aliases::{Alias, Aliases};
use super::cells::Cells;
use super::free::Free;
use super::pages::Pages;
use super::reader::MirrorReader;
use super::recover;
use super::regions::Regions;
use super::release::Pair;
use super::sets::Sets;
use super::spec::{MAX_TIERS, MirrorSpec, Slot};
use super::word::Word;
use crate::words::WordsMut;

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
    pub(super) parent: AtomicU32,
    /// Entry released last: a neighbour is probably next.
    pub(super) last: usize,
    /// Pairs of one engine hash, reused.
    pairs: Vec<Pair>,
    /// Slots that are in a set again, reused.
    pub(super) again: Vec<u16>,
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
            again: Vec::new(),
        }
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
            return self.take(entry, slot);
        }
        let mut pairs = std::mem::take(&mut self.pairs);
        for ordinal in 0..=fan {
            let word = engine_word(engine, tier, ordinal);
            self.for_each_pair(slot, tier, word, |pair| pairs.push(pair));
        }
        let mut left = false;
        if !pairs.is_empty() {
            self.table.set_dirty(slot);
        }
        for &Pair { entry, alias } in &pairs {
            left |= match alias {
                Some((unit, alias)) if alias.count > 1 => {
                    // Unless the key's holding has just been ended by another pair.
                    let is = self.table.alias(unit) == Some(alias);
                    if is {
                        self.table.set_alias(unit, Alias { count: alias.count - 1, ..alias });
                    }
                    is
                }
                Some(_) => {
                    self.end(entry, slot);
                    false
                }
                None => !self.take(entry, slot),
            };
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
        let clears = self.table.slot(slot).clears.wrapping_add(1);
        self.table.set_slot(slot, Slot { held: 0, tiers: 0, fan: 0, clears });
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

    pub(super) fn serves(&self, slot: u16) -> bool {
        usize::from(slot) < self.table.layout.slots
    }

    pub(super) fn holds(&self, entry: usize, slot: u16) -> bool {
        self.table.is_member(self.table.holders(entry).set(), slot)
    }

    /// Notes that the slot uses the tier, before it does.
    pub(super) fn use_tier(&self, slot: u16, tier: u8) -> Slot {
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
    pub(super) fn settle_tier(&self, tier: u8) {
        if self.table.tier_count(tier) == 0 {
            self.table.set_tiers(self.table.tiers() & !(1 << tier));
        }
    }
}

impl<M: WordsMut + Clone> MirrorWriter<M> {
    /// A reader of the same words.
    pub fn reader(&self) -> MirrorReader<M> {
        MirrorReader::over(self.table.clone())
    }
}

/// An engine hash as it is stored: different for each tier, and for each of its keys.
pub(super) fn engine_word(engine: u64, tier: u8, ordinal: u8) -> u64 {
    engine ^ TIER_MIX[usize::from(tier)] ^ ORDINAL_MIX.wrapping_mul(u64::from(ordinal))
}

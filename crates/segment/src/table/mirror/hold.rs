//! How the writer takes in what an event stores: run by run.
//!
//! Most of what is stored is one of two things. A prefix that others hold already: its entries lie
//! side by side behind each other and have one set of holders, so what becomes of the set is looked
//! up once, and each block costs a comparison and a store. Or blocks that nobody has: for a group of
//! them everything that an insertion needs is asked for before the first one is made. Whatever
//! else there is goes pair by pair ([`store`](super::store)).

use std::sync::atomic::Ordering::Relaxed;

use super::super::ahead::{GROUP, UNKNOWN};
use super::super::holders::Holders;
use super::super::membership::Full;
use super::cells::Place;
use super::content::Change;
use super::spec::{MAX_TIERS, Slot};
use super::store::Stored;
use super::word::{Flags, SEEN, Word};
use super::writer::{MirrorWriter, TIER_MIX, engine_word};
use crate::words::WordsMut;

/// Pairs that a slot stores in a tier.
#[derive(Clone, Copy)]
struct Pairs<'a> {
    slot: u16,
    tier: u8,
    engines: &'a [u64],
    keys: &'a [u64],
    /// Whether each key is the one before it, or the next one of its chain.
    chained: bool,
}

/// How far a call is.
struct Progress {
    done: usize,
    /// Keys that the slot did not hold.
    added: u32,
    /// Entry of the pair before, probably the parent.
    previous: u32,
    /// Whether it is the parent for certain.
    certain: bool,
    /// How many keys the engine hash of the pair before has had, less one.
    ordinal: u8,
    /// Whether the pair before was not where the one before that led.
    jumped: bool,
}

/// Pairs for which everything is on its way while those before them are taken in.
const AHEAD: usize = GROUP;

/// Where the next pairs will be looked for, each at its number modulo [`AHEAD`].
struct Ahead {
    /// The first pair that is not asked for yet.
    end: usize,
    homes: [(u32, u8); AHEAD],
    places: [Place; AHEAD],
    /// Where pairs from this one on probably are, if what came before was scattered.
    hinted: usize,
    hints: [u32; GROUP],
}

impl Pairs<'_> {
    fn key(&self, at: usize) -> u64 {
        self.keys[at] ^ TIER_MIX[usize::from(self.tier)]
    }

    /// The hash of a pair that is the first of its engine hash.
    fn engine(&self, at: usize) -> u64 {
        engine_word(self.engines[at], self.tier, 0)
    }

    /// Whether the pair has the engine hash of the one before.
    fn repeats(&self, at: usize) -> bool {
        at > 0 && self.engines[at] == self.engines[at - 1]
    }
}

impl<M: WordsMut> MirrorWriter<M> {
    /// `slot` stores blocks in `tier` (0 = GPU): pairs of engine hash and key, parents first. A pair
    /// held already is counted once more. Where consecutive pairs have one engine hash, it stands
    /// for all of their keys, the last of which is the parent of what follows.
    ///
    /// At the budget nothing more is taken, and what follows a pair that was refused is refused as
    /// well, since nothing could reach it. Returns how many pairs were refused.
    pub fn hold(&mut self, slot: u16, tier: u8, engines: &[u64], keys: &[u64]) -> usize {
        let previous = self.parent.swap(UNKNOWN, Relaxed);
        self.hold_after((previous, false), false, slot, tier, engines, keys)
    }

    /// [`hold`](Self::hold) of consecutive blocks of a chain: each key is that of the pair before, or
    /// the next one of its chain; the first one follows `parent`, or nothing.
    ///
    /// What readers gain is that they pass over blocks that were stored like this, where the blocks
    /// have the same holders, without looking at each of them. What it takes is that keys are
    /// chained, here and in the prompts that are looked up: a key follows one other key, whatever
    /// prompt it is in.
    pub fn hold_chain(
        &mut self,
        slot: u16,
        tier: u8,
        parent: Option<u64>,
        engines: &[u64],
        keys: &[u64],
    ) -> usize {
        let hint = self.parent.swap(UNKNOWN, Relaxed);
        let parent = parent.filter(|_| usize::from(tier) < MAX_TIERS).and_then(|parent| {
            let key = parent ^ TIER_MIX[usize::from(tier)];
            let is = |entry: usize| {
                let word = self.table.holders(entry);
                self.table.key(entry) == key && !word.is_free() && word.tier() == tier
            };
            let hint = Some(hint as usize).filter(|&hint| hint < self.table.layout.entries);
            hint.filter(|&hint| is(hint)).or_else(|| self.table.find(key).filter(|&at| is(at)))
        });
        let previous = parent.map_or((hint, false), |parent| (parent as u32, true));
        self.hold_after(previous, true, slot, tier, engines, keys)
    }

    /// `previous` is the entry of the block before the first, and whether it is the parent.
    fn hold_after(
        &mut self,
        previous: (u32, bool),
        chained: bool,
        slot: u16,
        tier: u8,
        engines: &[u64],
        keys: &[u64],
    ) -> usize {
        let count = engines.len().min(keys.len());
        if !self.serves(slot) || usize::from(tier) >= MAX_TIERS {
            self.stats.refused += count as u64;
            return count;
        }
        if count == 0 {
            return 0;
        }
        self.table.set_dirty(slot);
        let before = self.use_tier(slot, tier);
        let (engines, keys) = (&engines[..count], &keys[..count]);
        let pairs = Pairs { slot, tier, engines, keys, chained };
        let Progress { done, added, .. } = self.hold_all(&pairs, previous);
        if added > 0 {
            let held = self.table.slot(slot);
            self.table.set_slot(slot, Slot { held: before.held + added, ..held });
            self.table.set_tier_count(tier, self.table.tier_count(tier) + u64::from(added));
            self.held += u64::from(added);
        }
        self.settle_tier(tier);
        self.advance_if_due();
        self.stats.refused += (count - done) as u64;
        count - done
    }

    fn hold_all(&mut self, pairs: &Pairs<'_>, (previous, certain): (u32, bool)) -> Progress {
        let mut now = Progress { done: 0, added: 0, previous, certain, ordinal: 0, jumped: false };
        let mut ahead = Ahead {
            end: 0,
            homes: [(0, 0); AHEAD],
            places: [Place::default(); AHEAD],
            hinted: usize::MAX / 2,
            hints: [UNKNOWN; GROUP],
        };
        while now.done < pairs.keys.len() {
            if self.join(pairs, &mut now) {
                continue;
            }
            if ahead.end <= now.done {
                ahead.end = now.done;
                (0..AHEAD).for_each(|_| self.look_ahead(pairs, &mut ahead));
            }
            if self.open_some(pairs, &mut now, &mut ahead) {
                continue;
            }
            if self.store_one(pairs, &mut now, &mut ahead).is_err() {
                break;
            }
        }
        now
    }

    /// Blocks that are there, side by side behind the one before, with one set of holders: the slot
    /// is in all of these sets once more. Whether there was one.
    #[inline]
    fn join(&mut self, pairs: &Pairs<'_>, now: &mut Progress) -> bool {
        let first = now.previous.wrapping_add(1) as usize;
        let Some(most) = self.table.layout.entries.checked_sub(first) else { return false };
        let most = most.min(pairs.keys.len() - now.done);
        if most == 0 || self.table.key(first) != pairs.key(now.done) {
            return false;
        }
        let word = self.table.holders(first);
        if word.is_free() || word.is_aliased() || word.tier() != pairs.tier {
            return false;
        }
        let differs = SEEN | Flags::ALIASED;
        let blocks = (0..most).position(|at| {
            let (entry, at) = (first + at, now.done + at);
            self.table.key(entry) != pairs.key(at)
                || (self.table.holders(entry).0 ^ word.0) & differs != 0
                || self.table.engine(entry) != pairs.engine(at)
                || pairs.repeats(at)
        });
        let (blocks, set) = (blocks.unwrap_or(most), word.set());
        if blocks == 0 {
            return false;
        }
        let new = self.sets.times(&self.table, set, pairs.slot) == 0;
        let Ok(to) = self.changed(set, Change::Add(pairs.slot)) else { return false };
        self.set_members_of(first, blocks, set, to);
        if pairs.chained {
            self.adopt(first + usize::from(!now.certain), first + blocks);
        }
        self.regions.add_run(pairs.slot, first, blocks);
        now.done += blocks;
        now.previous = (first + blocks - 1) as u32;
        now.added += if new { blocks as u32 } else { 0 };
        (now.certain, now.ordinal, now.jumped) = (pairs.chained, 0, false);
        true
    }

    /// Entries that are in use are children of those before them.
    #[inline]
    fn adopt(&mut self, first: usize, end: usize) {
        for entry in first..end {
            let word = self.table.holders(entry);
            if !word.is_child() {
                self.table.set_holders(entry, word.child_if(true));
                self.table.join(entry, entry);
            }
        }
    }

    /// Asks for what the next pair needs.
    #[inline]
    fn look_ahead(&self, pairs: &Pairs<'_>, ahead: &mut Ahead) {
        let next = ahead.end;
        if next < pairs.keys.len() {
            let (home, tag) = self.table.layout.home(pairs.key(next));
            self.table.words.prefetch(self.table.layout.bucket_word(home));
            ahead.homes[next % AHEAD] = (home as u32, tag);
            ahead.places[next % AHEAD] = self.engines.touch(pairs.engine(next));
            ahead.end += 1;
        }
    }

    /// The entry that a pair probably has: what comes behind a block that was not where it was
    /// expected is scattered as well.
    fn hint(&self, pairs: &Pairs<'_>, now: &Progress, ahead: &mut Ahead) -> u32 {
        if let Some(&hint) = ahead.hints.get(now.done.wrapping_sub(ahead.hinted)) {
            return hint;
        }
        if !now.jumped {
            return UNKNOWN;
        }
        let (mut keys, len) = ([0; GROUP], GROUP.min(pairs.keys.len() - now.done));
        (0..len).for_each(|at| keys[at] = pairs.key(now.done + at));
        (ahead.hinted, ahead.hints) = (now.done, self.table.locate(&keys[..len], now.previous));
        ahead.hints[0]
    }

    /// Blocks that nobody has, as long as there is nothing special about them. Whether there was one.
    #[inline]
    fn open_some(&mut self, pairs: &Pairs<'_>, now: &mut Progress, ahead: &mut Ahead) -> bool {
        let before = now.done;
        let mut first = None;
        while now.done < ahead.end && !pairs.repeats(now.done) {
            let (home, tag) = ahead.homes[now.done % AHEAD];
            let (home, place) = (home as usize, ahead.places[now.done % AHEAD]);
            let Some(way) = self.table.vacancy(home, tag) else { break };
            let Some(cell) = self.engines.vacancy(place) else { break };
            let Some(entry) = self.free.next(now.previous) else { break };
            self.look_ahead(pairs, ahead);
            self.engines.fill(place, cell, entry as u32);
            self.table.set_engine(entry, pairs.engine(now.done));
            self.table.set_key(entry, pairs.key(now.done));
            let behind = entry == now.previous.wrapping_add(1) as usize;
            if !behind && let Some(first) = first.take() {
                self.table.join(first, now.previous as usize);
            }
            first.get_or_insert(entry);
            let holders = Holders::single(pairs.slot, 0).in_tier(pairs.tier);
            let holders = holders.child_if(behind && now.certain);
            self.table.fill(home, way, tag, entry, holders);
            self.free.take(entry);
            self.regions.add(pairs.slot, entry);
            now.previous = entry as u32;
            now.certain = pairs.chained;
            now.done += 1;
        }
        if let Some(first) = first {
            self.table.join(first, now.previous as usize);
        }
        let opened = now.done - before;
        self.blocks += opened;
        now.added += opened as u32;
        if opened > 0 {
            (now.ordinal, now.jumped) = (0, false);
        }
        opened > 0
    }

    /// One pair, whatever it is.
    fn store_one(
        &mut self,
        pairs: &Pairs<'_>,
        now: &mut Progress,
        ahead: &mut Ahead,
    ) -> Result<(), Full> {
        let (at, hash) = (now.done, pairs.engines[now.done]);
        now.ordinal = if pairs.repeats(at) { self.fan_out(pairs.slot, now.ordinal) } else { 0 };
        let engine = engine_word(hash, pairs.tier, now.ordinal);
        let Pairs { slot, tier, .. } = *pairs;
        let pair = Stored { slot, tier, hash, engine, key: pairs.key(at), child: now.certain };
        let hint = self.hint(pairs, now, ahead);
        let (entry, new) = self.store(pair, hint, now.previous)?;
        now.jumped = entry != now.previous.wrapping_add(1) as usize;
        if now.certain && !now.jumped {
            self.adopt(entry, entry + 1);
        }
        (now.previous, now.certain) = (entry as u32, pairs.chained);
        now.added += u32::from(new);
        now.done += 1;
        Ok(())
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
}

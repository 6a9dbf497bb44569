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
}

/// How far a call is.
struct Progress {
    done: usize,
    /// Keys that the slot did not hold.
    added: u32,
    /// Entry of the pair before, probably the parent.
    previous: u32,
    /// How many keys the engine hash of the pair before has had, less one.
    ordinal: u8,
    /// Whether the pair before was not where the one before that led.
    jumped: bool,
}

/// Where a group of pairs will be looked for.
struct Ahead {
    /// The first pair of the group, and how many there are.
    first: usize,
    len: usize,
    homes: [(u32, u8); GROUP],
    places: [Place; GROUP],
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
        let pairs = Pairs { slot, tier, engines: &engines[..count], keys: &keys[..count] };
        let Progress { done, added, .. } = self.hold_all(&pairs);
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

    fn hold_all(&mut self, pairs: &Pairs<'_>) -> Progress {
        let previous = self.parent.swap(UNKNOWN, Relaxed);
        let mut now = Progress { done: 0, added: 0, previous, ordinal: 0, jumped: false };
        let mut ahead = Ahead {
            first: 0,
            len: 0,
            homes: [(0, 0); GROUP],
            places: [Place::default(); GROUP],
            hints: [UNKNOWN; GROUP],
        };
        while now.done < pairs.keys.len() {
            if self.join(pairs, &mut now) {
                continue;
            }
            if now.done >= ahead.first + ahead.len {
                self.look_ahead(pairs, &now, &mut ahead);
            }
            if self.open_some(pairs, &mut now, &ahead) {
                continue;
            }
            if self.store_one(pairs, &mut now, &ahead).is_err() {
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
        self.regions.add_run(pairs.slot, first, blocks);
        now.done += blocks;
        now.previous = (first + blocks - 1) as u32;
        now.added += if new { blocks as u32 } else { 0 };
        now.ordinal = 0;
        now.jumped = false;
        true
    }

    /// Asks for what the next pairs need.
    fn look_ahead(&self, pairs: &Pairs<'_>, now: &Progress, ahead: &mut Ahead) {
        (ahead.first, ahead.len) = (now.done, GROUP.min(pairs.keys.len() - now.done));
        for at in 0..ahead.len {
            let (home, tag) = self.table.layout.home(pairs.key(now.done + at));
            ahead.homes[at] = (home as u32, tag);
            self.table.words.prefetch(self.table.layout.bucket_word(home));
            ahead.places[at] = self.engines.touch(pairs.engine(now.done + at));
        }
        // What comes behind a block that was not where it was expected is scattered as well.
        ahead.hints = match now.jumped {
            true => {
                let mut keys = [0; GROUP];
                (0..ahead.len).for_each(|at| keys[at] = pairs.key(now.done + at));
                self.table.locate(&keys[..ahead.len], now.previous)
            }
            false => [UNKNOWN; GROUP],
        };
    }

    /// Blocks that nobody has, as long as there is nothing special about them. Whether there was one.
    #[inline]
    fn open_some(&mut self, pairs: &Pairs<'_>, now: &mut Progress, ahead: &Ahead) -> bool {
        let before = now.done;
        while let Some(at) = now.done.checked_sub(ahead.first).filter(|&at| at < ahead.len) {
            let (home, tag) = (ahead.homes[at].0 as usize, ahead.homes[at].1);
            if pairs.repeats(now.done) {
                break;
            }
            let Some(way) = self.table.vacancy(home, tag) else { break };
            let Some(cell) = self.engines.vacancy(ahead.places[at]) else { break };
            let Some(entry) = self.free.next(now.previous) else { break };
            self.engines.fill(ahead.places[at], cell, entry as u32);
            self.table.set_engine(entry, pairs.engine(now.done));
            self.table.set_key(entry, pairs.key(now.done));
            let holders = Holders::single(pairs.slot, 0).in_tier(pairs.tier);
            self.table.fill(home, way, tag, entry, holders);
            self.free.take(entry);
            self.regions.add(pairs.slot, entry);
            now.previous = entry as u32;
            now.done += 1;
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
        ahead: &Ahead,
    ) -> Result<(), Full> {
        let (at, hash) = (now.done, pairs.engines[now.done]);
        now.ordinal = if pairs.repeats(at) { self.fan_out(pairs.slot, now.ordinal) } else { 0 };
        let engine = engine_word(hash, pairs.tier, now.ordinal);
        let Pairs { slot, tier, .. } = *pairs;
        let pair = Stored { slot, tier, hash, engine, key: pairs.key(at) };
        let hint = ahead.hints[at - ahead.first];
        let (entry, new) = self.store(pair, hint, now.previous)?;
        now.jumped = entry != now.previous.wrapping_add(1) as usize;
        now.previous = entry as u32;
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

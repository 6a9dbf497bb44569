//! From events to the index.

mod align;
mod counters;
mod groups;
mod tails;
mod tiers;

use std::collections::HashMap;
use std::num::NonZeroU32;

use crate::event::{Batch, Event, Removed, Stored};
use crate::keys::Hasher;
use crate::kind::CacheKind;
use crate::mirror::Mirror;

use align::Aligned;
pub use counters::{Counters, Reason};
use groups::Groups;
use tails::{Parent, Tail, Tails};
pub use tiers::MOST_TIERS;
use tiers::Tiers;

/// Brings a [`Mirror`] up to what the engines say, batch by batch.
///
/// The tokens of a store are hashed to request keys, in blocks of the hasher's size whatever the
/// engine's; the engine's own hashes serve to find the parent of a store and the blocks of a
/// removal. An event that cannot be used is passed over and counted: what is missing from the
/// mirror costs a hit, what is wrongly in it would cost more.
///
/// Memory beside the mirror: a few words per publisher; for one with several groups of full
/// attention 32 bytes per block; for one whose blocks are no multiple of the hasher's the tokens
/// left over, bounded by [`Limits::tails_per_slot`].
#[derive(Debug)]
pub struct Applier {
    hasher: Hasher,
    limits: Limits,
    tiers: Tiers,
    slots: Slots,
    counters: Counters,
    scratch: Scratch,
}

/// What one publisher may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Engine blocks held, each tier counted by itself. Stores beyond it are passed over.
    pub blocks_per_slot: usize,
    /// Engine blocks that end within one of ours, or begin there.
    pub tails_per_slot: usize,
}

impl Default for Limits {
    /// 4 M blocks, which is 64 M tokens in blocks of 16; 64 Ki tails, at most some 30 MB.
    fn default() -> Self {
        Self { blocks_per_slot: 4 << 20, tails_per_slot: 64 << 10 }
    }
}

/// What a batch came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// Pairs of engine hash and request key that were stored or counted once more.
    pub stored: usize,
    /// Pairs for which the mirror had no room.
    pub no_room: usize,
    /// Engine hashes that are no longer held in a tier.
    pub removed: usize,
    /// Events that emptied the slot.
    pub cleared: usize,
    /// Events that were passed over, for a [`Reason`].
    pub skipped: usize,
}

/// What is known of the publishers, by their slots.
#[derive(Debug, Default)]
struct Slots(Vec<Option<Box<Slot>>>);

impl Slots {
    fn get(&mut self, slot: u16) -> &mut Slot {
        let at = usize::from(slot);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at].get_or_insert_default()
    }

    fn forget(&mut self, slot: u16) {
        if let Some(slot) = self.0.get_mut(usize::from(slot)) {
            *slot = None;
        }
    }
}

#[derive(Debug, Default)]
struct Slot {
    groups: Groups,
    /// Stores less removals per group, tier and hash, for a publisher with several groups.
    counts: Option<Counts>,
    tails: Tails,
}

#[derive(Debug, Default)]
struct Counts {
    counts: HashMap<(Option<u32>, u8, u64), u32>,
    /// Whether the counts know all that the mirror holds.
    complete: bool,
}

/// Buffers that outlive an event.
#[derive(Debug, Default)]
struct Scratch {
    tokens: Vec<u32>,
    keys: Vec<u64>,
    engine: Vec<u64>,
    pairs: Vec<u64>,
}

impl Applier {
    /// One that keys blocks by `hasher`. `tiers` are names in addition to `gpu` and `cpu`, for a
    /// mirror that was written before.
    pub fn new<'a>(
        hasher: Hasher,
        tiers: impl IntoIterator<Item = &'a str>,
        limits: Limits,
    ) -> Self {
        Self {
            hasher,
            limits,
            tiers: Tiers::new(tiers),
            slots: Slots::default(),
            counters: Counters::default(),
            scratch: Scratch::default(),
        }
    }

    /// How blocks are keyed.
    pub fn hasher(&self) -> &Hasher {
        &self.hasher
    }

    /// The names of the tiers, by their number: `gpu`, `cpu`, then others as they appeared.
    pub fn tiers(&self) -> &[String] {
        self.tiers.names()
    }

    /// The number of a tier, in whatever case it is written; a new one if it is the first of its
    /// name. None where there is no room for another.
    pub fn tier(&mut self, name: &str) -> Option<u8> {
        self.tiers.learn(Some(name)).ok()
    }

    /// What was passed over since the start.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Applies the events of one message, which claims for `slot` and nobody else. `model` is that
    /// of the topic; an adapter's name takes its place.
    pub fn apply(
        &mut self,
        mirror: &mut impl Mirror,
        slot: u16,
        model: &str,
        batch: &Batch<'_>,
    ) -> Applied {
        let mut applied = Applied::default();
        self.learn_groups(mirror, slot, batch);
        for event in batch.events() {
            match event {
                Event::AllBlocksCleared => {
                    mirror.clear(slot);
                    self.slots.get(slot).empty();
                    applied.cleared += 1;
                }
                Event::BlockRemoved(removed) => self.removed(mirror, slot, &removed, &mut applied),
                Event::BlockStored(stored) => {
                    if let Err((kind, reason)) =
                        self.stored(mirror, slot, model, &stored, &mut applied)
                    {
                        self.counters.skip_store(kind, reason);
                        applied.skipped += 1;
                    }
                }
            }
        }
        applied
    }

    /// Forgets a publisher and all that it claimed: it is gone, or has started anew.
    pub fn clear(&mut self, mirror: &mut impl Mirror, slot: u16) {
        mirror.clear(slot);
        self.forget(slot);
    }

    /// Forgets what is known of a publisher beside the mirror.
    pub fn forget(&mut self, slot: u16) {
        self.slots.forget(slot);
    }

    /// A step that evicts says so before it stores, and only stores tell what their group is: without
    /// a look ahead the first removals after a restart of the scheduler would be lost.
    fn learn_groups(&mut self, mirror: &mut impl Mirror, slot_number: u16, batch: &Batch<'_>) {
        let slot = self.slots.get(slot_number);
        for event in batch.events() {
            if let Event::BlockStored(Stored { group: Some(group), kind, .. }) = event
                && slot.groups.learn(group, kind).mistaken
            {
                mirror.clear(slot_number);
                slot.empty();
            }
        }
    }

    fn stored(
        &mut self,
        mirror: &mut impl Mirror,
        slot_number: u16,
        model: &str,
        stored: &Stored<'_>,
        applied: &mut Applied,
    ) -> Result<(), (CacheKind, Reason)> {
        let Self { hasher, limits, tiers, slots, counters, scratch } = self;
        let slot = slots.get(slot_number);
        let mut kind = CacheKind::Unknown;
        if let Some(group) = stored.group {
            let learned = slot.groups.learn(group, stored.kind);
            kind = learned.kind;
            learned.refused.map_or(Ok(()), Err).map_err(|reason| (kind, reason))?;
            if slot.counts.is_none() && slot.groups.several_indexable() {
                let complete = mirror.is_empty(slot_number);
                slot.counts = Some(Counts { complete, ..Counts::default() });
            }
        }
        let skip = |reason| (kind, reason);
        let adapter = stored.lora_name.filter(|name| !name.is_empty());
        if adapter.is_none() && stored.lora_id.is_some_and(|id| id != 0) {
            return Err(skip(Reason::UnnamedAdapter));
        }
        let tier = tiers.learn(stored.medium).map_err(skip)?;
        let held = mirror.len(slot_number).saturating_add(stored.hashes.len());
        if held > limits.blocks_per_slot {
            return Err(skip(Reason::Quota));
        }
        if stored.tokens.is_empty() {
            slot.move_to(mirror, slot_number, tier, stored, scratch, applied);
            return Ok(());
        }
        let block_size = block_size(stored).map_err(skip)?;

        let parent = stored.parent.filter(|parent| *parent != 0);
        let tail;
        let (start, left_over) = match parent {
            None => (hasher.start(model_of(adapter, model)), None),
            Some(parent) => match slot.tails.parent(parent, tier) {
                Parent::Missing => return Err(skip(Reason::UnknownParent)),
                Parent::Tail(found) => {
                    tail = found.clone();
                    (tail.key, Some(&tail))
                }
                Parent::Aligned => {
                    scratch.keys.clear();
                    mirror.keys_of(slot_number, parent, &mut scratch.keys);
                    let last = scratch.keys.last().copied();
                    (last.ok_or(skip(Reason::UnknownParent))?, None)
                }
            },
        };
        let mut aligned = Aligned::default();
        let tokens = match left_over {
            None => stored.tokens,
            Some(tail) => {
                aligned = Aligned::pending(tail.items().collect(), tail.salt());
                scratch.tokens.clear();
                scratch.tokens.extend_from_slice(&tail.tokens);
                scratch.tokens.extend_from_slice(stored.tokens);
                &scratch.tokens
            }
        };
        let span = Span {
            before: left_over.map_or(0, |tail| tail.tokens.len()),
            engine: block_size.get() as usize,
            ours: hasher.block_tokens().get() as usize,
        };
        let tails = if span.is_aligned() { 0 } else { stored.hashes.len() };
        if tails > 0 && slot.tails.len().saturating_add(tails) > limits.tails_per_slot {
            return Err(skip(Reason::Quota));
        }
        let first = parent.is_none() || left_over.is_some_and(|tail| tail.first);
        aligned.add(stored, block_size, span.before as u32, parent.is_none()).map_err(skip)?;
        aligned.check(hasher.block_tokens()).map_err(skip)?;
        let extras = aligned.extras();

        scratch.keys.clear();
        hasher.extend(start, tokens, &extras, &mut scratch.keys);
        scratch.engine.clear();
        scratch.pairs.clear();
        let (mut completed, mut without_gap) = (0, true);
        for (index, engine) in stored.hashes.iter().enumerate() {
            let ends = span.completed(index);
            let keys = scratch.keys.get(completed..ends).unwrap_or_default();
            let counted = slot
                .counts
                .as_mut()
                .is_none_or(|counts| counts.store((stored.group, tier, *engine)));
            without_gap &= counted;
            if counted {
                scratch.engine.extend(keys.iter().map(|_| *engine));
                scratch.pairs.extend_from_slice(keys);
                if tails > 0 && !span.is_whole(index) {
                    let previous = match index.checked_sub(1) {
                        None => parent,
                        Some(before) => stored.hashes.get(before).copied(),
                    };
                    let previous = previous.filter(|_| !span.begins_key(index));
                    slot.tails.hold(*engine, tier, previous, !keys.is_empty(), || {
                        let (from, to) = (ends * span.ours, span.end(index));
                        let tokens = tokens.get(from..to).filter(|tokens| !tokens.is_empty())?;
                        let key = ends.checked_sub(1).and_then(|last| scratch.keys.get(last));
                        let key = key.copied().unwrap_or(start);
                        Some(Tail::new(key, first && ends == 0, from, tokens, &extras))
                    });
                }
            }
            completed = ends;
        }
        let (engine, keys) = (&scratch.engine, &scratch.pairs);
        let missing = match without_gap {
            true => {
                let parent = parent.map(|_| start);
                mirror.hold_chain(slot_number, tier, parent, engine, keys)
            }
            false => mirror.hold(slot_number, tier, engine, keys),
        };
        applied.stored += scratch.pairs.len() - missing.min(scratch.pairs.len());
        applied.no_room += missing;
        if missing > 0 {
            counters.skip_store(kind, Reason::NoRoom);
        }
        Ok(())
    }

    fn removed(
        &mut self,
        mirror: &mut impl Mirror,
        slot_number: u16,
        removed: &Removed<'_>,
        applied: &mut Applied,
    ) {
        let Self { tiers, slots, counters, .. } = self;
        let slot = slots.get(slot_number);
        // A mirror that has outlived the scheduler holds blocks of groups that are not known yet.
        let is_left_over = slot.groups.is_empty() && !mirror.is_empty(slot_number);
        let group = removed.group.filter(|_| !is_left_over);
        if let Some(Err((kind, reason))) = group.map(|group| slot.groups.check(group)) {
            counters.skip_removal(kind, reason);
            applied.skipped += 1;
            return;
        }
        // Of a tier that nobody has stored to there is nothing to remove.
        let Some(tier) = tiers.find(removed.medium) else { return };
        if slot.counts.is_none() && slot.tails.len() == 0 {
            let gone = mirror.release_all(slot_number, tier, removed.hashes);
            counters.removals_forwarded += gone as u64;
            counters.removals_suppressed += (removed.hashes.len() - gone) as u64;
            applied.removed += gone;
            return;
        }
        for engine in removed.hashes {
            let counts = slot.counts.as_mut();
            let last = counts.is_none_or(|counts| counts.remove((removed.group, tier, *engine)));
            let gone = last && {
                let known = slot.tails.release(*engine, tier, |engine| {
                    mirror.release(slot_number, tier, engine);
                });
                known.unwrap_or_else(|| mirror.release(slot_number, tier, *engine))
            };
            if gone {
                counters.removals_forwarded += 1;
                applied.removed += 1;
            } else {
                counters.removals_suppressed += 1;
            }
        }
    }
}

/// The model whose key starts a prompt.
fn model_of<'a>(adapter: Option<&'a str>, model: &'a str) -> &'a str {
    adapter.unwrap_or(model)
}

/// The tokens per block of a store that lists all of them.
fn block_size(stored: &Stored<'_>) -> Result<NonZeroU32, Reason> {
    let blocks = u32::try_from(stored.hashes.len()).ok().and_then(NonZeroU32::new);
    let blocks = blocks.ok_or(Reason::NonDenseBlockSpan)?;
    let tokens = u32::try_from(stored.tokens.len()).map_err(|_| Reason::NonDenseBlockSpan)?;
    let told = match (stored.block_size, stored.group) {
        // Engines without groups may leave it to be computed.
        (0, None) => tokens / blocks,
        (told, _) => told,
    };
    let size = NonZeroU32::new(told).ok_or(Reason::InvalidBlockSize)?;
    let dense = size.checked_mul(blocks).is_some_and(|span| span.get() == tokens);
    if dense { Ok(size) } else { Err(Reason::NonDenseBlockSpan) }
}

/// Where the blocks of a store lie in a run of tokens that starts where a key starts.
#[derive(Clone, Copy)]
struct Span {
    /// Tokens before the first of them.
    before: usize,
    /// Tokens of one of them.
    engine: usize,
    /// Tokens of a key.
    ours: usize,
}

impl Span {
    /// Whether no key spans two of the engine's blocks.
    fn is_aligned(&self) -> bool {
        self.before == 0 && self.engine.is_multiple_of(self.ours)
    }

    fn end(&self, index: usize) -> usize {
        self.before + (index + 1) * self.engine
    }

    /// Keys complete at the end of a block.
    fn completed(&self, index: usize) -> usize {
        self.end(index) / self.ours
    }

    fn begins_key(&self, index: usize) -> bool {
        (self.before + index * self.engine).is_multiple_of(self.ours)
    }

    /// Whether a block shares no key with another.
    fn is_whole(&self, index: usize) -> bool {
        self.begins_key(index) && self.end(index).is_multiple_of(self.ours)
    }
}

impl Slot {
    /// The publisher holds nothing any more; what it has told of itself stands.
    fn empty(&mut self) {
        self.tails.clear();
        if let Some(counts) = &mut self.counts {
            *counts = Counts { complete: true, ..Counts::default() };
        }
    }

    /// Blocks that are held somewhere are now in `tier` too. Unknown ones are passed over.
    fn move_to(
        &mut self,
        mirror: &mut impl Mirror,
        slot: u16,
        tier: u8,
        stored: &Stored<'_>,
        scratch: &mut Scratch,
        applied: &mut Applied,
    ) {
        for (index, engine) in stored.hashes.iter().enumerate() {
            let repeated = index > 0 && stored.hashes.get(index - 1) == Some(engine);
            scratch.keys.clear();
            mirror.keys_of(slot, *engine, &mut scratch.keys);
            if repeated || scratch.keys.is_empty() && !self.tails.contains(*engine) {
                continue;
            }
            let counts = self.counts.as_mut();
            let counted = counts.is_none_or(|counts| counts.store((stored.group, tier, *engine)));
            if counted && self.tails.also_in(*engine, tier) {
                scratch.engine.clear();
                scratch.engine.resize(scratch.keys.len(), *engine);
                let missing = mirror.hold(slot, tier, &scratch.engine, &scratch.keys);
                applied.stored += scratch.keys.len() - missing.min(scratch.keys.len());
                applied.no_room += missing;
            }
        }
    }
}

impl Counts {
    /// Counts a store; whether it is the first that the mirror must know of.
    fn store(&mut self, block: (Option<u32>, u8, u64)) -> bool {
        let count = self.counts.entry(block).or_insert(0);
        *count = count.saturating_add(1);
        *count == 1
    }

    /// Counts a removal; whether it is the last.
    fn remove(&mut self, block: (Option<u32>, u8, u64)) -> bool {
        let Some(count) = self.counts.get_mut(&block) else { return !self.complete };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.counts.remove(&block);
        true
    }
}

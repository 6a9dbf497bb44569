//! The table in the segment's own words.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;

use inlane_kv::Mirror;
use inlane_segment::mapped::MappedWords;
use inlane_segment::table::{
    HeldPair, MirrorReader, MirrorSpec, MirrorStats, MirrorWriter, TableError,
};
use inlane_segment::words::{Words, WordsMut};

use super::core::Table;

/// Who wants to know of every change, in its order: a shared index beside this one.
pub(crate) trait Tap: Send {
    /// A slot holds blocks in a tier: pairs of engine hash and request key.
    fn held(&mut self, slot: u16, tier: u8, engine: &[u64], keys: &[u64]);
    /// A slot no longer holds an engine hash in a tier, which stood for these keys.
    fn released(&mut self, slot: u16, tier: u8, engine: u64, keys: &[u64]);
    /// A slot holds nothing; these tiers and keys are what it held.
    fn cleared(&mut self, slot: u16, held: &[(u8, u64)]);
    /// The table was replaced by an empty one, and nothing said of any block.
    fn lost(&mut self);
}

/// See the [module](self).
pub(crate) struct SegmentTable {
    writer: MirrorWriter<MappedWords>,
    spec: MirrorSpec,
    tap: Option<Box<dyn Tap>>,
    keys: Vec<u64>,
    /// Slots of which somebody else knows, whose blocks the tap does not hear of.
    lent: BTreeSet<u16>,
}

impl SegmentTable {
    /// Takes over the table in `words` if it may and can, or makes an empty one there. Says whether it
    /// took over.
    ///
    /// # Errors
    /// The words have no room for a table of this size.
    pub(crate) fn open(
        words: MappedWords,
        spec: MirrorSpec,
        may_take_over: bool,
    ) -> Result<(Self, bool), TableError> {
        let found = may_take_over.then(|| MirrorWriter::recover(words.clone()).ok()).flatten();
        let found = found.filter(|writer| writer.reader().slots() == spec.slots);
        let takes_over = found.is_some();
        let writer = match found {
            Some(writer) => writer,
            None => {
                // The first word makes it a table: without it nobody reads the others.
                for at in 0..words.len() {
                    words.store(at, 0, Ordering::Release);
                }
                MirrorWriter::create(words, &spec, RandomState::new().hash_one(()))?
            }
        };
        let (tap, keys, lent) = (None, Vec::new(), BTreeSet::new());
        Ok((Self { writer, spec, tap, keys, lent }, takes_over))
    }

    pub(crate) fn set_tap(&mut self, tap: Option<Box<dyn Tap>>) {
        self.tap = tap;
    }

    /// Gives away what goes on with another table of the same content.
    pub(crate) fn take_ties(&mut self) -> Ties {
        Ties { tap: self.tap.take(), lent: std::mem::take(&mut self.lent) }
    }

    /// Goes on as another table did, whose blocks are here too or not.
    pub(crate) fn set_ties(&mut self, ties: Ties, has_blocks: bool) {
        self.tap = ties.tap;
        self.lent = ties.lent;
        if !has_blocks {
            self.lent.clear();
            if let Some(tap) = &mut self.tap {
                tap.lost();
            }
        }
    }

    /// Whether a slot's blocks are what somebody else knows.
    pub(crate) fn is_lent(&self, slot: u16) -> bool {
        self.lent.contains(&slot)
    }

    /// A slot of which nothing is known at first hand holds `keys` in a tier, as somebody else
    /// knows. Returns how many found no room.
    pub(crate) fn lend(&mut self, slot: u16, tier: u8, keys: impl Iterator<Item = u64>) -> usize {
        if !self.is_lent(slot) && self.writer.len(slot) > 0 {
            return 0;
        }
        self.lent.insert(slot);
        let reader = self.writer.reader();
        let mut refused = 0;
        for key in keys {
            // Held twice it would have to be released twice.
            if !reader.holds(slot, tier, key) {
                refused += self.writer.hold(slot, tier, &[key], &[key]);
            }
        }
        refused
    }

    /// Takes `keys` back that were lent.
    pub(crate) fn take_back(&mut self, slot: u16, tier: u8, keys: impl Iterator<Item = u64>) {
        if self.is_lent(slot) {
            for key in keys {
                self.writer.release(slot, tier, key);
            }
        }
    }

    /// The tiers and keys that a slot holds.
    pub(crate) fn held(&self, slot: u16) -> Vec<(u8, u64)> {
        self.writer.iter(slot).collect()
    }

    /// The pairs that a slot holds.
    pub(crate) fn pairs(&self, slot: u16) -> Vec<HeldPair> {
        let mut pairs = Vec::with_capacity(self.writer.len(slot));
        self.writer.for_each_held(slot, |pair| pairs.push(pair));
        pairs
    }

    /// Blocks that are lent.
    pub(crate) fn lent_blocks(&self) -> usize {
        self.lent.iter().map(|&slot| self.writer.len(slot)).sum()
    }

    pub(crate) fn reader(&self) -> MirrorReader<MappedWords> {
        self.writer.reader()
    }

    pub(crate) fn spec(&self) -> MirrorSpec {
        self.spec
    }

    /// Pairs held, by everybody together.
    pub(crate) fn total(&self) -> u64 {
        self.writer.total()
    }

    /// Distinct blocks held.
    pub(crate) fn blocks(&self) -> usize {
        self.writer.blocks()
    }

    pub(crate) fn bytes_in_use(&self) -> usize {
        self.writer.bytes_in_use()
    }

    pub(crate) fn stats(&self) -> MirrorStats {
        self.writer.stats()
    }

    fn tell_held(&mut self, slot: u16, tier: u8, engine: &[u64], keys: &[u64], refused: usize) {
        let Some(tap) = &mut self.tap else { return };
        let held = keys.len().saturating_sub(refused);
        if let (Some(engine), Some(keys)) = (engine.get(..held), keys.get(..held)) {
            tap.held(slot, tier, engine, keys);
        }
    }
}

impl Mirror for SegmentTable {
    fn hold(&mut self, slot: u16, tier: u8, engine: &[u64], keys: &[u64]) -> usize {
        let refused = self.writer.hold(slot, tier, engine, keys);
        self.tell_held(slot, tier, engine, keys, refused);
        refused
    }

    fn hold_chain(
        &mut self,
        slot: u16,
        tier: u8,
        parent: Option<u64>,
        engine: &[u64],
        keys: &[u64],
    ) -> usize {
        let refused = self.writer.hold_chain(slot, tier, parent, engine, keys);
        self.tell_held(slot, tier, engine, keys, refused);
        refused
    }

    fn release(&mut self, slot: u16, tier: u8, engine: u64) -> bool {
        if self.tap.is_some() {
            self.keys.clear();
            self.writer.keys_of(slot, engine, &mut self.keys);
        }
        let gone = self.writer.release(slot, tier, engine);
        if let Some(tap) = self.tap.as_mut().filter(|_| gone) {
            tap.released(slot, tier, engine, &self.keys);
        }
        gone
    }

    fn release_all(&mut self, slot: u16, tier: u8, engine: &[u64]) -> usize {
        if self.tap.is_none() {
            return self.writer.release_all(slot, tier, engine);
        }
        engine.iter().filter(|&&engine| self.release(slot, tier, engine)).count()
    }

    fn keys_of(&self, slot: u16, engine: u64, out: &mut Vec<u64>) {
        self.writer.keys_of(slot, engine, out);
    }

    fn clear(&mut self, slot: u16) {
        let is_lent = self.lent.remove(&slot);
        let tap = self.tap.as_mut().filter(|_| !is_lent && self.writer.len(slot) > 0);
        if let Some(tap) = tap {
            let held: Vec<(u8, u64)> = self.writer.iter(slot).collect();
            tap.cleared(slot, &held);
        }
        self.writer.clear(slot);
    }

    fn len(&self, slot: u16) -> usize {
        self.writer.len(slot)
    }
}

impl Table for SegmentTable {
    fn slots(&self) -> u16 {
        u16::try_from(self.spec.slots).unwrap_or(u16::MAX)
    }

    fn position(&self, slot: u16) -> u64 {
        self.writer.position(slot)
    }

    fn set_position(&mut self, slot: u16, word: u64) {
        self.writer.set_position(slot, word);
    }

    fn own(&mut self, slot: u16) {
        if self.lent.contains(&slot) {
            self.clear(slot);
        }
    }

    fn vacate(&mut self, slot: u16) {
        self.lent.remove(&slot);
        self.writer.clear(slot);
    }
}

/// What a table is tied to: see [`SegmentTable::take_ties`].
#[derive(Default)]
pub(crate) struct Ties {
    tap: Option<Box<dyn Tap>>,
    lent: BTreeSet<u16>,
}

//! The table in the segment's own words.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::Ordering;

use inlane_kv::Mirror;
use inlane_segment::mapped::MappedWords;
use inlane_segment::table::{MirrorSpec, MirrorStats, MirrorWriter, TableError};
use inlane_segment::words::{Words, WordsMut};

use super::core::Table;

/// Who wants to know of every change, in its order: a shared index beside this one.
pub(crate) trait Tap: Send {
    /// A slot holds blocks in a tier: pairs of engine hash and request key.
    fn held(&mut self, slot: u16, tier: u8, engine: &[u64], keys: &[u64]);
    /// A slot no longer holds an engine hash in a tier, which stood for these keys.
    fn released(&mut self, slot: u16, tier: u8, engine: u64, keys: &[u64]);
    /// A slot holds nothing.
    fn cleared(&mut self, slot: u16);
}

/// See the [module](self).
pub(crate) struct SegmentTable {
    writer: MirrorWriter<MappedWords>,
    spec: MirrorSpec,
    tap: Option<Box<dyn Tap>>,
    keys: Vec<u64>,
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
        Ok((Self { writer, spec, tap: None, keys: Vec::new() }, takes_over))
    }

    pub(crate) fn set_tap(&mut self, tap: Option<Box<dyn Tap>>) {
        self.tap = tap;
    }

    pub(crate) fn take_tap(&mut self) -> Option<Box<dyn Tap>> {
        self.tap.take()
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
}

impl Mirror for SegmentTable {
    fn hold(&mut self, slot: u16, tier: u8, engine: &[u64], keys: &[u64]) -> usize {
        let refused = self.writer.hold(slot, tier, engine, keys);
        if let Some(tap) = &mut self.tap {
            let held = keys.len().saturating_sub(refused);
            if let (Some(engine), Some(keys)) = (engine.get(..held), keys.get(..held)) {
                tap.held(slot, tier, engine, keys);
            }
        }
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

    fn keys_of(&self, slot: u16, engine: u64, out: &mut Vec<u64>) {
        self.writer.keys_of(slot, engine, out);
    }

    fn clear(&mut self, slot: u16) {
        self.writer.clear(slot);
        if let Some(tap) = &mut self.tap {
            tap.cleared(slot);
        }
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
}

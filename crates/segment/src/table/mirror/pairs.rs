//! What a slot holds, as its engine names it.

use super::word::Word;
use super::writer::{MirrorWriter, TIER_MIX, engine_word};
use crate::words::WordsMut;

/// A pair that a slot holds: see [`MirrorWriter::for_each_held`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HeldPair {
    /// Where the block lies.
    pub tier: u8,
    /// The engine's hash of it. `None` if the slot has ever held a hash with several keys: which of
    /// them a stored word is of does not show.
    pub engine: Option<u64>,
    /// The key.
    pub key: u64,
}

impl<M: WordsMut> MirrorWriter<M> {
    /// Visits the pairs that a slot holds, in no particular order. Looks at the parts of the mirror
    /// where the slot may hold something.
    pub fn for_each_held(&self, slot: u16, mut visit: impl FnMut(HeldPair)) {
        if !self.serves(slot) {
            return;
        }
        let is_plain = self.table.slot(slot).fan == 0;
        for entry in self.regions.entries(slot).filter(|&entry| self.holds(entry, slot)) {
            let tier = self.table.holders(entry).tier();
            let key = self.table.key(entry) ^ TIER_MIX[usize::from(tier)];
            let mut tell = |word: u64| {
                let engine = is_plain.then(|| word ^ engine_word(0, tier, 0));
                visit(HeldPair { tier, engine, key });
            };
            let mut has_aliases = false;
            if self.table.holders(entry).is_aliased() {
                self.aliases.of_holder(&self.table, entry, slot, |alias| {
                    has_aliases = true;
                    tell(alias.engine);
                    false
                });
            }
            if !has_aliases {
                tell(self.table.engine(entry));
            }
        }
    }
}

//! A literal [`Mirror`]: the answer to which faster ones are compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::mirror::Mirror;

/// Maps of maps, without any thought of speed.
///
/// A key that several blocks of a slot have is no longer held when one of them is gone, as the Go
/// scheduler has it.
#[derive(Clone, Debug, Default)]
pub struct LiteralMirror {
    blocks: BTreeMap<Place, Block>,
    room: Option<usize>,
}

/// Slot, tier, engine hash.
type Place = (u16, u8, u64);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Block {
    count: u64,
    keys: Vec<u64>,
}

impl LiteralMirror {
    /// One that takes at most so many pairs.
    pub fn with_room(pairs: usize) -> Self {
        Self { blocks: BTreeMap::new(), room: Some(pairs) }
    }

    /// Whether the slot holds a request key in a tier.
    pub fn holds(&self, slot: u16, tier: u8, key: u64) -> bool {
        self.held(slot, tier).any(|(_, held)| held == key)
    }

    /// How many of `keys`, from the first on, the slot holds in a tier.
    pub fn longest_prefix(&self, slot: u16, tier: u8, keys: &[u64]) -> usize {
        let held: BTreeSet<u64> = self.held(slot, tier).map(|(_, key)| key).collect();
        keys.iter().take_while(|key| held.contains(key)).count()
    }

    /// How many of `keys`, from the first on, the slot holds in whatever tier.
    pub fn longest_prefix_anywhere(&self, slot: u16, keys: &[u64]) -> usize {
        let held: BTreeSet<u64> =
            (0..=u8::MAX).flat_map(|tier| self.held(slot, tier)).map(|(_, key)| key).collect();
        keys.iter().take_while(|key| held.contains(key)).count()
    }

    /// The pairs of engine hash and request key that a slot holds in a tier.
    pub fn held(&self, slot: u16, tier: u8) -> impl Iterator<Item = (u64, u64)> {
        self.blocks
            .range((slot, tier, 0)..=(slot, tier, u64::MAX))
            .flat_map(|(place, block)| block.keys.iter().map(|key| (place.2, *key)))
    }

    fn pairs(&self) -> usize {
        self.blocks.values().map(|block| block.keys.len()).sum()
    }
}

impl Mirror for LiteralMirror {
    fn hold(&mut self, slot: u16, tier: u8, engine: &[u64], keys: &[u64]) -> usize {
        let mut counted = BTreeSet::new();
        for (stored, (engine, key)) in engine.iter().zip(keys).enumerate() {
            let place = (slot, tier, *engine);
            let known = self.blocks.get(&place).is_some_and(|block| block.keys.contains(key));
            if !known && self.room.is_some_and(|room| self.pairs() >= room) {
                return keys.len() - stored;
            }
            let block = self.blocks.entry(place).or_default();
            if !known {
                block.keys.push(*key);
            }
            if counted.insert(*engine) {
                block.count += 1;
            }
        }
        0
    }

    fn release(&mut self, slot: u16, tier: u8, engine: u64) -> bool {
        let place = (slot, tier, engine);
        let Some(block) = self.blocks.get_mut(&place) else { return false };
        block.count -= 1;
        if block.count > 0 {
            return false;
        }
        let gone = self.blocks.remove(&place).unwrap_or_default();
        self.blocks.retain(|place, block| {
            if (place.0, place.1) == (slot, tier) {
                block.keys.retain(|key| !gone.keys.contains(key));
            }
            !block.keys.is_empty()
        });
        true
    }

    fn keys_of(&self, slot: u16, engine: u64, out: &mut Vec<u64>) {
        let tiers = (0..=u8::MAX).filter_map(|tier| self.blocks.get(&(slot, tier, engine)));
        out.extend(tiers.take(1).flat_map(|block| &block.keys));
    }

    fn clear(&mut self, slot: u16) {
        self.blocks.retain(|place, _| place.0 != slot);
    }

    fn len(&self, slot: u16) -> usize {
        self.blocks.range((slot, 0, 0)..=(slot, u8::MAX, u64::MAX)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_stored_twice_is_gone_after_two_removals() {
        let mut mirror = LiteralMirror::default();
        mirror.hold(3, 0, &[10, 10, 11], &[1, 2, 3]);
        mirror.hold(3, 0, &[10, 10], &[1, 2]);
        assert_eq!(mirror.longest_prefix(3, 0, &[1, 2, 3, 4]), 3);
        assert!(!mirror.release(3, 0, 10));
        assert!(mirror.holds(3, 0, 2));
        assert!(mirror.release(3, 0, 10));
        assert!(!mirror.holds(3, 0, 2));
        assert!(!mirror.release(3, 0, 10));
        assert_eq!(mirror.len(3), 1);
    }

    #[test]
    fn a_key_of_two_blocks_goes_with_either() {
        let mut mirror = LiteralMirror::default();
        mirror.hold(0, 0, &[10, 10, 20, 20], &[1, 2, 1, 3]);
        assert!(mirror.release(0, 0, 20));
        assert!(!mirror.holds(0, 0, 1));
        assert!(mirror.holds(0, 0, 2));
    }

    #[test]
    fn tiers_and_slots_are_apart() {
        let mut mirror = LiteralMirror::default();
        mirror.hold(1, 0, &[10], &[1]);
        mirror.hold(1, 1, &[10], &[1]);
        mirror.hold(2, 0, &[10], &[7]);
        assert!(mirror.release(1, 0, 10));
        assert_eq!(mirror.longest_prefix_anywhere(1, &[1]), 1);
        mirror.clear(1);
        assert!(mirror.is_empty(1) && !mirror.is_empty(2));
        let mut keys = Vec::new();
        mirror.keys_of(2, 10, &mut keys);
        assert_eq!(keys, [7]);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut mirror = LiteralMirror::with_room(2);
        assert_eq!(mirror.hold(0, 0, &[10, 11, 12, 13], &[1, 2, 3, 4]), 2);
        assert_eq!(mirror.hold(0, 0, &[10], &[1]), 0);
    }
}

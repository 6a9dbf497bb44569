//! Endpoint slots: which rows belong to somebody, and in which generation.
//!
//! A slot is the index of an endpoint in every column. Slots are reused, so an endpoint is named by
//! index *and* [`SlotGeneration`], which steps at each assignment. A slot goes round
//!
//! ```text
//! Free ──assign──► Live ──retire──► Retired ──free──► Free
//! ```
//!
//! and each arrow is one store of one word. Retired means: no longer published, but proxies may still
//! hold claims on it. `free` is the caller's statement that the claims are zero in every live
//! [ledger](crate::ledger), having looked after all of them accepted a topology without the endpoint.
//!
//! The words are for writers: a restarted control plane finds in them which slots are taken. Readers
//! learn of slots from the topology document.
//!
//! Cost: one word per slot; `assign` scans for the lowest free one (microseconds at 16,384).

use std::fmt;
use std::sync::atomic::Ordering;

use crate::words::{Words, WordsMut};

/// Which assignment of a slot is meant: 1 to 4,095, then 1 again; 0 is no assignment.
///
/// Twelve bits are enough because a slot is only reused when nobody holds a claim on it: a number
/// comes back after 4,095 rounds, each of which waited for all claims to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotGeneration(u16);

impl SlotGeneration {
    /// The generation of a slot that was never assigned.
    pub const NONE: Self = Self(0);

    const BITS: u32 = 12;
    const MASK: u64 = (1 << Self::BITS) - 1;

    /// The generation with this number, or `None` above 4,095.
    pub fn new(number: u16) -> Option<Self> {
        (u64::from(number) <= Self::MASK).then_some(Self(number))
    }

    /// The number.
    pub fn number(self) -> u16 {
        self.0
    }

    /// The generation of the next assignment.
    #[must_use]
    pub fn next(self) -> Self {
        if u64::from(self.0) < Self::MASK { Self(self.0 + 1) } else { Self(1) }
    }

    /// The low twelve bits of `word`.
    #[inline]
    pub(crate) fn from_low_bits(word: u64) -> Self {
        // The mask leaves twelve bits, which `u16` holds.
        Self((word & Self::MASK) as u16)
    }
}

impl fmt::Display for SlotGeneration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A slot in one of its assignments: names an endpoint for as long as the endpoint exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId {
    /// The index in every column.
    pub index: u32,
    /// The assignment.
    pub generation: SlotGeneration,
}

/// Where a slot is on its round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotState {
    /// May be assigned.
    Free,
    /// Belongs to an endpoint.
    Live,
    /// Belonged to an endpoint; claims on it may be left.
    Retired,
}

const STATE_SHIFT: u32 = 16;

/// Where the slot words are, in words from the start of the memory they are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotRegion {
    at: usize,
    slots: usize,
}

impl SlotRegion {
    pub(crate) fn words(slots: usize) -> usize {
        slots
    }

    pub(crate) fn new(at: usize, slots: usize) -> Self {
        Self { at, slots }
    }

    /// State and generation of slot `index`, or `None` where there is no such slot.
    ///
    /// A state that no writer of this crate stores reads as [`SlotState::Retired`]: such a slot is
    /// not assigned until somebody has made sure of its claims.
    pub(crate) fn get(
        &self,
        words: &impl Words,
        index: u32,
    ) -> Option<(SlotState, SlotGeneration)> {
        let index = index as usize;
        if index >= self.slots {
            return None;
        }
        let word = words.load(self.at + index, Ordering::Acquire);
        let state = match word >> STATE_SHIFT {
            0 => SlotState::Free,
            1 => SlotState::Live,
            _ => SlotState::Retired,
        };
        Some((state, SlotGeneration::from_low_bits(word)))
    }

    /// The lowest free slot with the generation that it would be assigned in.
    pub(crate) fn vacancy(&self, words: &impl Words) -> Option<SlotId> {
        (0..self.slots as u32).find_map(|index| match self.get(words, index)? {
            (SlotState::Free, last) => Some(SlotId { index, generation: last.next() }),
            _ => None,
        })
    }

    /// Moves `id` from state `from` to `to`; `false`, and no change, where it is not in `from`.
    pub(crate) fn advance(
        &self,
        words: &impl WordsMut,
        id: SlotId,
        from: SlotState,
        to: SlotState,
    ) -> bool {
        if self.get(words, id.index) != Some((from, id.generation)) {
            return false;
        }
        self.set(words, id, to);
        true
    }

    /// Sets the word of slot `id.index`, which must exist.
    pub(crate) fn set(&self, words: &impl WordsMut, id: SlotId, state: SlotState) {
        let state = match state {
            SlotState::Free => 0,
            SlotState::Live => 1,
            SlotState::Retired => 2,
        };
        let word = state << STATE_SHIFT | u64::from(id.generation.number());
        words.store(self.at + id.index as usize, word, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::HeapWords;

    #[test]
    fn generations_go_round_without_none() {
        let mut generation = SlotGeneration::NONE;
        for _ in 0..4095 {
            generation = generation.next();
            assert_ne!(generation, SlotGeneration::NONE);
        }
        assert_eq!(generation.number(), 4095);
        assert_eq!(generation.next().number(), 1);
        assert_eq!(SlotGeneration::new(4096), None);
    }

    #[test]
    fn a_word_of_no_known_state_is_not_assigned() {
        let words = HeapWords::new(3);
        let region = SlotRegion::new(1, 2);
        words.store(1, u64::MAX, Ordering::Relaxed);
        assert_eq!(region.get(&words, 0).map(|slot| slot.0), Some(SlotState::Retired));
        assert_eq!(region.vacancy(&words).map(|id| id.index), Some(1));
        assert_eq!(region.get(&words, 2), None);
    }
}

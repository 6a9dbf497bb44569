//! The claim protocol, on any words.
//!
//! Every claim word is the whole truth about its slot, so one compare-and-swap is a decision: no
//! other memory has to agree with it. Orderings are acquire/release all the same: whoever finds a
//! request gone or a slot adopted also sees what its worker did before that.
//!
//! Who writes: the workers of one process, concurrently. A process that dies takes its file with it
//! (see [`file`](super::file)), so there is no torn state to recover: any word between two operations
//! is a valid one.
//!
//! Cost: one compare-and-swap to claim, one to release, uncontended about 10 ns each, and one counter
//! each. Loops are lock-free: a swap fails only because another worker's succeeded.

use std::sync::atomic::Ordering;

use super::word::Observed;
use crate::layout::LINE;
use crate::slot::SlotGeneration;
use crate::words::{Words, WordsMut};

/// Attempts of [`ClaimWords::claim_any`].
const TRIES: u32 = 64;

/// A request held on a slot. It is the only thing that can be released, and releasing consumes it: a
/// stream record that holds it releases exactly once. Dropping it leaks the request until the process
/// ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a claim that is dropped instead of released counts forever"]
pub struct Claim {
    pub(super) slot: u32,
    pub(super) generation: SlotGeneration,
    pub(super) tokens: u32,
}

impl Claim {
    /// The slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The assignment of the slot.
    pub fn generation(&self) -> SlotGeneration {
        self.generation
    }

    /// The tokens that it still holds.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }
}

/// Why a claim was not made. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The word is no longer the one that was scored: score this one and try again.
    #[error("the slot's load changed")]
    Conflict(Observed),
    /// The slot is in another assignment: the endpoint is gone or not adopted yet.
    #[error("the slot belongs to another endpoint")]
    Stale(Observed),
    /// The word has no room for the request or its tokens.
    #[error("the slot's claim word is full")]
    Saturated(Observed),
    /// The ledger has no such slot.
    #[error("the ledger has no such slot")]
    OutOfRange,
}

/// Totals since the ledger was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Claims made.
    pub taken: u64,
    /// Claims released.
    pub released: u64,
    /// Claims refused because the word had changed since it was scored.
    pub conflicts: u64,
    /// Releases that found the slot in another assignment or without a request, and changed nothing.
    pub stale_releases: u64,
}

#[derive(Clone, Copy)]
enum Counter {
    Taken,
    Released,
    Conflicts,
    StaleReleases,
}

/// Counters and claim words: each counter on its own cache line, then one word per slot, densely.
#[derive(Clone, Debug)]
pub(crate) struct ClaimWords<W> {
    words: W,
    at: usize,
    slots: usize,
}

const COUNTERS: usize = 4;

impl<W> ClaimWords<W> {
    /// Words that the claims on `slots` slots take.
    pub(crate) fn words(slots: usize) -> usize {
        COUNTERS * LINE + slots
    }

    /// Claims on `slots` slots, from word `at` on.
    pub(crate) fn new(words: W, at: usize, slots: usize) -> Self {
        Self { words, at, slots }
    }

    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    #[inline]
    fn place(&self, slot: u32) -> Option<usize> {
        let slot = slot as usize;
        (slot < self.slots).then(|| self.at + COUNTERS * LINE + slot)
    }
}

impl<W: Words> ClaimWords<W> {
    /// The word of `slot`; all zero, which is no assignment, where there is no such slot.
    #[inline]
    pub(crate) fn observe(&self, slot: u32) -> Observed {
        self.place(slot).map_or(Observed::default(), |at| self.load(at))
    }

    pub(crate) fn counters(&self) -> Counters {
        let count = |which: Counter| self.words.load(self.counter(which), Ordering::Relaxed);
        Counters {
            taken: count(Counter::Taken),
            released: count(Counter::Released),
            conflicts: count(Counter::Conflicts),
            stale_releases: count(Counter::StaleReleases),
        }
    }

    #[inline]
    fn load(&self, at: usize) -> Observed {
        Observed::new(self.words.load(at, Ordering::Acquire))
    }

    fn counter(&self, which: Counter) -> usize {
        self.at + which as usize * LINE
    }
}

impl<W: WordsMut> ClaimWords<W> {
    /// Claims one request of `tokens` provided that the word is still `observed`.
    #[inline]
    pub(crate) fn try_claim(
        &self,
        slot: u32,
        generation: SlotGeneration,
        observed: Observed,
        tokens: u32,
    ) -> Result<Claim, ClaimError> {
        let at = self.place(slot).ok_or(ClaimError::OutOfRange)?;
        if observed.generation() != generation || generation == SlotGeneration::NONE {
            return Err(ClaimError::Stale(observed));
        }
        let new = observed.plus(tokens).ok_or(ClaimError::Saturated(observed))?;
        match self.swap(at, observed, new) {
            Ok(()) => {
                self.count(Counter::Taken);
                Ok(Claim { slot, generation, tokens })
            }
            Err(now) => {
                self.count(Counter::Conflicts);
                Err(ClaimError::Conflict(now))
            }
        }
    }

    /// Claims one request of `tokens` whatever the slot's load is: for callers that do not score it.
    ///
    /// A conflict is only reported after many attempts, each of which some other worker won.
    pub(crate) fn claim_any(
        &self,
        slot: u32,
        generation: SlotGeneration,
        tokens: u32,
    ) -> Result<Claim, ClaimError> {
        let mut observed = self.observe(slot);
        for _ in 0..TRIES {
            match self.try_claim(slot, generation, observed, tokens) {
                Err(ClaimError::Conflict(now)) => observed = now,
                outcome => return outcome,
            }
        }
        Err(ClaimError::Conflict(observed))
    }

    /// Gives a claim back; `false` where it was stale, which only a bug or foreign writes can cause.
    #[inline]
    pub(crate) fn release(&self, claim: &Claim) -> bool {
        let done = self.subtract(claim.slot, claim.generation, 1, claim.tokens);
        self.count(if done { Counter::Released } else { Counter::StaleReleases });
        done
    }

    /// Gives a claim's tokens back and keeps its request; afterwards it holds no tokens.
    #[inline]
    pub(crate) fn release_tokens(&self, claim: &mut Claim) -> bool {
        let tokens = std::mem::take(&mut claim.tokens);
        let done = self.subtract(claim.slot, claim.generation, 0, tokens);
        if !done {
            self.count(Counter::StaleReleases);
        }
        done
    }

    /// Puts `slot` into a new assignment, provided that no request is held in another one.
    pub(crate) fn adopt(&self, slot: u32, generation: SlotGeneration) -> Result<(), ClaimError> {
        let at = self.place(slot).ok_or(ClaimError::OutOfRange)?;
        let mut observed = self.load(at);
        for _ in 0..TRIES {
            if observed.generation() == generation {
                return Ok(());
            }
            if observed.requests() != 0 {
                return Err(ClaimError::Stale(observed));
            }
            match self.swap(at, observed, Observed::pack(generation, 0, 0)) {
                Ok(()) => return Ok(()),
                Err(now) => observed = now,
            }
        }
        Err(ClaimError::Conflict(observed))
    }

    #[inline]
    fn subtract(&self, slot: u32, generation: SlotGeneration, requests: u32, tokens: u32) -> bool {
        let Some(at) = self.place(slot) else { return false };
        let mut observed = self.load(at);
        // A claim must be given back, so this loop has no limit; it is lock-free.
        loop {
            if observed.generation() != generation || observed.requests() == 0 {
                return false;
            }
            match self.swap(at, observed, observed.minus(requests, tokens)) {
                Ok(()) => return true,
                Err(now) => observed = now,
            }
        }
    }

    #[inline]
    fn swap(&self, at: usize, old: Observed, new: Observed) -> Result<(), Observed> {
        self.words
            .compare_exchange(at, old.word, new.word, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(Observed::new)
    }

    #[inline]
    fn count(&self, which: Counter) {
        self.words.fetch_add(self.counter(which), 1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::HeapWords;

    fn generation(number: u16) -> SlotGeneration {
        SlotGeneration::new(number).unwrap()
    }

    /// No worker can bring this about, as a slot is adopted only while nothing is held on it.
    #[test]
    fn a_release_into_another_assignment_changes_nothing() {
        let claims = ClaimWords::new(HeapWords::new(ClaimWords::<()>::words(1)), 0, 1);
        claims.adopt(0, generation(1)).unwrap();
        let mut claim = claims.claim_any(0, generation(1), 3).unwrap();
        let forged = Observed::pack(generation(2), 1, 3);
        claims.words.store(COUNTERS * LINE, forged.word, Ordering::Relaxed);
        assert!(!claims.release_tokens(&mut claim));
        assert!(!claims.release(&claim));
        assert_eq!(claims.observe(0), forged);
        let counters = claims.counters();
        assert_eq!((counters.released, counters.stale_releases), (0, 2));
    }
}

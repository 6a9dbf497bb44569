//! The claim word: what one proxy process holds on one slot, packed so that one compare-and-swap
//! changes all of it.
//!
//! ```text
//! 63      52 51        32 31            0
//! generation  requests     tokens
//! ```

use crate::slot::SlotGeneration;

/// A claim word as it was at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The word itself: what [`try_claim`](crate::Ledger::try_claim) compares with.
    pub word: u64,
}

/// Most requests that one process can hold on one slot.
pub const MAX_REQUESTS: u32 = (1 << REQUEST_BITS) - 1;

const REQUEST_BITS: u32 = 20;
const TOKEN_BITS: u32 = 32;
const REQUEST_SHIFT: u32 = TOKEN_BITS;
const GENERATION_SHIFT: u32 = TOKEN_BITS + REQUEST_BITS;

impl Observed {
    #[inline]
    pub(crate) fn new(word: u64) -> Self {
        Self { word }
    }

    #[inline]
    pub(crate) fn pack(generation: SlotGeneration, requests: u32, tokens: u32) -> Self {
        debug_assert!(requests <= MAX_REQUESTS);
        Self::new(
            u64::from(generation.number()) << GENERATION_SHIFT
                | u64::from(requests) << REQUEST_SHIFT
                | u64::from(tokens),
        )
    }

    /// The assignment of the slot that the claims are for.
    #[inline]
    pub fn generation(self) -> SlotGeneration {
        SlotGeneration::from_low_bits(self.word >> GENERATION_SHIFT)
    }

    /// Requests in flight.
    #[inline]
    pub fn requests(self) -> u32 {
        // The mask leaves twenty bits.
        (self.word >> REQUEST_SHIFT) as u32 & MAX_REQUESTS
    }

    /// Tokens of these requests that are still to be processed.
    #[inline]
    pub fn tokens(self) -> u32 {
        // Truncation keeps the low 32 bits, which is the field.
        self.word as u32
    }

    /// One more request of `tokens`, or `None` where a field is full.
    #[inline]
    pub(crate) fn plus(self, tokens: u32) -> Option<Self> {
        let requests = self.requests() + 1;
        let tokens = self.tokens().checked_add(tokens)?;
        (requests <= MAX_REQUESTS).then(|| Self::pack(self.generation(), requests, tokens))
    }

    /// Without `requests` requests and `tokens` tokens; neither goes below zero.
    #[inline]
    pub(crate) fn minus(self, requests: u32, tokens: u32) -> Self {
        Self::pack(
            self.generation(),
            self.requests().saturating_sub(requests),
            self.tokens().saturating_sub(tokens),
        )
    }
}

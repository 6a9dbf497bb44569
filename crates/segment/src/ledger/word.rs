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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let most = SlotGeneration::new(4095).expect("in range");
        for generation in [SlotGeneration::NONE, most] {
            for requests in [0, 1, MAX_REQUESTS] {
                for tokens in [0, 1, u32::MAX] {
                    let word = Observed::pack(generation, requests, tokens);
                    assert_eq!(word.generation(), generation);
                    assert_eq!((word.requests(), word.tokens()), (requests, tokens));
                }
            }
        }
    }

    #[test]
    fn nothing_overflows_or_goes_below_zero() {
        let full = Observed::pack(SlotGeneration::NONE, MAX_REQUESTS, 0);
        assert_eq!(full.plus(0), None);
        let full = Observed::pack(SlotGeneration::NONE, 1, u32::MAX - 1);
        assert_eq!(full.plus(2), None);
        let more = full.plus(1).expect("room for one token");
        assert_eq!((more.requests(), more.tokens()), (2, u32::MAX));
        let none = Observed::default().minus(1, 1);
        assert_eq!(none, Observed::default());
    }
}

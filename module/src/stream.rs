//! Stream records: what the scheduler remembers of a stream between its hooks.
//!
//! The filter decides, the cluster's load balancer is asked once per attempt, and both run on the
//! worker that owns the stream. They meet in a record of that worker, found by a [`Token`] that
//! travels with the stream. A token of a record that is gone, or of another worker, finds nothing.

use std::sync::Arc;

use inlane_core::effect::TokenRelease;
use inlane_core::endpoint::EndpointIx;
use inlane_segment::Claim;

use crate::runtime::Served;

/// Names a record: its place and the generation of that place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    index: u32,
    generation: u32,
}

impl Token {
    /// Length of the text form.
    pub const LEN: usize = 16;

    /// The token as 16 hexadecimal digits: fits a header as well as filter state.
    pub fn encode(self) -> [u8; Self::LEN] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let value = u64::from(self.index) << 32 | u64::from(self.generation);
        std::array::from_fn(|n| DIGITS[(value >> (60 - 4 * n)) as usize & 15])
    }

    /// Reads the text form.
    pub fn decode(text: &[u8]) -> Option<Self> {
        if text.len() != Self::LEN {
            return None;
        }
        let value = text.iter().try_fold(0u64, |value, &digit| {
            Some(value << 4 | u64::from((digit as char).to_digit(16)?))
        })?;
        Some(Self { index: (value >> 32) as u32, generation: value as u32 })
    }
}

/// What is remembered of a decided stream.
#[derive(Debug)]
pub struct Record {
    /// The topology and configuration that the decision was made on.
    pub served: Arc<Served>,
    /// Endpoints in the order in which attempts go to them.
    pub ranking: Vec<EndpointIx>,
    /// How many of them have been tried.
    pub tried: usize,
    /// Attempts that the cluster was asked for.
    pub attempts: u32,
    /// The booking of the current attempt.
    pub claim: Option<Claim>,
    /// Bookings of other legs.
    pub more_claims: Vec<Claim>,
    /// Projected tokens of the booking, kept for moves.
    pub tokens: u32,
    /// When these are given back.
    pub release: TokenRelease,
    /// The endpoint of the current attempt.
    pub current: Option<EndpointIx>,
}

/// The records of one worker.
#[derive(Debug, Default)]
pub struct Records {
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    generation: u32,
    record: Option<Record>,
}

impl Records {
    /// Files a record.
    pub fn insert(&mut self, record: Record) -> Token {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push(Place { generation: 0, record: None });
                (self.places.len() - 1) as u32
            }
        };
        let place = &mut self.places[index as usize];
        place.record = Some(record);
        Token { index, generation: place.generation }
    }

    /// The record of a token.
    pub fn get_mut(&mut self, token: Token) -> Option<&mut Record> {
        let place = self.places.get_mut(token.index as usize)?;
        if place.generation == token.generation { place.record.as_mut() } else { None }
    }

    /// Takes a record out; its token is void from now on.
    pub fn remove(&mut self, token: Token) -> Option<Record> {
        let place = self.places.get_mut(token.index as usize)?;
        if place.generation != token.generation {
            return None;
        }
        let record = place.record.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(token.index);
        Some(record)
    }

    /// Number of streams between decision and end.
    pub fn count(&self) -> usize {
        self.places.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            served: Arc::new(Served::empty()),
            ranking: Vec::new(),
            tried: 0,
            attempts: 0,
            claim: None,
            more_claims: Vec::new(),
            tokens: 0,
            release: TokenRelease::End,
            current: None,
        }
    }

    #[test]
    fn a_token_is_void_once_its_record_is_gone() {
        let mut records = Records::default();
        let token = records.insert(record());
        assert_eq!(Token::decode(&token.encode()), Some(token));
        assert!(records.get_mut(token).is_some());
        assert!(records.remove(token).is_some());
        let later = records.insert(record());
        assert_ne!(later, token);
        assert!(records.get_mut(token).is_none());
        assert!(records.remove(token).is_none());
        assert_eq!(records.count(), 1);
    }

    #[test]
    fn forged_tokens_are_refused() {
        assert_eq!(Token::decode(b""), None);
        assert_eq!(Token::decode(b"00000000000000zz"), None);
        assert_eq!(Token::decode(&[0xff; 16]), None);
        let beyond = Token::decode(b"ffffffffffffffff");
        assert!(Records::default().get_mut(beyond.unwrap()).is_none());
    }
}

//! Booking what a decision asks for.
//!
//! A booking belongs to somebody at any moment: to a [`Booking`], which gives it back when it is
//! dropped, and from the filing of the stream record on to that.

use inlane_core::columns::{Col, InFlight};
use inlane_core::cycle::Scratch;
use inlane_core::effect::{Effect, TokenRelease};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::LoadSource;
use inlane_segment::{Claim, ClaimError, Ledger, Observed};

use crate::runtime::{Serving, slot_generation};

/// The bookings of a decision: the destination's, and those of other legs.
pub(super) struct Booking<'a> {
    ledger: &'a Ledger,
    primary: Option<Claim>,
    others: Vec<Claim>,
    /// Projected tokens of the destination's.
    pub(super) tokens: u32,
    /// When these are given back.
    pub(super) release: TokenRelease,
}

impl Booking<'_> {
    /// Hands the claims over: the destination's and the others'.
    pub(super) fn take(mut self) -> (Option<Claim>, Vec<Claim>) {
        (self.primary.take(), std::mem::take(&mut self.others))
    }
}

impl Drop for Booking<'_> {
    fn drop(&mut self) {
        for claim in self.primary.take().into_iter().chain(self.others.drain(..)) {
            self.ledger.release(claim);
        }
    }
}

/// The booking conflicted: somebody else was faster.
pub(super) struct Conflict;

/// Books the decision's targets. With `strict` the destination's word must still be the one that
/// was scored. An endpoint whose cell cannot take a booking at all (its slot has just changed
/// hands, or is full) is used without one: that is a matter of accounting, not of service.
pub(super) fn book<'a>(
    serving: &'a Serving,
    scratch: &Scratch,
    target: EndpointIx,
    strict: bool,
) -> Result<Booking<'a>, Conflict> {
    let asked = scratch.effects.iter().find_map(|effect| match *effect {
        Effect::Claim { endpoint, tokens, release, .. } if endpoint == target => {
            Some((fitting(tokens), release))
        }
        _ => None,
    });
    let (tokens, release) = asked.unwrap_or((0, TokenRelease::End));
    let scored = scratch.columns.get(Col::<InFlight>::at(0)).get(target as usize);
    let scored = scored.copied().flatten().filter(|_| strict);
    let primary = match claim(serving, target, tokens, scored.map(|load| load.word)) {
        Ok(claim) => Some(claim),
        Err(ClaimError::Conflict(_)) if strict => return Err(Conflict),
        Err(_) => None,
    };
    let ledger = &*serving.ledger;
    let mut booking = Booking { ledger, primary, others: Vec::new(), tokens, release };
    for effect in &scratch.effects {
        if let Effect::Claim { endpoint, tokens, .. } = *effect
            && endpoint != target
        {
            booking.others.extend(claim(serving, endpoint, fitting(tokens), None).ok());
        }
    }
    Ok(booking)
}

fn fitting(tokens: u64) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

/// Books one endpoint: against the word that was scored, or whatever it is.
///
/// # Errors
/// As for the ledger; an endpoint that is not of this pool is out of range.
pub fn claim(
    serving: &Serving,
    endpoint: EndpointIx,
    tokens: u32,
    scored: Option<u64>,
) -> Result<Claim, ClaimError> {
    let endpoint = serving.endpoints().get(endpoint).ok_or(ClaimError::OutOfRange)?;
    let slot = endpoint.slot;
    let generation = slot_generation(slot).ok_or(ClaimError::OutOfRange)?;
    match scored {
        Some(word) => serving.ledger.try_claim(slot.index, generation, Observed { word }, tokens),
        None => serving.ledger.claim_any(slot.index, generation, tokens),
    }
}

/// Reads the bookings again after a conflict.
pub(super) fn refresh_load(serving: &Serving, scratch: &mut Scratch) {
    for index in 0..scratch.columns.count::<InFlight>() {
        let column = scratch.columns.get_mut(Col::<InFlight>::at(index));
        for (load, &slot) in column.iter_mut().zip(serving.endpoints().slots()) {
            if let Some(load) = load {
                *load = serving.in_flight(slot);
            }
        }
    }
}

/// Reads the bookings for a decision that the data producers had no time for, into every column
/// that the configuration has for them.
pub(super) fn fill_load(serving: &Serving, scratch: &mut Scratch) {
    let columns = serving.plan.config().schema.columns::<InFlight>();
    for (_, column) in columns {
        let cells = scratch.columns.get_mut(column);
        for (load, &slot) in cells.iter_mut().zip(serving.endpoints().slots()) {
            *load = Some(serving.in_flight(slot));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn a_booking_that_nobody_takes_is_given_back() {
        let world = World::new(2);
        let served = world.served();
        let serving = served.serving().unwrap();
        let mut scratch = Scratch::new(&serving.plan);
        let leg = |endpoint| Effect::Claim {
            endpoint,
            tokens: 7,
            release: TokenRelease::FirstByte,
            until_first_byte: false,
        };
        scratch.effects = vec![leg(0), leg(1)];
        let Ok(booking) = book(serving, &scratch, 0, true) else { panic!("nobody else books") };
        assert_eq!((world.booked(), world.load(0).tokens()), (vec![1, 1], 7));
        drop(booking);
        assert_eq!((world.booked(), world.load(0).tokens()), (vec![0, 0], 0));

        let Ok(booking) = book(serving, &scratch, 0, true) else { panic!("nobody else books") };
        let (claim, others) = booking.take();
        assert_eq!(world.booked(), [1, 1]);
        claim.into_iter().chain(others).for_each(|claim| {
            assert!(serving.ledger.release(claim));
        });
        assert_eq!(world.stale_releases(), 0);
    }
}

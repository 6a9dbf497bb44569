//! Bookings in memory.

use std::collections::BTreeMap;

use inlane_core::columns::InFlight;
use inlane_core::effect::TokenRelease;
use inlane_core::endpoint::Slot;
use inlane_core::plugin::LoadSource;

/// What is booked where, by slot and by request.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    load: BTreeMap<u32, InFlight>,
    claims: BTreeMap<String, Vec<Claim>>,
}

/// One booking.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) slot: Slot,
    pub(super) tokens: u64,
    pub(super) release: TokenRelease,
    pub(super) until_first_byte: bool,
}

impl LoadSource for Ledger {
    fn in_flight(&self, slot: Slot) -> InFlight {
        self.load.get(&slot.index).copied().unwrap_or_default()
    }
}

impl Ledger {
    pub(super) fn claim(&mut self, request: &str, claim: Claim) {
        let load = self.load.entry(claim.slot.index).or_default();
        load.requests += 1;
        load.tokens += claim.tokens;
        self.claims.entry(request.to_owned()).or_default().push(claim);
    }

    /// The first byte of the response has come.
    pub(super) fn first_byte(&mut self, request: &str) {
        let Some(claims) = self.claims.get_mut(request) else { return };
        for claim in &mut *claims {
            if claim.until_first_byte || claim.release == TokenRelease::FirstByte {
                let tokens = std::mem::take(&mut claim.tokens);
                let load = self.load.entry(claim.slot.index).or_default();
                load.tokens = load.tokens.saturating_sub(tokens);
                load.requests -= u32::from(claim.until_first_byte);
            }
        }
        claims.retain(|claim| !claim.until_first_byte);
    }

    /// The stream has ended.
    pub(super) fn end(&mut self, request: &str) {
        for claim in self.claims.remove(request).unwrap_or_default() {
            let load = self.load.entry(claim.slot.index).or_default();
            load.tokens = load.tokens.saturating_sub(claim.tokens);
            load.requests -= 1;
        }
    }
}

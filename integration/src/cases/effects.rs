//! Carrying out what a decision asks for.

use inlane_core::effect::Effect;

use super::ledger::{Claim, Ledger};
use super::pool::Pool;
use super::request::LiveRequest;

/// Books claims and sets headers. Records are the plugins' own.
pub(super) fn carry_out(
    effects: &[Effect],
    pool: &Pool,
    ledger: &mut Ledger,
    request: &mut LiveRequest,
) {
    for effect in effects {
        match effect {
            Effect::Record { .. } | Effect::Keep(_) => {}
            &Effect::Claim { endpoint, tokens, release, until_first_byte } => {
                let slot = pool.endpoints[endpoint].slot;
                ledger.claim(request.id(), Claim { slot, tokens, release, until_first_byte });
            }
            Effect::RequestHeader { name, value: Some(value) } => {
                request.headers.0.insert(name.to_string(), value.clone());
            }
            Effect::RequestHeader { name, value: None } => {
                request.headers.0.remove(name.as_ref());
            }
        }
    }
}

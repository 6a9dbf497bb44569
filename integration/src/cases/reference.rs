//! Where the reference decides otherwise: the switches that make a plan behave as it does.
//!
//! Cases were reproduced on the reference. A plan keeps our defaults except for what is set here;
//! plugins run with their defaults.

use inlane_core::plan::{Plan, StaleMetrics};

/// The reference wraps every denial of an admitter into an internal error.
const DENIAL_STATUS: u16 = 500;

/// The plan as the reference would run it: numbers that were never scraped count as they are, and
/// denials are internal errors.
pub(super) fn as_reference(plan: Plan) -> Plan {
    plan.with_stale_metrics(StaleMetrics::Trust).with_denial_status(DENIAL_STATUS)
}

//! Ledgers: what each proxy process has in flight on every endpoint, claimed with one compare-and-swap.
//!
//! Pick and book are one step: a worker [observes](Ledger::observe) the word of each candidate, scores
//! with it, and [claims](Ledger::try_claim) the chosen one against the very word that was scored. When
//! another worker was faster the claim conflicts, that endpoint is scored again, and a burst of
//! requests sees its own picks.
//!
//! A process writes one ledger, its own, and holds the file's lock for life. Everybody else reads:
//! [`LedgerSet`] sums all live ledgers and removes those of the dead.

mod claims;
mod file;
#[cfg(loom)]
#[cfg(test)]
mod models;
mod set;
mod word;

pub use claims::{Claim, ClaimError, Counters};
pub use file::{LEDGER_VERSION, Ledger, MAX_REASON, Refusal};
pub use set::{LedgerSet, LedgerView, Load};
pub use word::{MAX_REQUESTS, Observed};

//! Shared memory between control plane and proxy: snapshot, ledger, block table.

mod clock;
mod data;
mod dir;
mod document;
mod error;
mod head;
mod layout;
pub mod ledger;
pub mod mapped;
#[cfg(all(test, loom))]
mod models;
mod random;
mod reader;
mod row;
mod slot;
pub mod table;
#[cfg(test)]
mod testing;
pub mod words;
mod writer;

pub use clock::boottime_ns;
pub use dir::{Allocation, Owner};
pub use error::Error;
pub use layout::{Document, LAYOUT_VERSION, MAX_ROW_WORDS, MAX_SLOTS, Shape};
pub use ledger::{Claim, ClaimError, Counters, Ledger, LedgerSet, LedgerView, Load, Observed, Refusal};
pub use reader::{DocumentBytes, Snapshot, SnapshotReader};
pub use slot::{SlotGeneration, SlotId, SlotState};
pub use writer::{Opened, Origin, Writer};

//! Shared memory between control plane and proxy: snapshot, ledger, block table.

pub mod mapped;
pub mod words;

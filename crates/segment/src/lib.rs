//! Shared memory between control plane and proxy: snapshot, ledger, block table.

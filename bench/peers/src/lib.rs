//! The mirror of this project beside the indices of two other Rust routers: one harness, one run.
//!
//! Every cell is a process of its own (`src/cells.rs`), started in turn by the binary
//! `inlane-bench-peers`. The same events, derived from a seed, go to every index ([`fleet`]); who
//! holds what is known from how the events were made, and answers are compared with that.
//!
//! A crate for developers: a wrong answer or a missing file ends the process with a message.

pub mod cells;
pub mod fleet;
pub mod peers;
pub mod report;
pub mod threads;

//! Records of decisions: everything that one was made of, so that it can be made again.
//!
//! A decision is a pure function of what is recorded here: the columns of its candidates, the
//! request's features, the state that plugins carried over from their producers, the time and the
//! seed. [`Inputs`] takes them down in memory, reusing it; [`Line`] is the form in which they leave
//! the process, one JSON object a line: first a [`Setting`] for each configuration and topology,
//! then decisions that refer to it by number. [`Replayer`] makes a decision again, with the
//! configuration that it was made with, bit for bit, or with another one.
//!
//! Prompts are not recorded, only their lengths; of the headers those that a plugin asked for.

pub(crate) mod exact;
mod inputs;
mod lines;
mod replay;

pub use inputs::{Inputs, Noting};
pub use lines::{
    Line, RecordedColumn, RecordedDecision, RecordedMedia, RecordedMetrics, RecordedRequest,
    RecordedState, Setting,
};
pub use replay::{ReplayError, Replayed, Replayer};

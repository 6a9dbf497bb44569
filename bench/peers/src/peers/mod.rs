//! The indices, each as its own documentation says it is used best.

mod chain;
#[cfg(feature = "dynamo")]
mod crtc;
mod ours;

pub use chain::Chain;
#[cfg(feature = "dynamo")]
pub use crtc::Crtc;
pub use ours::Ours;

use crate::fleet::{Answer, Event, Fleet};

/// An index under test, with its one writer.
pub trait Peer {
    /// An event in the form that the index takes.
    type Event: Send;
    /// Looks prompts up, on another thread than the writer's.
    type Reader: Reader + Send;

    /// An index for the fleet once it holds everything.
    fn new(fleet: &Fleet, room: Option<Room>) -> Self;

    /// Converts an event. Not timed.
    fn prepare(event: &Event) -> Self::Event;

    /// Applies events. Returns what is left of them, so that freeing it is not timed where the index
    /// does not insist on owning its events.
    fn apply(&mut self, events: Vec<Self::Event>) -> Vec<Self::Event>;

    /// Returns once everything applied can be seen by readers.
    fn drain(&mut self);

    /// Another reader.
    fn reader(&self) -> Self::Reader;

    /// What the index says about itself: bytes in use, and what it reserved beside the heap.
    fn bytes(&self) -> Bytes;
}

/// Bytes that the counting allocator does not see.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bytes {
    /// Memory mapped, touched or not.
    pub mapped: usize,
    /// What the index itself says is in use, where it says so.
    pub in_use: usize,
}

/// How large an index of fixed size is made.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Distinct blocks.
    pub blocks: usize,
    /// Pages for sets of holders.
    pub pages: usize,
}

/// A reader of an index.
pub trait Reader {
    /// A prompt in the form that the index takes.
    type Query: Send + Sync;

    /// Converts a prompt's keys. Not timed.
    fn prepare(keys: &[u64]) -> Self::Query;

    /// Looks a prompt up.
    fn look_up(&mut self, query: &Self::Query);

    /// What was found last, by pod.
    fn answer(&self) -> Answer;
}

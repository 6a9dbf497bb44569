//! What an engine tells of its block cache.

use std::sync::Arc;

use inlane_kv::engine_hash::Digest;

use super::cache::BlockCache;

/// One change of the cache, in the order in which changes happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Every block has been forgotten.
    Cleared,
    /// A block has been handed out again, and what it held is gone. Another block may hold the same.
    Removed(u64),
    /// Consecutive blocks of one prompt are in the cache now.
    Stored(Stored),
}

/// See [`Event::Stored`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stored {
    /// The key of the block before the first; `None` at the start of a prompt.
    pub parent: Option<u64>,
    /// The blocks' keys.
    pub keys: Vec<u64>,
    /// The whole hashes that the keys are the ends of; empty where a key is the whole.
    pub digests: Vec<Digest>,
    /// The blocks' tokens.
    pub tokens: Vec<u32>,
    /// Whose request it was.
    pub origin: Arc<Origin>,
}

/// What distinguishes a request's blocks from those of others with the same tokens.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Origin {
    /// The LoRA adapter.
    pub adapter: Option<Adapter>,
    /// The request's cache salt; part of its first block.
    pub salt: Option<String>,
    /// The request's session, which changes nothing.
    pub session: Option<String>,
}

/// A LoRA adapter as events name it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Adapter {
    /// The name that requests use.
    pub name: Arc<str>,
    /// Its number in this engine, from 1.
    pub id: u64,
}

/// The events of an engine that have not been taken yet.
#[derive(Debug, Default)]
pub(super) struct Journal {
    events: Vec<Event>,
    /// Something ran since the events were last taken. Events wait for the next step: a reset of an idle engine
    /// is told together with the next request.
    stepped: bool,
}

impl Journal {
    pub(super) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn extend(&mut self, event: Option<Event>) {
        self.events.extend(event);
    }

    /// Adds what `cache` has evicted since the last time.
    pub(super) fn evictions(&mut self, cache: &mut BlockCache) {
        self.events.extend(cache.take_evicted().map(Event::Removed));
    }

    pub(super) fn step(&mut self) {
        self.stepped = true;
    }

    /// The events since the last time, if there has been a step.
    pub(super) fn take(&mut self) -> Vec<Event> {
        if std::mem::take(&mut self.stepped) {
            std::mem::take(&mut self.events)
        } else {
            Vec::new()
        }
    }
}

//! One publisher as the index knows it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::follow::{Follower, Reason};
use super::queue::Operation;

/// Who publishes, and for which slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `namespace/name` of the endpoint.
    pub(crate) endpoint: String,
    /// `ADDRESS:PORT` of its requests: what topics call it.
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) slot: u16,
}

impl Identity {
    /// What the Go scheduler calls it in a shared index: an IPv6 address without brackets.
    pub(crate) fn shared_name(&self) -> String {
        self.name.replace(['[', ']'], "")
    }
}

/// Where a publisher is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where it publishes; `None`: it connects to us.
    pub(crate) events: Option<String>,
    /// Where it is asked for what was missed.
    pub(crate) replays: Option<String>,
    /// Prefix of its topics.
    pub(crate) filter: Vec<u8>,
}

/// A publisher's state.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) who: Identity,
    pub(crate) place: Place,
    pub(crate) follower: Follower,
    /// Model of its base: what topics without one mean.
    pub(crate) model: Option<Arc<str>>,
    /// Whether blocks were taken in while it was not known.
    pub(crate) nameless: bool,
    pub(crate) connected: bool,
    pub(crate) since: Instant,
    pub(crate) numbers: Numbers,
}

/// What happened with one publisher.
#[derive(Debug, Default, Clone)]
pub(crate) struct Numbers {
    pub(crate) messages: u64,
    pub(crate) applied: u64,
    pub(crate) connections: u64,
    /// Replays that were begun.
    pub(crate) replays: u64,
    /// Messages that are no batch of events.
    pub(crate) undecodable: u64,
    /// Events that are wrong in themselves.
    pub(crate) malformed: u64,
    /// Times that what was held was not believed any more, by reason.
    pub(crate) gaps: u64,
    pub(crate) restarts: u64,
    pub(crate) silences: u64,
    pub(crate) errors: BTreeMap<Operation, u64>,
}

impl Numbers {
    pub(crate) fn count_clear(&mut self, reason: Reason) {
        match reason {
            Reason::Gap => self.gaps += 1,
            Reason::Restarted => self.restarts += 1,
            Reason::Silent => self.silences += 1,
        }
    }

    pub(crate) fn count_error(&mut self, operation: Operation) {
        *self.errors.entry(operation).or_default() += 1;
    }

    /// Adds what happened with another one.
    pub(crate) fn absorb(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.messages, other.messages),
            (&mut self.applied, other.applied),
            (&mut self.connections, other.connections),
            (&mut self.replays, other.replays),
            (&mut self.undecodable, other.undecodable),
            (&mut self.malformed, other.malformed),
            (&mut self.gaps, other.gaps),
            (&mut self.restarts, other.restarts),
            (&mut self.silences, other.silences),
        ] {
            *mine += theirs;
        }
        for (&operation, count) in &other.errors {
            *self.errors.entry(operation).or_default() += count;
        }
    }

    /// Connections after the first.
    pub(crate) fn reconnections(&self) -> u64 {
        self.connections.saturating_sub(1)
    }
}

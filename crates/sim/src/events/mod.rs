//! Telling the world what is in the block cache: KV-cache events over ZeroMQ, as vLLM publishes them.
//!
//! One `Publisher` per pod owns a PUB socket and, if asked for, a ROUTER that repeats past batches. Every step
//! of the engine that changed the cache becomes one message of three frames: topic, sequence number (from 0,
//! 8 bytes, big endian) and a msgpack batch. A pod that is revived starts again at 0.
//!
//! Publishing never waits: a subscriber that does not keep up misses messages beyond its high-water mark, and
//! sees so by the sequence.

mod plan;
mod publisher;
mod replay;
mod wire;

use clap::ValueEnum;
use serde::Serialize;

pub(crate) use self::{
    plan::{Place, Plan},
    publisher::Publisher,
};

/// A version of vLLM, as far as its events differ from its neighbours'.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
pub enum Dialect {
    /// Arrays: hashes, parent, tokens, size, adapter number, medium.
    #[value(name = "0.10")]
    #[serde(rename = "0.10")]
    V0_10,
    /// With the adapter's name.
    #[value(name = "0.14")]
    #[serde(rename = "0.14")]
    V0_14,
    /// With extra keys.
    #[value(name = "0.18")]
    #[serde(rename = "0.18")]
    V0_18,
    /// With cache groups.
    #[value(name = "0.20")]
    #[serde(rename = "0.20")]
    V0_20,
    /// With the kinds of groups.
    #[value(name = "0.22")]
    #[serde(rename = "0.22")]
    V0_22,
    /// Maps instead of arrays.
    #[value(name = "0.24")]
    #[serde(rename = "0.24")]
    V0_24,
    /// With sessions; replayed batches carry their topic.
    #[value(name = "0.32")]
    #[serde(rename = "0.32")]
    V0_32,
}

/// Why events cannot be published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventsError {
    /// An endpoint that ZeroMQ refuses.
    #[error("cannot publish cache events at {endpoint}: {source}")]
    Endpoint {
        /// The endpoint.
        endpoint: String,
        /// What ZeroMQ said.
        source: zmq::Error,
    },
    /// An endpoint that nobody could reach.
    #[error("cannot publish cache events at {0}: use tcp://HOST:PORT or ipc://PATH")]
    Form(String),
    /// No socket or thread.
    #[error("cannot publish cache events: {0}")]
    System(String),
}

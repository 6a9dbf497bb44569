//! KV-cache events of inference engines and the keys of prefix blocks.
//!
//! An engine says which prefix blocks it stores and drops; a scheduler that listens knows which
//! endpoint holds the prefix of a request. This crate is all of that without sockets, clocks and
//! memory of its own:
//!
//! * [`frames`] and [`topic`] read the frames of messages, live and replayed;
//! * [`event::decode()`] reads their payloads, of every version of vLLM and of SGLang;
//! * [`keys::Hasher`] hashes tokens to request keys, equal on both sides;
//! * [`Applier`] brings a [`Mirror`] up to what the events say;
//! * [`engine_hash`] computes the engines' own hashes, for checks and for simulated engines;
//! * [`literal::LiteralMirror`] is the mirror that others are compared with.
//!
//! ```
//! use std::num::NonZeroU32;
//!
//! use inlane_kv::event::{EngineType, decode};
//! use inlane_kv::extras::Extras;
//! use inlane_kv::frames::Message;
//! use inlane_kv::keys::{Algorithm, Hasher};
//! use inlane_kv::literal::LiteralMirror;
//! use inlane_kv::topic::Topic;
//! use inlane_kv::{Applier, Limits};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // [1.5, [["BlockStored", [7], nil, [1, 2, 3, 4], 4]]]
//! let payload = b"\x92\xcb\x3f\xf8\0\0\0\0\0\0\x91\x95\xabBlockStored\x91\x07\xc0\x94\x01\x02\x03\x04\x04";
//! let frames = [&b"kv@10.0.0.1:8000@m"[..], &[0; 8], payload];
//!
//! let hasher = Hasher::new(Algorithm::CborFnv, "", NonZeroU32::new(4).ok_or("no block size")?);
//! let mut applier = Applier::new(hasher, [], Limits::default());
//! let mut mirror = LiteralMirror::default();
//! let slot = 0;
//!
//! let message = Message::live(&frames)?;
//! let topic = message.topic.and_then(Topic::parse).ok_or("no topic")?;
//! let batch = decode(message.payload, EngineType::Vllm)?;
//! applier.apply(&mut mirror, slot, topic.model, &batch);
//!
//! let mut keys = Vec::new();
//! hasher.extend(hasher.start("m"), &[1, 2, 3, 4, 5], &Extras::NONE, &mut keys);
//! assert_eq!(mirror.longest_prefix(slot, 0, &keys), 1);
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants
//!
//! * A request that has the keys of the blocks that an engine holds is found, whatever the engine's
//!   block size; adapters and salts included.
//! * What cannot be used is passed over and counted by its [`Reason`]. It costs a hit, never a wrong
//!   claim.
//! * Payloads are not trusted: memory and time are bounded by their length, nothing recurses,
//!   nothing panics.
//!
//! # Cost
//!
//! `examples/throughput.rs` measures it. On two shared cores, busy: 10,000 tokens are hashed in 50 µs
//! (`cbor-fnv`) or 10 µs (`xxh64`) in blocks of 16; a block of a long prompt is decoded in 50 ns and
//! applied, hashing included, in another 100 or 40.

#![forbid(unsafe_code)]

mod apply;
pub mod engine_hash;
pub mod event;
pub mod extras;
pub mod frames;
pub mod keys;
mod kind;
pub mod literal;
mod mirror;
mod msgpack;
pub mod topic;

pub use apply::{Applied, Applier, Counters, Limits, MOST_TIERS, Reason};
pub use kind::CacheKind;
pub use mirror::Mirror;

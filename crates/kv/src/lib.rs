//! KV-cache events of inference engines and the keys of prefix blocks.

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

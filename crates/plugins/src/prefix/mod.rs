//! The approximate prefix index: which endpoint was sent which prompt blocks.
//!
//! A prompt is cut into blocks; a block's hash covers everything before it ([`hash`]). The index
//! remembers, per endpoint and with exact LRU eviction, the hashes of the prompts that were sent
//! there ([`PrefixIndex`]); the endpoint that holds most of a new prompt's blocks has most of it in
//! its KV cache, approximately, because nothing is heard from the engine itself.
//!
//! [`producer`] is the data producer on top: it fills the match column before a decision and
//! records the choice after it. Workers only read the index and hand picks over; one owner thread
//! of the proxy applies them ([`PrefixIndex::drain`]). The index outlives configuration reloads:
//! the owner finds all of them with [`KeptState::all`](inlane_core::registry::KeptState::all).

pub(crate) mod found;
pub mod hash;
pub mod producer;

mod index;
mod settings;
mod stats;
pub(crate) mod tenants;

pub use index::PrefixIndex;
pub use settings::{BlockSize, Settings};
pub use stats::PrefixStats;

//! KV-cache events: what an engine says it stored and dropped.
//!
//! [`decode()`] reads the payload of one message. Both encodings are understood, decided event by
//! event: arrays (vLLM to 0.22, SGLang) and maps (vLLM from 0.24). Fields that are missing have
//! their default, unknown fields and tags are passed over, and an event that is wrong in itself is
//! dropped without losing the others.

mod decode;
mod extra;

pub use decode::{Buffers, DecodeError, EventError, decode, decode_into};
pub use extra::{BlockExtras, Extra, ExtraKeys};

/// Whose events they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineType {
    /// SGLang: the first nine fields of a store, no groups.
    Sglang,
    /// vLLM, any version from 0.10.2.
    #[default]
    Vllm,
}

impl EngineType {
    /// The engine of a configuration's name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sglang, Self::Vllm].into_iter().find(|engine| engine.name() == name)
    }

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sglang => "sglang",
            Self::Vllm => "vllm",
        }
    }
}

/// The events of one scheduler step, in their order.
///
/// Texts borrow from the payload; hashes and tokens are held here. Memory: at most some sixteen
/// times the payload, for events of the smallest size.
#[derive(Debug, Default)]
pub struct Batch<'a> {
    timestamp: f64,
    rank: Option<u32>,
    entries: Vec<decode::Entry<'a>>,
    hashes: Vec<u64>,
    tokens: Vec<u32>,
    unknown: u32,
    malformed: u32,
    first_error: Option<EventError>,
}

impl Batch<'_> {
    /// When the engine sent it, in seconds since 1970 by its own clock.
    pub fn timestamp(&self) -> f64 {
        self.timestamp
    }

    /// The data-parallel rank of the publisher.
    pub fn rank(&self) -> Option<u32> {
        self.rank
    }

    /// The events that could be read.
    pub fn events(&self) -> impl ExactSizeIterator<Item = Event<'_>> {
        self.entries.iter().map(|entry| entry.event(&self.hashes, &self.tokens))
    }

    /// Events of a tag that is not known, which were passed over.
    pub fn unknown(&self) -> u32 {
        self.unknown
    }

    /// Events that were dropped because something in them is wrong.
    pub fn malformed(&self) -> u32 {
        self.malformed
    }

    /// What was wrong with the first of the [`malformed`](Self::malformed).
    pub fn first_error(&self) -> Option<EventError> {
        self.first_error
    }
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The engine holds nothing any more.
    AllBlocksCleared,
    /// Blocks are gone.
    BlockRemoved(Removed<'a>),
    /// Blocks are there.
    BlockStored(Stored<'a>),
}

/// Blocks that an engine dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Removed<'a> {
    /// The blocks, by [`engine_key`].
    pub hashes: &'a [u64],
    /// Where they lay.
    pub medium: Option<&'a str>,
    /// The KV-cache group.
    pub group: Option<u32>,
    /// `LOCAL` or `REMOTE`, seen from the publisher.
    pub locality: Option<&'a str>,
    /// The name of an offload tier.
    pub ownership: Option<&'a str>,
}

/// Blocks that an engine stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stored<'a> {
    /// The blocks in the order of the prompt, by [`engine_key`].
    pub hashes: &'a [u64],
    /// The block before the first; none at the start of a prompt.
    pub parent: Option<u64>,
    /// The tokens of the step; those of the blocks in a group that keeps every block.
    pub tokens: &'a [u32],
    /// Tokens per block.
    pub block_size: u32,
    /// A number of the adapter that means something in its engine only.
    pub lora_id: Option<i64>,
    /// Where they lie.
    pub medium: Option<&'a str>,
    /// The adapter.
    pub lora_name: Option<&'a str>,
    /// What the hashes depend on besides the tokens, block by block.
    pub extra_keys: ExtraKeys<'a>,
    /// The KV-cache group.
    pub group: Option<u32>,
    /// The kind of the group, [`CacheKind`](crate::CacheKind) by name.
    pub kind: Option<&'a str>,
    /// Tokens that a sliding window spans.
    pub sliding_window: Option<u32>,
    /// `LOCAL` or `REMOTE`, seen from the publisher.
    pub locality: Option<&'a str>,
    /// The name of an offload tier.
    pub ownership: Option<&'a str>,
    /// The session of the request.
    pub session_id: Option<&'a str>,
}

/// The engine key of a digest: its last eight bytes as a big-endian number, a shorter one padded
/// with zeros in front. None of an empty one.
///
/// Engines that send integers send the same number.
pub fn engine_key(digest: &[u8]) -> Option<u64> {
    if digest.is_empty() {
        return None;
    }
    let last = digest.last_chunk::<8>().map_or_else(
        || digest.iter().fold(0, |key, byte| key << 8 | u64::from(*byte)),
        |last| u64::from_be_bytes(*last),
    );
    Some(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_key_is_the_end_of_the_digest() {
        assert_eq!(engine_key(&[]), None);
        assert_eq!(engine_key(&[1, 2]), Some(258));
        assert_eq!(engine_key(&[9, 0, 0, 0, 0, 0, 0, 1, 2]), Some(258));
    }
}

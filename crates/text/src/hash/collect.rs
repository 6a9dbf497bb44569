//! The sink that keeps the tokens themselves, for tests and for `explain`.

use std::fmt;

use crate::sink::{Media, Modality, Sink};

/// Collects estimated token ids and media features.
///
/// Holds 4 bytes per 4 bytes of text: bounded by the body and the media limits.
#[derive(Clone, Debug, Default)]
pub struct TokenCollector {
    prompts: Vec<CollectedPrompt>,
    /// Bytes of the token in progress.
    tail: Vec<u8>,
}

/// The tokens of one prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectedPrompt {
    /// Token ids: 4 bytes of text each as a little-endian word, or as given in the request.
    pub tokens: Vec<u32>,
    /// Media parts in order.
    pub features: Vec<Feature>,
}

/// Where a media part stands in a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// What it is.
    pub modality: Modality,
    /// Its digest; [`Display`](fmt::Display) gives the hexadecimal form of feature records.
    pub hash: u64,
    /// Tokens before it.
    pub offset: u64,
    /// Tokens it takes.
    pub length: u32,
}

impl TokenCollector {
    /// An empty collector.
    pub fn new() -> Self {
        Self::default()
    }

    /// The prompts in order.
    pub fn prompts(&self) -> &[CollectedPrompt] {
        &self.prompts
    }

    fn pad(&mut self) {
        if !self.tail.is_empty() {
            self.tail.resize(4, 0);
            self.push_tail();
        }
    }

    fn push_tail(&mut self) {
        if let (Ok(word), Some(prompt)) = (self.tail.as_slice().try_into(), self.prompts.last_mut())
        {
            prompt.tokens.push(u32::from_le_bytes(word));
            self.tail.clear();
        }
    }
}

impl fmt::Display for Feature {
    /// `image a090cef6951873cf 4+225`: modality, hash without padding, offset and length.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:x} {}+{}", self.modality.name(), self.hash, self.offset, self.length)
    }
}

impl Sink for TokenCollector {
    fn reset(&mut self) {
        self.prompts.clear();
        self.tail.clear();
    }

    fn begin_prompt(&mut self) {
        self.tail.clear();
        self.prompts.push(CollectedPrompt::default());
    }

    fn text(&mut self, piece: &[u8]) {
        for &byte in piece {
            self.tail.push(byte);
            if self.tail.len() == 4 {
                self.push_tail();
            }
        }
    }

    fn token_ids(&mut self, ids: &[u32]) {
        if let Some(prompt) = self.prompts.last_mut() {
            prompt.tokens.extend_from_slice(ids);
        }
    }

    fn media(&mut self, media: Media) {
        self.pad();
        if let Some(prompt) = self.prompts.last_mut() {
            let offset = prompt.tokens.len();
            prompt.features.push(Feature {
                modality: media.modality,
                hash: media.digest,
                offset: offset as u64,
                length: media.tokens,
            });
            prompt.tokens.resize(offset + media.tokens as usize, media.digest as u32);
        }
    }

    fn end_prompt(&mut self) {
        self.pad();
    }
}

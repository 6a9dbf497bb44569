//! The fields of a request other than its text.

use std::ops::Range;

use super::Limits;
use super::slot::Slot;
use crate::error::{Bounded, ScanError};
use crate::json::{Kind, Number};

/// What a body says, once it is complete. The default is that of a body that nobody has read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary<'a> {
    /// The string `model`; empty if absent, no string, or empty.
    pub model: &'a str,
    /// The bytes of the value of `model` in the body, quotes included and whatever its type, so
    /// that another name can be written in their place; of several, the last. `None` if absent.
    pub model_span: Option<Range<u64>>,
    /// The offset just after the opening brace: where a missing `model` can be written.
    pub members_at: u64,
    /// The body has no member at all: one written at `members_at` needs no comma after it.
    pub is_empty: bool,
    /// `stream` is the boolean true.
    pub stream: bool,
    /// `stream_options.include_usage` is the boolean true.
    pub include_usage: bool,
    /// The output cap in tokens: the first of `max_completion_tokens` (chat only) and `max_tokens`
    /// (of responses `max_output_tokens`, of generate requests that of `sampling_params`) that is a whole number ≥ 0. Values past `u64` saturate.
    pub max_tokens: Option<u64>,
    /// `n` (choices per prompt; of generate requests that of `sampling_params`) if it is a whole number ≥ 0.
    pub n: Option<u64>,
    /// The string `cache_salt`; empty if absent or no string.
    pub cache_salt: &'a str,
    /// Prompts: one for a conversation and for token ids, otherwise as many as there are strings or
    /// lists of ids.
    pub prompts: usize,
    /// Bytes of the body.
    pub bytes: u64,
}

/// The fields found so far. Of several equal keys the last one counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) model: String,
    pub(crate) model_span: Option<Range<u64>>,
    pub(crate) cache_salt: String,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) max_completion_tokens: Option<u64>,
    pub(crate) n: Option<u64>,
    pub(crate) members_at: u64,
    pub(crate) has_members: bool,
}

impl Fields {
    pub(crate) fn reset(&mut self) {
        self.model.clear();
        self.cache_salt.clear();
        *self = Self {
            model: std::mem::take(&mut self.model),
            cache_salt: std::mem::take(&mut self.cache_salt),
            ..Self::default()
        };
    }

    /// A value of this kind replaces what the slot held.
    #[inline]
    pub(crate) fn open(&mut self, slot: Slot, kind: Kind) {
        match slot {
            Slot::CacheSalt => self.cache_salt.clear(),
            Slot::IncludeUsage => self.include_usage = kind == Kind::True,
            Slot::MaxCompletionTokens => self.max_completion_tokens = None,
            Slot::MaxTokens => self.max_tokens = None,
            Slot::Model => self.model.clear(),
            Slot::N => self.n = None,
            Slot::SamplingParams => (self.max_tokens, self.n) = (None, None),
            Slot::Stream => self.stream = kind == Kind::True,
            Slot::StreamOptions => self.include_usage = false,
            _ => {}
        }
    }

    pub(crate) fn number(&mut self, slot: Slot, number: Number) {
        match slot {
            Slot::MaxCompletionTokens => self.max_completion_tokens = number.whole(),
            Slot::MaxTokens => self.max_tokens = number.whole(),
            Slot::N => self.n = number.whole(),
            _ => {}
        }
    }

    /// More text of `model` or `cache_salt`.
    pub(crate) fn text(
        &mut self,
        slot: Slot,
        piece: &[u8],
        limits: &Limits,
    ) -> Result<(), ScanError> {
        let (field, what) = match slot {
            Slot::Model => (&mut self.model, Bounded::Model),
            Slot::CacheSalt => (&mut self.cache_salt, Bounded::CacheSalt),
            _ => return Ok(()),
        };
        let limit = limits.string_bytes;
        if field.len() + piece.len() > limit {
            return Err(ScanError::TooLarge { what, limit });
        }
        // Pieces are whole characters: nothing is ever dropped here.
        field.push_str(std::str::from_utf8(piece).unwrap_or_default());
        Ok(())
    }
}

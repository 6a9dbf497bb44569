//! `prompt` of a completion request, `input` of an embedding request: a string, a list of strings, a
//! list of token ids, or a list of such lists. Of an image request the string alone, of a generate
//! request (`token_ids`) the list of ids alone.

use super::slot::Slot;
use super::{Api, Limits};
use crate::error::{Bounded, RequestError, ScanError};
use crate::json::{Kind, Number};
use crate::sink::Sink;

/// What `prompt` turned out to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    /// Absent, null, or empty so far.
    #[default]
    Empty,
    Ids,
    /// Lists of ids, the last of which has none so far.
    EmptyList,
    IdLists,
    /// Another type, or a list of mixed or other types.
    Invalid,
    Strings,
    Text,
}

/// The state of `prompt`.
///
/// A second `prompt` key replaces the first: the sink has then seen the wrong text, which
/// [`is_stale`](Prompt::is_stale) says; nothing more is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prompt {
    shape: Shape,
    seen: bool,
    stale: bool,
    count: usize,
}

impl Prompt {
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The sink must see the last `prompt` anew.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn verdict(&self, api: Api) -> Result<(), RequestError> {
        match (api, self.shape) {
            (Api::Generate, Shape::Ids) | (Api::ImagesGenerations, Shape::Text) => Ok(()),
            (Api::Generate, _) => Err(RequestError::TokenIds),
            (Api::ImagesGenerations, _) => Err(RequestError::ImagePrompt),
            (_, Shape::Ids | Shape::IdLists | Shape::Strings | Shape::Text) => Ok(()),
            (Api::Embeddings, _) => Err(RequestError::EmbeddingInput),
            _ => Err(RequestError::Prompt),
        }
    }

    pub(crate) fn open(
        &mut self,
        slot: Slot,
        kind: Kind,
        limits: &Limits,
        sink: &mut impl Sink,
    ) -> Result<(), ScanError> {
        match slot {
            Slot::Prompt => {
                self.stale |= self.seen;
                self.seen = true;
                self.count = 0;
                self.shape = match kind {
                    Kind::Array | Kind::Null | Kind::String => Shape::Empty,
                    _ => Shape::Invalid,
                };
                if kind == Kind::String {
                    self.begin(limits, sink)?;
                }
            }
            Slot::PromptItem => match (self.shape, kind) {
                (Shape::Empty | Shape::Strings, Kind::String) => {
                    self.shape = Shape::Strings;
                    self.begin(limits, sink)?;
                }
                (Shape::Empty, Kind::Number) => {
                    self.shape = Shape::Ids;
                    self.begin(limits, sink)?;
                }
                (Shape::Ids, Kind::Number) => {}
                (Shape::Empty | Shape::IdLists, Kind::Array) => {
                    self.shape = Shape::EmptyList;
                    self.begin(limits, sink)?;
                }
                _ => self.shape = Shape::Invalid,
            },
            Slot::PromptId => {
                let is_list = matches!(self.shape, Shape::EmptyList | Shape::IdLists);
                let is_id = is_list && kind == Kind::Number;
                self.shape = if is_id { Shape::IdLists } else { Shape::Invalid };
            }
            _ => {}
        }
        Ok(())
    }

    #[inline]
    pub(crate) fn text(&mut self, slot: Slot, piece: &[u8], sink: &mut impl Sink) {
        match (slot, self.shape) {
            (Slot::Prompt, _) => self.shape = Shape::Text,
            (Slot::PromptItem, Shape::Strings) => {}
            _ => return,
        }
        if !self.stale {
            sink.text(piece);
        }
    }

    pub(crate) fn number(&mut self, number: Number, sink: &mut impl Sink) {
        if !matches!(self.shape, Shape::Ids | Shape::IdLists) {
            return;
        }
        match number.token() {
            Some(id) if !self.stale => sink.token_ids(&[id]),
            Some(_) => {}
            None => self.shape = Shape::Invalid,
        }
    }

    pub(crate) fn close(&mut self, slot: Slot, kind: Kind, sink: &mut impl Sink) {
        let ends = match (slot, kind) {
            (Slot::Prompt, _) => kind == Kind::String || self.shape == Shape::Ids,
            (Slot::PromptItem, Kind::String) => self.shape == Shape::Strings,
            (Slot::PromptItem, Kind::Array) => self.shape == Shape::IdLists,
            _ => false,
        };
        // No engine takes a prompt of no tokens.
        if self.shape == Shape::EmptyList && slot == Slot::PromptItem {
            self.shape = Shape::Invalid;
        }
        if ends && !self.stale {
            sink.end_prompt();
        }
    }

    fn begin(&mut self, limits: &Limits, sink: &mut impl Sink) -> Result<(), ScanError> {
        self.count += 1;
        if self.count > limits.prompts {
            let limit = limits.prompts;
            return Err(ScanError::TooLarge { what: Bounded::Prompts, limit });
        }
        if !self.stale {
            sink.begin_prompt();
        }
        Ok(())
    }
}

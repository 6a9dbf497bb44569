//! From JSON events to fields, prompt and messages.
//!
//! Keeps the path to the current value as far as it matters: at most six containers. Everything
//! below a value of no interest is skipped by counting brackets; everything below `tools` goes to
//! their tree.

use std::ops::Range;

use super::chat::Chat;
use super::features::Features;
use super::fields::Fields;
use super::prompt::Prompt;
use super::slot::Slot;
use super::talk::Talk;
use super::tools::Tools;
use super::{Api, Limits, MediaRules};
use crate::error::{RequestError, ScanError};
use crate::json::{Events, KeyBuffer, Kind, Number};
use crate::sink::Sink;

/// Body, messages, message, content, part, content, part, source: no path of interest is longer.
const MAX_PATH: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    Nothing,
    /// Keys and strings are text of the prompt.
    Text,
    Tools,
}

/// A container on the path.
#[derive(Clone, Copy, Debug)]
struct Open {
    slot: Slot,
    start: u64,
}

/// Everything that is known about the request so far.
#[derive(Clone)]
pub(crate) struct Extractor<S> {
    pub(crate) api: Api,
    pub(crate) limits: Limits,
    pub(crate) rules: MediaRules,
    pub(crate) sink: S,
    pub(crate) fields: Fields,
    pub(crate) features: Features,
    pub(crate) prompt: Prompt,
    pub(crate) chat: Chat,
    pub(crate) talk: Talk,
    pub(crate) tools: Tools,
    /// The bytes of the last `prompt`, `messages` or `input`.
    pub(crate) span: Range<u64>,

    /// The field that the current or next value fills, and where that value starts.
    slot: Slot,
    start: u64,
    path: [Open; MAX_PATH],
    path_len: usize,
    /// Containers open below a value that is not part of the path, and whose they are.
    nested: u32,
    below: Below,
    key: KeyBuffer,
    fault: Option<ScanError>,
}

impl<S: Sink> Extractor<S> {
    pub(crate) fn new(api: Api, limits: Limits, sink: S) -> Self {
        Self {
            api,
            limits,
            rules: MediaRules::default(),
            sink,
            fields: Fields::default(),
            features: Features::default(),
            prompt: Prompt::default(),
            chat: Chat::new(),
            talk: Talk::new(),
            tools: Tools::default(),
            span: 0..0,
            slot: Slot::Root,
            start: 0,
            path: [Open { slot: Slot::Ignore, start: 0 }; MAX_PATH],
            path_len: 0,
            nested: 0,
            below: Below::Nothing,
            key: KeyBuffer::default(),
            fault: None,
        }
    }

    pub(crate) fn reset(&mut self, api: Api) {
        self.api = api;
        self.sink.reset();
        self.fields.reset();
        self.features.reset();
        self.prompt.reset();
        self.chat.restart();
        self.talk.reset();
        self.tools.reset();
        self.span = 0..0;
        self.restart(Slot::Root);
    }

    /// Expects a value for `slot` next.
    pub(crate) fn restart(&mut self, slot: Slot) {
        self.slot = slot;
        self.path_len = 0;
        self.nested = 0;
        self.below = Below::Nothing;
        self.key.clear();
        self.fault = None;
    }

    /// What an event objected to.
    pub(crate) fn fault(&self) -> Result<(), ScanError> {
        self.fault.map_or(Ok(()), Err)
    }

    /// Whether the fields make a request.
    pub(crate) fn verdict(&self) -> Result<(), RequestError> {
        match self.api {
            Api::ChatCompletions => self.chat.verdict(),
            Api::Completions | Api::Embeddings | Api::ImagesGenerations => {
                self.prompt.verdict(self.api)
            }
            Api::Generate => self.prompt.verdict(self.api).and_then(|()| self.features.verdict()),
            Api::Conversations | Api::Messages | Api::Responses => self.talk.verdict(self.api),
        }
    }

    /// The sink has seen the wrong text.
    pub(crate) fn is_stale(&self) -> bool {
        match self.api {
            Api::ChatCompletions => self.chat.is_stale(),
            Api::Completions | Api::Embeddings | Api::Generate | Api::ImagesGenerations => {
                self.prompt.is_stale()
            }
            Api::Conversations | Api::Messages | Api::Responses => self.talk.is_stale(),
        }
    }

    fn note(&mut self, result: Result<(), ScanError>) {
        if let Err(error) = result {
            self.fault.get_or_insert(error);
        }
    }

    /// Goes into a container, or past it.
    #[inline]
    fn descend(&mut self, kind: Kind) {
        let inner = match kind {
            Kind::Array => self.slot.item(),
            // The slots of an object's members come with their keys.
            _ => self.slot.has_members().then_some(self.slot),
        };
        match inner {
            Some(inner) => {
                self.path[self.path_len] = Open { slot: self.slot, start: self.start };
                self.path_len += 1;
                self.slot = inner;
            }
            None => {
                self.nested = 1;
                if self.slot == Slot::Tools && kind == Kind::Array {
                    self.below = Below::Tools;
                    self.tools.open_below(kind);
                } else if self.slot == Slot::TurnAny {
                    self.below = Below::Text;
                }
            }
        }
    }
}

impl<S: Sink> Events for Extractor<S> {
    #[inline]
    fn open(&mut self, kind: Kind, at: u64) {
        let is_container = matches!(kind, Kind::Array | Kind::Object);
        if self.nested > 0 {
            self.nested += u32::from(is_container);
            if self.below == Below::Tools {
                self.tools.open_below(kind);
            }
            return;
        }
        self.start = at;
        match self.slot {
            Slot::Ignore => {}
            Slot::Root => {
                self.fields.members_at = at + 1;
                if kind != Kind::Object {
                    self.note(Err(RequestError::NotAnObject.into()));
                }
            }
            Slot::CacheSalt
            | Slot::IncludeUsage
            | Slot::MaxCompletionTokens
            | Slot::MaxTokens
            | Slot::Model
            | Slot::N
            | Slot::SamplingParams
            | Slot::Stream
            | Slot::StreamOptions => self.fields.open(self.slot, kind),
            Slot::Prompt | Slot::PromptItem | Slot::PromptId => {
                let opened = self.prompt.open(self.slot, kind, &self.limits, &mut self.sink);
                self.note(opened);
            }
            Slot::Tools => self.tools.open(&self.limits),
            slot if slot.is_feature() => {
                let opened = self.features.open(slot, kind, &self.limits);
                self.note(opened);
            }
            slot if slot.is_talk() => {
                let of = (kind, self.api);
                self.talk.open(slot, of, &self.limits, &mut self.tools, &mut self.sink);
            }
            slot => self.chat.open(slot, kind, &self.limits, &mut self.tools, &mut self.sink),
        }
        if is_container {
            self.descend(kind);
        }
    }

    #[inline]
    fn close(&mut self, kind: Kind, end: u64) {
        let is_container = matches!(kind, Kind::Array | Kind::Object);
        if self.nested > 0 {
            if self.below == Below::Tools {
                self.tools.tree.close(kind);
            }
            self.nested -= u32::from(is_container);
            if self.nested > 0 {
                return;
            }
            self.below = Below::Nothing;
        } else if is_container {
            self.path_len -= 1;
            let Open { slot, start } = self.path[self.path_len];
            self.slot = slot;
            self.start = start;
        }
        let span = self.start..end;
        match self.slot {
            Slot::Ignore | Slot::Root => {}
            Slot::Model => self.fields.model_span = Some(span),
            Slot::Prompt => {
                self.span = span;
                self.prompt.close(Slot::Prompt, kind, &mut self.sink);
            }
            Slot::PromptItem => self.prompt.close(Slot::PromptItem, kind, &mut self.sink),
            Slot::Tools => {
                let closed = match self.api {
                    Api::ChatCompletions => self.chat.close_tools(&self.tools, &self.limits),
                    _ => self.talk.close_tools(&self.tools, &self.limits),
                };
                self.note(closed);
            }
            slot if slot.is_feature() => self.features.close(slot),
            slot if slot.is_talk() => {
                if slot == Slot::Turns {
                    self.span = span.clone();
                }
                self.talk.close(slot, (span, self.api), &self.rules, &mut self.sink);
            }
            slot => {
                if slot == Slot::Messages {
                    self.span = span;
                }
                self.chat.close(slot, kind, &self.rules, &mut self.sink);
            }
        }
    }

    #[inline]
    fn key(&mut self, piece: &[u8], last: bool) {
        if self.nested > 0 {
            match self.below {
                Below::Nothing => {}
                Below::Text => self.talk.send(piece, &mut self.sink),
                Below::Tools => self.tools.tree.key(piece),
            }
            return;
        }
        let Some(parent) = self.path_len.checked_sub(1).map(|top| self.path[top].slot) else {
            return;
        };
        self.fields.has_members |= parent == Slot::Root;
        if last && self.key.get().is_empty() && !self.key.is_long() {
            self.slot = parent.member(piece, self.api);
            if self.slot.is_feature() {
                self.features.key(self.slot, piece);
            }
            return;
        }
        self.key.push(piece);
        if last {
            self.slot = parent.member(self.key.get(), self.api);
            if self.slot.is_feature() {
                self.features.key(self.slot, self.key.get());
            }
            self.key.clear();
        }
    }

    #[inline]
    fn text(&mut self, piece: &[u8]) {
        if self.nested > 0 {
            match self.below {
                Below::Nothing => {}
                Below::Text => self.talk.send(piece, &mut self.sink),
                Below::Tools => self.tools.tree.scalar(piece),
            }
            return;
        }
        match self.slot {
            Slot::Ignore => {}
            Slot::Prompt | Slot::PromptItem => self.prompt.text(self.slot, piece, &mut self.sink),
            Slot::Model | Slot::CacheSalt => {
                let taken = self.fields.text(self.slot, piece, &self.limits);
                self.note(taken);
            }
            Slot::MediaHash => {
                let taken = self.features.text(piece, &self.limits);
                self.note(taken);
            }
            Slot::Role
            | Slot::Content
            | Slot::PartText
            | Slot::PartType
            | Slot::ImageUrl
            | Slot::AudioData
            | Slot::AudioFormat
            | Slot::VideoUrl => self.chat.text(self.slot, piece, &mut self.sink),
            Slot::System
            | Slot::SystemText
            | Slot::Turns
            | Slot::TurnRole
            | Slot::TurnContent
            | Slot::TurnText
            | Slot::TurnAny
            | Slot::TurnResult
            | Slot::Source
            | Slot::SourceUrl
            | Slot::SourceData => self.talk.text(self.slot, piece, &mut self.sink),
            _ => {}
        }
    }

    fn digits(&mut self, piece: &[u8]) {
        if self.below == Below::Tools {
            self.tools.tree.scalar(piece);
        }
    }

    fn number(&mut self, number: Number) {
        if self.nested > 0 {
            return;
        }
        match self.slot {
            Slot::PromptItem | Slot::PromptId => self.prompt.number(number, &mut self.sink),
            Slot::MediaLength | Slot::MediaOffset => self.features.number(self.slot, number),
            slot => self.fields.number(slot, number),
        }
    }
}

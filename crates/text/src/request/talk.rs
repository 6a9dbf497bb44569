//! The prompt of Anthropic's messages (`tools`, `system`, `messages`), of responses (`tools`,
//! `instructions`, `input`) and of conversations (`items`).
//!
//! Inside `messages` and `input` text is sent in the order of the body, whatever the keys that it
//! stands under are in: these bodies are compared only with others that the same proxy has seen, and
//! a client writes its turns alike. So only the order of the three fields can be wrong, which a
//! second pass over their text puts right. Keys that do not enter the prompt, or that change from
//! turn to turn (`cache_control`, ids of items), are passed over.

use std::ops::Range;

use xxhash_rust::xxh64::Xxh64;

use super::slot::Slot;
use super::tools::Tools;
use super::{Api, Limits, MediaRules};
use crate::error::{RequestError, ScanError};
use crate::json::Kind;
use crate::media::DataUrl;
use crate::sink::{Media, Modality, Sink};

/// A system block that begins so is a client's account of itself, and no part of the prompt.
const BILLING: &[u8] = b"x-anthropic-billing-header";

/// What a data URL has before the data that `source` holds by themselves.
const DATA_URL: &[u8] = b"data:image/jpeg;base64,";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    /// Absent, null, or no messages so far.
    #[default]
    Empty,
    Invalid,
    Valid,
}

/// What becomes of the text of a system block.
#[derive(Clone, Copy, Debug)]
enum Block {
    /// So many bytes equal the beginning of [`BILLING`]; they have not been sent.
    Beginning(usize),
    Sent,
    Dropped,
}

/// The state of the three fields.
#[derive(Clone)]
pub(crate) struct Talk {
    shape: Shape,
    /// The sink has been told of the prompt.
    begun: bool,
    /// `messages`, `input` or `items` has started.
    seen: bool,
    /// A field came after one that it stands before, or came twice.
    late: bool,
    tools_sent: bool,
    role_wrong: bool,
    content_wrong: bool,
    block: Block,
    media: Xxh64,
    media_bytes: u64,
    image_size: DataUrl,
    /// Tokens that media may still take.
    budget: u32,
    /// The bytes of the last `system` or `instructions`.
    system: Option<Range<u64>>,
}

impl Talk {
    pub(crate) fn new() -> Self {
        Self {
            shape: Shape::Empty,
            begun: false,
            seen: false,
            late: false,
            tools_sent: false,
            role_wrong: false,
            content_wrong: false,
            block: Block::Sent,
            media: Xxh64::new(0),
            media_bytes: 0,
            image_size: DataUrl::new(),
            budget: 0,
            system: None,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.restart();
        self.system = None;
    }

    /// Back to before the prompt, with what is known of its place.
    pub(crate) fn restart(&mut self) {
        self.shape = Shape::Empty;
        self.begun = false;
        self.seen = false;
        self.late = false;
        self.tools_sent = false;
    }

    /// The sink must see the prompt anew.
    pub(crate) fn is_stale(&self) -> bool {
        self.late
    }

    /// Where the text before the turns lies.
    pub(crate) fn system(&self) -> Option<Range<u64>> {
        self.system.clone()
    }

    pub(crate) fn verdict(&self, api: Api) -> Result<(), RequestError> {
        match (self.shape, api) {
            (Shape::Valid, _) => Ok(()),
            (_, Api::Conversations) => Err(RequestError::Items),
            (_, Api::Responses) => Err(RequestError::Input),
            (Shape::Empty, _) => Err(RequestError::AnthropicMessages),
            (Shape::Invalid, _) => Err(RequestError::AnthropicMessage),
        }
    }

    #[inline]
    pub(crate) fn open(
        &mut self,
        slot: Slot,
        (kind, api): (Kind, Api),
        limits: &Limits,
        tools: &mut Tools,
        sink: &mut impl Sink,
    ) {
        let is_text = matches!(kind, Kind::String | Kind::Null);
        match slot {
            Slot::System => {
                self.late |= self.begun;
                self.begin(tools, sink);
            }
            Slot::SystemText => self.block = Block::Beginning(0),
            Slot::Turns => {
                self.late |= self.seen;
                self.seen = true;
                self.budget = limits.media_tokens;
                self.shape = match (api, kind) {
                    (_, Kind::Null) => Shape::Empty,
                    (Api::Conversations | Api::Messages, Kind::Array) => Shape::Empty,
                    (Api::Conversations | Api::Messages, _) => Shape::Invalid,
                    _ => Shape::Valid,
                };
                self.begin(tools, sink);
            }
            Slot::Turn => {
                self.role_wrong = false;
                self.content_wrong = false;
                if kind != Kind::Object {
                    self.refuse(api);
                } else if self.shape == Shape::Empty {
                    self.shape = Shape::Valid;
                }
            }
            Slot::TurnRole => self.role_wrong = !is_text,
            Slot::TurnContent => self.content_wrong = !is_text && kind != Kind::Array,
            Slot::TurnPart => self.content_wrong |= kind != Kind::Object,
            Slot::Source => {
                self.media.reset(0);
                self.media_bytes = 0;
                self.image_size.reset();
            }
            Slot::SourceData => self.image_size.push(DATA_URL),
            _ => {}
        }
    }

    #[inline]
    pub(crate) fn text(&mut self, slot: Slot, piece: &[u8], sink: &mut impl Sink) {
        match slot {
            Slot::SystemText => return self.system_text(piece, sink),
            Slot::Source | Slot::SourceUrl | Slot::SourceData => {
                self.media.update(piece);
                self.media_bytes += piece.len() as u64;
                self.image_size.push(piece);
                return;
            }
            _ => {}
        }
        self.send(piece, sink);
    }

    /// Text that stands in the prompt as it is.
    #[inline]
    pub(crate) fn send(&self, piece: &[u8], sink: &mut impl Sink) {
        if !self.late {
            sink.text(piece);
        }
    }

    pub(crate) fn close(
        &mut self,
        slot: Slot,
        (span, api): (Range<u64>, Api),
        rules: &MediaRules,
        sink: &mut impl Sink,
    ) {
        match slot {
            Slot::System => self.system = Some(span),
            Slot::SystemText => {
                if let Block::Beginning(matched) = self.block {
                    self.send(&BILLING[..matched], sink);
                }
            }
            Slot::Turns if !self.late => sink.end_prompt(),
            Slot::Turn if self.role_wrong => self.refuse(api),
            Slot::Turn if self.content_wrong && api == Api::Messages => self.refuse(api),
            Slot::Source => self.close_source(rules, sink),
            _ => {}
        }
    }

    /// `tools` is complete.
    pub(crate) fn close_tools(&mut self, tools: &Tools, limits: &Limits) -> Result<(), ScanError> {
        tools.close(limits)?;
        self.late |= self.begun && (self.tools_sent || tools.is_filled_list());
        Ok(())
    }

    /// Starts the prompt, if it has not begun.
    fn begin(&mut self, tools: &mut Tools, sink: &mut impl Sink) {
        if !std::mem::replace(&mut self.begun, true) {
            sink.begin_prompt();
            self.tools_sent = tools.send(sink);
        }
    }

    /// Messages and items of conversations have a form; items of responses may have any.
    fn refuse(&mut self, api: Api) {
        if api != Api::Responses {
            self.shape = Shape::Invalid;
        }
    }

    fn system_text(&mut self, piece: &[u8], sink: &mut impl Sink) {
        if let Block::Beginning(matched) = self.block {
            let left = &BILLING[matched..];
            let same = left.iter().zip(piece).take_while(|(left, byte)| left == byte).count();
            self.block = if same == left.len() {
                Block::Dropped
            } else if same == piece.len() {
                Block::Beginning(matched + same)
            } else {
                self.send(&BILLING[..matched], sink);
                Block::Sent
            };
        }
        if let Block::Sent = self.block {
            self.send(piece, sink);
        }
    }

    fn close_source(&mut self, rules: &MediaRules, sink: &mut impl Sink) {
        if self.media_bytes == 0 {
            return;
        }
        let tokens = rules.image.tokens(self.image_size.size()).min(self.budget).max(1);
        self.budget = self.budget.saturating_sub(tokens);
        if !self.late {
            sink.media(Media { modality: Modality::Image, digest: self.media.digest(), tokens });
        }
    }
}

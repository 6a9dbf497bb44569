//! `messages` and `tools` of a chat request.
//!
//! The packed text is the JSON of `tools`, then role and text of each message. The first pass
//! assumes that the body has this order and sends text on as it comes. Whether each assumption
//! held is known when the value in question is complete; if one did not, the sink has seen the
//! wrong text, the rest is not sent, and a second pass is due.

use super::part::{Part, PartType, TextUse};
use super::slot::Slot;
use super::tools::Tools;
use super::{Limits, MediaRules};
use crate::error::{RequestError, ScanError};
use crate::json::Kind;
use crate::sink::Sink;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    /// Absent, or no messages so far.
    #[default]
    Empty,
    Invalid,
    Valid,
}

/// The state of `messages`.
#[derive(Clone)]
pub(crate) struct Chat {
    shape: Shape,
    /// `messages` has started.
    seen: bool,
    /// Tools came after messages, or messages came twice: one more pass over the last `messages`
    /// is enough.
    late: bool,
    /// Inside `messages` things were out of order: they must be visited in theirs.
    disorder: bool,
    tools_sent: bool,

    role_wrong: bool,
    role_sent: bool,
    content_wrong: bool,
    content_sent: bool,
    part: Part,
    /// Tokens that media may still take.
    budget: u32,
}

impl Chat {
    pub(crate) fn new() -> Self {
        Self {
            shape: Shape::Empty,
            seen: false,
            late: false,
            disorder: false,
            tools_sent: false,
            role_wrong: false,
            role_sent: false,
            content_wrong: false,
            content_sent: false,
            part: Part::new(),
            budget: 0,
        }
    }

    /// Back to before `messages`.
    pub(crate) fn restart(&mut self) {
        self.shape = Shape::Empty;
        self.seen = false;
        self.late = false;
        self.disorder = false;
        self.tools_sent = false;
    }

    /// The sink has seen the prompt as it is.
    pub(crate) fn settle(&mut self) {
        self.late = false;
        self.disorder = false;
    }

    /// The sink must see the prompt anew.
    pub(crate) fn is_stale(&self) -> bool {
        self.late || self.disorder
    }

    /// The order within `messages` is not the packing order.
    pub(crate) fn is_disordered(&self) -> bool {
        self.disorder
    }

    pub(crate) fn verdict(&self) -> Result<(), RequestError> {
        match self.shape {
            Shape::Empty | Shape::Invalid => Err(RequestError::Messages),
            Shape::Valid => Ok(()),
        }
    }

    #[inline]
    pub(crate) fn open(
        &mut self,
        slot: Slot,
        kind: Kind,
        limits: &Limits,
        tools: &mut Tools,
        sink: &mut impl Sink,
    ) {
        let is_text = matches!(kind, Kind::String | Kind::Null);
        match slot {
            Slot::Messages => {
                self.late |= self.seen;
                self.seen = true;
                self.disorder = false;
                self.budget = limits.media_tokens;
                self.shape = if kind == Kind::Array { Shape::Empty } else { Shape::Invalid };
                if kind == Kind::Array && !self.late {
                    self.begin(tools, sink);
                }
            }
            Slot::Message => {
                self.role_wrong = false;
                self.role_sent = false;
                self.content_wrong = false;
                self.content_sent = false;
                if kind != Kind::Object {
                    self.shape = Shape::Invalid;
                } else if self.shape == Shape::Empty {
                    self.shape = Shape::Valid;
                }
            }
            Slot::Role => {
                self.disorder |= self.role_sent;
                self.role_wrong = !is_text;
            }
            Slot::Content => {
                self.disorder |= self.content_sent;
                self.content_wrong = !is_text && kind != Kind::Array;
            }
            Slot::Part => {
                self.part.reset();
                self.content_wrong |= kind != Kind::Object;
            }
            _ => self.part.open(slot, kind),
        }
    }

    #[inline]
    pub(crate) fn text(&mut self, slot: Slot, piece: &[u8], sink: &mut impl Sink) {
        match slot {
            Slot::Role => {
                self.disorder |= self.content_sent;
                self.role_sent = true;
            }
            Slot::Content => self.content_sent = true,
            Slot::PartText => match self.part.use_text() {
                TextUse::Send => self.content_sent = true,
                TextUse::Skip => return,
            },
            _ => return self.part.text(slot, piece),
        }
        if !self.is_stale() {
            sink.text(piece);
        }
    }

    pub(crate) fn close(
        &mut self,
        slot: Slot,
        kind: Kind,
        rules: &MediaRules,
        sink: &mut impl Sink,
    ) {
        match slot {
            Slot::Messages if kind == Kind::Array && !self.is_stale() => sink.end_prompt(),
            Slot::Message if self.role_wrong || self.content_wrong => self.shape = Shape::Invalid,
            Slot::Part => self.close_part(rules, sink),
            _ => {}
        }
    }

    /// `tools` is complete.
    pub(crate) fn close_tools(&mut self, tools: &Tools, limits: &Limits) -> Result<(), ScanError> {
        tools.close(limits)?;
        self.late |= self.seen && (self.tools_sent || tools.is_filled_list());
        Ok(())
    }

    /// Starts the prompt with what stands before the messages.
    pub(crate) fn begin(&mut self, tools: &mut Tools, sink: &mut impl Sink) {
        sink.begin_prompt();
        self.tools_sent = tools.send(sink);
    }

    fn close_part(&mut self, rules: &MediaRules, sink: &mut impl Sink) {
        self.content_wrong |= !self.part.is_valid();
        self.disorder |= self.part.is_stale();
        if let PartType::Media(_) = self.part.part_type()
            && let Some(media) = self.part.media(rules, &mut self.budget)
        {
            self.content_sent = true;
            if !self.is_stale() {
                sink.media(media);
            }
        }
    }
}

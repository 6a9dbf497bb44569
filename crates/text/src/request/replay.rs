//! The slow way through `messages`: visiting values in packing order, wherever they stand.
//!
//! Needed when a message has its content before its role, a part its text before its type, or a
//! key twice. Each message, and each part in it, is first skimmed for where its fields lie; then
//! the fields are read in order. A byte is looked at no more than five times; nothing is held.

use std::ops::Range;

use super::MediaRules;
use super::part::{Part, PartType};
use super::slot::Slot;
use crate::error::ScanError;
use crate::json::{Body, Child, Kind, Pieces, Shallow};
use crate::sink::{Modality, Sink};

/// A string or container somewhere in the body.
type Place = Option<(Kind, Range<u64>)>;

/// One visit of all messages.
pub(crate) struct Replay<'a, S> {
    pub(crate) body: &'a Body<'a>,
    pub(crate) rules: &'a MediaRules,
    /// Tokens that media may still take.
    pub(crate) budget: u32,
    pub(crate) sink: &'a mut S,
}

impl<S: Sink> Replay<'_, S> {
    /// Sends the messages in the list at `span`.
    pub(crate) fn messages(&mut self, span: Range<u64>) -> Result<(), ScanError> {
        self.each(span, |replay, message| replay.message(message.span))
    }

    fn message(&mut self, span: Range<u64>) -> Result<(), ScanError> {
        let [role, content] = self.members(span, [b"role", b"content"])?;
        self.send(role)?;
        match content {
            Some((Kind::Array, span)) => self.each(span, |replay, part| replay.part(part.span)),
            content => self.send(content),
        }
    }

    fn part(&mut self, span: Range<u64>) -> Result<(), ScanError> {
        let keys: [&[u8]; 5] = [b"type", b"text", b"image_url", b"input_audio", b"video_url"];
        let [name, text, image, audio, video] = self.members(span, keys)?;
        let mut part = Part::new();
        self.read(name, &mut part, Slot::PartType)?;
        match part.part_type() {
            PartType::Text => return self.send(text),
            PartType::Media(Modality::Image) => {
                self.field(image, b"url", &mut part, Slot::ImageUrl)?;
            }
            PartType::Media(Modality::Audio) => {
                self.field(audio.clone(), b"data", &mut part, Slot::AudioData)?;
                self.field(audio, b"format", &mut part, Slot::AudioFormat)?;
            }
            PartType::Media(Modality::Video) => {
                self.field(video, b"url", &mut part, Slot::VideoUrl)?;
            }
            PartType::Other => return Ok(()),
        }
        if let Some(media) = part.media(self.rules, &mut self.budget) {
            self.sink.media(media);
        }
        Ok(())
    }

    /// Sends the text of a string; anything else has none.
    fn send(&mut self, place: Place) -> Result<(), ScanError> {
        let Some((Kind::String, span)) = place else {
            return Ok(());
        };
        self.body.lex(span, &mut Pieces(|piece: &[u8]| self.sink.text(piece)))
    }

    /// Reads the member `key` of an object into the part.
    fn field(
        &mut self,
        object: Place,
        key: &[u8],
        part: &mut Part,
        slot: Slot,
    ) -> Result<(), ScanError> {
        let Some((Kind::Object, span)) = object else {
            return Ok(());
        };
        let [member] = self.members(span, [key])?;
        self.read(member, part, slot)
    }

    fn read(&mut self, place: Place, part: &mut Part, slot: Slot) -> Result<(), ScanError> {
        let Some((Kind::String, span)) = place else {
            return Ok(());
        };
        self.body.lex(span, &mut Pieces(|piece: &[u8]| part.text(slot, piece)))
    }

    /// The last members with these keys of the object at `span`.
    fn members<const N: usize>(
        &mut self,
        span: Range<u64>,
        keys: [&[u8]; N],
    ) -> Result<[Place; N], ScanError> {
        let mut places = [const { None }; N];
        let visit = |child: Child<'_>| {
            if let Some(at) = keys.iter().position(|key| *key == child.key) {
                places[at] = Some((child.kind, child.span));
            }
        };
        self.body.lex(span, &mut Shallow::new(visit))?;
        Ok(places)
    }

    /// Calls `visit` for each item of the list at `span`.
    fn each(
        &mut self,
        span: Range<u64>,
        mut visit: impl FnMut(&mut Self, Child<'_>) -> Result<(), ScanError>,
    ) -> Result<(), ScanError> {
        let body = self.body;
        let mut result = Ok(());
        let shallow = |child: Child<'_>| {
            if result.is_ok() {
                result = visit(self, child);
            }
        };
        body.lex(span, &mut Shallow::new(shallow))?;
        result
    }
}

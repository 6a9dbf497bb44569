//! One content part of a message: text, or media.

use xxhash_rust::xxh64::Xxh64;

use super::MediaRules;
use super::slot::Slot;
use crate::json::{KeyBuffer, Kind};
use crate::media::DataUrl;
use crate::sink::{Media, Modality};

/// The type of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartType {
    Media(Modality),
    Other,
    Text,
}

impl PartType {
    fn of(name: &[u8]) -> Self {
        match name {
            b"image_url" => PartType::Media(Modality::Image),
            b"input_audio" => PartType::Media(Modality::Audio),
            b"text" => PartType::Text,
            b"video_url" => PartType::Media(Modality::Video),
            _ => PartType::Other,
        }
    }
}

/// What a part's text means for the optimistic first pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextUse {
    /// The part is a text part, or nothing says otherwise yet: send it.
    Send,
    /// The part is of another type.
    Skip,
}

/// Fields whose last occurrence had the wrong type, one bit each.
#[derive(Clone, Copy, Debug, Default)]
struct Wrong(u16);

impl Wrong {
    /// The field occurs again: what was said of it and of its members no longer counts.
    fn set(&mut self, field: u16, members: u16, wrong: bool) {
        self.0 &= !(field | members);
        if wrong {
            self.0 |= field;
        }
    }
}

const TYPE: u16 = 1;
const TEXT: u16 = 1 << 1;
const IMAGE: u16 = 1 << 2;
const IMAGE_URL: u16 = 1 << 3;
const AUDIO: u16 = 1 << 4;
const AUDIO_DATA: u16 = 1 << 5;
const AUDIO_FORMAT: u16 = 1 << 6;
const VIDEO: u16 = 1 << 7;
const VIDEO_URL: u16 = 1 << 8;

/// The digest of one string.
#[derive(Clone)]
struct Digest {
    hash: Xxh64,
    bytes: u64,
}

impl Digest {
    fn new() -> Self {
        Self { hash: Xxh64::new(0), bytes: 0 }
    }

    fn reset(&mut self) {
        if self.bytes > 0 {
            self.hash.reset(0);
            self.bytes = 0;
        }
    }

    fn push(&mut self, piece: &[u8]) {
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
    }
}

/// The part being read.
///
/// Media are hashed as they stream by, whatever the type, because `type` may come last.
#[derive(Clone)]
pub(crate) struct Part {
    wrong: Wrong,
    type_name: KeyBuffer,
    type_seen: bool,
    text_sent: bool,
    text_skipped: bool,
    /// Text was sent that a later `text` key replaced.
    text_replaced: bool,
    image: Digest,
    image_size: DataUrl,
    audio: Digest,
    audio_format: KeyBuffer,
    audio_format_bytes: u64,
    video: Digest,
}

impl Part {
    pub(crate) fn new() -> Self {
        Self {
            wrong: Wrong::default(),
            type_name: KeyBuffer::default(),
            type_seen: false,
            text_sent: false,
            text_skipped: false,
            text_replaced: false,
            image: Digest::new(),
            image_size: DataUrl::new(),
            audio: Digest::new(),
            audio_format: KeyBuffer::default(),
            audio_format_bytes: 0,
            video: Digest::new(),
        }
    }

    pub(crate) fn reset(&mut self) {
        self.wrong = Wrong::default();
        self.type_name.clear();
        self.type_seen = false;
        self.text_sent = false;
        self.text_skipped = false;
        self.text_replaced = false;
        self.reset_image();
        self.reset_audio();
        self.video.reset();
    }

    /// A value of this kind replaces what the slot held.
    pub(crate) fn open(&mut self, slot: Slot, kind: Kind) {
        let no_string = !matches!(kind, Kind::String | Kind::Null);
        let no_object = !matches!(kind, Kind::Object | Kind::Null);
        match slot {
            Slot::PartType => {
                self.type_seen = true;
                self.type_name.clear();
                self.wrong.set(TYPE, 0, no_string);
            }
            Slot::PartText => {
                self.text_replaced |= self.text_sent;
                self.text_skipped = false;
                self.wrong.set(TEXT, 0, no_string);
            }
            Slot::Image => {
                self.reset_image();
                self.wrong.set(IMAGE, IMAGE_URL, no_object);
            }
            Slot::ImageUrl => {
                self.reset_image();
                self.wrong.set(IMAGE_URL, 0, no_string);
            }
            Slot::Audio => {
                self.reset_audio();
                self.wrong.set(AUDIO, AUDIO_DATA | AUDIO_FORMAT, no_object);
            }
            Slot::AudioData => {
                self.audio.reset();
                self.wrong.set(AUDIO_DATA, 0, no_string);
            }
            Slot::AudioFormat => {
                self.reset_audio_format();
                self.wrong.set(AUDIO_FORMAT, 0, no_string);
            }
            Slot::Video => {
                self.video.reset();
                self.wrong.set(VIDEO, VIDEO_URL, no_object);
            }
            Slot::VideoUrl => {
                self.video.reset();
                self.wrong.set(VIDEO_URL, 0, no_string);
            }
            _ => {}
        }
    }

    /// More text of one of the part's strings other than `text`.
    pub(crate) fn text(&mut self, slot: Slot, piece: &[u8]) {
        match slot {
            Slot::PartType => self.type_name.push(piece),
            Slot::ImageUrl => {
                self.image.push(piece);
                self.image_size.push(piece);
            }
            Slot::AudioData => self.audio.push(piece),
            Slot::AudioFormat => {
                self.audio_format.push(piece);
                self.audio_format_bytes += piece.len() as u64;
            }
            Slot::VideoUrl => self.video.push(piece),
            _ => {}
        }
    }

    /// More of `text` arrived: what to do with it.
    #[inline]
    pub(crate) fn use_text(&mut self) -> TextUse {
        if !self.type_seen || self.part_type() == PartType::Text {
            self.text_sent = true;
            TextUse::Send
        } else {
            self.text_skipped = true;
            TextUse::Skip
        }
    }

    /// True if all fields have the right type.
    pub(crate) fn is_valid(&self) -> bool {
        self.wrong.0 == 0
    }

    /// True if the text that was sent is not the text that should have been.
    pub(crate) fn is_stale(&self) -> bool {
        let wrong_guess = match self.part_type() {
            PartType::Text => self.text_skipped,
            PartType::Media(_) | PartType::Other => self.text_sent,
        };
        wrong_guess || self.text_replaced
    }

    /// The type as far as it is known; a part without one is of no known type.
    pub(crate) fn part_type(&self) -> PartType {
        PartType::of(self.type_name.get())
    }

    /// The media that the complete part stands for, if its URL or data is not empty. Takes its
    /// tokens from `budget`.
    pub(crate) fn media(&self, rules: &MediaRules, budget: &mut u32) -> Option<Media> {
        let PartType::Media(modality) = self.part_type() else {
            return None;
        };
        let (source, tokens) = match modality {
            Modality::Audio => {
                let bytes = self.audio.bytes + self.audio_format_bytes;
                (&self.audio, u32::try_from(bytes.div_ceil(4)).unwrap_or(u32::MAX))
            }
            Modality::Image => (&self.image, rules.image.tokens(self.image_size.size())),
            Modality::Video => (&self.video, rules.video_tokens),
        };
        if source.bytes == 0 {
            return None;
        }
        let digest = match modality {
            Modality::Audio => self.audio_digest(),
            Modality::Image | Modality::Video => source.hash.digest(),
        };
        let tokens = tokens.min(*budget).max(1);
        *budget = budget.saturating_sub(tokens);
        Some(Media { modality, digest, tokens })
    }

    fn reset_image(&mut self) {
        if self.image.bytes > 0 {
            self.image.reset();
            self.image_size.reset();
        }
    }

    /// The digest of the data and its format, in this order whatever the body's. A format longer
    /// than any engine knows is left out.
    fn audio_digest(&self) -> u64 {
        let mut hash = self.audio.hash.clone();
        hash.update(self.audio_format.get());
        hash.digest()
    }

    fn reset_audio(&mut self) {
        self.audio.reset();
        self.reset_audio_format();
    }

    fn reset_audio_format(&mut self) {
        self.audio_format.clear();
        self.audio_format_bytes = 0;
    }
}

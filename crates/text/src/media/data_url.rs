//! The size of the image inside a data URL, without holding the image.

use super::base64::{Base64, Step};
use super::image::{Found, ImageHeader};

/// Longest `data:…;base64,` read before giving up.
const MAX_PREFIX: usize = 128;

#[derive(Clone, Copy, Debug)]
enum State {
    /// Collecting everything up to the comma.
    Prefix,
    Image,
    /// The size is known, or never will be.
    Done,
}

/// Reads a URL in pieces and finds the size of the image that it carries, if it does.
///
/// Costs a step per character until the size is known (a few dozen for PNG, GIF and WebP; for JPEG
/// as far as its first frame header), then nothing.
#[derive(Clone, Debug)]
pub(crate) struct DataUrl {
    state: State,
    prefix: [u8; MAX_PREFIX],
    prefix_len: usize,
    base64: Base64,
    header: ImageHeader,
    size: Option<(u32, u32)>,
}

impl DataUrl {
    pub(crate) fn new() -> Self {
        Self {
            state: State::Prefix,
            prefix: [0; MAX_PREFIX],
            prefix_len: 0,
            base64: Base64::default(),
            header: ImageHeader::new(),
            size: None,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.state = State::Prefix;
        self.prefix_len = 0;
        self.base64 = Base64::default();
        self.header = ImageHeader::new();
        self.size = None;
    }

    /// Width and height in pixels.
    pub(crate) fn size(&self) -> Option<(u32, u32)> {
        self.size
    }

    /// Takes the next piece of the URL.
    pub(crate) fn push(&mut self, piece: &[u8]) {
        for &byte in piece {
            match self.state {
                State::Prefix => self.prefix(byte),
                State::Image => self.image(byte),
                State::Done => return,
            }
        }
    }

    fn prefix(&mut self, byte: u8) {
        if byte == b',' {
            let prefix = &self.prefix[..self.prefix_len];
            let is_data = prefix.len() >= 5 && prefix[..5].eq_ignore_ascii_case(b"data:");
            self.state =
                if is_data && prefix.ends_with(b";base64") { State::Image } else { State::Done };
            return;
        }
        match self.prefix.get_mut(self.prefix_len) {
            Some(slot) => {
                *slot = byte;
                self.prefix_len += 1;
            }
            None => self.state = State::Done,
        }
    }

    fn image(&mut self, character: u8) {
        match self.base64.push(character) {
            Step::More => {}
            Step::End => self.state = State::Done,
            Step::Byte(byte) => match self.header.push(byte) {
                Found::More => {}
                Found::Size(width, height) => {
                    self.size = Some((width, height));
                    self.state = State::Done;
                }
                Found::Nothing => self.state = State::Done,
            },
        }
    }
}

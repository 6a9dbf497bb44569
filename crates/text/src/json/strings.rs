//! The inside of a string: runs, escapes, and characters cut in two.

use super::escape::{GATHER, combine, gather, is_high, unescape};
use super::run::plain_run;
use super::utf8::{self, Checked, Partial};
use crate::error::Expected;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Plain,
    /// After a backslash.
    Escape,
    /// Inside `\uXXXX`.
    Hex,
    /// After a high surrogate: a backslash must follow.
    LowSlash,
    /// After that backslash: `u` must follow.
    LowU,
}

/// How far [`Strings::feed`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All bytes belong to the string.
    All,
    /// This many bytes do, the closing quote included.
    Ended(usize),
}

/// Why a string was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StringFault {
    /// Index of the byte that shows it.
    pub(super) at: usize,
    /// How much earlier, perhaps in an earlier chunk, the offending character began.
    pub(super) before: usize,
    pub(super) expected: Expected,
}

/// A position inside a string.
#[derive(Clone, Debug)]
pub(super) struct Strings {
    phase: Phase,
    partial: Partial,
    /// `\uXXXX`: digits read and their value; the high surrogate that waits for its low one.
    hex_len: u8,
    hex: u16,
    high: Option<u16>,
}

impl Strings {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Plain, partial: Partial::default(), hex_len: 0, hex: 0, high: None }
    }

    /// Takes bytes after the opening quote. `emit` receives the unescaped pieces, the last one,
    /// which may be empty, marked as such.
    #[inline]
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        mut emit: impl FnMut(&[u8], bool),
    ) -> Result<Progress, StringFault> {
        let mut at = 0;
        while at < bytes.len() {
            if self.phase != Phase::Plain || !self.partial.is_empty() {
                self.step(bytes[at], at, &mut emit)?;
                at += 1;
                continue;
            }
            let rest = &bytes[at..];
            let run = plain_run(rest);
            let stop = rest.get(run.len);
            let mut text = &rest[..run.len];
            if run.wide {
                match utf8::check(text) {
                    Checked::Whole => {}
                    Checked::Open(valid) if stop.is_none() => {
                        self.partial.start(&text[valid..]);
                        text = &text[..valid];
                    }
                    Checked::Open(valid) | Checked::Invalid(valid) => {
                        return fault(at + valid, Expected::Utf8);
                    }
                }
            }
            at += run.len;
            match stop {
                None => emit(text, false),
                Some(b'"') => {
                    emit(text, true);
                    return Ok(Progress::Ended(at + 1));
                }
                Some(b'\\') => {
                    emit(text, false);
                    let mut gathered = [0; GATHER];
                    let (read, written) = gather(&bytes[at..], &mut gathered);
                    emit(&gathered[..written], false);
                    at += read;
                    if read == 0 {
                        self.phase = Phase::Escape;
                        at += 1;
                    }
                }
                Some(_) => return fault(at, Expected::NoControl),
            }
        }
        Ok(Progress::All)
    }

    /// Takes one byte of an escape sequence or of a character that was cut.
    fn step(
        &mut self,
        byte: u8,
        at: usize,
        emit: &mut impl FnMut(&[u8], bool),
    ) -> Result<(), StringFault> {
        match (self.phase, byte) {
            (Phase::Plain, _) => match self.partial.push(byte) {
                Ok(Some((character, len))) => emit(&character[..len], false),
                Ok(None) => {}
                Err(()) => {
                    let before = self.partial.len();
                    return Err(StringFault { at, before, expected: Expected::Utf8 });
                }
            },
            (Phase::Escape, b'u') => {
                (self.hex, self.hex_len, self.high) = (0, 0, None);
                self.phase = Phase::Hex;
            }
            (Phase::Escape, _) => {
                let Some(plain) = unescape(byte) else {
                    return fault(at, Expected::Escape);
                };
                emit(&[plain], false);
                self.phase = Phase::Plain;
            }
            (Phase::LowSlash, b'\\') => self.phase = Phase::LowU,
            (Phase::LowU, b'u') => {
                (self.hex, self.hex_len) = (0, 0);
                self.phase = Phase::Hex;
            }
            (Phase::LowSlash | Phase::LowU, _) => return fault(at, Expected::LowSurrogate),
            (Phase::Hex, _) => {
                let Some(digit) = char::from(byte).to_digit(16) else {
                    return fault(at, Expected::HexDigit);
                };
                self.hex = self.hex << 4 | digit as u16;
                self.hex_len += 1;
                if self.hex_len == 4 {
                    self.unit(at, emit)?;
                }
            }
        }
        Ok(())
    }

    /// Four hex digits are complete: a character, or half of one.
    fn unit(&mut self, at: usize, emit: &mut impl FnMut(&[u8], bool)) -> Result<(), StringFault> {
        let unit = self.hex;
        if self.high.is_none() && is_high(unit) {
            self.high = Some(unit);
            self.phase = Phase::LowSlash;
            return Ok(());
        }
        // None for a high surrogate with another partner, and for a low one without.
        let Some(character) = combine(self.high.take(), unit) else {
            return fault(at, Expected::LowSurrogate);
        };
        emit(character.encode_utf8(&mut [0; 4]).as_bytes(), false);
        self.phase = Phase::Plain;
        Ok(())
    }
}

#[cold]
fn fault<T>(at: usize, expected: Expected) -> Result<T, StringFault> {
    Err(StringFault { at, before: 0, expected })
}

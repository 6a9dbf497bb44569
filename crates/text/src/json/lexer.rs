//! The grammar: a pushdown automaton whose stack is one bit per open container.
//!
//! Structure is handled byte by byte; the inside of strings run by run. The automaton may stop
//! after any byte, its whole state is a few words, and it never looks back.

use super::number::{Digits, Number, NumberFault, short_integer};
use super::run::plain_run;
use super::utf8::{self, Checked, Partial};
use super::{Events, Kind};
use crate::error::{Expected, ScanError};

/// Open containers allowed: `serde_json` refuses the 128th.
const MAX_DEPTH: u8 = 127;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A value must start here.
    Value,
    /// After `[`: a value or `]`.
    FirstItem,
    /// After `{`: a key or `}`.
    FirstKey,
    /// After `,` in an object.
    Key,
    /// After a key.
    Colon,
    /// After a member or an item.
    Next,
    /// Inside a string.
    Text,
    /// After a backslash.
    Escape,
    /// Inside `\uXXXX`.
    Hex,
    /// After a high surrogate: a backslash must follow.
    LowSlash,
    /// After that backslash: `u` must follow.
    LowU,
    Number,
    /// Inside `true`, `false` or `null`.
    Word,
    /// After the outermost value.
    Done,
}

/// A position in one JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Lexer {
    state: State,
    /// The string being read is a key.
    in_key: bool,
    depth: u8,
    /// Bit 0 is the innermost container: 1 for an object.
    objects: u128,
    /// Offset of the first byte of the current chunk.
    base: u64,
    partial: Partial,
    /// `\uXXXX`: digits read and their value; the high surrogate that waits for its low one.
    hex_len: u8,
    hex: u16,
    high: u16,
    number: Digits,
    word: &'static [u8],
    word_kind: Kind,
}

impl Lexer {
    /// A lexer before a text whose first byte has the offset `base`.
    pub(crate) fn new(base: u64) -> Self {
        Self {
            state: State::Value,
            in_key: false,
            depth: 0,
            objects: 0,
            base,
            partial: Partial::default(),
            hex_len: 0,
            hex: 0,
            high: 0,
            number: Digits::start(b'0'),
            word: &[],
            word_kind: Kind::Null,
        }
    }

    /// The offset of the next byte.
    pub(crate) fn offset(&self) -> u64 {
        self.base
    }

    /// Takes the next bytes of the text.
    pub(crate) fn feed(&mut self, chunk: &[u8], events: &mut impl Events) -> Result<(), ScanError> {
        let mut at = 0;
        while at < chunk.len() {
            at = match self.state {
                State::Text => self.text(chunk, at, events)?,
                State::Number => self.number(chunk, at, events)?,
                State::Word => self.word(chunk, at, events)?,
                State::Escape | State::Hex | State::LowSlash | State::LowU => {
                    self.escape(chunk[at], at, events)?
                }
                _ => self.structure(chunk, at, events)?,
            };
        }
        self.base += chunk.len() as u64;
        Ok(())
    }

    /// Says that the text has ended.
    pub(crate) fn finish(&mut self, events: &mut impl Events) -> Result<(), ScanError> {
        if self.state == State::Number {
            self.end_number(0, events)?;
        }
        match self.state {
            State::Done => Ok(()),
            _ => self.fail(0, Expected::MoreInput),
        }
    }

    /// Takes one byte outside strings, numbers and words.
    #[inline]
    fn structure(
        &mut self,
        chunk: &[u8],
        at: usize,
        events: &mut impl Events,
    ) -> Result<usize, ScanError> {
        let byte = chunk[at];
        if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            return Ok(at + 1);
        }
        match (self.state, byte) {
            (State::FirstKey | State::Key, b'"') => {
                self.in_key = true;
                self.state = State::Text;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Next, b',') => {
                self.state = if self.in_object() { State::Key } else { State::Value };
            }
            (State::Next | State::FirstKey, b'}') if self.in_object() => {
                self.pop(Kind::Object, at, events);
            }
            (State::Next | State::FirstItem, b']') if !self.in_object() => {
                self.pop(Kind::Array, at, events);
            }
            (State::Value | State::FirstItem, _) => return self.value(chunk, at, events),
            (State::FirstKey | State::Key, _) => return self.fail(at, Expected::Key),
            (State::Colon, _) => return self.fail(at, Expected::Colon),
            (State::Done, _) => return self.fail(at, Expected::End),
            _ => return self.fail(at, Expected::CommaOrEnd),
        }
        Ok(at + 1)
    }

    #[inline]
    fn value(
        &mut self,
        chunk: &[u8],
        at: usize,
        events: &mut impl Events,
    ) -> Result<usize, ScanError> {
        let byte = chunk[at];
        let offset = self.base + at as u64;
        match byte {
            b'"' => {
                events.open(Kind::String, offset);
                self.in_key = false;
                self.state = State::Text;
            }
            b'{' => {
                self.push(true, at)?;
                events.open(Kind::Object, offset);
                self.state = State::FirstKey;
            }
            b'[' => {
                self.push(false, at)?;
                events.open(Kind::Array, offset);
                self.state = State::FirstItem;
            }
            b'-' | b'0'..=b'9' => {
                events.open(Kind::Number, offset);
                if let Some((value, len)) = short_integer(&chunk[at..]) {
                    events.digits(&chunk[at..at + len]);
                    events.number(Number::Unsigned(value));
                    self.end_value(Kind::Number, at + len, events);
                    return Ok(at + len);
                }
                events.digits(&[byte]);
                self.number = Digits::start(byte);
                self.state = State::Number;
            }
            b't' => self.start_word(b"rue", Kind::True, offset, events),
            b'f' => self.start_word(b"alse", Kind::False, offset, events),
            b'n' => self.start_word(b"ull", Kind::Null, offset, events),
            _ => return self.fail(at, Expected::Value),
        }
        Ok(at + 1)
    }

    /// Takes string contents up to a quote, a backslash or the end of the chunk.
    #[inline]
    fn text(
        &mut self,
        chunk: &[u8],
        mut at: usize,
        events: &mut impl Events,
    ) -> Result<usize, ScanError> {
        if !self.partial.is_empty() {
            let Ok(complete) = self.partial.push(chunk[at]) else {
                // The character began in an earlier chunk.
                let offset = self.base + at as u64 - self.partial.len() as u64;
                return Err(ScanError::Syntax { offset, expected: Expected::Utf8 });
            };
            if let Some((bytes, len)) = complete {
                self.piece(&bytes[..len], false, events);
            }
            return Ok(at + 1);
        }
        let rest = &chunk[at..];
        let run = plain_run(rest);
        let mut text = &rest[..run.len];
        let stop = rest.get(run.len);
        if run.wide {
            match utf8::check(text) {
                Checked::Whole => {}
                Checked::Open(valid) if stop.is_none() => {
                    self.partial.start(&text[valid..]);
                    text = &text[..valid];
                }
                Checked::Open(valid) | Checked::Invalid(valid) => {
                    return self.fail(at + valid, Expected::Utf8);
                }
            }
        }
        at += run.len;
        match stop {
            None => self.piece(text, false, events),
            Some(b'"') => {
                self.piece(text, true, events);
                if self.in_key {
                    self.state = State::Colon;
                } else {
                    self.end_value(Kind::String, at + 1, events);
                }
                at += 1;
            }
            Some(b'\\') => {
                self.piece(text, false, events);
                at += 1;
                match chunk.get(at).copied().and_then(unescape) {
                    Some(plain) => {
                        self.piece(&[plain], false, events);
                        at += 1;
                    }
                    None => self.state = State::Escape,
                }
            }
            Some(_) => return self.fail(at, Expected::NoControl),
        }
        Ok(at)
    }

    #[inline]
    fn piece(&mut self, piece: &[u8], last: bool, events: &mut impl Events) {
        if self.in_key {
            events.key(piece, last);
        } else if !piece.is_empty() {
            events.text(piece);
        }
    }

    /// Takes one byte of an escape sequence.
    fn escape(
        &mut self,
        byte: u8,
        at: usize,
        events: &mut impl Events,
    ) -> Result<usize, ScanError> {
        match (self.state, byte) {
            (State::Escape, b'u') => {
                (self.hex, self.hex_len, self.high) = (0, 0, 0);
                self.state = State::Hex;
            }
            (State::Escape, _) => {
                let Some(plain) = unescape(byte) else {
                    return self.fail(at, Expected::Escape);
                };
                self.piece(&[plain], false, events);
                self.state = State::Text;
            }
            (State::LowSlash, b'\\') => self.state = State::LowU,
            (State::LowU, b'u') => {
                (self.hex, self.hex_len) = (0, 0);
                self.state = State::Hex;
            }
            (State::LowSlash | State::LowU, _) => return self.fail(at, Expected::LowSurrogate),
            _ => {
                let Some(digit) = char::from(byte).to_digit(16) else {
                    return self.fail(at, Expected::HexDigit);
                };
                self.hex = self.hex << 4 | digit as u16;
                self.hex_len += 1;
                if self.hex_len == 4 {
                    self.unit(at, events)?;
                }
            }
        }
        Ok(at + 1)
    }

    /// Four hex digits are complete: a character, or half of one.
    fn unit(&mut self, at: usize, events: &mut impl Events) -> Result<(), ScanError> {
        let unit = self.hex;
        let is_high = (0xd800..0xdc00).contains(&unit);
        if self.high == 0 && is_high {
            self.high = unit;
            self.state = State::LowSlash;
            return Ok(());
        }
        let code = match self.high {
            0 => Some(u32::from(unit)),
            high if (0xdc00..0xe000).contains(&unit) => {
                Some(0x1_0000 + ((u32::from(high) - 0xd800) << 10) + (u32::from(unit) - 0xdc00))
            }
            _ => None,
        };
        // A lone low surrogate is no character either.
        let Some(character) = code.and_then(char::from_u32) else {
            return self.fail(at, Expected::LowSurrogate);
        };
        self.piece(character.encode_utf8(&mut [0; 4]).as_bytes(), false, events);
        self.high = 0;
        self.state = State::Text;
        Ok(())
    }

    #[inline]
    fn number(
        &mut self,
        chunk: &[u8],
        at: usize,
        events: &mut impl Events,
    ) -> Result<usize, ScanError> {
        let rest = &chunk[at..];
        let taken = match self.number.feed(rest) {
            Ok(taken) => taken,
            Err((taken, fault)) => return self.fail(at + taken, expected(fault)),
        };
        events.digits(&rest[..taken]);
        let at = at + taken;
        if taken < rest.len() {
            self.end_number(at, events)?;
        }
        Ok(at)
    }

    fn end_number(&mut self, at: usize, events: &mut impl Events) -> Result<(), ScanError> {
        let number: Number = match self.number.finish() {
            Ok(number) => number,
            Err(fault) => return self.fail(at, expected(fault)),
        };
        events.number(number);
        self.end_value(Kind::Number, at, events);
        Ok(())
    }

    fn start_word(
        &mut self,
        rest: &'static [u8],
        kind: Kind,
        offset: u64,
        events: &mut impl Events,
    ) {
        events.open(kind, offset);
        self.word = rest;
        self.word_kind = kind;
        self.state = State::Word;
    }

    fn word(
        &mut self,
        chunk: &[u8],
        mut at: usize,
        events: &mut impl Events,
    ) -> Result<usize, ScanError> {
        while let Some((want, rest)) = self.word.split_first() {
            match chunk.get(at) {
                Some(byte) if byte == want => self.word = rest,
                Some(_) => return self.fail(at, Expected::Value),
                None => return Ok(at),
            }
            at += 1;
        }
        self.end_value(self.word_kind, at, events);
        Ok(at)
    }

    fn push(&mut self, object: bool, at: usize) -> Result<(), ScanError> {
        if self.depth == MAX_DEPTH {
            let offset = self.base + at as u64;
            return Err(ScanError::TooDeep { offset, limit: MAX_DEPTH });
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(object);
        Ok(())
    }

    fn pop(&mut self, kind: Kind, at: usize, events: &mut impl Events) {
        self.depth -= 1;
        self.objects >>= 1;
        self.end_value(kind, at + 1, events);
    }

    #[inline]
    fn end_value(&mut self, kind: Kind, end: usize, events: &mut impl Events) {
        self.state = if self.depth == 0 { State::Done } else { State::Next };
        events.close(kind, self.base + end as u64);
    }

    #[inline]
    fn in_object(&self) -> bool {
        self.objects & 1 == 1
    }

    #[cold]
    fn fail<T>(&self, at: usize, expected: Expected) -> Result<T, ScanError> {
        Err(ScanError::Syntax { offset: self.base + at as u64, expected })
    }
}

#[inline]
fn unescape(byte: u8) -> Option<u8> {
    Some(match byte {
        b'"' | b'\\' | b'/' => byte,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

fn expected(fault: NumberFault) -> Expected {
    match fault {
        NumberFault::Digit => Expected::Digit,
        NumberFault::Range => Expected::NumberInRange,
    }
}

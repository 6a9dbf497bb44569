//! The grammar: a pushdown automaton whose stack is one bit per open container.
//!
//! Structure is handled byte by byte; the inside of strings run by run. The automaton may stop
//! after any byte, its whole state is a few words, and it never looks back.

use super::number::{Digits, Number, NumberFault, short_integer};
use super::strings::{Progress, StringFault, Strings};
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
    strings: Strings,
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
            strings: Strings::new(),
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
        if byte <= b' ' && matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            return Ok(at + 1);
        }
        // State before byte: one jump each, on the path of every comma.
        match self.state {
            State::Next => match byte {
                b',' if self.in_object() => self.state = State::Key,
                b',' => self.state = State::Value,
                b'}' if self.in_object() => self.pop(Kind::Object, at, events),
                b']' if !self.in_object() => self.pop(Kind::Array, at, events),
                _ => return self.fail(at, Expected::CommaOrEnd),
            },
            State::FirstItem if byte == b']' => self.pop(Kind::Array, at, events),
            State::Value | State::FirstItem => return self.value(chunk, at, events),
            State::FirstKey if byte == b'}' => self.pop(Kind::Object, at, events),
            State::FirstKey | State::Key => {
                if byte != b'"' {
                    return self.fail(at, Expected::Key);
                }
                self.in_key = true;
                self.state = State::Text;
            }
            State::Colon => {
                if byte != b':' {
                    return self.fail(at, Expected::Colon);
                }
                self.state = State::Value;
            }
            // The states inside a value are the caller's.
            State::Done | State::Text | State::Number | State::Word => {
                return self.fail(at, Expected::End);
            }
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

    /// Takes string contents up to the closing quote or the end of the chunk.
    #[inline]
    fn text(
        &mut self,
        chunk: &[u8],
        at: usize,
        events: &mut impl Events,
    ) -> Result<usize, ScanError> {
        let rest = &chunk[at..];
        let fed = if self.in_key {
            self.strings.feed(rest, |piece, last| events.key(piece, last))
        } else {
            self.strings.feed(rest, |piece, _| {
                if !piece.is_empty() {
                    events.text(piece);
                }
            })
        };
        match fed {
            Ok(Progress::All) => Ok(chunk.len()),
            Ok(Progress::Ended(taken)) => {
                let at = at + taken;
                if self.in_key {
                    self.state = State::Colon;
                } else {
                    self.end_value(Kind::String, at, events);
                }
                Ok(at)
            }
            Err(StringFault { at: taken, before, expected }) => {
                let offset = self.base + (at + taken) as u64 - before as u64;
                Err(ScanError::Syntax { offset, expected })
            }
        }
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

fn expected(fault: NumberFault) -> Expected {
    match fault {
        NumberFault::Digit => Expected::Digit,
        NumberFault::Range => Expected::NumberInRange,
    }
}

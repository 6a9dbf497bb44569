//! A resumable JSON lexer: bytes in, events out, nothing kept but the position in the grammar.
//!
//! The lexer accepts exactly what `serde_json` accepts for a `Value` (RFC 8259, containers at most
//! 127 deep, paired surrogates only, numbers that fit a double) and may stop between any two
//! bytes. It owns no buffer: string contents go out as slices of the chunk they arrived in.

mod escape;
mod lexer;
mod number;
mod outline;
mod powers;
mod run;
mod strings;
mod utf8;

pub(crate) use lexer::Lexer;
pub(crate) use number::Number;
pub(crate) use outline::{Body, Child, KeyBuffer, Pieces, Shallow};

/// What a value is, known at its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Array,
    False,
    Null,
    Number,
    Object,
    String,
    True,
}

/// The events of one JSON text, in order. Offsets count from the first byte ever fed.
///
/// Every value starts with [`open`](Events::open) and ends with [`close`](Events::close); between
/// the two a string sends its pieces, a number its value, a container its members.
pub(crate) trait Events {
    /// A value of this kind starts at `at`.
    fn open(&mut self, kind: Kind, at: u64);

    /// The value opened last ends just before `end`.
    fn close(&mut self, kind: Kind, end: u64);

    /// A piece of an object key, unescaped; whole characters. `last` ends the key.
    fn key(&mut self, piece: &[u8], last: bool);

    /// A piece of a string value, unescaped, never empty; whole characters.
    fn text(&mut self, piece: &[u8]);

    /// Bytes of a number as written, before [`number`](Events::number) gives its value.
    fn digits(&mut self, _piece: &[u8]) {}

    /// The value of a number.
    fn number(&mut self, number: Number);
}

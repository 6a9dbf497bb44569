//! Reading parts of a body that is already known: its slices, a value's children, a string's text.
//!
//! Used by the second pass, which knows where values lie and visits them out of order.

use std::cell::Cell;
use std::ops::Range;

use super::{Events, Kind, Lexer, Number};
use crate::error::ScanError;

/// A whole body in slices, with the place of the last visit remembered, so that visits in rising
/// order cost no search.
pub(crate) struct Body<'a> {
    slices: &'a [&'a [u8]],
    /// Index of a slice and the offset of its first byte.
    near: Cell<(usize, u64)>,
}

impl<'a> Body<'a> {
    pub(crate) fn new(slices: &'a [&'a [u8]]) -> Self {
        Self { slices, near: Cell::new((0, 0)) }
    }

    /// Bytes of all slices.
    pub(crate) fn len(&self) -> u64 {
        self.slices.iter().map(|slice| slice.len() as u64).sum()
    }

    /// Lexes the value that occupies `span`.
    pub(crate) fn lex(&self, span: Range<u64>, events: &mut impl Events) -> Result<(), ScanError> {
        let (mut index, mut base) = self.near.get();
        while base > span.start && index > 0 {
            index -= 1;
            base -= self.slices[index].len() as u64;
        }
        let mut lexer = Lexer::new(span.start);
        let mut first = true;
        while let Some(slice) = self.slices.get(index) {
            let end = base + slice.len() as u64;
            if end > span.start {
                if first {
                    self.near.set((index, base));
                    first = false;
                }
                // Both are within the slice, hence fit its length.
                let from = span.start.saturating_sub(base) as usize;
                let to = (span.end.min(end) - base) as usize;
                lexer.feed(&slice[from..to], events)?;
                if end >= span.end {
                    break;
                }
            }
            base = end;
            index += 1;
        }
        lexer.finish(events)
    }
}

/// A member of an object or an item of an array.
#[derive(Clone, Debug)]
pub(crate) struct Child<'k> {
    /// The key; empty for an item and for a key longer than any that matters.
    pub(crate) key: &'k [u8],
    pub(crate) kind: Kind,
    pub(crate) span: Range<u64>,
}

/// Reports the children of one container, not their descendants.
pub(crate) struct Shallow<F> {
    visit: F,
    key: KeyBuffer,
    depth: u32,
    start: u64,
}

impl<F: FnMut(Child<'_>)> Shallow<F> {
    pub(crate) fn new(visit: F) -> Self {
        Self { visit, key: KeyBuffer::default(), depth: 0, start: 0 }
    }
}

impl<F: FnMut(Child<'_>)> Events for Shallow<F> {
    fn open(&mut self, kind: Kind, at: u64) {
        if self.depth == 1 {
            self.start = at;
        }
        self.depth += u32::from(matches!(kind, Kind::Object | Kind::Array));
    }

    fn close(&mut self, kind: Kind, end: u64) {
        self.depth -= u32::from(matches!(kind, Kind::Object | Kind::Array));
        if self.depth == 1 {
            (self.visit)(Child { key: self.key.get(), kind, span: self.start..end });
            self.key.clear();
        }
    }

    fn key(&mut self, piece: &[u8], _last: bool) {
        if self.depth == 1 {
            self.key.push(piece);
        }
    }

    fn text(&mut self, _piece: &[u8]) {}

    fn number(&mut self, _number: Number) {}
}

/// Reports the text of one string.
pub(crate) struct Pieces<F>(pub(crate) F);

impl<F: FnMut(&[u8])> Events for Pieces<F> {
    fn open(&mut self, _kind: Kind, _at: u64) {}

    fn close(&mut self, _kind: Kind, _end: u64) {}

    fn key(&mut self, _piece: &[u8], _last: bool) {}

    fn text(&mut self, piece: &[u8]) {
        (self.0)(piece);
    }

    fn number(&mut self, _number: Number) {}
}

/// Assembles short strings that may arrive in pieces; a longer one reads as empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct KeyBuffer {
    bytes: [u8; Self::MOST],
    len: usize,
}

impl KeyBuffer {
    /// Bytes of the longest string that matters.
    pub(crate) const MOST: usize = 24;

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn push(&mut self, piece: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + piece.len()) {
            Some(room) => {
                room.copy_from_slice(piece);
                self.len += piece.len();
            }
            None => self.len = self.bytes.len() + 1,
        }
    }

    /// True if more was pushed than any string that matters has.
    pub(crate) fn is_long(&self) -> bool {
        self.len > self.bytes.len()
    }

    pub(crate) fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

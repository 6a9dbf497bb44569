//! `extra_keys`: what engine hashes depend on besides the tokens.

use crate::msgpack::{Cursor, Value};

/// The extra keys of a store, one entry per block; nothing at all for an engine that sends none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExtraKeys<'a> {
    /// An array, known to be whole.
    raw: Option<&'a [u8]>,
}

impl<'a> ExtraKeys<'a> {
    pub(super) fn new(raw: &'a [u8]) -> Self {
        Self { raw: Some(raw) }
    }

    /// The field as msgpack; none if the event has no such field.
    pub fn raw(&self) -> Option<&'a [u8]> {
        self.raw
    }

    /// The entries in the order of the blocks.
    pub fn blocks(&self) -> impl Iterator<Item = BlockExtras<'a>> + use<'a> {
        Elements::of(self.raw).map(|raw| BlockExtras { raw })
    }
}

/// The extra keys of one block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockExtras<'a> {
    raw: &'a [u8],
}

impl<'a> BlockExtras<'a> {
    /// The keys in the order of the engine: adapter, media, salt, prompt embeddings.
    pub fn iter(&self) -> impl Iterator<Item = Extra<'a>> + use<'a> {
        Elements::of(Some(self.raw)).map(|raw| Extra::of(raw).unwrap_or(Extra::Other))
    }
}

/// One extra key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extra<'a> {
    /// A digest of prompt embeddings.
    Digest(&'a [u8]),
    /// A media item. `offset` is its start relative to that of the block, negative if it began in
    /// an earlier one.
    Item {
        /// The digest of its content.
        identifier: &'a str,
        /// Its start; engines of some versions do not tell.
        offset: Option<i64>,
    },
    /// Anything else.
    Other,
    /// The name of an adapter, a salt or, to vLLM 0.18, a media item.
    Text(&'a str),
}

impl<'a> Extra<'a> {
    fn of(raw: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(raw);
        Some(match cursor.value().ok()? {
            Value::Str(text) => Self::Text(str::from_utf8(text).ok()?),
            Value::Bin(digest) => Self::Digest(digest),
            Value::Array(1..) => {
                let Value::Str(identifier) = cursor.value().ok()? else { return None };
                let offset = match cursor.value() {
                    Ok(Value::Uint(offset)) => i64::try_from(offset).ok(),
                    Ok(Value::Negative(offset)) => Some(offset),
                    _ => None,
                };
                Self::Item { identifier: str::from_utf8(identifier).ok()?, offset }
            }
            _ => return None,
        })
    }
}

/// The elements of an array, each as its bytes.
struct Elements<'a> {
    cursor: Cursor<'a>,
    left: u32,
}

impl<'a> Elements<'a> {
    fn of(raw: Option<&'a [u8]>) -> Self {
        let mut cursor = Cursor::new(raw.unwrap_or_default());
        let left = match cursor.value() {
            Ok(Value::Array(len)) => len,
            _ => 0,
        };
        Self { cursor, left }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        self.cursor.skip().ok()
    }
}

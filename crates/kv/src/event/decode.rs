//! From bytes to events.

use std::ops::Range;

use thiserror::Error;

use super::{Batch, EngineType, Event, ExtraKeys, Removed, Stored, engine_key};
use crate::msgpack::{Cursor, Malformed, Value};

/// Why nothing of a payload can be used.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The payload is msgpack, and no batch.
    #[error("{what}: expected {expected}")]
    NotABatch {
        /// The part of the batch.
        what: &'static str,
        /// What it should be.
        expected: &'static str,
    },

    /// The payload is not msgpack or ends too soon.
    #[error("not msgpack at byte {offset} of {len}")]
    NotMsgpack {
        /// Bytes read, the offending one among them.
        offset: usize,
        /// Bytes of the payload.
        len: usize,
    },
}

/// Why an event was dropped.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("event {index}: {field}: expected {expected}")]
pub struct EventError {
    /// Its place in the batch.
    pub index: u32,
    /// The field.
    pub field: &'static str,
    /// What it should be.
    pub expected: &'static str,
}

/// Reads the payload of one message.
///
/// Costs one pass over the payload, some 50 ns for each block of 16 tokens; text and
/// bytes are borrowed from it.
///
/// # Errors
/// A payload that is no msgpack, or no batch: nothing of it could be read. An event that is wrong by
/// itself is counted in [`Batch::malformed`]. Either way the message has been received: its sequence
/// number counts.
pub fn decode(payload: &[u8], engine: EngineType) -> Result<Batch<'_>, DecodeError> {
    decode_into(payload, engine, Buffers::default())
}

/// Reads the payload of one message like [`decode`], into the memory of another
/// ([`Batch::into_buffers`]): for small messages that is half of the time.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_into(
    payload: &[u8],
    engine: EngineType,
    buffers: Buffers,
) -> Result<Batch<'_>, DecodeError> {
    let mut cursor = Cursor::new(payload);
    let broken =
        |rest: usize| DecodeError::NotMsgpack { offset: payload.len() - rest, len: payload.len() };
    let Value::Array(fields @ 2..) = cursor.value().map_err(|_| broken(cursor.len()))? else {
        let expected = "an array of time, events and rank";
        return Err(DecodeError::NotABatch { what: "batch", expected });
    };
    let timestamp = match cursor.value().map_err(|_| broken(cursor.len()))? {
        Value::Float(seconds) => seconds,
        Value::Uint(seconds) => seconds as f64,
        Value::Negative(seconds) => seconds as f64,
        _ => return Err(DecodeError::NotABatch { what: "time", expected: "a number" }),
    };
    let Value::Array(events) = cursor.value().map_err(|_| broken(cursor.len()))? else {
        return Err(DecodeError::NotABatch { what: "events", expected: "an array" });
    };
    let Buffers { entries, hashes, tokens } = buffers;
    let mut batch = Batch { timestamp, entries, hashes, tokens, ..Batch::default() };
    for index in 0..events {
        let start = cursor;
        let (hashes, tokens) = (batch.hashes.len(), batch.tokens.len());
        let mut reader =
            Reader { cursor, hashes: &mut batch.hashes, tokens: &mut batch.tokens, engine };
        match reader.entry() {
            Ok(Some(entry)) => {
                cursor = reader.cursor;
                batch.entries.push(entry);
                continue;
            }
            Ok(None) => batch.unknown += 1,
            Err(Wrong { field, expected }) => {
                batch.malformed += 1;
                batch.first_error.get_or_insert(EventError { index, field, expected });
            }
        }
        batch.hashes.truncate(hashes);
        batch.tokens.truncate(tokens);
        cursor = start;
        cursor.skip().map_err(|_| broken(cursor.len()))?;
    }
    if fields > 2 {
        batch.rank = match cursor.value().map_err(|_| broken(cursor.len()))? {
            Value::Uint(rank) => rank.try_into().ok(),
            _ => None,
        };
    }
    Ok(batch)
}

/// Memory of a [`Batch`] that is no longer needed, for the next one.
#[derive(Debug, Default)]
pub struct Buffers {
    entries: Vec<Entry<'static>>,
    hashes: Vec<u64>,
    tokens: Vec<u32>,
}

/// Elements of a buffer beyond which it is not kept: one large message does not stay for ever.
const KEPT: usize = 1 << 18;

impl Batch<'_> {
    /// The memory of a batch, for [`decode_into`].
    pub fn into_buffers(self) -> Buffers {
        fn emptied<T, U>(list: Vec<T>) -> Vec<U> {
            // The memory stays: nothing is left that would have to be converted.
            let keep = list.capacity() <= KEPT;
            let list = if keep { list } else { Vec::new() };
            list.into_iter().filter_map(|_| None).collect()
        }
        Buffers {
            entries: emptied(self.entries),
            hashes: emptied(self.hashes),
            tokens: emptied(self.tokens),
        }
    }
}

/// An event with its lists as ranges of those of the batch.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "most are stores, and none is allocated by itself")]
pub(super) enum Entry<'a> {
    Cleared,
    Removed { hashes: Range<usize>, rest: Removed<'a> },
    Stored { hashes: Range<usize>, tokens: Range<usize>, rest: Stored<'a> },
}

impl<'a> Entry<'a> {
    pub(super) fn event<'b>(&'b self, all_hashes: &'b [u64], all_tokens: &'b [u32]) -> Event<'b>
    where
        'a: 'b,
    {
        match self {
            Self::Cleared => Event::AllBlocksCleared,
            Self::Removed { hashes, rest } => Event::BlockRemoved(Removed {
                hashes: all_hashes.get(hashes.clone()).unwrap_or_default(),
                ..*rest
            }),
            Self::Stored { hashes, tokens, rest } => Event::BlockStored(Stored {
                hashes: all_hashes.get(hashes.clone()).unwrap_or_default(),
                tokens: all_tokens.get(tokens.clone()).unwrap_or_default(),
                ..*rest
            }),
        }
    }
}

/// The fields after the tag: position in an array, name in a map.
const STORED: [&str; 14] = [
    "block_hashes",
    "parent_block_hash",
    "token_ids",
    "block_size",
    "lora_id",
    "medium",
    "lora_name",
    "extra_keys",
    "group_idx",
    "kv_cache_spec_kind",
    "kv_cache_spec_sliding_window",
    "locality",
    "ownership",
    "session_id",
];
const REMOVED: [&str; 5] = ["block_hashes", "medium", "group_idx", "locality", "ownership"];
/// Fields of a store that have no default.
const STORED_REQUIRED: usize = 4;
/// Fields that SGLang knows.
const STORED_SGLANG: usize = 8;

struct Wrong {
    field: &'static str,
    expected: &'static str,
}

impl From<Malformed> for Wrong {
    fn from(_: Malformed) -> Self {
        Self { field: "event", expected: "msgpack" }
    }
}

struct Reader<'a, 'b> {
    cursor: Cursor<'a>,
    hashes: &'b mut Vec<u64>,
    tokens: &'b mut Vec<u32>,
    engine: EngineType,
}

/// How the fields of an event are told apart.
#[derive(Clone, Copy)]
enum Form {
    /// By position; so many follow the tag.
    Array(u32),
    /// By name; so many pairs, that of the tag among them.
    Map(u32),
}

impl<'a> Reader<'a, '_> {
    /// None for an unknown tag; the cursor is then anywhere in the event.
    fn entry(&mut self) -> Result<Option<Entry<'a>>, Wrong> {
        let (tag, form) = match self.cursor.value()? {
            Value::Array(fields) => {
                let left = fields.checked_sub(1);
                let left = left.ok_or(Wrong { field: "type", expected: "a tag" })?;
                (self.cursor.value()?, Form::Array(left))
            }
            Value::Map(pairs) => (self.tag(pairs)?, Form::Map(pairs)),
            _ => return Err(Wrong { field: "event", expected: "an array or a map" }),
        };
        let Value::Str(tag) = tag else {
            return Err(Wrong { field: "type", expected: "a string" });
        };
        match tag {
            b"AllBlocksCleared" => self.fields(form, &[], |_, _| Ok(())).map(|_| Entry::Cleared),
            b"BlockRemoved" => self.removed(form),
            b"BlockStored" => self.stored(form),
            _ => return Ok(None),
        }
        .map(Some)
    }

    /// The value of `type`, which leads the map unless the engine is a strange one. The cursor
    /// stays before the first pair.
    fn tag(&self, pairs: u32) -> Result<Value<'a>, Wrong> {
        let mut cursor = self.cursor;
        for _ in 0..pairs {
            if cursor.value()? == Value::Str(b"type") {
                return Ok(cursor.value()?);
            }
            cursor.skip()?;
        }
        Err(Wrong { field: "type", expected: "a tag" })
    }

    /// Calls `read` at the value of each field of `names`, and answers which there were, a bit per
    /// name. Others are passed over.
    fn fields(
        &mut self,
        form: Form,
        names: &[&str],
        mut read: impl FnMut(&mut Self, usize) -> Result<(), Wrong>,
    ) -> Result<u32, Wrong> {
        let mut seen = 0;
        let mut next = 0;
        let (Form::Array(count) | Form::Map(count)) = form;
        for _ in 0..count {
            let field = match form {
                Form::Array(_) => Some(next).filter(|next| *next < names.len()),
                Form::Map(_) => {
                    let Value::Str(key) = self.cursor.value()? else {
                        return Err(Wrong { field: "event", expected: "keys that are strings" });
                    };
                    if key == b"type" {
                        self.cursor.skip()?;
                        continue;
                    }
                    let is_key = |name: &&str| name.as_bytes() == key;
                    // Fields come in their order, so that the next one is usually the first looked at.
                    let (before, after) = names.split_at(next.min(names.len()));
                    let at = after.iter().position(is_key).map(|at| next + at);
                    at.or_else(|| before.iter().position(is_key))
                }
            };
            match field {
                Some(field) => {
                    read(self, field)?;
                    seen |= 1 << field;
                    next = field + 1;
                }
                None => {
                    self.cursor.skip()?;
                    if matches!(form, Form::Array(_)) {
                        next += 1;
                    }
                }
            }
        }
        Ok(seen)
    }

    fn removed(&mut self, form: Form) -> Result<Entry<'a>, Wrong> {
        let mut hashes = self.hashes.len()..self.hashes.len();
        let mut rest = Removed::default();
        let seen = self.fields(form, &REMOVED, |reader, field| {
            match field {
                0 => hashes = reader.hashes()?,
                1 => rest.medium = reader.text("medium")?,
                2 => rest.group = reader.number("group_idx")?,
                3 => rest.locality = reader.text("locality")?,
                _ => rest.ownership = reader.text("ownership")?,
            }
            Ok(())
        })?;
        if seen & 1 == 0 {
            return Err(Wrong { field: "block_hashes", expected: "hashes" });
        }
        Ok(Entry::Removed { hashes, rest })
    }

    fn stored(&mut self, form: Form) -> Result<Entry<'a>, Wrong> {
        let mut hashes = self.hashes.len()..self.hashes.len();
        let mut tokens = self.tokens.len()..self.tokens.len();
        let mut rest = Stored::default();
        let names = match self.engine {
            EngineType::Sglang => STORED.get(..STORED_SGLANG).unwrap_or_default(),
            EngineType::Vllm => &STORED,
        };
        let seen = self.fields(form, names, |reader, field| {
            match field {
                0 => hashes = reader.hashes()?,
                1 => rest.parent = reader.parent()?,
                2 => tokens = reader.tokens()?,
                3 => {
                    let expected = "a number of tokens";
                    let wrong = Wrong { field: "block_size", expected };
                    rest.block_size = reader.number("block_size")?.ok_or(wrong)?;
                }
                4 => rest.lora_id = reader.lora_id()?,
                5 => rest.medium = reader.text("medium")?,
                6 => rest.lora_name = reader.text("lora_name")?,
                7 => rest.extra_keys = reader.extra_keys()?,
                8 => rest.group = reader.number("group_idx")?,
                9 => rest.kind = reader.text("kv_cache_spec_kind")?,
                10 => rest.sliding_window = reader.number("kv_cache_spec_sliding_window")?,
                11 => rest.locality = reader.text("locality")?,
                12 => rest.ownership = reader.text("ownership")?,
                _ => rest.session_id = reader.text("session_id")?,
            }
            Ok(())
        })?;
        let missing = (!seen).trailing_zeros() as usize;
        match STORED.get(missing) {
            Some(field) if missing < STORED_REQUIRED => {
                Err(Wrong { field, expected: "to be there" })
            }
            _ => Ok(Entry::Stored { hashes, tokens, rest }),
        }
    }

    /// A list of hashes, appended to those of the batch.
    fn hashes(&mut self) -> Result<Range<usize>, Wrong> {
        let wrong = || Wrong { field: "block_hashes", expected: "an array of hashes" };
        let Value::Array(len) = self.cursor.value()? else { return Err(wrong()) };
        let start = self.hashes.len();
        self.hashes.reserve(self.cursor.len().min(len as usize));
        for _ in 0..len {
            let hash = hash(self.cursor.value()?).ok_or_else(wrong)?;
            self.hashes.push(hash);
        }
        Ok(start..self.hashes.len())
    }

    fn parent(&mut self) -> Result<Option<u64>, Wrong> {
        let wrong = Wrong { field: "parent_block_hash", expected: "a hash or nil" };
        match self.cursor.value()? {
            Value::Nil => Ok(None),
            value => hash(value).map(Some).ok_or(wrong),
        }
    }

    /// A list of tokens, appended to those of the batch.
    fn tokens(&mut self) -> Result<Range<usize>, Wrong> {
        let wrong = || Wrong { field: "token_ids", expected: "an array of token ids" };
        let Value::Array(len) = self.cursor.value()? else { return Err(wrong()) };
        let start = self.tokens.len();
        self.tokens.reserve(self.cursor.len().min(len as usize));
        for _ in 0..len {
            let token = match self.cursor.small() {
                Some(token) => token,
                None => match self.cursor.value()? {
                    Value::Uint(token) => u32::try_from(token).map_err(|_| wrong())?,
                    _ => return Err(wrong()),
                },
            };
            self.tokens.push(token);
        }
        Ok(start..self.tokens.len())
    }

    fn lora_id(&mut self) -> Result<Option<i64>, Wrong> {
        let wrong = Wrong { field: "lora_id", expected: "an integer or nil" };
        match self.cursor.value()? {
            Value::Nil => Ok(None),
            Value::Uint(id) => i64::try_from(id).map(Some).map_err(|_| wrong),
            Value::Negative(id) => Ok(Some(id)),
            _ => Err(wrong),
        }
    }

    fn extra_keys(&mut self) -> Result<ExtraKeys<'a>, Wrong> {
        let raw = self.cursor.skip()?;
        match Cursor::new(raw).value()? {
            Value::Nil => Ok(ExtraKeys::default()),
            Value::Array(_) => Ok(ExtraKeys::new(raw)),
            _ => Err(Wrong { field: "extra_keys", expected: "an array or nil" }),
        }
    }

    fn text(&mut self, field: &'static str) -> Result<Option<&'a str>, Wrong> {
        let wrong = Wrong { field, expected: "a string or nil" };
        match self.cursor.value()? {
            Value::Nil => Ok(None),
            Value::Str(text) => str::from_utf8(text).map(Some).map_err(|_| wrong),
            _ => Err(wrong),
        }
    }

    fn number(&mut self, field: &'static str) -> Result<Option<u32>, Wrong> {
        let wrong = Wrong { field, expected: "an integer from 0 to 2^32 - 1, or nil" };
        match self.cursor.value()? {
            Value::Nil => Ok(None),
            Value::Uint(number) => u32::try_from(number).map(Some).map_err(|_| wrong),
            _ => Err(wrong),
        }
    }
}

/// The engine key of a hash on the wire.
fn hash(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Uint(hash) => Some(hash),
        Value::Negative(hash) => Some(hash.cast_unsigned()),
        Value::Bin(digest) => engine_key(digest),
        _ => None,
    }
}

//! Event batches as bytes: msgpack, field by field as each version of vLLM writes them.

use std::collections::{HashMap, hash_map};

use inlane_kv::engine_hash::Digest;

use super::Dialect;
use crate::{
    engine::events::{Event, Origin, Stored},
    ids::BuildIdHasher,
};

/// What the bytes depend on besides the events.
#[derive(Debug)]
pub(super) struct Style {
    pub(super) dialect: Dialect,
    /// Tokens per block.
    pub(super) block_size: u32,
    /// The data-parallel rank of the engine.
    pub(super) rank: u32,
    /// Hashes are sent whole, as bytes; otherwise as integers, the low 64 bits.
    pub(super) digests: Option<Digests>,
}

/// The whole hashes of the blocks that are stored, by key; each with the number of blocks that have it.
#[derive(Debug, Default)]
pub(super) struct Digests(HashMap<u64, (Digest, u32), BuildIdHasher>);

impl Digests {
    fn learn(&mut self, stored: &Stored) {
        for (key, hash) in stored.keys.iter().zip(&stored.digests) {
            self.0.entry(*key).or_insert((*hash, 0)).1 += 1;
        }
    }

    fn forget(&mut self, key: u64) {
        if let hash_map::Entry::Occupied(mut known) = self.0.entry(key) {
            known.get_mut().1 -= 1;
            if known.get().1 == 0 {
                known.remove();
            }
        }
    }
}

/// Appends a batch of the events of one step. `at` is the time in seconds since the Unix epoch.
pub(super) fn batch(events: &[Event], at: f64, style: &mut Style, out: &mut Vec<u8>) {
    array(3, out);
    out.push(0xcb);
    out.extend_from_slice(&at.to_be_bytes());
    array(events.len(), out);
    for event in events {
        match event {
            Event::Cleared => {
                style.digests = style.digests.take().map(|_| Digests::default());
                Fields::begin("AllBlocksCleared", 0, style.dialect, out);
            }
            Event::Removed(key) => {
                removed(*key, style, out);
                style.digests.iter_mut().for_each(|digests| digests.forget(*key));
            }
            Event::Stored(stored) => {
                style.digests.iter_mut().for_each(|digests| digests.learn(stored));
                self::stored(stored, style, out);
            }
        }
    }
    unsigned(style.rank.into(), out);
}

fn removed(key: u64, style: &Style, out: &mut Vec<u8>) {
    let grouped = style.dialect >= Dialect::V0_20;
    let mut fields = Fields::begin("BlockRemoved", 2 + usize::from(grouped), style.dialect, out);
    array(1, fields.name("block_hashes"));
    hash(key, style, fields.out);
    text(MEDIUM, fields.name("medium"));
    if grouped {
        unsigned(0, fields.name("group_idx"));
    }
}

fn stored(stored: &Stored, style: &Style, out: &mut Vec<u8>) {
    let Stored { parent, keys, tokens, origin, .. } = stored;
    let dialect = style.dialect;
    let session = origin.session.as_ref().filter(|_| dialect >= Dialect::V0_32);
    let count = match dialect {
        Dialect::V0_10 => 6,
        Dialect::V0_14 => 7,
        Dialect::V0_18 => 8,
        Dialect::V0_20 => 9,
        Dialect::V0_22 => 11,
        Dialect::V0_24 => 10,
        Dialect::V0_32 => 10 + usize::from(session.is_some()),
    };
    let mut fields = Fields::begin("BlockStored", count, dialect, out);
    array(keys.len(), fields.name("block_hashes"));
    for key in keys {
        hash(*key, style, fields.out);
    }
    optional(*parent, fields.name("parent_block_hash"), |parent, out| hash(parent, style, out));
    array(tokens.len(), fields.name("token_ids"));
    for token in tokens {
        unsigned((*token).into(), fields.out);
    }
    unsigned(style.block_size.into(), fields.name("block_size"));
    let adapter = origin.adapter.as_ref();
    optional(adapter, fields.name("lora_id"), |adapter, out| unsigned(adapter.id, out));
    text(MEDIUM, fields.name("medium"));
    if dialect >= Dialect::V0_14 {
        optional(adapter, fields.name("lora_name"), |adapter, out| text(&adapter.name, out));
    }
    if dialect >= Dialect::V0_18 {
        array(keys.len(), fields.name("extra_keys"));
        for index in 0..keys.len() {
            extra(origin, index == 0 && parent.is_none(), fields.out);
        }
    }
    if dialect >= Dialect::V0_20 {
        unsigned(0, fields.name("group_idx"));
    }
    if dialect >= Dialect::V0_22 {
        text("full_attention", fields.name("kv_cache_spec_kind"));
    }
    if dialect == Dialect::V0_22 {
        // The sliding window: arrays cannot leave it out.
        fields.out.push(NIL);
    }
    if let Some(session) = session {
        text(session, fields.name("session_id"));
    }
}

/// What is special about one block.
fn extra(origin: &Origin, first: bool, out: &mut Vec<u8>) {
    let adapter = origin.adapter.as_ref().map(|adapter| &*adapter.name);
    let salt = origin.salt.as_deref().filter(|_| first);
    let parts = [adapter, salt];
    match parts.iter().flatten().count() {
        0 => out.push(NIL),
        count => {
            array(count, out);
            parts.iter().flatten().for_each(|part| text(part, out));
        }
    }
}

fn hash(key: u64, style: &Style, out: &mut Vec<u8>) {
    match &style.digests {
        None => unsigned(key, out),
        Some(digests) => match digests.0.get(&key) {
            Some((hash, _)) => bytes(hash.as_bytes(), out),
            // The simulator's own hash is no longer than a key.
            None => bytes(&key.to_be_bytes(), out),
        },
    }
}

/// The fields of one event: a map with names, or an array without.
struct Fields<'a> {
    map: bool,
    out: &'a mut Vec<u8>,
}

impl<'a> Fields<'a> {
    /// Begins an event of `count` fields besides its tag.
    fn begin(tag: &str, count: usize, dialect: Dialect, out: &'a mut Vec<u8>) -> Self {
        let map = dialect >= Dialect::V0_24;
        if map {
            head(count + 1, [0x80, 0xde], out);
        } else {
            array(count + 1, out);
        }
        let mut fields = Self { map, out };
        text(tag, fields.name("type"));
        fields
    }

    /// Where to write the value of the field called `name`.
    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if self.map {
            text(name, self.out);
        }
        self.out
    }
}

const MEDIUM: &str = "GPU";
const NIL: u8 = 0xc0;

fn optional<T>(value: Option<T>, out: &mut Vec<u8>, write: impl FnOnce(T, &mut Vec<u8>)) {
    match value {
        None => out.push(NIL),
        Some(value) => write(value, out),
    }
}

fn array(length: usize, out: &mut Vec<u8>) {
    head(length, [0x90, 0xdc], out);
}

/// The head of an array or map, given the first bytes of its form for up to 15 items and of that for up to
/// 65 535. No list here is longer than a prompt.
fn head(length: usize, [short, long]: [u8; 2], out: &mut Vec<u8>) {
    match length {
        0..=15 => out.push(short | length as u8),
        16..=0xffff => {
            out.push(long);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(long + 1);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

/// A number in its shortest form.
fn unsigned(value: u64, out: &mut Vec<u8>) {
    let bytes = value.to_be_bytes();
    let (tag, width) = match value {
        0..=0x7f => return out.push(bytes[7]),
        0x80..=0xff => (0xcc, 1),
        0x100..=0xffff => (0xcd, 2),
        0x1_0000..=0xffff_ffff => (0xce, 4),
        _ => (0xcf, 8),
    };
    out.push(tag);
    out.extend_from_slice(&bytes[8 - width..]);
}

fn text(value: &str, out: &mut Vec<u8>) {
    match value.len() {
        length @ 0..=31 => out.push(0xa0 | length as u8),
        length @ 32..=0xff => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 0x100..=0xffff => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
    out.extend_from_slice(value.as_bytes());
}

/// At most 255 bytes.
fn bytes(value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&[0xc4, value.len() as u8]);
    out.extend_from_slice(value);
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;

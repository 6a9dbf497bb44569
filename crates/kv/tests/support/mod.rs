//! A publisher's messages, written as JSON, and an index to apply them to.
#![allow(dead_code, unreachable_pub, reason = "helpers of several tests")]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "helpers of tests")]

use std::num::NonZeroU32;

use inlane_kv::event::{EngineType, decode};
use inlane_kv::extras::Extras;
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_kv::literal::LiteralMirror;
use inlane_kv::{Applied, Applier, Limits};
use serde_json::{Value, json};

/// A JSON value as msgpack; `{"$bytes": [..]}` is a byte string.
pub fn pack(value: &Value, out: &mut Vec<u8>) {
    use rmp::encode as write;
    match value {
        Value::Array(list) => {
            write::write_array_len(out, list.len() as u32).unwrap();
            list.iter().for_each(|value| pack(value, out));
        }
        Value::Bool(value) => write::write_bool(out, *value).unwrap(),
        Value::Null => write::write_nil(out).unwrap(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => drop(write::write_uint(out, number).unwrap()),
            (None, Some(number)) => drop(write::write_sint(out, number).unwrap()),
            _ => write::write_f64(out, number.as_f64().unwrap()).unwrap(),
        },
        Value::Object(map) => {
            if let Some(bytes) = map.get("$bytes") {
                let bytes: Vec<u8> = serde_json::from_value(bytes.clone()).unwrap();
                return write::write_bin(out, &bytes).unwrap();
            }
            write::write_map_len(out, map.len() as u32).unwrap();
            for (key, value) in map {
                write::write_str(out, key).unwrap();
                pack(value, out);
            }
        }
        Value::String(text) => write::write_str(out, text).unwrap(),
    }
}

/// The payload of one message.
pub fn payload(events: Value) -> Vec<u8> {
    let mut out = Vec::new();
    pack(&json!([1.5, events, 0]), &mut out);
    out
}

/// A store of full attention with the fields of `more` besides.
pub fn store(
    hashes: &[u64],
    parent: Option<u64>,
    tokens: &[u32],
    block: u32,
    more: Value,
) -> Value {
    let mut event = json!({
        "type": "BlockStored",
        "block_hashes": hashes,
        "parent_block_hash": parent,
        "token_ids": tokens,
        "block_size": block,
        "lora_id": null,
        "medium": "GPU",
        "lora_name": null,
    });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    event
}

pub fn remove(hashes: &[u64]) -> Value {
    json!({"type": "BlockRemoved", "block_hashes": hashes, "medium": "GPU"})
}

/// The model of every topic.
pub const MODEL: &str = "m";

/// An applier and the mirror that it writes.
pub struct Index {
    pub applier: Applier,
    pub mirror: LiteralMirror,
}

impl Index {
    /// With blocks of so many tokens.
    pub fn new(block: u32) -> Self {
        Self::with(block, Limits::default(), LiteralMirror::default())
    }

    pub fn with(block: u32, limits: Limits, mirror: LiteralMirror) -> Self {
        let hasher = Hasher::new(Algorithm::CborFnv, "", NonZeroU32::new(block).unwrap());
        Self { applier: Applier::new(hasher, [], limits), mirror }
    }

    /// Applies a message of slot 0.
    pub fn apply(&mut self, events: Value) -> Applied {
        self.apply_to(0, events)
    }

    pub fn apply_to(&mut self, slot: u16, events: Value) -> Applied {
        let payload = payload(events);
        let batch = decode(&payload, EngineType::Vllm).unwrap();
        assert_eq!((batch.unknown(), batch.first_error()), (0, None));
        self.applier.apply(&mut self.mirror, slot, MODEL, &batch)
    }

    pub fn keys(&self, tokens: &[u32], model: &str, extras: &Extras<'_>) -> Vec<u64> {
        let hasher = self.applier.hasher();
        let mut keys = Vec::new();
        hasher.extend(hasher.start(model), tokens, extras, &mut keys);
        keys
    }

    /// Blocks of a text prompt that slot 0 holds in a tier.
    pub fn score(&self, tier: u8, tokens: &[u32]) -> usize {
        self.mirror.longest_prefix(0, tier, &self.keys(tokens, MODEL, &Extras::NONE))
    }
}

/// The tokens `from..to` of the prompt that most tests use.
pub fn tokens(from: u32, to: u32) -> Vec<u32> {
    (from..to).map(|at| at * 7 + 100_000 * (at % 2)).collect()
}

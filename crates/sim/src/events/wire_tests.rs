//! The bytes against those of real servers.

use std::{collections::BTreeMap, fs, sync::Arc};

use inlane_kv::engine_hash::{Algorithm, BlockExtras, EngineHasher, ExtraForm};
use serde_json::Value;

use super::*;
use crate::engine::events::Adapter;

const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/vllm");
const RUN: &str = "sha256_cbor-seed42-int";

fn lines(path: &str) -> Vec<Value> {
    let text = fs::read_to_string(format!("{RECORDINGS}/{path}")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn style(dialect: Dialect) -> Style {
    Style { dialect, block_size: 32, rank: 0, digests: None }
}

fn encode(events: &[Event], at: f64, mut style: Style) -> Vec<u8> {
    let mut out = Vec::new();
    batch(events, at, &mut style, &mut out);
    out
}

/// An event as the simulator would have had it.
fn event(json: &Value) -> Event {
    let hashes = || json["block_hashes"].as_array().unwrap().iter().map(|h| h.as_u64().unwrap());
    match json["type"].as_str().unwrap() {
        "AllBlocksCleared" => Event::Cleared,
        "BlockRemoved" => Event::Removed(hashes().next().unwrap()),
        _ => {
            let text = |name: &str| json[name].as_str().map(str::to_owned);
            let adapter = text("lora_name")
                .map(|name| Adapter { name: name.into(), id: json["lora_id"].as_u64().unwrap() });
            let first = json["extra_keys"][0].as_array().and_then(|extra| extra.last()?.as_str());
            let salt = first.filter(|first| adapter.as_ref().is_none_or(|a| *a.name != **first));
            let tokens = json["token_ids"].as_array().unwrap().iter();
            Event::Stored(Stored {
                parent: json["parent_block_hash"].as_u64(),
                keys: hashes().collect(),
                digests: vec![],
                tokens: tokens.map(|token| token.as_u64().unwrap() as u32).collect(),
                origin: Arc::new(Origin {
                    adapter,
                    salt: salt.map(str::to_owned),
                    session: text("session_id"),
                }),
            })
        }
    }
}

/// Events and time of every recorded batch, by sequence number.
fn recorded() -> BTreeMap<u64, (Vec<Event>, f64, Vec<u8>)> {
    let batch = |line: Value| {
        let decoded = &line["decoded"];
        let events = decoded[1].as_array().unwrap().iter().map(event).collect();
        let payload = from_hex(line["frames_hex"][2].as_str().unwrap());
        (line["seq"].as_u64().unwrap(), (events, decoded[0].as_f64().unwrap(), payload))
    };
    lines(&format!("runs/{RUN}/events.jsonl")).into_iter().map(batch).collect()
}

#[test]
fn every_recorded_batch_has_these_very_bytes() {
    let recorded = recorded();
    assert_eq!(recorded.len(), 141);
    for (sequence, (events, at, payload)) in recorded {
        let bytes = encode(&events, at, style(Dialect::V0_32));
        assert!(bytes == payload, "batch {sequence}");
    }
}

#[test]
fn older_versions_have_these_very_bytes() {
    let recorded = recorded();
    let mut compared = BTreeMap::<String, usize>::new();
    for line in lines("wire_variants.jsonl") {
        let (encoding, from) = (line["encoding"].as_str().unwrap(), &line["from"]);
        let dialect = match encoding {
            "0.10.2 (array)" => Dialect::V0_10,
            "0.14.1 (array)" => Dialect::V0_14,
            "0.18.1 (array)" => Dialect::V0_18,
            "0.20.2 (array)" => Dialect::V0_20,
            "0.22.1 (array)" => Dialect::V0_22,
            "0.24.0 (map)" => Dialect::V0_24,
            "0.32.0 (map)" => Dialect::V0_32,
            _ => continue,
        };
        // Some are shown without the rank, which the publisher always adds.
        if from["run"] != RUN || line["expect"]["data_parallel_rank"].is_null() {
            continue;
        }
        let (events, at, _) = &recorded[&from["seq"].as_u64().unwrap()];
        let payload = from_hex(line["payload_hex"].as_str().unwrap());
        assert!(encode(events, *at, style(dialect)) == payload, "{encoding} {from}");
        *compared.entry(encoding.to_owned()).or_default() += 1;
    }
    assert_eq!(compared.len(), 7, "{compared:?}");
}

#[test]
fn whole_hashes_are_bytes() {
    let hasher = EngineHasher::new(Algorithm::Xxhash, ExtraForm::Tagged, "");
    let digest = |token: u32| {
        hasher.next(&hasher.start(), &[token], &BlockExtras::default(), &mut vec![]).unwrap()
    };
    let stored = |key: u64, token: u32| {
        Event::Stored(Stored {
            parent: None,
            keys: vec![key],
            digests: vec![digest(token)],
            tokens: vec![],
            origin: Arc::default(),
        })
    };
    let mut style = Style { digests: Some(Digests::default()), ..style(Dialect::V0_10) };
    let mut sent = |event: Event| {
        let mut out = Vec::new();
        batch(&[event], 0.0, &mut style, &mut out);
        out
    };
    let whole = |token: u32| [&[0x91, 0xc4, 16][..], digest(token).as_bytes()].concat();
    let holds = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    // Two blocks with one hash: it is known until both are gone.
    for _ in 0..2 {
        assert!(holds(&sent(stored(7, 1)), &whole(1)));
    }
    for _ in 0..2 {
        assert!(holds(&sent(Event::Removed(7)), &whole(1)));
    }
    let short = [0x91, 0xc4, 8, 0, 0, 0, 0, 0, 0, 0, 7];
    assert!(holds(&sent(Event::Removed(7)), &short));
    sent(stored(8, 2));
    sent(Event::Cleared);
    assert!(!holds(&sent(Event::Removed(8)), &whole(2)));
}

#[test]
fn every_length_has_its_form() {
    let prefix = |length: usize| {
        let mut out = Vec::new();
        array(length, &mut out);
        out
    };
    assert_eq!(prefix(15), [0x9f]);
    assert_eq!(prefix(16), [0xdc, 0, 16]);
    assert_eq!(prefix(65_536), [0xdd, 0, 1, 0, 0]);
    for (value, bytes) in [
        (0x7f, &[0x7f][..]),
        (0x80, &[0xcc, 0x80]),
        (0x100, &[0xcd, 1, 0]),
        (0x1_0000, &[0xce, 0, 1, 0, 0]),
        (u64::MAX, &[0xcf, 255, 255, 255, 255, 255, 255, 255, 255]),
    ] {
        let mut out = Vec::new();
        unsigned(value, &mut out);
        assert_eq!(out, bytes);
    }
    for (length, head) in
        [(31, &[0xbf][..]), (32, &[0xd9, 32]), (256, &[0xda, 1, 0]), (65_536, &[0xdb, 0, 1, 0, 0])]
    {
        let mut out = Vec::new();
        text(&"x".repeat(length), &mut out);
        assert_eq!((&out[..head.len()], out.len()), (head, head.len() + length));
    }
}

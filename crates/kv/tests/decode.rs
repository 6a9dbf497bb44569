//! Payloads of every shape: what is right in them is used, nothing makes the decoder stumble.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use inlane_kv::event::{Batch, DecodeError, EngineType, Event, decode, decode_into};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{pack, payload, remove, store};

fn vllm(payload: &[u8]) -> Batch<'_> {
    decode(payload, EngineType::Vllm).unwrap()
}

#[test]
fn an_event_that_is_wrong_is_dropped_alone() {
    let payload = payload(json!([
        remove(&[1]),
        ["Nope"],
        {"type": "BlockMoved", "block_hashes": [1]},
        ["BlockRemoved", "not hashes", null],
        store(&[1, 2], None, &[1], 1, json!({"group_idx": -1})),
        7,
        remove(&[2]),
    ]));
    let batch = vllm(&payload);
    let removed: Vec<&[u64]> = batch
        .events()
        .map(|event| match event {
            Event::BlockRemoved(removed) => removed.hashes,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(removed, [[1], [2]]);
    assert_eq!((batch.unknown(), batch.malformed()), (2, 3));
    let error = batch.first_error().unwrap().to_string();
    assert_eq!(error, "event 3: block_hashes: expected an array of hashes");
}

#[test]
fn fields_come_in_any_order_and_new_ones_are_passed_over() {
    let mut bytes = Vec::new();
    // Maps of JSON are sorted by their keys: the tag comes last.
    pack(
        &json!([1, [{"block_hashes": [{"$bytes": [1, 0, 0, 0, 0, 0, 0, 0, 9]}],
        "future": {"a": [1, {"b": null}]}, "medium": "CPU", "type": "BlockRemoved"}], null, 5]),
        &mut bytes,
    );
    let batch = vllm(&bytes);
    let Some(Event::BlockRemoved(removed)) = batch.events().next() else { panic!() };
    assert_eq!((removed.hashes, removed.medium), (&[9][..], Some("CPU")));
    assert_eq!((batch.timestamp(), batch.rank()), (1.0, None));
}

#[test]
fn a_store_must_say_what_it_follows() {
    for missing in ["block_hashes", "parent_block_hash", "token_ids", "block_size"] {
        let mut event = store(&[1], None, &[1], 1, json!({}));
        event.as_object_mut().unwrap().remove(missing);
        let payload = payload(json!([event]));
        let error = vllm(&payload).first_error().unwrap();
        assert_eq!((error.field, error.expected), (missing, "to be there"));
    }
}

#[test]
fn sglang_has_nine_fields() {
    let event = json!(["BlockStored", [1], null, [5], 1, null, "GPU", null, null, 3, "mamba"]);
    let payload = payload(json!([event]));
    let group = |engine| {
        let batch = decode(&payload, engine).unwrap();
        let Some(Event::BlockStored(stored)) = batch.events().next() else { panic!() };
        (stored.group, stored.kind.map(str::to_string))
    };
    assert_eq!(group(EngineType::Sglang), (None, None));
    assert_eq!(group(EngineType::Vllm), (Some(3), Some("mamba".into())));
    assert_eq!(EngineType::from_name("sglang"), Some(EngineType::Sglang));
    assert_eq!(EngineType::from_name("trt"), None);
}

/// Arrays without what has its default, hashes as signed numbers of 64 bits, a page per event: as
/// SGLang's encoder leaves them.
#[test]
fn sglang_is_understood_as_it_encodes() {
    let prompt = support::tokens(0, 8);
    let hashes = [-7_046_029_254_386_353_131_i64, 42, i64::MIN, -1];
    let mut index = support::Index::new(4);
    let apply = |index: &mut support::Index, value: Value| {
        let mut bytes = Vec::new();
        pack(&value, &mut bytes);
        let batch = decode(&bytes, EngineType::Sglang).unwrap();
        assert_eq!((batch.unknown(), batch.malformed()), (0, 0));
        index.applier.apply(&mut index.mirror, 0, support::MODEL, &batch);
    };
    let mut parent = Value::Null;
    let pages = hashes.iter().zip(prompt.chunks(2)).map(|(hash, page)| {
        let event = json!(["BlockStored", [hash], parent, page, 2, null]);
        parent = json!(hash);
        event
    });
    let events: Vec<Value> = pages.collect();
    // With the rank and without.
    apply(&mut index, json!([1_700_000_000.5, events[..2], 0]));
    apply(&mut index, json!([1_700_000_001.5, events[2..]]));
    assert_eq!(index.score(0, &prompt), 2);
    apply(&mut index, json!([1_700_000_002.5, [["BlockRemoved", [-1]]], null]));
    assert_eq!(index.score(0, &prompt), 1);
    // Another layer of its cache, by a medium at the end.
    let host = json!(["BlockStored", [hashes[0], hashes[1]], null, prompt[..4], 2, null, "CPU"]);
    apply(&mut index, json!([1_700_000_003.5, [host]]));
    assert_eq!((index.score(0, &prompt), index.score(1, &prompt)), (1, 1));
    apply(&mut index, json!([1_700_000_004.5, [["AllBlocksCleared"], events[0], events[1]], 0]));
    assert_eq!((index.score(0, &prompt), index.score(1, &prompt)), (1, 0));
}

#[test]
fn buffers_of_one_message_serve_the_next() {
    let (first, second) =
        (samples(), payload(json!([remove(&[9]), store(&[1], None, &[2], 1, json!({}))])));
    let buffers = vllm(&first).into_buffers();
    let reused = decode_into(&second, EngineType::Vllm, buffers).unwrap();
    assert!(reused.events().eq(vllm(&second).events()));
}

#[test]
fn what_is_no_batch_says_so() {
    let error = |value: Value| {
        let mut bytes = Vec::new();
        pack(&value, &mut bytes);
        decode(&bytes, EngineType::Vllm).unwrap_err().to_string()
    };
    assert_eq!(error(json!({})), "batch: expected an array of time, events and rank");
    assert_eq!(error(json!([1.0])), "batch: expected an array of time, events and rank");
    assert_eq!(error(json!(["now", []])), "time: expected a number");
    assert_eq!(error(json!([1.0, {}])), "events: expected an array");
    let cut = DecodeError::NotMsgpack { offset: 11, len: 11 };
    let bytes = [0x92, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 0xc1];
    assert_eq!(decode(&bytes, EngineType::Vllm).unwrap_err(), cut);
}

/// Events with every field, in both encodings.
fn samples() -> Vec<u8> {
    let media = json!([["sql", ["img", 3], "salt", {"$bytes": [1, 2]}], null]);
    payload(json!([
        ["BlockStored", [1, 2], 3, [5, 70_000], 1, 1, "GPU", "sql", media, 0, "mamba", 64, "LOCAL"],
        store(&[1, 2], Some(3), &[5, 70_000], 1, json!({"extra_keys": media, "session_id": "s"})),
        ["BlockRemoved", [1, 2], "CPU", 0, "LOCAL", "tier"],
        {"type": "AllBlocksCleared"},
    ]))
}

/// What is decoded is no more than there are bytes for.
fn check(payload: &[u8]) {
    for engine in [EngineType::Vllm, EngineType::Sglang] {
        let Ok(batch) = decode(payload, engine) else { continue };
        let mut items = 0;
        for event in batch.events() {
            items += 1;
            if let Event::BlockStored(stored) = event {
                items += stored.hashes.len() + stored.tokens.len();
                let keys = stored.extra_keys.blocks().flat_map(|block| block.iter());
                items += keys.count();
            }
        }
        assert!(items <= payload.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check(&bytes);
        check(&[&[0x93, 0xcb, 0, 0, 0, 0, 0, 0, 0, 0, 0x95][..], &bytes].concat());
    }

    #[test]
    fn any_damage_is_survived(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut payload = samples();
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        check(&payload);
        check(&payload[..cut.index(payload.len())]);
    }
}

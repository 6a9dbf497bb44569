//! A publisher that says anything: it stays within its quota, and nobody else is touched.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use inlane_kv::event::{EngineType, decode};
use inlane_kv::literal::LiteralMirror;
use inlane_kv::{Limits, Mirror};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Index, MODEL, pack, store, tokens};

const LIMITS: Limits = Limits { blocks_per_slot: 20, tails_per_slot: 10 };

fn hash() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => (0..12u64).prop_map(|hash| json!(hash)),
        1 => (-3..0i64).prop_map(|hash| json!(hash)),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| json!({"$bytes": bytes})),
        1 => Just(json!(u64::MAX)),
        1 => Just(json!("text")),
    ]
}

/// A value that a field may have, or should not have.
fn odd() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(|number| json!(number)),
        "[a-z]{0,40}".prop_map(|text| json!(text)),
        Just(json!([])),
        Just(json!([[null], [["img", -9], ["img"], [7], "img", 3]])),
        Just(json!({"type": "BlockStored"})),
    ]
}

fn event() -> impl Strategy<Value = Value> {
    let stored = (
        prop::collection::vec(hash(), 0..6),
        prop_oneof![2 => Just(Value::Null), 3 => hash()],
        (0..6u32, 0..10u32),
        (0..5u32, 0..4u32),
        prop::option::of(0..4u32),
        prop::option::of((0..9usize, odd())),
    )
        .prop_map(|(hashes, parent, (from, count), (size, medium), group, odd)| {
            // Most are dense: others are passed over early.
            let count = if size > 0 { size * hashes.len() as u32 } else { count };
            let mut event = store(&[], None, &tokens(from, from + count), size, json!({}));
            event["block_hashes"] = json!(hashes);
            event["parent_block_hash"] = parent;
            event["medium"] = json!(["GPU", "", "cpu", "disk"][medium as usize]);
            if let Some(group) = group {
                event["group_idx"] = json!(group);
                event["kv_cache_spec_kind"] =
                    json!(["full_attention", "", "mamba", "mla_attention"][group as usize]);
            }
            if let Some((field, odd)) = odd {
                let names = [
                    "block_hashes",
                    "parent_block_hash",
                    "token_ids",
                    "block_size",
                    "lora_id",
                    "lora_name",
                    "medium",
                    "extra_keys",
                    "group_idx",
                ];
                event[names[field]] = odd;
            }
            event
        });
    let removed = (prop::collection::vec(hash(), 0..8), prop::option::of(0..4u32), 0..4usize)
        .prop_map(|(hashes, group, medium)| {
            let medium = ["GPU", "", "cpu", "disk"][medium];
            json!({"type": "BlockRemoved", "block_hashes": hashes, "group_idx": group,
                   "medium": medium})
        });
    prop_oneof![
        12 => stored,
        6 => removed,
        1 => Just(json!(["AllBlocksCleared"])),
        1 => Just(json!({"type": "AllBlocksCleared", "block_hashes": 7})),
        1 => odd(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_a_publisher_says_concerns_itself_alone(
        batches in prop::collection::vec(prop::collection::vec(event(), 0..8), 1..20),
        ours in 1..5u32,
    ) {
        let mut index = Index::with(ours, LIMITS, LiteralMirror::default());
        let prompt = tokens(0, 12);
        index.apply(json!([store(&[1, 2, 3], None, &prompt, 4, json!({}))]));
        let held: Vec<_> = index.mirror.held(0, 0).collect();
        for batch in batches {
            let clears = matches!(batch.last(), Some(Value::Array(last)) if !last.is_empty()
                && last[0] == "AllBlocksCleared");
            let mut bytes = Vec::new();
            pack(&json!([1.5, batch, 0]), &mut bytes);
            let batch = decode(&bytes, EngineType::Vllm).unwrap();
            index.applier.apply(&mut index.mirror, 1, MODEL, &batch);
            prop_assert!(index.mirror.len(1) <= LIMITS.blocks_per_slot);
            prop_assert!(!clears || index.mirror.is_empty(1));
            prop_assert!(index.mirror.held(0, 0).eq(held.iter().copied()));
        }
        index.applier.clear(&mut index.mirror, 1);
        prop_assert!(index.mirror.is_empty(1));
        // What it has said of groups and blocks is forgotten with it.
        index.apply_to(1, json!([store(&[1, 2, 3], None, &prompt, 4, json!({}))]));
        let keys = index.keys(&prompt, MODEL, &Default::default());
        prop_assert_eq!(index.mirror.longest_prefix(1, 0, &keys), keys.len());
    }
}

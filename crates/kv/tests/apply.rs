//! What stores and removals come to.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use inlane_kv::extras::{Extras, Item};
use inlane_kv::literal::LiteralMirror;
use inlane_kv::{CacheKind, Limits, Mirror, Reason};
use serde_json::{Value, json};
use support::{Index, MODEL, remove, store, tokens};

fn plain(hashes: &[u64], parent: Option<u64>, from: u32, to: u32, block: u32) -> Value {
    store(hashes, parent, &tokens(from, to), block, json!({}))
}

fn skipped(index: &Index) -> Vec<(CacheKind, Reason, u64)> {
    index.applier.counters().stores_skipped().collect()
}

#[test]
fn a_chain_grows_over_events_and_shrinks_from_its_end() {
    let mut index = Index::new(4);
    let prompt = tokens(0, 16);
    let applied = index.apply(json!([plain(&[1, 2], None, 0, 8, 4)]));
    assert_eq!((applied.stored, index.score(0, &prompt)), (2, 2));
    index.apply(json!([plain(&[3], Some(2), 8, 12, 4), plain(&[4], Some(3), 12, 16, 4)]));
    assert_eq!(index.score(0, &prompt), 4);
    let applied = index.apply(json!([remove(&[4]), remove(&[3])]));
    assert_eq!((applied.removed, index.score(0, &prompt)), (2, 2));
    assert_eq!(index.applier.counters().removals_forwarded, 2);
}

#[test]
fn a_store_of_which_the_parent_is_unknown_is_passed_over() {
    let mut index = Index::new(4);
    let applied = index.apply(json!([plain(&[2], Some(1), 4, 8, 4)]));
    assert_eq!((applied.stored, applied.skipped), (0, 1));
    assert_eq!(skipped(&index), [(CacheKind::Unknown, Reason::UnknownParent, 1)]);
    // Engines may say "none" by zero.
    index.apply(json!([plain(&[1], Some(0), 0, 4, 4)]));
    assert_eq!(index.score(0, &tokens(0, 4)), 1);
}

#[test]
fn larger_engine_blocks_stand_for_several_keys() {
    let mut index = Index::new(4);
    index.apply(json!([plain(&[1, 2], None, 0, 24, 12)]));
    index.apply(json!([plain(&[3], Some(2), 24, 36, 12)]));
    assert_eq!(index.score(0, &tokens(0, 36)), 9);
    index.apply(json!([remove(&[3])]));
    assert_eq!(index.score(0, &tokens(0, 36)), 6);
}

#[test]
fn smaller_engine_blocks_make_up_a_key_together_and_one_at_a_time() {
    let mut index = Index::new(16);
    let prompt = tokens(0, 48);
    index.apply(json!([plain(&[1, 2, 3, 4, 5], None, 0, 20, 4)]));
    assert_eq!(index.score(0, &prompt), 1);
    for (hash, from) in [(6, 20), (7, 24)] {
        index.apply(json!([plain(&[hash], Some(hash - 1), from, from + 4, 4)]));
        assert_eq!(index.score(0, &prompt), 1);
    }
    index.apply(json!([plain(&[8], Some(7), 28, 32, 4)]));
    assert_eq!(index.score(0, &prompt), 2);
    // Another prompt goes on from the middle of a key.
    let other: Vec<u32> = tokens(0, 24).into_iter().chain(900..908).collect();
    index.apply(json!([store(&[70, 80], Some(6), &other[24..], 4, json!({}))]));
    assert_eq!((index.score(0, &other), index.score(0, &prompt)), (2, 2));
    // Any of its blocks takes a key along.
    index.apply(json!([remove(&[6])]));
    assert_eq!((index.score(0, &other), index.score(0, &prompt)), (1, 1));
    assert_eq!(index.apply(json!([remove(&[8, 7, 80, 70])])).removed, 0);
    index.apply(json!([plain(&[6, 7, 8], Some(5), 20, 32, 4)]));
    assert_eq!(index.score(0, &prompt), 2);
    assert_eq!(skipped(&index), []);
    let all = [8, 7, 6, 5, 4, 3, 2, 1];
    assert_eq!(index.apply(json!([remove(&all)])).removed, 8);
    assert!(index.mirror.is_empty(0));
}

#[test]
fn a_block_stored_twice_is_held_until_it_is_removed_twice() {
    let mut index = Index::new(4);
    index.apply(json!([plain(&[1], None, 0, 4, 4), plain(&[1], None, 0, 4, 4)]));
    assert_eq!(index.apply(json!([remove(&[1])])).removed, 0);
    assert_eq!(index.score(0, &tokens(0, 4)), 1);
    assert_eq!(index.apply(json!([remove(&[1])])).removed, 1);
    assert_eq!(index.apply(json!([remove(&[1])])).removed, 0);
    assert_eq!(index.applier.counters().removals_suppressed, 2);
}

#[test]
fn blocks_without_tokens_change_their_tier() {
    for (ours, engine) in [(4, 4), (8, 4), (4, 8)] {
        let mut index = Index::new(ours);
        let prompt = tokens(0, engine * 2);
        let whole = (engine * 2 / ours) as usize;
        index.apply(json!([plain(&[1, 2], None, 0, engine * 2, engine)]));
        let more = json!({"medium": "cpu"});
        index.apply(json!([store(&[1, 2, 2, 9], None, &[], 0, more)]));
        assert_eq!((index.score(0, &prompt), index.score(1, &prompt)), (whole, whole));
        index.apply(json!([remove(&[2, 1])]));
        assert_eq!((index.score(0, &prompt), index.score(1, &prompt)), (0, whole));
        index.apply(json!([{"type": "BlockRemoved", "block_hashes": [2, 1], "medium": "Cpu"}]));
        assert!(index.mirror.is_empty(0), "{ours} {engine}");
    }
    let mut index = Index::new(4);
    let disk = store(&[1], None, &tokens(0, 4), 4, json!({"medium": "Disk"}));
    index.apply(json!([disk]));
    assert_eq!(index.applier.tiers(), ["gpu", "cpu", "disk"]);
    assert_eq!(index.score(2, &tokens(0, 4)), 1);
}

#[test]
fn a_cleared_engine_holds_nothing() {
    let mut index = Index::new(8);
    index.apply(json!([plain(&[1, 2, 3], None, 0, 12, 4)]));
    index.apply_to(1, json!([plain(&[1, 2], None, 0, 8, 4)]));
    assert_eq!(index.apply(json!([{"type": "AllBlocksCleared"}])).cleared, 1);
    assert!(index.mirror.is_empty(0) && !index.mirror.is_empty(1));
    let applied = index.apply(json!([plain(&[4], Some(3), 12, 16, 4)]));
    assert_eq!((applied.stored, applied.skipped), (0, 1));
}

#[test]
fn what_is_said_after_a_clearing_in_the_same_message_stands() {
    for ours in [4, 8] {
        let mut index = Index::new(ours);
        index.apply(json!([plain(&[1, 2, 3, 4], None, 0, 16, 4)]));
        let applied = index.apply(json!([
            remove(&[4]),
            {"type": "AllBlocksCleared"},
            // Behind a block that is gone, then a prompt from its start.
            plain(&[5], Some(4), 16, 20, 4),
            plain(&[1, 2], None, 0, 8, 4),
            remove(&[9, 4]),
        ]));
        assert_eq!((applied.cleared, applied.skipped), (1, 1), "{ours}");
        assert_eq!(index.score(0, &tokens(0, 20)), (8 / ours) as usize);
        assert_eq!(index.apply(json!([remove(&[2, 1])])).removed, 2);
        assert!(index.mirror.is_empty(0), "{ours}");
    }
}

#[test]
fn blocks_of_an_adapter_are_found_under_its_name() {
    let mut index = Index::new(4);
    let prompt = tokens(0, 8);
    let lora = json!({"lora_id": 1, "lora_name": "sql", "extra_keys": [["sql"], ["sql"]]});
    index.apply(json!([store(&[1, 2], None, &prompt, 4, lora)]));
    let held = |index: &Index, model, extras: &Extras<'_>| {
        index.mirror.longest_prefix(0, 0, &index.keys(&prompt, model, extras))
    };
    assert_eq!(held(&index, "sql", &Extras::NONE), 2);
    assert_eq!(held(&index, MODEL, &Extras::NONE), 0);
    // An adapter of the same name as a salt.
    let lora = json!({"lora_id": 1, "lora_name": "sql", "extra_keys": [["sql", "sql"], ["sql"]]});
    index.apply(json!([store(&[3, 4], None, &prompt, 4, lora)]));
    assert_eq!(held(&index, "sql", &Extras::new(&[], Some("sql"))), 2);
    // Old engines know a number only, which means nothing here.
    let unnamed = store(&[5], None, &prompt[..4], 4, json!({"lora_id": 7}));
    index.apply(json!([unnamed]));
    assert_eq!(skipped(&index), [(CacheKind::Unknown, Reason::UnnamedAdapter, 1)]);
}

#[test]
fn a_salt_is_in_the_first_key_only_whatever_the_sizes() {
    let prompt = tokens(0, 32);
    for ours in [4, 8, 16, 32] {
        let mut index = Index::new(ours);
        for (hashes, parent, at, salt) in
            [([1, 2], None, 0, json!([["s"], null])), ([3, 4], Some(2), 16, json!([null, null]))]
        {
            let tokens = &prompt[at..at + 16];
            let more = json!({ "extra_keys": salt });
            index.apply(json!([store(&hashes, parent, tokens, 8, more)]));
        }
        let keys = index.keys(&prompt, MODEL, &Extras::new(&[], Some("s")));
        assert_eq!(index.mirror.longest_prefix(0, 0, &keys), (32 / ours) as usize, "{ours}");
        assert_eq!(index.score(0, &prompt), 0);
    }
}

#[test]
fn a_salt_waits_for_the_first_key_to_be_complete() {
    let mut index = Index::new(16);
    let prompt = tokens(0, 16);
    let salted = json!({"extra_keys": [["s"]]});
    index.apply(json!([store(&[1], None, &prompt[..8], 8, salted)]));
    index.apply(json!([store(&[2], Some(1), &prompt[8..], 8, json!({"extra_keys": [null]}))]));
    let keys = index.keys(&prompt, MODEL, &Extras::new(&[], Some("s")));
    assert_eq!(index.mirror.longest_prefix(0, 0, &keys), 1);
}

#[test]
fn media_are_in_the_keys_of_the_blocks_that_they_lie_in() {
    let prompt = tokens(0, 32);
    // In blocks of eight: one item from 5 to 20, another from 20 to 24.
    let items =
        [Item { start: 5, end: 20, identifier: "a" }, Item { start: 20, end: 24, identifier: "b" }];
    let extra = json!([[["a", 5]], [["a", -3]], [["a", -11], ["b", 4]], null]);
    for ours in [4, 8, 16, 32] {
        let mut index = Index::new(ours);
        // As one event, and block by block.
        let whole = json!({ "extra_keys": extra });
        index.apply(json!([store(&[1, 2, 3, 4], None, &prompt, 8, whole)]));
        let keys = index.keys(&prompt, MODEL, &Extras::new(&items, None));
        assert_eq!(index.mirror.longest_prefix(0, 0, &keys), keys.len(), "{ours}");
        index.apply(json!([{"type": "AllBlocksCleared"}]));
        for block in 0..4u64 {
            let tokens = &prompt[block as usize * 8..][..8];
            let parent = (block > 0).then_some(block);
            let more = json!({"extra_keys": [extra[block as usize]]});
            index.apply(json!([store(&[block + 1], parent, tokens, 8, more)]));
        }
        assert_eq!(index.mirror.longest_prefix(0, 0, &keys), keys.len(), "{ours}");
    }
}

#[test]
fn media_named_without_offsets_fill_their_blocks() {
    let digest = "0123456789abcdef0123456789abcdef";
    let prompt = tokens(0, 16);
    for (ours, end) in [(8, 16), (16, 16)] {
        let mut index = Index::new(ours);
        let more = json!({"extra_keys": [[digest], [digest]]});
        index.apply(json!([store(&[1, 2], None, &prompt, 8, more)]));
        let items = [Item { start: 0, end, identifier: digest }];
        let keys = index.keys(&prompt, MODEL, &Extras::new(&items, None));
        assert_eq!(index.mirror.longest_prefix(0, 0, &keys), keys.len(), "{ours}");
    }
}

#[test]
fn groups_that_make_no_prefix_are_passed_over() {
    let mut index = Index::new(4);
    let full = json!({"group_idx": 1, "kv_cache_spec_kind": "full_attention"});
    let window = json!({"group_idx": 0, "kv_cache_spec_kind": "sliding_window"});
    let unknown = json!({"type": "BlockRemoved", "block_hashes": [1], "group_idx": 1});
    assert_eq!(index.apply(json!([unknown])).skipped, 1);
    index.apply(json!([
        store(&[2], None, &tokens(0, 8), 4, window),
        store(&[1, 2], None, &tokens(0, 8), 4, full),
        // The kind is known by now.
        store(&[3], Some(2), &tokens(8, 12), 4, json!({"group_idx": 1})),
    ]));
    assert_eq!(index.score(0, &tokens(0, 12)), 3);
    let of_window = json!({"type": "BlockRemoved", "block_hashes": [2], "group_idx": 0});
    index.apply(json!([of_window]));
    assert_eq!(index.score(0, &tokens(0, 12)), 3);
    let counters = index.applier.counters();
    let unsupported = (CacheKind::SlidingWindow, Reason::UnsupportedCacheKind, 1);
    assert_eq!(counters.stores_skipped().collect::<Vec<_>>(), [unsupported]);
    let removals: Vec<_> = counters.removals_skipped().collect();
    assert_eq!(removals, [unsupported, (CacheKind::Unknown, Reason::UnknownGroup, 1)]);
}

#[test]
fn a_mirror_that_outlives_the_applier_is_kept_up() {
    let full = json!({"group_idx": 0, "kv_cache_spec_kind": "full_attention"});
    let removed =
        |hash: u64| json!({"type": "BlockRemoved", "block_hashes": [hash], "group_idx": 0});
    let mut index = Index::new(4);
    index.apply(json!([store(&[1, 2, 3], None, &tokens(0, 12), 4, full.clone())]));
    for events in
        [json!([removed(3)]), json!([removed(2), store(&[5], Some(1), &[1, 2, 3, 4], 4, full)])]
    {
        let mirror = std::mem::take(&mut index.mirror);
        index = Index::with(4, Limits::default(), mirror);
        assert_eq!(index.apply(events).removed, 1);
    }
    assert_eq!(index.score(0, &tokens(0, 12)), 1);
}

#[test]
fn groups_hold_the_same_block_each_for_itself() {
    let mut index = Index::new(4);
    let of = |group: u32| json!({"group_idx": group, "kv_cache_spec_kind": "full_attention"});
    let removed = |group: u32, hash: u64| json!([{"type": "BlockRemoved", "block_hashes": [hash], "group_idx": group}]);
    index.apply(json!([
        store(&[1, 2], None, &tokens(0, 8), 4, of(0)),
        store(&[1], None, &tokens(0, 4), 4, of(1)),
        store(&[1], None, &tokens(0, 4), 4, of(1)),
    ]));
    // The second group has never stored block 2.
    index.apply(removed(1, 1));
    index.apply(removed(0, 1));
    assert_eq!(index.score(0, &tokens(0, 8)), 2);
    index.apply(removed(1, 1));
    assert_eq!(index.score(0, &tokens(0, 8)), 0);
    assert_eq!(index.apply(removed(0, 2)).removed, 1);
    assert!(index.mirror.is_empty(0));
}

#[test]
fn a_group_of_no_kind_is_trusted_until_there_is_another() {
    let mut index = Index::new(4);
    index.apply(json!([store(&[1], None, &tokens(0, 4), 4, json!({"group_idx": 0}))]));
    assert_eq!(index.score(0, &tokens(0, 4)), 1);
    index.apply(json!([store(&[1], None, &tokens(0, 4), 4, json!({"group_idx": 1}))]));
    assert!(index.mirror.is_empty(0));
    index.apply(json!([store(&[1], None, &tokens(0, 4), 4, json!({"group_idx": 0}))]));
    assert_eq!(skipped(&index), [(CacheKind::Unknown, Reason::UnsupportedCacheKind, 2)]);
}

#[test]
fn stores_that_cannot_be_used_are_named_by_their_reason() {
    let mut index = Index::new(4);
    let full = json!({"group_idx": 0, "kv_cache_spec_kind": "full_attention"});
    let embeds = json!({"extra_keys": [[{"$bytes": [1, 2]}]]});
    let long = "x".repeat(1 << 10);
    let spread = json!({"extra_keys": [[[long, 0]]]});
    let prompt: Vec<u32> = (0..300_000).collect();
    for (event, kind, reason) in [
        (store(&[1], None, &[1, 2], 0, full.clone()), true, Reason::InvalidBlockSize),
        (store(&[1, 2], None, &[1, 2, 3, 4], 4, full.clone()), true, Reason::NonDenseBlockSpan),
        (store(&[], None, &[1, 2, 3, 4], 4, full), true, Reason::NonDenseBlockSpan),
        (store(&[1], None, &[1, 2, 3], 4, json!({})), false, Reason::NonDenseBlockSpan),
        (store(&[1], None, &[1, 2, 3, 4], 4, embeds), false, Reason::PromptEmbeds),
        (store(&[1], None, &prompt, 300_000, spread), false, Reason::TooManyExtras),
    ] {
        let before = skipped(&index);
        assert_eq!(index.apply(json!([event])).skipped, 1);
        let kind = if kind { CacheKind::FullAttention } else { CacheKind::Unknown };
        let count = |list: &[(CacheKind, Reason, u64)]| {
            list.iter().find(|row| (row.0, row.1) == (kind, reason)).map_or(0, |row| row.2)
        };
        assert_eq!(count(&skipped(&index)), count(&before) + 1, "{reason:?}");
    }
    assert!(index.mirror.is_empty(0));
    // The size of a block may be left to be computed.
    index.apply(json!([store(&[1, 2], None, &tokens(0, 8), 0, json!({}))]));
    assert_eq!(index.score(0, &tokens(0, 8)), 2);
}

#[test]
fn a_publisher_may_claim_so_much() {
    let limits = Limits { blocks_per_slot: 3, tails_per_slot: 5 };
    let mut index = Index::with(4, limits, LiteralMirror::default());
    index.apply(json!([plain(&[1, 2, 3], None, 0, 12, 4), plain(&[4], Some(3), 12, 16, 4)]));
    assert_eq!(index.score(0, &tokens(0, 16)), 3);
    index.apply_to(1, json!([plain(&[1], None, 0, 4, 4)]));
    assert_eq!(index.mirror.len(1), 1);
    assert_eq!(skipped(&index), [(CacheKind::Unknown, Reason::Quota, 1)]);

    let limits = Limits { blocks_per_slot: 9, ..limits };
    let mut index = Index::with(16, limits, LiteralMirror::default());
    index.apply(json!([plain(&[1, 2, 3, 4, 5], None, 0, 20, 4), plain(&[6], Some(5), 20, 24, 4)]));
    assert_eq!(skipped(&index), [(CacheKind::Unknown, Reason::Quota, 1)]);
    index.apply(json!([remove(&[5]), plain(&[5], Some(4), 16, 20, 4)]));
    assert_eq!(index.score(0, &tokens(0, 20)), 1);
}

#[test]
fn a_full_mirror_takes_the_front_of_a_chain() {
    let mut index = Index::with(4, Limits::default(), LiteralMirror::with_room(2));
    let applied = index.apply(json!([plain(&[1, 2, 3], None, 0, 12, 4)]));
    assert_eq!((applied.stored, applied.no_room), (2, 1));
    assert_eq!(index.apply(json!([plain(&[4], Some(3), 12, 16, 4)])).skipped, 1);
    let count = |reason| skipped(&index).iter().find(|row| row.1 == reason).map(|row| row.2);
    assert_eq!((count(Reason::NoRoom), count(Reason::UnknownParent)), (Some(1), Some(1)));
}

#[test]
fn a_ninth_tier_is_refused() {
    let mut index = Index::new(4);
    for medium in ["c", "d", "e", "f", "g", "h", "i"] {
        index.apply(json!([store(&[1], None, &tokens(0, 4), 4, json!({ "medium": medium }))]));
    }
    assert_eq!(skipped(&index), [(CacheKind::Unknown, Reason::TooManyTiers, 1)]);
}

//! Streams of events into the applier and into a model that follows the description sentence by
//! sentence, compared after every batch.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use inlane_kv::extras::{Extras, Item};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Index, MODEL, store};

const BLOCK: usize = 4;
/// Blocks of the longest prompt.
const MOST: usize = 6;
const MEDIA: [&str; 3] = ["GPU", "cpu", "Storage"];

/// A prompt: some share their tokens, some differ in nothing but an adapter, a salt or an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Prompt {
    tail: u8,
    adapter: bool,
    salt: bool,
    image: bool,
}

impl Prompt {
    fn tokens(self) -> Vec<u32> {
        let differs = |at: usize| u32::from(self.tail) * u32::from(at >= 2 * BLOCK);
        (0..MOST * BLOCK).map(|at| at as u32 * 300 + differs(at)).collect()
    }

    fn model(self) -> &'static str {
        if self.adapter { "sql" } else { MODEL }
    }

    fn salt(self) -> Option<&'static str> {
        self.salt.then_some("tenant")
    }

    /// From the second token, so that no key is that of a prompt without, to the middle of the third
    /// block, and from there to its end.
    fn items(self) -> Vec<Item<'static>> {
        let (start, end) = (1, 2 * BLOCK as u32 + BLOCK as u32 / 2);
        let items = [
            Item { start, end, identifier: "img" },
            Item { start: end, end: 12, identifier: "two" },
        ];
        items.into_iter().filter(|_| self.image).collect()
    }

    /// What vLLM says of the extras of a block.
    fn extra_keys(self, block: usize) -> Value {
        let mut keys = Vec::new();
        if self.adapter {
            keys.push(json!("sql"));
        }
        let begin = (block * BLOCK) as i64;
        for item in self.items() {
            if i64::from(item.start) < begin + BLOCK as i64 && i64::from(item.end) > begin {
                keys.push(json!([item.identifier, i64::from(item.start) - begin]));
            }
        }
        if let Some(salt) = self.salt().filter(|_| block == 0) {
            keys.push(json!(salt));
        }
        if keys.is_empty() { Value::Null } else { json!(keys) }
    }

    /// The engine's names of its blocks.
    fn hashes(self) -> Vec<u64> {
        let seed = u64::from(self.adapter) | u64::from(self.salt) << 1 | u64::from(self.image) << 2;
        let mut hash = 0x517c_c1b7_2722_0a95 ^ seed;
        let tokens = self.tokens();
        let blocks = tokens.chunks(BLOCK).map(|block| {
            hash = block.iter().fold(hash, |hash: u64, token| {
                (hash ^ u64::from(*token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
            });
            hash
        });
        blocks.collect()
    }

    fn keys(self, index: &Index) -> Vec<u64> {
        let items = self.items();
        index.keys(&self.tokens(), self.model(), &Extras::new(&items, self.salt()))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Clear,
    /// Blocks that are there go to a tier too.
    Move {
        prompt: Prompt,
        blocks: (usize, usize),
        medium: usize,
        group: u32,
    },
    Remove {
        prompt: Prompt,
        block: usize,
        medium: usize,
        group: u32,
    },
    Store {
        prompt: Prompt,
        blocks: (usize, usize),
        medium: usize,
        group: u32,
    },
}

/// One pod, as the description has it.
#[derive(Default)]
struct Model {
    /// Request keys of an engine's hash.
    mapping: BTreeMap<u64, Vec<u64>>,
    counters: BTreeMap<(usize, u32, u64), u32>,
    entries: BTreeSet<(usize, u32, u64)>,
}

impl Model {
    fn store(&mut self, tier: usize, group: u32, hashes: &[u64], keys: &[u64]) {
        let each = keys.len() / hashes.len();
        for (hash, keys) in hashes.iter().zip(keys.chunks(each)) {
            self.mapping.insert(*hash, keys.to_vec());
            *self.counters.entry((tier, group, *hash)).or_default() += 1;
            self.entries.extend(keys.iter().map(|key| (tier, group, *key)));
        }
    }

    fn move_to(&mut self, tier: usize, group: u32, hashes: &[u64]) {
        for hash in hashes {
            if let Some(keys) = self.mapping.get(hash).cloned() {
                self.store(tier, group, &[*hash], &keys);
            }
        }
    }

    fn remove(&mut self, tier: usize, group: u32, hash: u64) {
        if let Some(count) = self.counters.get_mut(&(tier, group, hash)) {
            *count -= 1;
            if *count > 0 {
                return;
            }
            self.counters.remove(&(tier, group, hash));
        }
        let Some(keys) = self.mapping.get(&hash) else { return };
        for key in keys {
            self.entries.remove(&(tier, group, *key));
        }
        if !self.entries.iter().any(|(_, _, key)| keys.contains(key)) {
            self.mapping.remove(&hash);
        }
    }

    fn held(&self, tier: usize) -> BTreeSet<u64> {
        self.entries.iter().filter(|entry| entry.0 == tier).map(|entry| entry.2).collect()
    }
}

fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    let prompt = (0..3u8, any::<[bool; 3]>()).prop_map(|(tail, [adapter, salt, image])| Prompt {
        tail,
        // Most are plain: what they share is what is hard.
        adapter: adapter && tail == 1,
        salt: salt && tail == 2,
        image: image && tail > 0,
    });
    let place = (prompt, 0..MOST, 1..=MOST, 0..MEDIA.len(), 0..3u32);
    let step = (0..20, place).prop_map(|(what, (prompt, from, count, medium, group))| {
        let blocks = (from, (from + count).min(MOST));
        match what {
            0 => Step::Clear,
            1..4 => Step::Move { prompt, blocks, medium, group },
            4..10 => Step::Remove { prompt, block: from, medium, group },
            10..13 => Step::Store { prompt, blocks: (0, blocks.1), medium: 0, group },
            _ => Step::Store { prompt, blocks, medium, group },
        }
    });
    prop::collection::vec(prop::collection::vec(step, 1..5), 1..40)
}

/// Groups 0 and 1 are of full attention, group 2 slides.
fn kind(group: u32) -> &'static str {
    if group == 2 { "sliding_window" } else { "full_attention" }
}

fn play(ours: u32, batches: &[Vec<Step>], groups: u32) {
    let mut index = Index::new(ours);
    let mut model = Model::default();
    // Of the name of a tier in the model, its number in the index.
    let tier_of = |index: &Index, medium: &str| {
        index.applier.tiers().iter().position(|tier| tier.eq_ignore_ascii_case(medium))
    };
    let each = BLOCK / ours as usize;
    // All groups of an engine speak in its first step.
    let all = (0..groups).map(|group| {
        let more = json!({"group_idx": group, "kv_cache_spec_kind": kind(group)});
        store(&[], None, &[], 0, more)
    });
    index.apply(all.collect());
    for batch in batches {
        let mut events = Vec::new();
        for step in batch {
            let in_group = |group: u32, with_kind: bool| match groups {
                0 => json!({}),
                _ if with_kind => {
                    let group = group % groups;
                    json!({"group_idx": group, "kv_cache_spec_kind": kind(group)})
                }
                _ => json!({"group_idx": group % groups}),
            };
            let counted = |group: u32| if groups == 0 { 0 } else { group % groups };
            match *step {
                Step::Clear => {
                    events.push(json!(["AllBlocksCleared"]));
                    model = Model::default();
                }
                Step::Move { prompt, blocks: (from, to), medium, group } => {
                    let mut more = in_group(group, true);
                    more["medium"] = json!(MEDIA[medium]);
                    let hashes = &prompt.hashes()[from..to];
                    events.push(store(hashes, None, &[], 0, more));
                    if counted(group) < 2 {
                        model.move_to(medium, counted(group), hashes);
                    }
                }
                Step::Remove { prompt, block, medium, group } => {
                    let hash = prompt.hashes()[block];
                    let mut event = in_group(group, false);
                    let digest = [&[7; 24][..], &hash.to_be_bytes()].concat();
                    // As a digest or as a number, it is the same.
                    let name = if block % 2 == 0 { json!(hash) } else { json!({"$bytes": digest}) };
                    event["type"] = json!("BlockRemoved");
                    event["block_hashes"] = json!([name]);
                    event["medium"] = json!(MEDIA[medium]);
                    events.push(event);
                    if counted(group) < 2 {
                        model.remove(medium, counted(group), hash);
                    }
                }
                Step::Store { prompt, blocks: (from, to), medium, group } => {
                    let hashes = prompt.hashes();
                    let parent = from.checked_sub(1).map(|before| hashes[before]);
                    let mut more = in_group(group, true);
                    more["medium"] = json!(MEDIA[medium]);
                    let extras: Vec<Value> = (from..to).map(|at| prompt.extra_keys(at)).collect();
                    more["extra_keys"] = json!(extras);
                    if prompt.adapter {
                        more["lora_id"] = json!(1);
                        more["lora_name"] = json!("sql");
                    }
                    let tokens = &prompt.tokens()[from * BLOCK..to * BLOCK];
                    events.push(store(&hashes[from..to], parent, tokens, BLOCK as u32, more));
                    let is_known = parent.is_none_or(|parent| model.mapping.contains_key(&parent));
                    if counted(group) < 2 && is_known {
                        let keys = &prompt.keys(&index)[from * each..to * each];
                        model.store(medium, counted(group), &hashes[from..to], keys);
                    }
                }
            }
        }
        index.apply(Value::Array(events));
        for (number, medium) in MEDIA.iter().enumerate() {
            let held: BTreeSet<u64> = tier_of(&index, medium).map_or_else(BTreeSet::new, |tier| {
                index.mirror.held(0, tier as u8).map(|(_, key)| key).collect()
            });
            assert_eq!(held, model.held(number), "{medium} after {batch:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    #[test]
    fn engines_without_groups_are_followed_to_the_letter(batches in steps()) {
        play(4, &batches, 0);
        play(2, &batches, 0);
    }

    #[test]
    fn hybrid_engines_are_followed_to_the_letter(batches in steps()) {
        play(4, &batches, 1);
        play(4, &batches, 3);
        play(2, &batches, 3);
    }
}

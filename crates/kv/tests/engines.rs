//! Seeded engines with block sizes of their own, and what the index makes of their events.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Index, remove, store};

/// A paged cache: blocks by the tokens up to their end, with a count each.
#[derive(Default)]
struct Engine {
    block: usize,
    held: BTreeMap<Vec<u32>, u32>,
}

impl Engine {
    fn hash(prefix: &[u32]) -> u64 {
        prefix.iter().fold(0x517c_c1b7_2722_0a95, |hash: u64, token| {
            (hash ^ u64::from(*token)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        })
    }

    fn blocks(&self, prompt: &[u32]) -> usize {
        let ends = (1..=prompt.len() / self.block).map(|count| count * self.block);
        ends.take_while(|end| self.held.contains_key(&prompt[..*end])).count()
    }

    /// Stores what is missing of a prompt, `step` blocks per event.
    fn serve(&mut self, prompt: &[u32], step: usize, events: &mut Vec<Value>) {
        let first = self.blocks(prompt);
        let missing: Vec<usize> = (first..prompt.len() / self.block).collect();
        for blocks in missing.chunks(step) {
            let (from, to) = (blocks[0] * self.block, (blocks[0] + blocks.len()) * self.block);
            let parent = (from > 0).then(|| Self::hash(&prompt[..from]));
            let ends = blocks.iter().map(|block| (block + 1) * self.block);
            let hashes: Vec<u64> = ends.clone().map(|end| Self::hash(&prompt[..end])).collect();
            for end in ends {
                *self.held.entry(prompt[..end].to_vec()).or_default() += 1;
            }
            let block = self.block as u32;
            events.push(store(&hashes, parent, &prompt[from..to], block, json!({})));
        }
    }

    /// Drops a block: of those at the end of a chain the `at`-th, or of all.
    fn evict(&mut self, at: usize, ends_only: bool, events: &mut Vec<Value>) {
        let is_end = |prefix: &Vec<u32>| {
            !self.held.keys().any(|other| other.len() > prefix.len() && other.starts_with(prefix))
        };
        let candidates: Vec<_> =
            self.held.keys().filter(|prefix| !ends_only || is_end(prefix)).cloned().collect();
        let Some(prefix) = candidates.get(at % candidates.len().max(1)) else { return };
        events.push(remove(&[Self::hash(prefix)]));
        let count = self.held.get_mut(prefix).unwrap();
        *count -= 1;
        if *count == 0 {
            self.held.remove(prefix);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Evict(usize),
    Reset,
    Serve { prompt: Vec<u32>, step: usize },
}

/// Prompts that share prefixes: a few tokens that differ in a few places.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let prompt = (0..40usize, prop::collection::vec((0..40usize, 0..2u32), 0..3)).prop_map(
        |(len, changes)| {
            let mut prompt: Vec<u32> = (0..len as u32).map(|at| at * 9_000).collect();
            for (at, change) in changes {
                if let Some(token) = prompt.get_mut(at) {
                    *token += change;
                }
            }
            prompt
        },
    );
    let step = prop_oneof![
        6 => (prompt, 1..4usize).prop_map(|(prompt, step)| Step::Serve { prompt, step }),
        6 => any::<usize>().prop_map(Step::Evict),
        1 => Just(Step::Reset),
    ];
    prop::collection::vec(step, 1..60)
}

/// Plays the steps; after each the score of every prompt so far is compared with what the engine
/// holds of it.
fn play(engine_block: usize, ours: u32, steps: &[Step], ends_only: bool) {
    let mut engine = Engine { block: engine_block, ..Engine::default() };
    let mut index = Index::new(ours);
    let mut prompts: Vec<Vec<u32>> = Vec::new();
    for step in steps {
        let mut events = Vec::new();
        match step {
            Step::Evict(at) => engine.evict(*at, ends_only, &mut events),
            Step::Reset => {
                engine.held.clear();
                events.push(json!({"type": "AllBlocksCleared"}));
            }
            Step::Serve { prompt, step } => {
                engine.serve(prompt, *step, &mut events);
                prompts.push(prompt.clone());
            }
        }
        let applied = index.apply(Value::Array(events));
        if ends_only && (ours as usize).is_multiple_of(engine_block) {
            assert_eq!(applied.skipped, 0);
        }
        for prompt in &prompts {
            let (score, ours) = (index.score(0, prompt), ours as usize);
            let held = engine.blocks(prompt) * engine_block;
            if !ours.is_multiple_of(engine_block) {
                // Part of a block of another prompt may be found, or lost with it.
                assert!(score * ours < held + engine_block, "{prompt:?}");
            } else if ends_only {
                assert_eq!(score, held / ours, "{prompt:?}");
            } else {
                assert!(score <= held / ours, "{prompt:?}");
            }
        }
    }
    // Nothing is left of an engine that has dropped everything.
    let mut events = Vec::new();
    while !engine.held.is_empty() {
        engine.evict(0, ends_only, &mut events);
    }
    index.apply(Value::Array(events));
    if ends_only {
        let left: Vec<_> = index.mirror.held(0, 0).collect();
        assert_eq!(left, []);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn engines_that_evict_from_the_end_are_mirrored_exactly(steps in steps()) {
        for (engine, ours) in [(4, 4), (4, 8), (2, 8), (1, 4), (3, 12)] {
            play(engine, ours, &steps, true);
        }
    }

    #[test]
    fn other_block_sizes_differ_by_less_than_a_block(steps in steps()) {
        for (engine, ours) in [(8, 4), (6, 4), (4, 6), (12, 4), (5, 3)] {
            play(engine, ours, &steps, true);
        }
    }

    #[test]
    fn nothing_is_claimed_that_is_not_held(steps in steps()) {
        for (engine, ours) in [(4, 4), (4, 8), (2, 8), (6, 4), (8, 4)] {
            play(engine, ours, &steps, false);
        }
    }
}

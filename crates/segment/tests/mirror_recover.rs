//! A writer of the mirror stopped after every single one of its stores, and a second that takes over.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod mirror_support;
mod table_support;

use std::collections::BTreeSet;

use inlane_segment::table::{MirrorReader, MirrorSpec, MirrorWriter};
use inlane_segment::words::{HeapWords, Words, WordsMut};
use mirror_support::{Model, TIERS, assert_same};
use proptest::prelude::*;
use table_support::{Rng, copy, creator_dies, damage, successor_dies, writer_dies};

/// 300 slots leave room for lists of one size before a bitmap.
const SPEC: MirrorSpec = MirrorSpec { slots: 300, blocks: 28, pages: 8 };

#[derive(Clone, Debug)]
enum Step {
    Hold(u16, u8, Vec<(u64, u64)>),
    Release(u16, u8, u64),
    ReleaseAll(u16, u8, Vec<u64>),
    Clear(u16),
}

fn apply<M: WordsMut>(writer: &mut MirrorWriter<M>, step: &Step) {
    match step {
        Step::Hold(slot, tier, pairs) => {
            let (engines, keys): (Vec<u64>, Vec<u64>) = pairs.iter().copied().unzip();
            // Here a key follows the number before it.
            let refused = match keys.windows(2).all(|keys| keys[1] == keys[0] + 1) {
                true => writer.hold_chain(*slot, *tier, keys[0].checked_sub(1), &engines, &keys),
                false => writer.hold(*slot, *tier, &engines, &keys),
            };
            assert_eq!(refused, 0);
        }
        Step::Release(slot, tier, engine) => {
            writer.release(*slot, *tier, *engine);
        }
        Step::ReleaseAll(slot, tier, engines) => {
            writer.release_all(*slot, *tier, engines);
        }
        Step::Clear(slot) => writer.clear(*slot),
    }
}

fn apply_to_model(model: &mut Model, step: &Step) {
    match step {
        Step::Hold(slot, tier, pairs) => {
            for &(engine, key) in pairs {
                model.hold(*slot, *tier, &[engine], &[key]);
            }
        }
        Step::Release(slot, tier, engine) => {
            model.release(*slot, *tier, *engine);
        }
        Step::ReleaseAll(slot, tier, engines) => {
            engines.iter().for_each(|&engine| {
                model.release(*slot, *tier, engine);
            });
        }
        Step::Clear(slot) => model.clear(*slot),
    }
}

/// Readers find only what was there before the step or is there after it, and what is in both.
fn assert_between<M: Words>(
    reader: &MirrorReader<M>,
    before: &BTreeSet<(u16, u8, u64)>,
    after: &BTreeSet<(u16, u8, u64)>,
    context: &str,
) {
    for &(slot, tier, key) in before.union(after) {
        let holding = (slot, tier, key);
        let (was, is) = (before.contains(&holding), after.contains(&holding));
        let found = reader.holds(slot, tier, key);
        assert!(found || !(was && is), "{context}: {holding:?} lost");
    }
    for (tier, first) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let (chain, mut out) = ((first..30).collect::<Vec<u64>>(), vec![0; SPEC.slots]);
        reader.longest_prefix(tier, &chain, &mut out);
        for slot in BTreeSet::from_iter(before.union(after).map(|holding| holding.0)) {
            let was = |key: &&u64| before.contains(&(slot, tier, **key));
            let is = |key: &&u64| after.contains(&(slot, tier, **key));
            let least = chain.iter().take_while(|key| was(key) && is(key)).count();
            let most = chain.iter().take_while(|key| was(key) || is(key)).count();
            let found = std::mem::take(&mut out[usize::from(slot)]) as usize;
            assert!((least..=most).contains(&found), "{context}: {found} of slot {slot}");
        }
        assert!(out.iter().all(|&found| found == 0), "{context}: prefixes made up");
    }
    for key in 0..30 {
        for tier in 0..2 {
            for slot in (0..SPEC.slots as u16).step_by(7) {
                let holding = (slot, tier, key);
                let possible = before.contains(&holding) || after.contains(&holding);
                assert!(
                    possible || !reader.holds(slot, tier, key),
                    "{context}: {holding:?} made up"
                );
            }
        }
    }
}

/// Runs `steps`; the last one is stopped after each number of stores in turn.
fn stop_everywhere(steps: &[Step]) {
    let words = HeapWords::new(SPEC.words().unwrap());
    let mut writer = MirrorWriter::create(words.clone(), &SPEC, 7).unwrap();
    let mut model = Model::default();
    let (last, setup) = steps.split_last().unwrap();
    for step in setup {
        apply(&mut writer, step);
        apply_to_model(&mut model, step);
    }
    drop(writer);
    let before = model.clone();
    apply_to_model(&mut model, last);
    let (was, is) = (before.holdings(), model.holdings());
    let context = |stores| format!("{steps:?} stopped after {stores} stores");
    writer_dies(
        &words,
        MirrorWriter::recover,
        |doomed| apply(doomed, last),
        |left, stores| {
            let reader = MirrorReader::open(left.clone()).unwrap();
            assert_between(&reader, &was, &is, &context(stores));
            recover_and_check(&left, &before, &model, last, &context(stores));
        },
        |_, words| {
            let writer = MirrorWriter::recover(words).unwrap();
            assert_same(&writer, &writer.reader(), &model, &[], "not stopped");
        },
    );
}

/// A successor, itself stopped after each number of stores, and then one that is not.
fn recover_and_check(words: &HeapWords, before: &Model, after: &Model, last: &Step, context: &str) {
    let (was, is) = (before.holdings(), after.holdings());
    successor_dies(words, MirrorWriter::recover, |again, stores| {
        let context = format!("{context}, successor after {stores}");
        assert_between(&MirrorReader::open(again.clone()).unwrap(), &was, &is, &context);
        check(MirrorWriter::recover(again).unwrap(), before, last, &context);
    });
    check(MirrorWriter::recover(copy(words)).unwrap(), before, last, context);
}

fn check(mut writer: MirrorWriter<HeapWords>, before: &Model, last: &Step, context: &str) {
    assert_eq!(writer.stats().dropped, 0, "{context}");
    let slot = match last {
        Step::Hold(slot, ..)
        | Step::Release(slot, ..)
        | Step::ReleaseAll(slot, ..)
        | Step::Clear(slot) => *slot,
    };
    // Either nothing has happened yet or the position is not trusted.
    let mut model = before.clone();
    let untouched = |model: &Model| {
        let same = |slot: u16| BTreeSet::from_iter(writer.iter(slot)) == model.keys(slot);
        (0..SPEC.slots as u16).all(same)
    };
    assert!(untouched(before) || writer.position(slot) == 0, "{context}");
    // Whoever distrusts it clears the slot, and all others are as they were.
    writer.clear(slot);
    model.clear(slot);
    assert_same(&writer, &writer.reader(), &model, &[], context);
    let step = Step::Hold(slot, 0, vec![(1, 1), (2, 2), (1, 1)]);
    apply(&mut writer, &step);
    apply_to_model(&mut model, &step);
    let chains = [(0..30).collect()];
    assert_same(&writer, &writer.reader(), &model, &chains, &format!("{context}, resumed"));
}

fn held(slots: impl IntoIterator<Item = u16>, keys: &[u64]) -> Vec<Step> {
    let pairs: Vec<_> = keys.iter().map(|&key| (key, key)).collect();
    slots.into_iter().map(|slot| Step::Hold(slot, 0, pairs.clone())).collect()
}

fn then(mut steps: Vec<Step>, last: Step) -> Vec<Step> {
    steps.push(last);
    steps
}

#[test]
fn first_holders() {
    stop_everywhere(&held([5], &[1, 2, 3]));
    stop_everywhere(&then(held([5], &[1, 2]), Step::Hold(5, 1, vec![(1, 1), (2, 2)])));
    // The same hash for another key: both entries are twins.
    stop_everywhere(&then(held([5], &[1, 2]), Step::Hold(70, 0, vec![(1, 7)])));
    stop_everywhere(&[Step::Hold(5, 0, vec![(1, 1), (1, 2), (1, 3), (2, 4)])]);
}

/// Inline to list, list to larger list, list to bitmap, and back down.
#[test]
fn sets_grow_and_shrink() {
    let slots: Vec<u16> = (0..20).map(|index| index * 14).collect();
    for count in 1..slots.len() {
        let before = held(slots[..count].to_vec(), &[0, 1]);
        stop_everywhere(&then(before.clone(), held([294], &[0, 1]).remove(0)));
        for leaving in [0, count / 2, count - 1] {
            stop_everywhere(&then(before.clone(), Step::Release(slots[leaving], 0, 0)));
        }
    }
}

/// Runs of blocks, of one holder and of several, from their tail, from their front, and with a gap.
#[test]
fn runs_of_blocks() {
    for slots in [vec![5], vec![5, 70], vec![5, 70, 140, 210, 280]] {
        let before = held(slots, &[1, 2, 3, 4, 5, 6]);
        stop_everywhere(&then(before.clone(), held([9], &[1, 2, 3, 4, 5, 6, 7]).remove(0)));
        for engines in [vec![6, 5, 4, 3], vec![1, 2, 3], vec![6, 5, 2, 1, 9], vec![4, 4, 3]] {
            stop_everywhere(&then(before.clone(), Step::ReleaseAll(5, 0, engines)));
        }
    }
}

#[test]
fn pairs_held_again() {
    for slots in [vec![5], vec![5, 70, 140], vec![5, 70, 140, 210, 280]] {
        let once = held(slots.clone(), &[1, 2]);
        let again = held([5], &[1, 2]).remove(0);
        stop_everywhere(&then(once.clone(), again.clone()));
        let twice = then(once, again);
        stop_everywhere(&then(twice.clone(), Step::Release(5, 0, 1)));
        stop_everywhere(&then(then(twice.clone(), Step::Release(5, 0, 1)), Step::Release(5, 0, 1)));
        stop_everywhere(&then(twice.clone(), Step::Clear(5)));
        stop_everywhere(&then(twice.clone(), held([7], &[1, 2]).remove(0)));
    }
}

#[test]
fn aliases() {
    let before = held([5, 70], &[1, 2]);
    let other = Step::Hold(140, 0, vec![(11, 1), (12, 2)]);
    let with = then(before, other.clone());
    stop_everywhere(&with);
    stop_everywhere(&then(with.clone(), other));
    stop_everywhere(&then(with.clone(), Step::Release(140, 0, 12)));
    stop_everywhere(&then(with.clone(), Step::Clear(140)));
    // Several hashes for one key, of one who has it by the entry's own already.
    let several = Step::Hold(5, 0, vec![(21, 1), (22, 1)]);
    stop_everywhere(&then(with.clone(), several.clone()));
    let with = then(with, several);
    for engine in [1, 21, 22] {
        stop_everywhere(&then(with.clone(), Step::Release(5, 0, engine)));
    }
}

#[test]
fn clearing() {
    let before = held([5, 70, 140, 210, 280], &[0, 1, 2]);
    stop_everywhere(&then(before, Step::Clear(70)));
    stop_everywhere(&then(held([5], &[0, 1, 2]), Step::Clear(5)));
}

/// A full table: entries are recycled, keys overflow their home buckets.
#[test]
fn crowded_buckets() {
    let steps: Vec<Step> = (0..28).flat_map(|key| held([(key % 5) as u16], &[key])).collect();
    for key in [0, 7, 21] {
        let slot = (key % 5) as u16;
        let without = then(steps.clone(), Step::Release(slot, 0, key));
        stop_everywhere(&without);
        stop_everywhere(&then(without, held([9], &[29]).remove(0)));
    }
}

#[test]
fn a_mirror_whose_creator_died_is_none() {
    creator_dies(
        SPEC.words().unwrap(),
        |mortal| MirrorWriter::create(mortal, &SPEC, 7).map(drop),
        |words| MirrorReader::open(words).map(drop),
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 1 } else { 24 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_histories(
        steps in prop::collection::vec((0_u8..12, 0_u16..7, 0_u8..2, 0_u64..3, 0_u64..8), 1..40),
    ) {
        let steps: Vec<_> = steps
            .into_iter()
            .map(|(kind, slot, tier, naming, key)| match kind {
                0..8 => Step::Hold(slot * 42, tier, vec![(naming * 100 + key, key), (key + 1, key + 1)]),
                8..11 => Step::Release(slot * 42, tier, naming * 100 + key),
                _ => Step::Clear(slot * 42),
            })
            .collect();
        stop_everywhere(&steps);
    }

    /// Damage is dropped and counted; what is left is a mirror that works.
    #[test]
    fn damaged_words_never_hang_or_crash(seed in any::<u64>(), hits in 1_usize..200) {
        let words = HeapWords::new(SPEC.words().unwrap());
        let mut writer = MirrorWriter::create(words.clone(), &SPEC, 7).unwrap();
        let mut rng = Rng(seed);
        for _ in 0..200 {
            let (slot, key) = (rng.below(300) as u16, rng.below(28) as u64);
            writer.hold(slot, rng.below(2) as u8, &[key + 50 * rng.below(2) as u64], &[key]);
        }
        damage(&words, &mut rng, hits);
        let chain: Vec<u64> = (0..28).collect();
        let mut out = vec![0; SPEC.slots];
        let reader = MirrorReader::open(words.clone()).unwrap();
        for tier in 0..TIERS {
            reader.longest_prefix(tier, &chain, &mut out);
        }
        mirror_support::runs(&reader, &chain);

        let mut writer = MirrorWriter::recover(words).unwrap();
        for slot in 0..SPEC.slots as u16 {
            writer.clear(slot);
        }
        prop_assert_eq!((writer.total(), writer.blocks()), (0, 0));
        let mut model = Model::default();
        let step = Step::Hold(3, 0, chain.iter().map(|&key| (key, key)).collect());
        apply(&mut writer, &step);
        apply_to_model(&mut model, &step);
        assert_same(&writer, &writer.reader(), &model, &[chain], "after damage");
    }
}

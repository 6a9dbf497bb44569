//! A writer stopped after every single one of its stores, and a second that takes over.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod table_support;

use std::num::NonZeroU32;

use inlane_segment::table::{TableReader, TableSpec, TableWriter};
use inlane_segment::words::{HeapWords, Words, WordsMut};
use proptest::prelude::*;
use table_support::{Model, Rng, assert_same, creator_dies, damage, successor_dies, writer_dies};

/// Slots 0, 64 and so on would share bitmap words; these do not, and 300 slots leave room for lists
/// of two sizes before a bitmap.
const SLOTS: usize = 300;
const SPEC: TableSpec = TableSpec { slots: SLOTS, blocks: 28, pages: 8, default_capacity: 6 };

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u16, u64),
    Remove(u16, u64),
    Clear(u16),
    Capacity(u16, u32),
}

fn apply<M: WordsMut>(writer: &mut TableWriter<M>, step: Step) {
    match step {
        Step::Insert(slot, hash) => {
            writer.insert_chain(slot, &[hash]);
        }
        Step::Remove(slot, hash) => {
            writer.remove(slot, hash);
        }
        Step::Clear(slot) => writer.clear_slot(slot),
        Step::Capacity(slot, blocks) => {
            writer.set_capacity(slot, NonZeroU32::new(blocks).unwrap());
        }
    }
}

fn apply_to_model(model: &mut Model, step: Step) {
    match step {
        Step::Insert(slot, hash) => model.insert_chain(slot, &[hash]),
        Step::Remove(slot, hash) => {
            model.remove(slot, hash);
        }
        Step::Clear(slot) => model.clear_slot(slot),
        Step::Capacity(slot, blocks) => {
            model.capacities.entry(slot).or_insert(blocks as usize);
        }
    }
}

/// What every holding of one slot looks like, oldest first.
fn lists<M: WordsMut>(writer: &TableWriter<M>) -> Vec<Vec<u64>> {
    (0..SLOTS as u16).map(|slot| writer.iter(slot).collect()).collect()
}

fn lists_of(model: &Model) -> Vec<Vec<u64>> {
    (0..SLOTS as u16).map(|slot| model.lists.get(&slot).cloned().unwrap_or_default()).collect()
}

/// Readers find only what was there before the step or is there after it, and what is in both.
fn assert_between<M: Words>(
    reader: &TableReader<M>,
    before: &Model,
    after: &Model,
    hashes: u64,
    context: &str,
) {
    for hash in 0..hashes {
        for slot in 0..SLOTS as u16 {
            let (was, is) = (before.holds(slot, hash), after.holds(slot, hash));
            let found = reader.holds(slot, hash);
            assert!(found || !(was && is), "{context}: slot {slot} lost {hash}");
            assert!(!found || was || is, "{context}: slot {slot} never held {hash}");
        }
    }
}

/// Runs `steps`; the last one is stopped after each number of stores in turn.
fn stop_everywhere(steps: &[Step], hashes: u64) {
    let words = HeapWords::new(SPEC.words().unwrap());
    let mut writer = TableWriter::create(words.clone(), &SPEC, 7).unwrap();
    let mut model = Model::new(6);
    let (&last, setup) = steps.split_last().unwrap();
    for &step in setup {
        apply(&mut writer, step);
        apply_to_model(&mut model, step);
    }
    drop(writer);
    let before = model.clone();
    apply_to_model(&mut model, last);
    let context = |stores| format!("{steps:?} stopped after {stores} stores");
    let chains = [(0..hashes).collect()];
    writer_dies(
        &words,
        TableWriter::recover,
        |doomed| apply(doomed, last),
        |left, stores| {
            let reader = TableReader::open(left.clone()).unwrap();
            assert_between(&reader, &before, &model, hashes, &context(stores));
            recover_and_check(left, &before, &model, last, hashes, &context(stores));
        },
        |doomed, _| assert_same(&doomed, &doomed.reader(), &model, &chains, "not stopped"),
    );
}

/// A successor, itself stopped after each number of stores, and then one that is not.
fn recover_and_check(
    words: HeapWords,
    before: &Model,
    after: &Model,
    last: Step,
    hashes: u64,
    context: &str,
) {
    successor_dies(&words, TableWriter::recover, |again, stores| {
        let context = format!("{context}, successor after {stores}");
        let reader = TableReader::open(again.clone()).unwrap();
        assert_between(&reader, before, after, hashes, &context);
        check(TableWriter::recover(again).unwrap(), before, after, last, hashes, &context);
    });
    check(TableWriter::recover(words).unwrap(), before, after, last, hashes, context);
}

fn check(
    mut writer: TableWriter<HeapWords>,
    before: &Model,
    after: &Model,
    last: Step,
    hashes: u64,
    context: &str,
) {
    assert_eq!(writer.stats().dropped, 0, "{context}");
    assert!(writer.stats().relinked <= 1, "{context}: {:?}", writer.stats());
    let found = lists(&writer);
    if !is_state_within(&found, before, last) {
        panic!("{context}: {found:?} is neither {:?} nor {:?}", lists_of(before), lists_of(after));
    }
    assert_between(&writer.reader(), before, after, hashes, context);
    // The successor goes on as if nothing had happened: the step, done again, has its effect.
    let mut model = Model::new(6);
    for (slot, list) in found.iter().enumerate().filter(|(_, list)| !list.is_empty()) {
        model.lists.insert(slot as u16, list.clone());
    }
    model.capacities.clone_from(&before.capacities);
    if let Step::Clear(slot) = last {
        writer.clear_slot(slot);
        model.clear_slot(slot);
    } else {
        apply(&mut writer, last);
        apply_to_model(&mut model, last);
    }
    let chains = [(0..hashes).collect()];
    assert_same(&writer, &writer.reader(), &model, &chains, &format!("{context}, resumed"));
}

/// Whether `found` is a state that the step passes through: an insertion may have evicted and not yet
/// inserted, a clear may have got part of the way; recency order is exact in all of them.
fn is_state_within(found: &[Vec<u64>], before: &Model, last: Step) -> bool {
    let mut states = vec![lists_of(before)];
    let mut after = before.clone();
    match last {
        Step::Clear(slot) => {
            while let Some(list) = after.lists.get_mut(&slot).filter(|list| !list.is_empty()) {
                list.remove(0);
                states.push(lists_of(&after));
            }
        }
        Step::Insert(slot, hash) => {
            let capacity = before.capacities.get(&slot).copied().unwrap_or(6);
            let list = after.lists.entry(slot).or_default();
            if list.len() == capacity && !list.contains(&hash) {
                list.remove(0);
                states.push(lists_of(&after));
            }
            apply_to_model(&mut after, last);
            states.push(lists_of(&after));
        }
        step => {
            apply_to_model(&mut after, step);
            states.push(lists_of(&after));
        }
    }
    states.iter().any(|state| state == found)
}

fn inserts(slots: impl IntoIterator<Item = u16>, hashes: &[u64]) -> Vec<Step> {
    let hashes = hashes.to_vec();
    slots
        .into_iter()
        .flat_map(|slot| hashes.clone().into_iter().map(move |hash| Step::Insert(slot, hash)))
        .collect()
}

fn then(mut steps: Vec<Step>, last: Step) -> Vec<Step> {
    steps.push(last);
    steps
}

#[test]
fn insertion() {
    stop_everywhere(&[Step::Insert(5, 1)], 3);
    stop_everywhere(&then(inserts([5], &[1, 2]), Step::Insert(5, 0)), 3);
}

#[test]
fn eviction_at_capacity() {
    stop_everywhere(&then(inserts([5], &[0, 1, 2, 3, 4, 5]), Step::Insert(5, 6)), 7);
    stop_everywhere(&then(inserts([5, 70, 5], &[0, 1, 2, 3, 4, 5]), Step::Insert(5, 6)), 7);
}

#[test]
fn refreshing_the_oldest_the_middle_and_the_newest() {
    for hash in 0..4 {
        stop_everywhere(&then(inserts([5, 70], &[0, 1, 2, 3]), Step::Insert(5, hash)), 4);
        stop_everywhere(&then(inserts([5, 70], &[0, 1, 2, 3]), Step::Insert(70, hash)), 4);
    }
}

/// Inline to list, list to larger list, list to bitmap, and back down.
#[test]
fn records_grow_and_shrink() {
    let slots: Vec<u16> = (0..20).map(|index| index * 14).collect();
    for count in 1..slots.len() {
        stop_everywhere(&then(inserts(slots[..count].to_vec(), &[0, 1]), Step::Insert(299, 0)), 2);
        for leaving in [0, count / 2, count - 1] {
            let last = Step::Remove(slots[leaving], 0);
            stop_everywhere(&then(inserts(slots[..count].to_vec(), &[0, 1]), last), 2);
        }
    }
    let mut steps = inserts(slots.clone(), &[0, 1]);
    for &slot in &slots {
        steps.push(Step::Remove(slot, 0));
        stop_everywhere(&steps, 2);
    }
}

#[test]
fn clearing() {
    stop_everywhere(&then(inserts([5, 70, 140, 210], &[0, 1, 2]), Step::Clear(70)), 3);
    stop_everywhere(&then(inserts([5, 70, 140, 210], &[0, 1, 2]), Step::Clear(5)), 3);
    stop_everywhere(&[Step::Capacity(5, 2), Step::Insert(5, 0), Step::Capacity(6, 3)], 3);
}

/// A full directory: positions are reused, keys overflow their home buckets.
#[test]
fn crowded_buckets() {
    let mut steps = Vec::new();
    for hash in 0..28 {
        steps.push(Step::Insert((hash % 5) as u16, hash));
    }
    for hash in [0, 7, 21] {
        stop_everywhere(&then(steps.clone(), Step::Remove((hash % 5) as u16, hash)), 30);
        let mut reused = steps.clone();
        reused.push(Step::Remove((hash % 5) as u16, hash));
        stop_everywhere(&then(reused, Step::Insert(9, 29)), 30);
    }
}

#[test]
fn a_table_whose_creator_died_is_no_table() {
    creator_dies(
        SPEC.words().unwrap(),
        |mortal| TableWriter::create(mortal, &SPEC, 7).map(drop),
        |words| TableReader::open(words).map(drop),
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
        steps in prop::collection::vec((0_u8..12, 0_u16..7, 0_u64..10), 1..60),
    ) {
        let steps: Vec<_> = steps
            .into_iter()
            .map(|(kind, slot, hash)| match kind {
                0..9 => Step::Insert(slot * 45, hash),
                9..11 => Step::Remove(slot * 45, hash),
                _ => Step::Clear(slot * 45),
            })
            .collect();
        stop_everywhere(&steps, 10);
    }

    /// Damage is dropped and counted; what is left is a table that works.
    #[test]
    fn damaged_words_never_hang_or_crash(seed in any::<u64>(), hits in 1_usize..200) {
        let words = HeapWords::new(SPEC.words().unwrap());
        let mut writer = TableWriter::create(words.clone(), &SPEC, 7).unwrap();
        let mut rng = Rng(seed);
        for _ in 0..200 {
            writer.insert_chain(rng.below(SLOTS) as u16 / 30, &[rng.below(28) as u64]);
        }
        damage(&words, &mut rng, hits);
        let chain: Vec<u64> = (0..28).collect();
        let mut out = vec![0; SLOTS];
        let reader = TableReader::open(words.clone()).unwrap();
        reader.count_matches(&chain, &mut out);
        reader.longest_prefix_exact(&chain, &mut out);
        reader.longest_prefix(&chain, &mut out);

        let mut writer = TableWriter::recover(words).unwrap();
        let mut model = Model::new(6);
        for slot in 0..SLOTS as u16 {
            writer.clear_slot(slot);
        }
        prop_assert_eq!((writer.total(), writer.blocks()), (0, 0));
        writer.insert_chain(3, &chain);
        model.insert_chain(3, &chain);
        assert_same(&writer, &writer.reader(), &model, &[chain], "after damage");
    }
}

//! Seeded random streams into the table and into a literal model, compared after every batch.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod table_support;

use std::num::NonZeroU32;

use inlane_segment::table::{TableSpec, TableWriter};
use inlane_segment::words::HeapWords;
use proptest::prelude::*;
use table_support::{Model, Rng, assert_same, block, copy};

const BATCHES: usize = if cfg!(miri) { 3 } else { 60 };

fn chain(rng: &mut Rng) -> Vec<u64> {
    let (family, prompt, length) = (rng.below(4), rng.below(6), 1 + rng.below(24));
    (0..length).map(|index| block(family as u64, prompt as u64, 8, index)).collect()
}

/// Random operations on `busy` slots spread over all of them, each batch compared, and each table
/// also compared with what a successor would recover from its words.
fn stream(slots: usize, busy: usize, capacity: u32, seed: u64) {
    let spec = TableSpec { slots, blocks: 2_000, pages: 60, default_capacity: capacity };
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = TableWriter::create(words.clone(), &spec, seed).unwrap();
    let reader = writer.reader();
    let mut model = Model::new(capacity as usize);
    let mut rng = Rng(seed);
    for batch in 0..BATCHES {
        for _ in 0..20 {
            let slot = (rng.below(busy) * (slots / busy)) as u16;
            match rng.below(100) {
                0..80 => {
                    let chain = chain(&mut rng);
                    writer.insert_chain(slot, &chain);
                    model.insert_chain(slot, &chain);
                }
                80..95 => {
                    for hash in chain(&mut rng) {
                        assert_eq!(writer.remove(slot, hash), model.remove(slot, hash));
                    }
                }
                95..97 => {
                    let blocks = 1 + rng.below(60);
                    let unused = !model.capacities.contains_key(&slot);
                    let limit = NonZeroU32::new(blocks as u32).unwrap();
                    assert_eq!(writer.set_capacity(slot, limit), unused);
                    if unused {
                        model.capacities.insert(slot, blocks);
                    }
                }
                _ => {
                    writer.clear_slot(slot);
                    model.clear_slot(slot);
                }
            }
        }
        let context = format!("{slots} slots, seed {seed}, batch {batch}");
        let chains: Vec<_> = (0..8).map(|_| chain(&mut rng)).collect();
        assert_same(&writer, &reader, &model, &chains, &context);
        let successor = TableWriter::recover(copy(&words)).unwrap();
        assert_same(&successor, &successor.reader(), &model, &chains, &context);
        assert_eq!((successor.stats().dropped, successor.stats().relinked), (0, 0), "{context}");
        assert_eq!(successor.bytes_in_use(), writer.bytes_in_use(), "{context}: nothing leaks");
        if batch % 10 == 9 {
            writer = TableWriter::recover(words.clone()).unwrap();
        }
    }
    assert_eq!(writer.stats().refused, 0);
    writer.reset();
    assert_eq!((writer.total(), writer.blocks()), (0, 0));
    let empty = TableWriter::create(HeapWords::new(spec.words().unwrap()), &spec, seed).unwrap();
    assert_eq!(writer.bytes_in_use(), empty.bytes_in_use());
}

#[test]
fn few_slots_one_word_of_bits() {
    stream(8, 8, 50, 1);
    stream(64, 20, 40, 2);
}

#[test]
fn lists_and_bitmaps() {
    stream(200, 40, 40, 3);
    stream(3_000, 100, 30, 4);
}

#[test]
fn many_slots_only_lists() {
    stream(16_384, 50, 60, 5);
}

#[test]
fn an_endpoint_forgets_the_least_recent_first() {
    let spec = TableSpec { slots: 2, blocks: 100, pages: 1, default_capacity: 3 };
    let mut writer = TableWriter::create(HeapWords::new(spec.words().unwrap()), &spec, 9).unwrap();
    writer.insert_chain(0, &[1, 2, 3]);
    writer.insert_chain(0, &[1, 4]);
    assert_eq!(writer.iter(0).collect::<Vec<_>>(), [3, 1, 4]);
    assert_eq!(writer.stats().evicted, 1);
    let mut out = [0; 2];
    assert_eq!(writer.reader().count_matches(&[1, 2, 3], &mut out), 1);
    assert_eq!(out, [1, 0]);
}

/// The walk of the approximate index: the front may be missing for one endpoint.
#[test]
fn a_match_needs_no_prefix_but_a_holder() {
    let spec = TableSpec { slots: 4, blocks: 100, pages: 1, default_capacity: 10 };
    let mut writer = TableWriter::create(HeapWords::new(spec.words().unwrap()), &spec, 9).unwrap();
    writer.insert_chain(0, &[1, 2]);
    writer.insert_chain(1, &[2, 3]);
    writer.insert_chain(2, &[5]);
    let (reader, mut out) = (writer.reader(), [0; 4]);
    assert_eq!(reader.count_matches(&[1, 2, 3, 4, 5], &mut out), 3);
    assert_eq!(out, [2, 2, 0, 0]);
    assert_eq!(reader.count_matches(&[1, 2, 3], &mut out[..1]), 3);
    assert_eq!(out, [4, 2, 0, 0], "added to what was there; slots past the end are ignored");
    let mut out = [0; 4];
    assert_eq!(reader.longest_prefix(&[1, 2, 3], &mut out), 2);
    assert_eq!(out, [2, 0, 0, 0]);
    assert_eq!(reader.longest_prefix(&[], &mut out), 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Holdings that are prefixes of chains: galloping gives what looking at every block gives.
    #[test]
    fn galloping_is_exact_on_prefixes(
        lengths in prop::collection::vec((0_u16..300, 0_usize..200), 1..60),
        asked in 0_usize..220,
    ) {
        let spec = TableSpec { slots: 300, blocks: 1_000, pages: 40, default_capacity: 1_000 };
        let mut writer =
            TableWriter::create(HeapWords::new(spec.words().unwrap()), &spec, 3).unwrap();
        let mut model = Model::new(1_000);
        let chain: Vec<u64> = (0..220).map(|index| block(1, 1, 0, index)).collect();
        for (slot, length) in lengths {
            writer.insert_chain(slot, &chain[..length]);
            model.insert_chain(slot, &chain[..length]);
        }
        let mut out = vec![0; 300];
        let longest = writer.reader().longest_prefix(&chain[..asked], &mut out);
        prop_assert_eq!((longest, out), model.longest_prefix(&chain[..asked], 300));
    }

    /// Any interleaving of small operations on a handful of blocks and slots.
    #[test]
    fn small_tables_agree(
        steps in prop::collection::vec((0_u8..10, 0_u16..12, 0_u64..20, 1_u64..6), 1..200),
    ) {
        let spec = TableSpec { slots: 300, blocks: 64, pages: 8, default_capacity: 12 };
        let words = HeapWords::new(spec.words().unwrap());
        let mut writer = TableWriter::create(words.clone(), &spec, 3).unwrap();
        let reader = writer.reader();
        let mut model = Model::new(12);
        for (kind, slot, first, count) in steps {
            let slot = slot * 25;
            let chain: Vec<u64> = (first..first + count).collect();
            match kind {
                0..7 => {
                    writer.insert_chain(slot, &chain);
                    model.insert_chain(slot, &chain);
                }
                7..9 => prop_assert_eq!(writer.remove(slot, first), model.remove(slot, first)),
                _ => {
                    writer.clear_slot(slot);
                    model.clear_slot(slot);
                }
            }
        }
        let chains = [(0..25).collect(), (10..25).collect(), (5..9).collect::<Vec<u64>>()];
        assert_same(&writer, &reader, &model, &chains, "small");
        let successor = TableWriter::recover(copy(&words)).unwrap();
        assert_same(&successor, &successor.reader(), &model, &chains, "recovered");
    }
}

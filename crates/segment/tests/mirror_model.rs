//! Seeded random streams of events into the mirror and into a literal model, compared after every
//! batch.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod mirror_support;
mod table_support;

use inlane_segment::table::{MirrorSpec, MirrorWriter};
use inlane_segment::words::HeapWords;
use mirror_support::{Model, TIERS, assert_same};
use proptest::prelude::*;
use table_support::{Rng, block, copy};

const BATCHES: usize = if cfg!(miri) { 3 } else { 24 };

/// How engines name their blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Naming {
    /// All alike, one hash per key.
    Common,
    /// Every other engine by hashes of its own.
    Seeded,
    /// Blocks of four keys, or four blocks per key, or both ways at once.
    Unequal,
}

fn writer(spec: &MirrorSpec, seed: u64) -> (HeapWords, MirrorWriter<HeapWords>) {
    let words = HeapWords::new(spec.words().unwrap());
    (words.clone(), MirrorWriter::create(words, spec, seed).unwrap())
}

fn chain(rng: &mut Rng) -> Vec<u64> {
    let (family, prompt, length) = (rng.below(4), rng.below(6), 1 + rng.below(24));
    (0..length).map(|index| block(family as u64, prompt as u64, 8, index)).collect()
}

/// The pairs of a chain of keys.
fn pairs(naming: Naming, slot: u16, tier: u8, keys: &[u64]) -> (Vec<u64>, Vec<u64>) {
    let own = match naming {
        Naming::Seeded if slot % 2 == 1 => u64::from(slot) << 32 | u64::from(tier) << 50,
        _ => 0,
    };
    let name = |key: u64| Rng(key ^ own).next();
    match naming {
        Naming::Common | Naming::Seeded => {
            (keys.iter().map(|&key| name(key)).collect(), keys.to_vec())
        }
        Naming::Unequal if slot.is_multiple_of(3) => {
            let whole = &keys[..keys.len() / 4 * 4];
            let engines = whole.chunks(4).flat_map(|four| [name(four[0]); 4]);
            (engines.collect(), whole.to_vec())
        }
        Naming::Unequal => {
            let engines = keys.iter().flat_map(|&key| (0..4).map(move |part| name(key ^ part)));
            (engines.collect(), keys.iter().flat_map(|&key| [key; 4]).collect())
        }
    }
}

/// Stores a chain in two calls.
fn in_two(
    writer: &mut MirrorWriter<HeapWords>,
    slot: u16,
    tier: u8,
    engines: &[u64],
    keys: &[u64],
) -> usize {
    let middle = keys.len() / 2;
    let refused = writer.hold_chain(slot, tier, None, &engines[..middle], &keys[..middle]);
    if refused > 0 {
        return refused + keys.len() - middle;
    }
    let parent = keys[..middle].last().copied();
    writer.hold_chain(slot, tier, parent, &engines[middle..], &keys[middle..])
}

fn stream(spec: &MirrorSpec, busy: usize, naming: Naming, seed: u64) {
    // Asking for every slot takes its time.
    let batches = if spec.slots > 1_000 { BATCHES / 5 + 1 } else { BATCHES };
    let (words, mut writer) = writer(spec, seed);
    let reader = writer.reader();
    let mut model = Model::default();
    let mut rng = Rng(seed);
    for batch in 0..batches {
        for _ in 0..20 {
            let slot = (rng.below(busy) * (spec.slots / busy)) as u16;
            let tier = if rng.below(4) == 0 { rng.below(TIERS.into()) as u8 } else { 0 };
            match rng.below(100) {
                0..60 => {
                    let (engines, keys) = pairs(naming, slot, tier, &chain(&mut rng));
                    let refused = match naming == Naming::Unequal || batch % 3 == 0 {
                        true if batch % 2 == 0 => writer.hold(slot, tier, &engines, &keys),
                        true => writer.hold_chain(slot, tier, None, &engines, &keys),
                        false => in_two(&mut writer, slot, tier, &engines, &keys),
                    };
                    let taken = keys.len() - refused;
                    model.hold(slot, tier, &engines[..taken], &keys[..taken]);
                }
                60..97 => {
                    let (mut engines, _) = pairs(naming, slot, tier, &chain(&mut rng));
                    engines.dedup();
                    if rng.below(3) > 0 {
                        engines.reverse();
                    }
                    engines.truncate(1 + rng.below(24));
                    let mut release = |engines: &[u64], all: bool| {
                        let forgotten = writer.stats().forgotten;
                        let gone = match all {
                            true => writer.release_all(slot, tier, engines),
                            false => usize::from(writer.release(slot, tier, engines[0])),
                        };
                        let is_gone = |engine: &&u64| model.release(slot, tier, **engine);
                        let expected = engines.iter().filter(is_gone).count();
                        if writer.stats().forgotten == forgotten {
                            assert_eq!(gone, expected, "seed {seed}, batch {batch}");
                        } else {
                            // It may hold less than it should then, and never more.
                            model.pairs.retain(|pair, _| {
                                pair.0 != slot || reader.holds(slot, pair.1, pair.3)
                            });
                        }
                    };
                    if (usize::from(slot) + batch).is_multiple_of(2) {
                        release(&engines, true);
                        continue;
                    }
                    engines.chunks(1).for_each(|engine| release(engine, false));
                }
                _ => {
                    writer.clear(slot);
                    model.clear(slot);
                }
            }
        }
        let context = format!("{spec:?}, {naming:?}, seed {seed}, batch {batch}");
        let chains: Vec<_> = (0..6).map(|_| chain(&mut rng)).collect();
        assert_same(&writer, &reader, &model, &chains, &context);
        let successor = MirrorWriter::recover(copy(&words)).unwrap();
        assert_same(&successor, &successor.reader(), &model, &chains, &context);
        assert_eq!(successor.stats().dropped, 0, "{context}");
        if batch % 8 == 7 {
            writer = MirrorWriter::recover(words.clone()).unwrap();
        }
    }
    assert!(spec.pages <= 2 || writer.stats().forgotten == 0);
    writer.reset();
    assert_same(&writer, &reader, &Model::default(), &[], "reset");
    let idle = writer.bytes_in_use();
    assert_eq!(MirrorWriter::recover(words).unwrap().bytes_in_use(), 0, "{idle} bytes");
}

#[test]
fn engines_that_agree() {
    let spec = MirrorSpec { slots: 8, blocks: 2_000, pages: 60 };
    stream(&spec, 8, Naming::Common, 1);
    stream(&MirrorSpec { slots: 64, ..spec }, 20, Naming::Common, 2);
    stream(&MirrorSpec { slots: 3_000, ..spec }, 100, Naming::Common, 3);
    stream(&MirrorSpec { slots: 16_384, ..spec }, 50, Naming::Common, 4);
}

#[test]
fn engines_with_seeds_of_their_own() {
    let spec = MirrorSpec { slots: 8, blocks: 2_000, pages: 60 };
    stream(&spec, 8, Naming::Seeded, 5);
    stream(&MirrorSpec { slots: 300, ..spec }, 50, Naming::Seeded, 6);
}

#[test]
fn blocks_of_unequal_sizes() {
    let spec = MirrorSpec { slots: 8, blocks: 2_000, pages: 120 };
    stream(&spec, 8, Naming::Unequal, 7);
    stream(&MirrorSpec { slots: 300, ..spec }, 50, Naming::Unequal, 8);
}

/// Too few entries, then too few pages: what finds no room is refused, the rest stays exact. Only where
/// not even a page can be kept for removals, a block held twice may be gone with the first of them.
#[test]
fn a_full_mirror_refuses_and_never_claims_more() {
    for naming in [Naming::Common, Naming::Seeded, Naming::Unequal] {
        stream(&MirrorSpec { slots: 300, blocks: 60, pages: 60 }, 12, naming, 9);
        stream(&MirrorSpec { slots: 8, blocks: 100, pages: 2 }, 8, naming, 10);
    }
}

#[test]
fn what_follows_a_refusal_is_refused() {
    let spec = MirrorSpec { slots: 2, blocks: 3, pages: 1 };
    let (_, mut writer) = writer(&spec, 1);
    assert_eq!(writer.hold(0, 0, &[1, 2, 3, 4, 5], &[11, 12, 13, 14, 11]), 2);
    assert_eq!((writer.len(0), writer.stats().refused), (3, 2));
    assert_eq!(writer.hold(1, 0, &[1, 2], &[11, 12]), 0, "nobody else is kept out");
    assert!(writer.release(0, 0, 3));
    assert_eq!(writer.hold(0, 0, &[4], &[14]), 0, "what is evicted makes room");
    assert_eq!(writer.hold(2, 0, &[1], &[11]), 1, "a slot that there is not");
    assert_eq!(writer.hold(0, 8, &[1], &[11]), 1, "a tier that there is not");
    assert!(!writer.release(2, 0, 1) && !writer.release(0, 8, 1));
}

#[test]
fn the_last_key_of_a_hash_is_the_parent() {
    let spec = MirrorSpec { slots: 2, blocks: 100, pages: 4 };
    let (words, mut writer) = writer(&spec, 1);
    writer.hold(0, 0, &[1, 1, 1, 2, 2, 2], &[13, 12, 11, 23, 22, 21]);
    writer.hold(1, 0, &[1, 1, 1], &[13, 12, 11]);
    writer.hold(1, 2, &[1, 1, 1], &[13, 12, 11]);
    for writer in [writer, MirrorWriter::recover(words).unwrap()] {
        for (slot, engine, expected) in [
            (0, 1, vec![13, 12, 11]),
            (0, 2, vec![23, 22, 21]),
            (1, 1, vec![13, 12, 11]),
            (1, 2, vec![]),
        ] {
            let mut keys = vec![7];
            writer.keys_of(slot, engine, &mut keys);
            assert_eq!(keys[1..], expected, "{engine} of slot {slot}");
        }
    }
}

/// Keys with several hashes, hashes of one's own, tiers; hashes with several keys are not named.
#[test]
fn pairs_are_told_as_they_were_held() {
    let spec = MirrorSpec { slots: 3, blocks: 100, pages: 4 };
    let (words, mut writer) = writer(&spec, 1);
    writer.hold(0, 0, &[1, 2, 3], &[13, 12, 31]);
    writer.hold(0, 0, &[3], &[31]);
    writer.hold(1, 0, &[7, 3, 4], &[13, 31, 31]);
    writer.hold(1, 2, &[7], &[13]);
    writer.hold(2, 0, &[5, 5], &[12, 11]);
    for writer in [writer, MirrorWriter::recover(words).unwrap()] {
        for (slot, expected) in [
            (0, &[(0, Some(1), 13), (0, Some(2), 12), (0, Some(3), 31)][..]),
            (1, &[(0, Some(3), 31), (0, Some(4), 31), (0, Some(7), 13), (2, Some(7), 13)]),
            (2, &[(0, None, 11), (0, None, 12)]),
            (3, &[]),
        ] {
            let mut held = Vec::new();
            writer.for_each_held(slot, |pair| held.push((pair.tier, pair.engine, pair.key)));
            held.sort_unstable();
            assert_eq!(held, expected, "slot {slot}");
        }
    }
}

#[test]
fn a_key_of_several_hashes_goes_with_the_first_of_them() {
    let spec = MirrorSpec { slots: 2, blocks: 100, pages: 4 };
    let (_, mut writer) = writer(&spec, 1);
    writer.hold(1, 0, &[1, 2, 3, 4], &[10; 4]);
    assert_eq!(writer.len(1), 1);
    assert!(writer.release(1, 0, 4));
    assert_eq!(writer.len(1), 0);
    assert!(!writer.release(1, 0, 3), "went with the key");
}

/// Counts of a set too large for any record with counts become aliases, and nothing is lost.
#[test]
fn counts_of_large_sets_spill() {
    // A bitmap of 16,384 slots has no room for counts, a list has room for 512.
    let spec = MirrorSpec { slots: 16_384, blocks: 100, pages: 200 };
    for (slots, again) in [(600_u16, 480..520_u16), (520, 0..60)] {
        let (words, mut writer) = writer(&spec, 1);
        let mut model = Model::default();
        let (engines, keys) = ([1, 2, 3], [11, 12, 13]);
        let hold = |writer: &mut MirrorWriter<HeapWords>, model: &mut Model, slot: u16| {
            assert_eq!(writer.hold(slot * 20, 0, &engines, &keys), 0);
            model.hold(slot * 20, 0, &engines, &keys);
        };
        for slot in 0..slots {
            hold(&mut writer, &mut model, slot);
            if again.contains(&slot) {
                hold(&mut writer, &mut model, slot);
            }
        }
        // Again, when it is large already, and a third time for one that has an alias.
        for slot in [0, again.start, again.start, slots - 1] {
            hold(&mut writer, &mut model, slot);
        }
        let chains = [keys.to_vec()];
        assert_same(&writer, &writer.reader(), &model, &chains, "large");
        let mut writer = MirrorWriter::recover(words).unwrap();
        assert_same(&writer, &writer.reader(), &model, &chains, "recovered");
        for slot in (0..slots).step_by(7).chain([again.start, 0, slots - 1]) {
            for engine in [3, 2, 1] {
                assert_eq!(
                    writer.release(slot * 20, 0, engine),
                    model.release(slot * 20, 0, engine),
                    "{engine} of slot {slot}"
                );
            }
        }
        assert_same(&writer, &writer.reader(), &model, &chains, "released");
        assert_eq!(writer.stats().forgotten, 0);
    }
}

#[test]
fn positions_are_trusted_only_without_changes_behind_them() {
    let spec = MirrorSpec { slots: 4, blocks: 100, pages: 4 };
    let (words, mut writer) = writer(&spec, 1);
    for slot in 0..3 {
        writer.hold(slot, 0, &[1], &[11]);
        writer.set_position(slot, 7);
    }
    writer.hold(1, 0, &[2], &[12]);
    writer.release(2, 0, 1);
    assert_eq!((0..4).map(|slot| writer.position(slot)).collect::<Vec<_>>(), [7, 7, 7, 0]);
    let successor = MirrorWriter::recover(words).unwrap();
    assert_eq!((0..4).map(|slot| successor.position(slot)).collect::<Vec<_>>(), [7, 0, 0, 0]);
    assert_eq!(successor.position(4), 0);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 64 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Any interleaving of small operations on a handful of hashes, keys and slots.
    #[test]
    fn small_mirrors_agree(
        steps in prop::collection::vec(
            (0_u8..10, 0_u16..12, 0_u8..2, 0_u64..8, 0_u64..20, 1_u64..6), 1..200),
    ) {
        let spec = MirrorSpec { slots: 300, blocks: 64, pages: 16 };
        let (words, mut writer) = writer(&spec, 3);
        let reader = writer.reader();
        let mut model = Model::default();
        for (kind, slot, tier, engine, first, count) in steps {
            let slot = slot * 25;
            let keys: Vec<u64> = (first..first + count).collect();
            let engines: Vec<u64> = (0..count).map(|at| (engine + at) * 3 % 7).collect();
            match kind {
                0..6 => {
                    let refused = match kind % 2 {
                        0 => writer.hold(slot, tier, &engines, &keys),
                        _ => writer.hold_chain(slot, tier, first.checked_sub(1), &engines, &keys),
                    };
                    let taken = keys.len() - refused;
                    model.hold(slot, tier, &engines[..taken], &keys[..taken]);
                }
                6..9 => prop_assert_eq!(
                    writer.release(slot, tier, engine),
                    model.release(slot, tier, engine)
                ),
                _ => {
                    writer.clear(slot);
                    model.clear(slot);
                }
            }
        }
        let chains = [(0..25).collect(), (10..25).collect(), (5..9).collect::<Vec<u64>>()];
        assert_same(&writer, &reader, &model, &chains, "small");
        let successor = MirrorWriter::recover(copy(&words)).unwrap();
        assert_same(&successor, &successor.reader(), &model, &chains, "recovered");
    }
}

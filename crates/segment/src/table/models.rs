//! Models that loom runs through every interleaving and every permitted reordering: readers beside
//! the writer, on the production code.
//!
//! Exhaustive, without a bound on preemptions. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p inlane-segment --lib --release table::models`.
//! Hashes name their holders, as in the stress test: an even block is only ever held by even slots.

use std::collections::BTreeSet;

use loom::thread;

use super::{TableReader, TableSpec, TableWriter};
use crate::testing::{LoomWords, explore};

/// Eight slots: three holders inline, the fourth makes a bitmap of one word.
const SPEC: TableSpec = TableSpec { slots: 8, blocks: 2, pages: 4, default_capacity: 2 };

type Writer = TableWriter<LoomWords>;

/// So many slots that the fourth holder makes a list of two words.
const WIDE: TableSpec = TableSpec { slots: 130, ..SPEC };

/// Runs `write` beside one look at `hash`, and returns every set of holders seen, as bits.
fn beside(setup: fn(&mut Writer), write: fn(&mut Writer), hash: u64) -> BTreeSet<u8> {
    beside_in(&SPEC, setup, write, hash)
}

fn beside_in(
    spec: &'static TableSpec,
    setup: fn(&mut Writer),
    write: fn(&mut Writer),
    hash: u64,
) -> BTreeSet<u8> {
    explore(None, 4, move || {
        let words = LoomWords::new(spec.words().unwrap());
        let mut writer = TableWriter::create(words.clone(), spec, 0).unwrap();
        setup(&mut writer);
        let reader = TableReader::open(words).unwrap();
        let reading = thread::spawn(move || holders(&reader, hash));
        write(&mut writer);
        reading.join().unwrap()
    })
}

fn holders(reader: &TableReader<LoomWords>, hash: u64) -> u8 {
    let mut out = [0; 8];
    reader.count_matches(&[hash], &mut out);
    assert!(out.iter().all(|&count| count < 2), "{out:?} of one block");
    out.iter().enumerate().fold(0, |bits, (slot, &count)| bits | (count as u8) << slot)
}

#[test]
fn an_insertion_is_seen_or_not() {
    let write = |writer: &mut Writer| {
        writer.insert_chain(0, &[2]);
    };
    assert_eq!(beside(|_| {}, write, 2), BTreeSet::from([0, 1]));
}

/// The entry is freed and given to another block while the reader looks at it. That block has the
/// same bucket and tag, so nothing but key and version tells the reader whose holders it has read.
#[test]
fn a_recycled_entry_is_never_taken_for_its_predecessor() {
    let setup = |writer: &mut Writer| {
        writer.insert_chain(0, &[2]);
    };
    let write = |writer: &mut Writer| {
        writer.remove(0, 2);
        writer.insert_chain(1, &[twin()]);
    };
    assert_eq!(beside(setup, write, 2), BTreeSet::from([0, 1]));
    assert_eq!(beside(setup, write, twin()), BTreeSet::from([0, 0b10]));
}

/// An odd hash that the index cannot tell from 2.
fn twin() -> u64 {
    let layout = SPEC.layout(0).unwrap();
    (1..).step_by(2).find(|&hash| layout.home(hash) == layout.home(2)).unwrap()
}

/// Three inline holders become a bitmap with four. Nobody who stays is ever missed.
#[test]
fn promotion_loses_nobody() {
    let setup = |writer: &mut Writer| {
        for slot in [0, 2, 4] {
            writer.insert_chain(slot, &[2]);
        }
    };
    let write = |writer: &mut Writer| {
        writer.insert_chain(6, &[2]);
    };
    assert_eq!(beside(setup, write, 2), BTreeSet::from([0b1_0101, 0b101_0101]));
}

/// A slot leaves a lane of the first word of a list, another takes that lane, and it comes back in the
/// second word.
#[test]
fn a_slot_that_changes_lanes_is_counted_once() {
    let setup = |writer: &mut Writer| {
        for slot in [0, 2, 4, 6] {
            writer.insert_chain(slot, &[2]);
        }
    };
    let write = |writer: &mut Writer| {
        writer.remove(0, 2);
        writer.insert_chain(1, &[2]);
        writer.insert_chain(0, &[2]);
    };
    let seen = beside_in(&WIDE, setup, write, 2);
    assert_eq!(seen, BTreeSet::from([0b101_0101, 0b101_0100, 0b101_0110, 0b101_0111]));
}

/// A bitmap is dropped and its cell serves another block's bitmap at once.
#[test]
fn a_recycled_record_is_never_read_for_its_predecessor() {
    let setup = |writer: &mut Writer| {
        for slot in [0, 2, 4, 6] {
            writer.insert_chain(slot, &[2]);
        }
        for slot in [1, 3, 5] {
            writer.insert_chain(slot, &[3]);
        }
    };
    // Two holders go: inline again, the cell is free. The other block's fourth holder takes it.
    let write = |writer: &mut Writer| {
        writer.remove(0, 2);
        writer.remove(2, 2);
        writer.insert_chain(7, &[3]);
    };
    assert_eq!(beside(setup, write, 2), BTreeSet::from([0b101_0000, 0b101_0100, 0b101_0101]));
    assert_eq!(beside(setup, write, 3), BTreeSet::from([0b10_1010, 0b1010_1010]));
}

/// At capacity an insertion evicts the slot's oldest block and takes over its entry.
#[test]
fn eviction_is_seen_or_not() {
    let setup = |writer: &mut Writer| {
        writer.insert_chain(0, &[2, 4]);
    };
    let write = |writer: &mut Writer| {
        writer.insert_chain(0, &[6]);
    };
    assert_eq!(beside(setup, write, 2), BTreeSet::from([0, 1]));
    // Held all the while.
    assert_eq!(beside(setup, write, 4), BTreeSet::from([1]));
    assert_eq!(beside(setup, write, 6), BTreeSet::from([0, 1]));
}

//! Models that loom runs through every interleaving and every permitted reordering: readers beside
//! the writer, on the production code.
//!
//! Exhaustive, without a bound on preemptions. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p inlane-segment --lib --release table::models`.
//! Hashes name their holders, as in the stress test: an even block is only ever held by even slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use loom::thread;

use super::{TableReader, TableSpec, TableWriter};
use crate::testing::LoomWords;

/// Eight slots: three holders inline, the fourth makes a bitmap of one word.
const SPEC: TableSpec = TableSpec { slots: 8, blocks: 2, pages: 4, default_capacity: 2 };

type Writer = TableWriter<LoomWords>;

/// Runs `write` beside one look at `hash`, and gives the holders seen, as bits, to `check`.
///
/// The reader is the spawned thread because loom tracks one access per word: of a word that the writer
/// loads before it stores it, an earlier load by a reader is forgotten, and with it the race. A store
/// is remembered until the reader's load meets it.
fn beside(setup: fn(&mut Writer), write: fn(&mut Writer), hash: u64, check: fn(u8)) {
    let executions = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&executions);
    let builder = loom::model::Builder::new();
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        let words = LoomWords::new(SPEC.words().unwrap());
        let mut writer = TableWriter::create(words.clone(), &SPEC, 0).unwrap();
        setup(&mut writer);
        let reader = TableReader::open(words).unwrap();
        let reading = thread::spawn(move || check(holders(&reader, hash)));
        write(&mut writer);
        reading.join().unwrap();
    });
    // A model that explores nothing proves nothing.
    assert!(executions.load(Relaxed) > 3, "{executions:?} executions");
}

fn holders(reader: &TableReader<LoomWords>, hash: u64) -> u8 {
    let mut out = [0; 8];
    reader.count_matches(&[hash], &mut out);
    out.iter().enumerate().fold(0, |bits, (slot, &count)| bits | (count as u8) << slot)
}

#[test]
fn an_insertion_is_seen_or_not() {
    let write = |writer: &mut Writer| {
        writer.insert_chain(0, &[2]);
    };
    beside(|_| {}, write, 2, |seen| assert!(seen == 0 || seen == 1, "{seen:b}"));
}

/// The entry is freed and given to another block while the reader looks at it.
#[test]
fn a_recycled_entry_is_never_taken_for_its_predecessor() {
    let setup = |writer: &mut Writer| {
        writer.insert_chain(0, &[2]);
    };
    let write = |writer: &mut Writer| {
        writer.remove(0, 2);
        writer.insert_chain(1, &[3]);
    };
    beside(setup, write, 2, |seen| assert_eq!(seen & !1, 0, "{seen:b}"));
    beside(setup, write, 3, |seen| assert_eq!(seen & !2, 0, "{seen:b}"));
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
    beside(setup, write, 2, |seen| assert!(seen == 0b1_0101 || seen == 0b101_0101, "{seen:b}"));
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
    beside(setup, write, 2, |seen| {
        assert_eq!(seen & 0b1010_1010, 0, "{seen:b}");
        assert!(seen == 0 || seen & 0b101_0000 == 0b101_0000, "who stayed was there: {seen:b}");
    });
    beside(setup, write, 3, |seen| {
        assert!(seen == 0b10_1010 || seen == 0b1010_1010, "{seen:b}");
    });
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
    beside(setup, write, 2, |seen| assert_eq!(seen & !1, 0, "{seen:b}"));
    beside(setup, write, 4, |seen| assert_eq!(seen, 1, "held all the while"));
    beside(setup, write, 6, |seen| assert_eq!(seen & !1, 0, "{seen:b}"));
}

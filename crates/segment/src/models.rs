//! Models that loom runs through every interleaving and every permitted reordering: a reader of
//! documents and rows beside the writer, on the production code.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p inlane-segment --lib --release models`. Each model
//! compares the set of everything that readers saw with the set of what they may see. Preemptions are
//! bounded, which loom's authors found to lose next to nothing at three; which of several stores a load
//! meets is explored without a bound.

use std::collections::BTreeSet;

use loom::thread;

use crate::document::{DocumentRegion, Reading};
use crate::row::RowRegion;
use crate::testing::{LoomWords, Mortal, explore};

const PREEMPTIONS: Option<usize> = Some(3);

fn document() -> (LoomWords, DocumentRegion) {
    (LoomWords::new(DocumentRegion::words(8)), DocumentRegion::new(0, 8))
}

/// Reads and returns the generation, 0 for none and `None` for an unstable document, having checked
/// that the bytes belong to it.
fn read_document(words: &LoomWords, region: DocumentRegion) -> Option<u64> {
    match region.read(words) {
        Reading::Whole { generation, bytes } => {
            assert_eq!(bytes, [generation as u8]);
            Some(generation)
        }
        Reading::Absent => Some(0),
        Reading::Unstable => None,
        Reading::Damaged => panic!("a reader saw a half-written document"),
    }
}

fn publish_document(words: &LoomWords, region: DocumentRegion, generation: u8) {
    assert_eq!(region.publish(words, &[generation]), Some(generation.into()));
}

/// What two reads in a row may answer while the publications 1 to `newest` are made: never an older
/// one after a newer one.
fn in_order(newest: u64) -> BTreeSet<[Option<u64>; 2]> {
    let pairs = (0..=newest)
        .flat_map(|first| (first..=newest).map(move |second| [first, second].map(Some)));
    pairs.collect()
}

#[test]
fn a_document_is_read_whole_or_not_at_all() {
    let seen = explore(PREEMPTIONS, 1_000, || {
        let (words, region) = document();
        let reader = thread::spawn({
            let words = words.clone();
            move || [(); 2].map(|()| read_document(&words, region))
        });
        for generation in 1..=2 {
            publish_document(&words, region, generation);
        }
        let seen = reader.join().unwrap();
        assert_eq!(read_document(&words, region), Some(2));
        seen
    });
    assert_eq!(seen, in_order(2));
}

#[test]
fn a_document_survives_its_writer_after_any_store() {
    // A publication of one byte is five stores.
    for stores in 0..5 {
        let seen = explore(PREEMPTIONS, 1_000, move || {
            let (words, region) = document();
            publish_document(&words, region, 1);
            let reader = thread::spawn({
                let words = words.clone();
                move || read_document(&words, region)
            });
            let mortal = Mortal::new(words.clone(), stores);
            region.publish(&mortal, &[2]);
            assert!(mortal.is_dead());
            for generation in 2..=4 {
                publish_document(&words, region, generation);
            }
            let seen = reader.join().unwrap();
            assert_eq!(read_document(&words, region), Some(4));
            seen
        });
        // Three publications are enough for a reader to give up.
        assert_eq!(seen, BTreeSet::from([None, Some(1), Some(2), Some(3), Some(4)]));
    }
}

fn rows() -> (LoomWords, RowRegion) {
    (LoomWords::new(1 + RowRegion::words(1, 8)), RowRegion::new(0, 1, 1, 8))
}

fn read_row(words: &LoomWords, region: RowRegion) -> Option<u64> {
    let mut row = [0; 2];
    let whole = region.read(words, 0, &mut row);
    assert!(!whole || row[0] == row[1], "a reader saw a half-written row: {row:?}");
    whole.then_some(row[0])
}

fn publish_row(words: &LoomWords, region: RowRegion, count: u64) {
    assert!(region.publish(words, 0, &[count; 2]));
}

#[test]
fn a_row_is_read_whole_or_not_at_all() {
    let seen = explore(PREEMPTIONS, 1_000, || {
        let (words, region) = rows();
        let reader = thread::spawn({
            let words = words.clone();
            move || [(); 2].map(|()| read_row(&words, region))
        });
        for count in 1..=3 {
            publish_row(&words, region, count);
        }
        let seen = reader.join().unwrap();
        assert_eq!(read_row(&words, region), Some(3));
        seen
    });
    let mut allowed = in_order(3);
    // A read gives up only when all three publications fall into it.
    allowed.extend([[None, Some(3)], [Some(0), None]]);
    assert_eq!(seen, allowed);
}

#[test]
fn a_row_survives_its_writer_after_any_store() {
    // A publication is eight words and the flip.
    for stores in 0..9 {
        let seen = explore(PREEMPTIONS, 1_000, move || {
            let (words, region) = rows();
            publish_row(&words, region, 1);
            let reader = thread::spawn({
                let words = words.clone();
                move || read_row(&words, region)
            });
            let mortal = Mortal::new(words.clone(), stores);
            region.publish(&mortal, 0, &[2; 2]);
            assert!(mortal.is_dead());
            for count in 3..=5 {
                publish_row(&words, region, count);
            }
            let seen = reader.join().unwrap();
            assert_eq!(read_row(&words, region), Some(5));
            seen
        });
        // Never 2, which was not published.
        assert_eq!(seen, BTreeSet::from([None, Some(1), Some(3), Some(4), Some(5)]));
    }
}

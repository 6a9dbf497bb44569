//! Models that loom runs through every interleaving and every permitted reordering: a reader beside
//! the writer, on the production code.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p inlane-segment --lib --release mirror::models`.
//! The writer recycles entries and records as fast as it can, which moves the epoch by two each time:
//! far faster than it ever does with a table of real size.

use std::collections::BTreeSet;

use loom::thread;

use super::{MirrorReader, MirrorSpec, MirrorWriter};
use crate::testing::{LoomWords, explore};

/// Eight slots: three holders inline, the fourth makes a bitmap of one word.
const SPEC: MirrorSpec = MirrorSpec { slots: 8, blocks: 2, pages: 1 };

type Writer = MirrorWriter<LoomWords>;

/// Runs `write` beside one look at `keys`, and returns every answer: the length of the prefix of each
/// slot, as decimal digits.
fn beside(setup: fn(&mut Writer), write: fn(&mut Writer), keys: &'static [u64]) -> BTreeSet<u64> {
    explore(Some(3), 4, move || {
        let words = LoomWords::new(SPEC.words().unwrap());
        let mut writer = MirrorWriter::create(words.clone(), &SPEC, 0).unwrap();
        setup(&mut writer);
        let reader = MirrorReader::open(words).unwrap();
        let reading = thread::spawn(move || {
            let mut out = [0; 8];
            reader.longest_prefix(0, keys, &mut out);
            out.iter().rev().fold(0, |answer, &count| answer * 10 + u64::from(count))
        });
        write(&mut writer);
        reading.join().unwrap()
    })
}

fn hold(writer: &mut Writer, slot: u16, keys: &[u64]) {
    assert_eq!(writer.hold(slot, 0, keys, keys), 0);
}

fn hold_chain(writer: &mut Writer, slot: u16, keys: &[u64]) {
    assert_eq!(writer.hold_chain(slot, 0, None, keys, keys), 0);
}

#[test]
fn a_block_is_seen_or_not() {
    assert_eq!(beside(|_| {}, |writer| hold(writer, 0, &[2]), &[2]), BTreeSet::from([0, 1]));
}

/// The entry is freed and given to another block while the reader looks at it.
#[test]
fn a_recycled_entry_is_never_taken_for_its_predecessor() {
    let setup = |writer: &mut Writer| hold(writer, 0, &[2, 4]);
    let write = |writer: &mut Writer| {
        writer.release(0, 0, 2);
        hold(writer, 1, &[6]);
    };
    assert_eq!(beside(setup, write, &[2]), BTreeSet::from([0, 1]));
    assert_eq!(beside(setup, write, &[6]), BTreeSet::from([0, 10]));
    // Held all the while, unless both of its attempts met the epoch moving.
    let found = beside(setup, write, &[4]);
    assert_eq!(found, BTreeSet::from([1]));
}

/// Three inline holders become a bitmap with four. Nobody who stays is ever missed.
#[test]
fn promotion_loses_nobody() {
    let setup = |writer: &mut Writer| {
        for slot in [0, 2, 4] {
            hold(writer, slot, &[2]);
        }
    };
    let write = |writer: &mut Writer| hold(writer, 6, &[2]);
    assert_eq!(beside(setup, write, &[2]), BTreeSet::from([1_01_01, 1_01_01_01]));
}

/// A bitmap is given up, and its cell serves another block's at once.
#[test]
fn a_recycled_record_is_never_read_for_its_predecessor() {
    let setup = |writer: &mut Writer| {
        for slot in [0, 2, 4, 6] {
            hold(writer, slot, &[2]);
        }
        for slot in [1, 3, 5] {
            hold(writer, slot, &[3]);
        }
    };
    // Inline again, the cell waits. The other block's fourth holder needs it: a page serves only
    // cells of one size, and there is one page.
    let write = |writer: &mut Writer| {
        writer.release(0, 0, 2);
        for slot in [7, 0, 2, 4, 6] {
            hold(writer, slot, &[3]);
            writer.release(slot, 0, 3);
        }
    };
    assert_eq!(beside(setup, write, &[2]), BTreeSet::from([1_01_01_00, 1_01_01_01]));
}

/// The second entry of a chain is recycled for a block with the holders that the first one has by
/// then. Its old key beside its new holders would make a prefix that nobody ever had.
#[test]
fn an_old_key_is_never_seen_with_new_holders() {
    let setup = |writer: &mut Writer| hold(writer, 0, &[2, 4]);
    let write = |writer: &mut Writer| {
        writer.release(0, 0, 4);
        hold(writer, 1, &[2]);
        hold(writer, 0, &[6]);
        hold(writer, 1, &[6]);
    };
    let found = beside(setup, write, &[2, 4]);
    assert!(found.is_superset(&BTreeSet::from([2, 1, 11])), "{found:?}");
    assert!(found.is_subset(&BTreeSet::from([2, 1, 11, 12])), "{found:?}");
}

/// A holder comes to a stretch and goes again: whoever stays is seen all the while, and nobody is
/// seen behind a block that he does not hold.
#[test]
fn a_stretch_is_never_seen_half_changed() {
    let setup = |writer: &mut Writer| hold_chain(writer, 0, &[2, 4]);
    let write = |writer: &mut Writer| {
        hold_chain(writer, 1, &[2, 4]);
        writer.release_all(1, 0, &[4, 2]);
    };
    assert_eq!(beside(setup, write, &[2, 4]), BTreeSet::from([2, 12, 22]));
}

/// Two blocks come to have the same holders, and so become a stretch, while the first is looked at.
/// Its former holder beside the new stretch would be one who never had the second.
#[test]
fn a_new_stretch_is_never_seen_with_old_holders() {
    let setup = |writer: &mut Writer| {
        hold(writer, 0, &[2]);
        assert_eq!(writer.hold_chain(1, 0, Some(2), &[4], &[4]), 0);
    };
    let write = |writer: &mut Writer| {
        hold(writer, 1, &[2]);
        writer.release(0, 0, 2);
    };
    assert_eq!(beside(setup, write, &[2, 4]), BTreeSet::from([1, 21, 20]));
}

/// The word of the second block is looked at before the end of the first one's run. Then its record
/// is given up and becomes that of the first block, with a holder who never had the second.
#[test]
fn a_word_that_was_kept_is_never_read_with_a_recycled_record() {
    let setup = |writer: &mut Writer| {
        for slot in [2, 4, 6, 7] {
            hold(writer, slot, &[3]);
        }
        for slot in [0, 1, 3] {
            hold(writer, slot, &[2]);
        }
        // The rest of the page waits, so that the next record takes the first cell that is given up.
        for _ in 0..7 {
            hold(writer, 5, &[2]);
            writer.release(5, 0, 2);
        }
    };
    let write = |writer: &mut Writer| {
        writer.release(7, 0, 3);
        hold(writer, 5, &[2]);
    };
    assert_eq!(beside(setup, write, &[2, 3]), BTreeSet::from([1_011, 101_011]));
}

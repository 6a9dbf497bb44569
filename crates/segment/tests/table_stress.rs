//! One writer of a table, two readers, and hashes that name their possible holders.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod table_support;

use inlane_segment::table::{TableReader, TableSpec, TableStats, TableWriter};
use inlane_segment::words::HeapWords;
use table_support::kinds::{CHAINS, KINDS, SLOTS, STEADY, chain, key, stress};

/// The steady slots are only ever given chain 0, which stays below their capacity: where the budget is
/// never reached a reader must find them, unless a lookup runs out of attempts. There are so few chains
/// and entries that entries, records and nodes are recycled all the time.
#[test]
#[cfg_attr(miri, ignore = "too slow under Miri; loom explores the same races")]
fn who_stays_is_found() {
    let spec = TableSpec { slots: SLOTS, blocks: 1_000, pages: 400, default_capacity: 34 };
    let (stats, lookups, short) = run(&spec);
    assert!(stats.evicted > 0, "the capacity was never reached");
    assert_eq!((stats.given_up, stats.refused), (0, 0), "the budget was reached");
    // A lookup that meets three changes of one block's record in a row gives up on that block.
    assert!(short * 100 <= lookups, "{short} of {lookups} gave up on a block that was there");
}

#[test]
#[cfg_attr(miri, ignore = "too slow under Miri; loom explores the same races")]
fn a_table_at_its_budget_is_never_wrong() {
    let spec = TableSpec { slots: SLOTS, blocks: 800, pages: 20, default_capacity: 34 };
    let (stats, lookups, _) = run(&spec);
    assert!(lookups > 0);
    assert!(stats.given_up > 0, "the budget was never reached");
}

/// Returns what the writer did, and of how many lookups of chain 0 how many did not find all of the
/// steady slots.
fn run(spec: &TableSpec) -> (TableStats, u64, u64) {
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = TableWriter::create(words, spec, 1).unwrap();
    for slot in 0..STEADY {
        writer.insert_chain((slot * KINDS) as u16, &chain(0));
    }
    let (lookups, short) = stress(
        &writer.reader(),
        [TableReader::count_matches, TableReader::longest_prefix_exact],
        |rng| {
            let number = 1 + rng.below(CHAINS as usize - 1) as u64;
            let slot = rng.below(SLOTS / KINDS as usize) as u64 * KINDS + number % KINDS;
            let steady = slot.is_multiple_of(KINDS) && slot < STEADY * KINDS;
            match rng.below(10) {
                0..7 if !steady => {
                    writer.insert_chain(slot as u16, &chain(number));
                }
                7 if !steady => {
                    writer.remove(slot as u16, key(number, rng.below(24) as u64));
                }
                8 if !steady => writer.clear_slot(slot as u16),
                // Joins and leaves the steady chain, so that its records grow and shrink.
                _ => {
                    let guest = (STEADY + rng.below(60) as u64) * KINDS;
                    if rng.below(2) == 0 {
                        writer.insert_chain(guest as u16, &chain(0));
                    } else {
                        writer.clear_slot(guest as u16);
                    }
                    for slot in 0..STEADY {
                        writer.insert_chain((slot * KINDS) as u16, &chain(0));
                    }
                }
            }
        },
    );
    let stats = writer.stats();
    println!("{stats:?}");
    (stats, lookups, short)
}

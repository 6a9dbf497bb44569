//! One writer of a mirror, two readers, and keys that name their possible holders.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod table_support;

use inlane_segment::table::{MirrorReader, MirrorSpec, MirrorStats, MirrorWriter};
use inlane_segment::words::HeapWords;
use std::ops::ControlFlow;
use table_support::kinds::{CHAINS, KINDS, LENGTH, Lookup, SLOTS, STEADY, chain, stress};

/// The names that an engine gives to a chain: every third engine has its own.
fn engines(slot: u64, number: u64) -> Vec<u64> {
    let own = if slot.is_multiple_of(3) { slot << 48 } else { 0 };
    chain(number).into_iter().map(|key| !key ^ own).collect()
}

#[test]
#[cfg_attr(miri, ignore = "too slow under Miri; loom explores the same races")]
fn who_stays_is_found() {
    let (stats, lookups, short) = run(&MirrorSpec { slots: SLOTS, blocks: 2_000, pages: 800 });
    assert_eq!((stats.refused, stats.forgotten), (0, 0), "there was room for everything");
    assert!(stats.epochs > 0, "nothing was ever recycled");
    // The epoch must move twice during each of a few attempts for a block to be given up on.
    assert!(short * 100 <= lookups, "{short} of {lookups} gave up on a block that was there");
}

#[test]
#[cfg_attr(miri, ignore = "too slow under Miri; loom explores the same races")]
fn a_full_mirror_is_never_wrong() {
    let (stats, lookups, _) = run(&MirrorSpec { slots: SLOTS, blocks: 400, pages: 24 });
    assert!(lookups > 0);
    assert!(stats.refused > 0, "the budget was never reached");
}

/// Returns what the writer did, and of how many lookups of chain 0 how many did not find all of the
/// steady slots.
fn run(spec: &MirrorSpec) -> (MirrorStats, u64, u64) {
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = MirrorWriter::create(words, spec, 1).unwrap();
    for slot in (0..STEADY).map(|slot| slot * KINDS) {
        assert_eq!(writer.hold_chain(slot as u16, 0, None, &engines(slot, 0), &chain(0)), 0);
    }
    let lookups: [Lookup<MirrorReader<HeapWords>>; 2] =
        [|reader, keys, out| reader.longest_prefix(0, keys, out), by_runs];
    let (lookups, short) = stress(&writer.reader(), lookups, |rng| {
        let number = rng.below(CHAINS as usize) as u64;
        let slot = (STEADY + rng.below(70) as u64) * KINDS + number % KINDS;
        match rng.below(10) {
            0..5 => {
                let (engines, chain) = (engines(slot, number), chain(number));
                writer.hold_chain(slot as u16, 0, None, &engines, &chain);
            }
            5..9 => {
                let first = rng.below(LENGTH as usize);
                let mut engines = engines(slot, number).split_off(first);
                engines.reverse();
                if first % 2 == 0 {
                    writer.release_all(slot as u16, 0, &engines);
                }
                for engine in engines {
                    writer.release(slot as u16, 0, engine);
                }
            }
            _ => writer.clear(slot as u16),
        }
    });
    let stats = writer.stats();
    println!("{stats:?}");
    (stats, lookups, short)
}

fn by_runs(reader: &MirrorReader<HeapWords>, keys: &[u64], out: &mut [u32]) -> usize {
    let mut found = 0;
    reader.runs(keys, |run| {
        found += run.blocks;
        run.for_each(|slot, _| out[usize::from(slot)] += run.blocks as u32);
        ControlFlow::Continue(())
    });
    found
}

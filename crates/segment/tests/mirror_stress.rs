//! One writer, two readers, and keys that name their possible holders: a reader can tell a wrong
//! holder without knowing what the writer is doing.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod table_support;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use inlane_segment::table::{MirrorSpec, MirrorStats, MirrorWriter};
use inlane_segment::words::HeapWords;
use table_support::Rng;
use table_support::kinds::{KINDS, LENGTH, chain};

const SLOTS: usize = 640;
const LONG: Duration = Duration::from_secs(1);
const CHAINS: u64 = 40;
/// Slots `0, 8, 16 …` below 80 hold chain 0 all the time.
const STEADY: u64 = 10;

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

/// Writes for a while beside two readers that check every answer. Returns what the writer did, and of
/// how many lookups of chain 0 how many did not find all of the steady slots.
fn run(spec: &MirrorSpec) -> (MirrorStats, u64, u64) {
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = MirrorWriter::create(words, spec, 1).unwrap();
    for slot in (0..STEADY).map(|slot| slot * KINDS) {
        assert_eq!(writer.hold(slot as u16, 0, &engines(slot, 0), &chain(0)), 0);
    }
    let reader = writer.reader();
    let (done, lookups, short) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (reader, done, lookups, short) = (reader.clone(), &done, &lookups, &short);
            scope.spawn(move || {
                let mut rng = Rng(seed);
                let mut out = vec![0_u32; SLOTS];
                while !done.load(Relaxed) {
                    let number = rng.below(CHAINS as usize) as u64;
                    let keys = chain(number);
                    for runs in [false, true] {
                        out.fill(0);
                        let found = if runs {
                            let mut found = 0;
                            reader.runs(&keys, |run| {
                                found += run.blocks;
                                run.for_each(|slot, _| out[usize::from(slot)] += run.blocks as u32);
                                ControlFlow::Continue(())
                            });
                            found
                        } else {
                            reader.longest_prefix(0, &keys, &mut out)
                        };
                        for (slot, &count) in out.iter().enumerate() {
                            let right = slot as u64 % KINDS == number % KINDS;
                            assert!(right || count == 0, "slot {slot} in chain {number}");
                            assert!(count as usize <= found, "{count} of {found}");
                        }
                        let steady = |slot| out[(slot * KINDS) as usize] == LENGTH as u32;
                        if number == 0 {
                            lookups.fetch_add(1, Relaxed);
                            short.fetch_add(u64::from(!(0..STEADY).all(steady)), Relaxed);
                        }
                    }
                }
            });
        }
        let (start, mut rng) = (Instant::now(), Rng(99));
        while start.elapsed() < LONG {
            for _ in 0..50 {
                let number = rng.below(CHAINS as usize) as u64;
                let slot = (STEADY + rng.below(70) as u64) * KINDS + number % KINDS;
                match rng.below(10) {
                    0..5 => {
                        writer.hold(slot as u16, 0, &engines(slot, number), &chain(number));
                    }
                    5..9 => {
                        let first = rng.below(LENGTH as usize);
                        for &engine in engines(slot, number)[first..].iter().rev() {
                            writer.release(slot as u16, 0, engine);
                        }
                    }
                    _ => writer.clear(slot as u16),
                }
            }
        }
        done.store(true, Relaxed);
    });
    let (stats, lookups, short) = (writer.stats(), lookups.into_inner(), short.into_inner());
    println!("{stats:?}; {short} of {lookups} lookups short");
    (stats, lookups, short)
}

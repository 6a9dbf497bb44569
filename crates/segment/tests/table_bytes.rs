//! Bytes per held block, everything counted, in tables filled to their budget.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod table_support;

use inlane_segment::table::{TableSpec, TableWriter};
use inlane_segment::words::HeapWords;
use table_support::{Rng, block};

const CHAIN: usize = 64;

/// Fills a table until it gives up blocks; each chain is held by `holders` slots, scattered.
fn fill(slots: usize, holders: usize, budget: usize) -> (f64, f64) {
    let spec = TableSpec { default_capacity: u32::MAX, ..TableSpec::within(slots, budget) };
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = TableWriter::create(words, &spec, 1).unwrap();
    let mut rng = Rng(5);
    for prompt in 0.. {
        let chain: Vec<_> = (0..CHAIN).map(|index| block(1, prompt, 0, index)).collect();
        let first = rng.below(slots);
        for holder in 0..holders {
            let slot = (first + holder * slots / holders) % slots;
            writer.insert_chain(slot as u16, &chain);
        }
        if writer.stats().given_up > 0 {
            break;
        }
    }
    let held = writer.total() as f64;
    (writer.bytes_in_use() as f64 / held, spec.bytes().unwrap() as f64 / held)
}

#[test]
fn a_held_block_takes_at_most_32_bytes() {
    println!("slots   holders  used/held  budget/held");
    for slots in [8, 100, 1_000, 10_000] {
        for holders in [1, 2, 3, 4, 8, 20, 100, 500, 1_000, 10_000] {
            if holders > slots {
                continue;
            }
            let (used, budget) = fill(slots, holders, 8 << 20);
            println!("{slots:6} {holders:8} {used:10.1} {budget:12.1}");
            assert!(used <= 32.0, "{slots} slots, {holders} holders per block: {used} bytes");
        }
    }
}

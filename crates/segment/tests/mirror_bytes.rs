//! Bytes per held block, everything counted, in mirrors filled to their budget.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod table_support;

use inlane_segment::table::{MirrorSpec, MirrorWriter};
use inlane_segment::words::HeapWords;
use table_support::{Rng, block};

const CHAIN: usize = 64;

/// Fills a mirror until it refuses a chain; each is held by `holders` slots, scattered, half of them
/// under hashes of their own if they are `seeded`. Bytes in use per held block.
fn fill(slots: usize, holders: usize, seeded: bool) -> f64 {
    let spec = MirrorSpec::within(slots, 2 << 20);
    let words = HeapWords::new(spec.words().unwrap());
    let mut writer = MirrorWriter::create(words, &spec, 1).unwrap();
    let mut rng = Rng(5);
    'full: for prompt in 0.. {
        let keys: Vec<_> = (0..CHAIN).map(|index| block(1, prompt, 0, index)).collect();
        let first = rng.below(slots);
        for holder in 0..holders {
            let slot = (first + holder * slots / holders) % slots;
            let own = if seeded && holder % 2 == 1 { slot as u64 } else { 0 };
            let engines: Vec<_> = keys.iter().map(|&key| !key ^ own).collect();
            if writer.hold(slot as u16, 0, &engines, &keys) > 0 {
                break 'full;
            }
        }
    }
    writer.bytes_in_use() as f64 / writer.total() as f64
}

#[test]
fn a_held_block_takes_few_bytes() {
    println!("slots   holders   shared   seeded");
    for slots in [8, 100, 1_000, 10_000] {
        for holders in [1, 2, 3, 4, 8, 20, 100, 500] {
            if holders > slots {
                continue;
            }
            let (shared, seeded) = (fill(slots, holders, false), fill(slots, holders, true));
            println!("{slots:6} {holders:8} {shared:8.1} {seeded:8.1}");
            let limit = 36.0 / holders as f64 + 2.0;
            assert!(shared <= limit, "{slots} slots, {holders} holders: {shared} bytes");
            // Half of the holders have an alias each.
            let limit = 36.0 / holders as f64 + 20.0;
            assert!(seeded <= limit, "{slots} slots, {holders} holders, seeded: {seeded} bytes");
        }
    }
}

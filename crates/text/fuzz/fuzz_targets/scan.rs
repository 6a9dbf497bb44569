//! Any bytes: the scanner agrees with `serde_json`, however the body is split.
//!
//! `cargo +nightly fuzz run scan` in this crate's parent. The corpus is also replayed by the
//! ordinary test `corpus`.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let mut scanner = common::scanner();
    // The split follows from the body, so that a finding repeats.
    let seed = xxhash_rust::xxh64::xxh64(body, 0);
    for api in common::APIS {
        common::check(&mut scanner, api, body, seed);
    }
});

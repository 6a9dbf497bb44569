//! Everything about KV events that was recorded from a real engine, or derived from it.
//!
//! The checks are those of `make fixtures`.

#[path = "../../../integration/src/fixtures/kv/mod.rs"]
mod kv;
#[allow(unreachable_pub, reason = "public where it comes from")]
#[path = "../../../integration/src/fixtures/tally.rs"]
mod tally;

use std::path::Path;

#[test]
fn recordings_pass() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/vllm"));
    let tallies = kv::check(dir);
    tallies.iter().for_each(|tally| println!("{tally}"));
    assert!(tallies.len() > 40);
    for tally in tallies {
        assert!(tally.failures.is_empty() && tally.passed > 0, "{tally}");
    }
}

//! Everything about KV events that was recorded from a real engine, or derived from it.
//!
//! The checks are those of `make fixtures`.

#![allow(clippy::unwrap_used, reason = "tests")]

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

#[test]
fn recordings_that_differ_fail() {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/vllm"));
    let run = Path::new("runs/xxhash_cbor-seed0-int");
    let dir = std::env::temp_dir().join(format!("inlane-recordings-{}", std::process::id()));
    std::fs::create_dir_all(dir.join(run)).unwrap();
    // Each file with one thing changed.
    for (file, from, to) in [
        (
            "runs/xxhash_cbor-seed0-int/run.json",
            "\"none_hash_seed\": \"0\"",
            "\"none_hash_seed\": \"1\"",
        ),
        ("runs/xxhash_cbor-seed0-int/events.jsonl", "\"seq\": 3", "\"seq\": 33"),
        ("runs/xxhash_cbor-seed0-int/replay.json", "ffffffffffffffff", "00000000000000ff"),
        ("wire_variants.jsonl", "\"lora_name\": null", "\"lora_name\": \"x\""),
        ("request_key_vectors.json", "18216873062712665045", "18216873062712665046"),
        ("engine_hash_vectors.json", "505119860403735005", "505119860403735006"),
    ] {
        let text = std::fs::read_to_string(source.join(file)).unwrap();
        assert!(text.contains(from), "{file}");
        std::fs::write(dir.join(file), text.replacen(from, to, 1)).unwrap();
    }
    let tallies = kv::check(&dir);
    std::fs::remove_dir_all(&dir).unwrap();
    for name in [
        "/events.jsonl",
        "(engine hashes)",
        "replay.json",
        "wire_variants.jsonl",
        "request_key_vectors.json",
        "engine_hash_vectors.json",
    ] {
        let mut tallies = tallies.iter().filter(|tally| tally.name.ends_with(name));
        assert!(tallies.any(|tally| !tally.failures.is_empty()), "{name}");
    }
}

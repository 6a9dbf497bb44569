//! Recordings of a real engine.

use std::path::Path;

use inlane_integration::fixtures;

/// Checks a directory beside the project's other fixtures and says how much was compared.
fn passes(name: &str) -> usize {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures").join(name);
    let tallies = fixtures::check(&dir);
    for tally in &tallies {
        assert!(tally.failures.is_empty(), "{tally}");
    }
    tallies.iter().map(|tally| tally.passed).sum()
}

#[test]
fn recordings_pass() {
    assert!(passes("vllm") > 100_000);
}

#[test]
fn recordings_of_another_model_pass() {
    assert!(passes("vllm-2") > 20_000);
}

#[test]
fn a_directory_without_recordings_has_nothing_to_check() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    assert_eq!(fixtures::check(dir).iter().map(|tally| tally.passed).sum::<usize>(), 0);
    assert_eq!(fixtures::absent(dir).count(), 7);
}

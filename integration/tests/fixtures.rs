//! Recordings of a real engine.

use std::path::Path;

use inlane_integration::fixtures;

#[test]
fn recordings_pass() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vllm"));
    let tallies = fixtures::check(dir);
    assert!(tallies.len() > 40);
    for tally in tallies {
        assert!(tally.failures.is_empty(), "{tally}");
    }
}

#[test]
fn a_directory_without_recordings_has_nothing_to_check() {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src"));
    assert_eq!(fixtures::check(dir).iter().map(|tally| tally.passed).sum::<usize>(), 0);
    assert_eq!(fixtures::unread(dir).count(), 0);
}

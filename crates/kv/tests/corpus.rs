//! Replays the fuzzing corpus.

#[path = "../fuzz/message.rs"]
mod message;

use std::fs;
use std::path::Path;

#[test]
fn every_entry() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/message");
    let mut entries = 0;
    for entry in fs::read_dir(corpus).expect("the corpus is part of the crate") {
        message::message(&fs::read(entry.expect("readable").path()).expect("readable"));
        entries += 1;
    }
    assert!(entries >= 50, "{entries} entries");
}

//! Replays the fuzzing corpus of chats.
#![cfg(feature = "prompts")]

#[path = "../fuzz/chat.rs"]
mod chat;

use std::fs;
use std::path::Path;

#[test]
fn every_chat() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/chat");
    let mut entries = 0;
    for entry in fs::read_dir(corpus).expect("the corpus is part of the crate") {
        chat::chat(&fs::read(entry.expect("readable").path()).expect("readable"));
        entries += 1;
    }
    assert!(entries >= 40, "{entries} entries");
}

//! Replays the fuzzer's corpus, and every single-word forgery of each file, on stable Rust.

#[path = "../fuzz/exercise.rs"]
mod exercise;
#[path = "../fuzz/mirror.rs"]
mod mirror;

use std::fs;
use std::path::Path;

/// Gives a target every input of its corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(corpus).expect("the corpus is in the tree") {
        run(&fs::read(entry.expect("an entry").path()).expect("an input"));
        inputs += 1;
    }
    assert!(inputs >= 10, "{inputs} inputs");
}

#[test]
fn the_corpus_is_survived() {
    replay("files", exercise::files);
}

#[test]
fn any_history_of_a_mirror_is_survived() {
    replay("mirror", mirror::mirror);
    // And histories that nobody has chosen.
    let mut state = 1_u64;
    for _ in 0..200 {
        let input: Vec<u8> = (0..160)
            .map(|_| {
                state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                (state >> 56) as u8
            })
            .collect();
        mirror::mirror(&input);
    }
}

#[test]
fn every_forged_word_of_a_header_is_survived() {
    let values = [0, 1, 7, 9, u64::from(u32::MAX), 1 << 48, u64::MAX - 7, u64::MAX];
    for kind in 0..4_u8 {
        for reseal in [0, 1 << 2] {
            for word in 0..64_u32 {
                for value in values {
                    let mut input = vec![kind | reseal];
                    input.extend(word.to_le_bytes());
                    input.extend(value.to_le_bytes());
                    exercise::files(&input);
                }
            }
        }
    }
}

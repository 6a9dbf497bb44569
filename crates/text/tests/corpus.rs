//! Replays the fuzzing corpus.

mod common;

use std::fs;
use std::path::Path;

use common::{APIS, check, scanner};

#[test]
fn every_entry() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/scan");
    let mut scanner = scanner();
    let (mut entries, mut accepted) = (0, 0);
    for entry in fs::read_dir(corpus).expect("the corpus is part of the crate") {
        let body = fs::read(entry.expect("readable").path()).expect("readable");
        for api in APIS {
            for seed in 0..20 {
                accepted += u32::from(check(&mut scanner, api, &body, seed));
            }
        }
        entries += 1;
    }
    assert!(entries >= 50 && accepted >= 500, "{entries} entries, {accepted} accepted");
}

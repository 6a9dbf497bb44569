//! Models that loom runs through every interleaving and every permitted reordering, on the production
//! code of documents, rows and claims.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p inlane-segment --lib --release models`. Preemptions
//! are bounded, which loom's authors found to lose next to nothing at three.

use loom::thread;

use crate::document::{DocumentRegion, Reading};
use crate::ledger::ClaimWords;
use crate::ledger::{ClaimError, Observed};
use crate::row::RowRegion;
use crate::slot::SlotGeneration;
use crate::testing::{LoomWords, Mortal};

const PREEMPTIONS: usize = 3;

fn model(body: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.check(body);
}

fn document() -> (LoomWords, DocumentRegion) {
    (LoomWords::new(DocumentRegion::words(8)), DocumentRegion::new(0, 8))
}

/// Reads and returns the generation, 0 for none, having checked that the bytes belong to it.
fn read_document(words: &LoomWords, region: DocumentRegion) -> Option<u64> {
    match region.read(words) {
        Reading::Whole { generation, bytes } => {
            assert_eq!(bytes, [generation as u8]);
            Some(generation)
        }
        Reading::Absent => Some(0),
        Reading::Unstable => None,
        Reading::Damaged => panic!("a reader saw a half-written document"),
    }
}

#[test]
fn a_document_is_read_whole_or_not_at_all() {
    model(|| {
        let (words, region) = document();
        let writer = thread::spawn({
            let words = words.clone();
            move || {
                for generation in 1..=2_u8 {
                    assert_eq!(region.publish(&words, &[generation]), Some(generation.into()));
                }
            }
        });
        let first = read_document(&words, region);
        let second = read_document(&words, region);
        if let (Some(first), Some(second)) = (first, second) {
            assert!(first <= second);
        }
        writer.join().unwrap();
        assert_eq!(read_document(&words, region), Some(2));
    });
}

#[test]
fn a_document_survives_its_writer_after_any_store() {
    // A publication of one byte is five stores.
    for stores in 5..10 {
        model(move || {
            let (words, region) = document();
            let writers = thread::spawn({
                let words = words.clone();
                move || {
                    let mortal = Mortal::new(words.clone(), stores);
                    region.publish(&mortal, &[1]);
                    region.publish(&mortal, &[2]);
                    assert!(mortal.is_dead());
                    assert_eq!(region.publish(&words, &[2]), Some(2));
                    assert_eq!(region.publish(&words, &[3]), Some(3));
                }
            });
            read_document(&words, region);
            writers.join().unwrap();
            assert_eq!(read_document(&words, region), Some(3));
        });
    }
}

fn rows() -> (LoomWords, RowRegion) {
    (LoomWords::new(1 + RowRegion::words(1, 8)), RowRegion::new(0, 1, 1, 8))
}

fn read_row(words: &LoomWords, region: RowRegion) -> Option<u64> {
    let mut row = [0; 2];
    let whole = region.read(words, 0, &mut row);
    assert!(!whole || row[0] == row[1], "a reader saw a half-written row: {row:?}");
    whole.then_some(row[0])
}

#[test]
fn a_row_is_read_whole_or_not_at_all() {
    model(|| {
        let (words, region) = rows();
        let writer = thread::spawn({
            let words = words.clone();
            move || {
                for count in 1..=3 {
                    assert!(region.publish(&words, 0, &[count; 2]));
                }
            }
        });
        let first = read_row(&words, region);
        let second = read_row(&words, region);
        if let (Some(first), Some(second)) = (first, second) {
            assert!(first <= second);
        }
        writer.join().unwrap();
        assert_eq!(read_row(&words, region), Some(3));
    });
}

#[test]
fn a_row_survives_its_writer_after_any_store() {
    // A publication is eight words and the flip.
    for stores in 9..18 {
        model(move || {
            let (words, region) = rows();
            let writers = thread::spawn({
                let words = words.clone();
                move || {
                    let mortal = Mortal::new(words.clone(), stores);
                    region.publish(&mortal, 0, &[1; 2]);
                    region.publish(&mortal, 0, &[2; 2]);
                    assert!(mortal.is_dead());
                    assert!(region.publish(&words, 0, &[3; 2]));
                    assert!(region.publish(&words, 0, &[4; 2]));
                }
            });
            read_row(&words, region);
            writers.join().unwrap();
            assert_eq!(read_row(&words, region), Some(4));
        });
    }
}

fn claims() -> ClaimWords<LoomWords> {
    let claims = ClaimWords::new(LoomWords::new(ClaimWords::<()>::words(1)), 0, 1);
    claims.adopt(0, generation(1)).unwrap();
    claims
}

fn generation(number: u16) -> SlotGeneration {
    SlotGeneration::new(number).unwrap()
}

#[test]
fn of_two_claims_on_one_word_one_wins() {
    model(|| {
        let claims = claims();
        let observed = claims.observe(0);
        let worker = {
            let claims = claims.clone();
            move || claims.try_claim(0, generation(1), observed, 5)
        };
        let other = thread::spawn(worker.clone());
        let (mine, theirs) = (worker(), other.join().unwrap());
        let (winner, loser) = match (mine, theirs) {
            (Ok(claim), Err(e)) | (Err(e), Ok(claim)) => (claim, e),
            both => panic!("{both:?}"),
        };
        let held = Observed::pack(generation(1), 1, 5);
        assert_eq!(loser, ClaimError::Conflict(held));
        assert_eq!(claims.observe(0), held);
        assert!(claims.release(&winner));
        assert_eq!(claims.observe(0), Observed::pack(generation(1), 0, 0));
        assert_eq!(claims.counters().conflicts, 1);
    });
}

#[test]
fn claims_and_releases_add_up() {
    model(|| {
        let claims = claims();
        let worker = {
            let claims = claims.clone();
            move || {
                let mut claim = claims.claim_any(0, generation(1), 3).unwrap();
                assert!(claims.release_tokens(&mut claim));
                assert!(claims.release(&claim));
            }
        };
        let other = thread::spawn(worker.clone());
        worker();
        other.join().unwrap();
        assert_eq!(claims.observe(0), Observed::pack(generation(1), 0, 0));
        assert_eq!((claims.counters().taken, claims.counters().released), (2, 2));
    });
}

#[test]
fn a_slot_is_adopted_or_claimed() {
    model(|| {
        let claims = claims();
        let other = thread::spawn({
            let claims = claims.clone();
            move || claims.adopt(0, generation(2))
        });
        let claim = claims.claim_any(0, generation(1), 3);
        let adopted = other.join().unwrap();
        match (claim, adopted) {
            (Ok(claim), Err(ClaimError::Stale(_))) => assert!(claims.release(&claim)),
            (Err(ClaimError::Stale(_)), Ok(())) => {}
            both => panic!("{both:?}"),
        }
        assert_eq!(claims.observe(0).requests(), 0);
        assert_eq!(claims.counters().stale_releases, 0);
    });
}

//! Models that loom runs through every interleaving and every permitted reordering: workers of one
//! process on one claim word, and the control plane that reads it, on the production code.
//!
//! Exhaustive, without a bound on preemptions. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p inlane-segment --lib --release ledger::models`.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::claims::{Claim, ClaimError, ClaimWords};
use super::file::{self, LedgerWords};
use super::word::Observed;
use crate::slot::SlotGeneration;
use crate::testing::{LoomWords, explore};

type Claims = ClaimWords<LoomWords>;

/// Claims on one slot, in its first assignment.
fn claims() -> Claims {
    let claims = Claims::new(LoomWords::new(ClaimWords::<()>::words(1)), 0, 1);
    claims.adopt(0, generation(1)).unwrap();
    claims
}

fn generation(number: u16) -> SlotGeneration {
    SlotGeneration::new(number).unwrap()
}

/// The word of the slot in its first assignment.
fn held(requests: u32, tokens: u32) -> Observed {
    Observed::pack(generation(1), requests, tokens)
}

type Outcome = Result<Claim, ClaimError>;

/// A worker that scored `observed` and picked the slot.
fn claim(claims: &Claims, observed: Observed, tokens: u32) -> impl FnOnce() -> Outcome + use<> {
    let claims = claims.clone();
    move || claims.try_claim(0, generation(1), observed, tokens)
}

#[test]
fn of_two_claims_on_one_word_one_wins() {
    let winners = explore(None, 4, || {
        let claims = claims();
        let observed = claims.observe(0);
        let other = thread::spawn(claim(&claims, observed, 5));
        let mine = claim(&claims, observed, 5)();
        let i_won = mine.is_ok();
        let (winner, loser) = match (mine, other.join().unwrap()) {
            (Ok(claim), Err(e)) | (Err(e), Ok(claim)) => (claim, e),
            both => panic!("{both:?}"),
        };
        assert_eq!(loser, ClaimError::Conflict(held(1, 5)));
        assert_eq!(claims.observe(0), held(1, 5));
        assert!(claims.release(&winner));
        assert_eq!(claims.observe(0), held(0, 0));
        let counters = claims.counters();
        assert_eq!((counters.taken, counters.released, counters.conflicts), (1, 1, 1));
        i_won
    });
    assert_eq!(winners, BTreeSet::from([false, true]));
}

/// Either claim may win, or the release comes first and both conflict; never do both win.
#[test]
fn claims_on_one_word_beside_a_release_add_up() {
    let winners = explore(None, 10, || {
        let claims = claims();
        let before = claims.claim_any(0, generation(1), 3).unwrap();
        let observed = claims.observe(0);
        let workers = [5, 7].map(|tokens| thread::spawn(claim(&claims, observed, tokens)));
        assert!(claims.release(&before));
        let outcomes = workers.map(|worker| worker.join().unwrap());
        let won: Vec<&Claim> = outcomes.iter().flatten().collect();
        let tokens = won.iter().map(|claim| claim.tokens()).sum();
        assert_eq!(claims.observe(0), held(won.len() as u32, tokens));
        let counters = claims.counters();
        assert_eq!((counters.taken, counters.released), (1 + won.len() as u64, 1));
        assert_eq!(counters.conflicts, 2 - won.len() as u64);
        tokens
    });
    assert_eq!(winners, BTreeSet::from([0, 5, 7]));
}

#[test]
fn claims_and_releases_add_up() {
    explore(None, 100, || {
        let claims = claims();
        // So that whatever is given back twice is missing in the end.
        let _stays = claims.claim_any(0, generation(1), 9).unwrap();
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
        assert_eq!(claims.observe(0), held(1, 9));
        assert_eq!((claims.counters().taken, claims.counters().released), (3, 2));
    });
}

#[test]
fn a_slot_is_adopted_or_claimed() {
    let claimed = explore(None, 4, || {
        let claims = claims();
        let other = thread::spawn({
            let claims = claims.clone();
            move || claims.adopt(0, generation(2))
        });
        let claim = claims.claim_any(0, generation(1), 3);
        let claimed = match (claim, other.join().unwrap()) {
            (Ok(claim), Err(ClaimError::Stale(_))) => claims.release(&claim),
            (Err(ClaimError::Stale(_)), Ok(())) => false,
            both => panic!("{both:?}"),
        };
        assert_eq!(claims.observe(0).requests(), 0);
        assert_eq!(claims.counters().stale_releases, 0);
        claimed
    });
    assert_eq!(claimed, BTreeSet::from([false, true]));
}

/// Whoever finds a slot idle also sees what its holder did before it let go.
#[test]
fn a_release_comes_after_what_was_done_under_the_claim() {
    let seen = explore(None, 4, || {
        let claims = claims();
        let held = claims.claim_any(0, generation(1), 3).unwrap();
        let work = Arc::new(AtomicU64::new(0));
        let control = thread::spawn({
            let (claims, work) = (claims.clone(), Arc::clone(&work));
            move || (claims.observe(0).requests(), work.load(Relaxed))
        });
        work.store(1, Relaxed);
        assert!(claims.release(&held));
        control.join().unwrap()
    });
    assert_eq!(seen, BTreeSet::from([(1, 0), (1, 1), (0, 1)]));
}

/// A claim on a word that has become what it was also sees what the holder in between did.
#[test]
fn a_claim_comes_after_the_release_that_restored_its_word() {
    let seen = explore(None, 4, || {
        let claims = claims();
        let observed = claims.observe(0);
        let held = claims.claim_any(0, generation(1), 3).unwrap();
        let work = Arc::new(AtomicU64::new(0));
        let worker = thread::spawn({
            let (claim, work) = (claim(&claims, observed, 5), Arc::clone(&work));
            move || (claim().is_ok(), work.load(Relaxed))
        });
        work.store(1, Relaxed);
        assert!(claims.release(&held));
        worker.join().unwrap()
    });
    assert_eq!(seen, BTreeSet::from([(false, 0), (false, 1), (true, 1)]));
}

/// Whoever claims in an assignment also sees what was made known before it was adopted, whether it
/// read the word itself or was told it by a conflict.
#[test]
fn a_claim_comes_after_what_was_done_before_the_adoption() {
    let seen = explore(None, 4, || {
        let claims = claims();
        let observed = claims.observe(0);
        let known = Arc::new(AtomicU64::new(0));
        let worker = thread::spawn({
            let (claims, known) = (claims.clone(), Arc::clone(&known));
            move || match claims.try_claim(0, generation(1), observed, 3) {
                Ok(claim) => (claims.release(&claim), known.load(Relaxed)),
                Err(ClaimError::Conflict(now)) => {
                    assert_eq!(now.generation(), generation(2));
                    (false, known.load(Relaxed))
                }
                other => panic!("{other:?}"),
            }
        });
        known.store(1, Relaxed);
        let _ = claims.adopt(0, generation(2));
        worker.join().unwrap()
    });
    assert_eq!(seen, BTreeSet::from([(true, 0), (true, 1), (false, 1)]));
}

/// Step 3 of giving a slot back: a control plane that sees the topology accepted sees every claim
/// that was made on an endpoint it no longer has.
#[test]
fn an_accepted_topology_comes_after_the_claims_before_it() {
    let seen = explore(None, 4, || {
        let ledger = LedgerWords::over(LoomWords::new(file::len(1)), 1);
        ledger.claims.adopt(0, generation(1)).unwrap();
        let control = thread::spawn({
            let ledger = ledger.clone();
            move || (ledger.accepted_topology(), ledger.claims.observe(0).requests())
        });
        let _held = ledger.claims.claim_any(0, generation(1), 3).unwrap();
        ledger.accept_topology(2);
        control.join().unwrap()
    });
    assert_eq!(seen, BTreeSet::from([(0, 0), (0, 1), (2, 1)]));
}

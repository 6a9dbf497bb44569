//! Ledgers as their owner, other processes and the kernel see them.

#![allow(clippy::unwrap_used)] // Helpers of tests fail by panicking too.

mod support;

use std::fs;

use inlane_segment::{
    ClaimError, Ledger, LedgerSet, Load, Origin, SlotGeneration, SlotState, Writer,
};
use support::{directory, open, small};

fn generation(number: u16) -> SlotGeneration {
    SlotGeneration::new(number).unwrap()
}

#[test]
fn a_claim_is_made_against_the_word_that_was_scored() {
    let dir = directory();
    let ledger = Ledger::create(dir.path(), 4).unwrap();
    let one = generation(1);
    let before = ledger.observe(2);
    assert_eq!(ledger.try_claim(2, one, before, 1), Err(ClaimError::Stale(before)), "not adopted");
    ledger.adopt(2, one).unwrap();

    let observed = ledger.observe(2);
    let mut claim = ledger.try_claim(2, one, observed, 100).unwrap();
    let now = ledger.observe(2);
    assert_eq!((now.generation(), now.requests(), now.tokens()), (one, 1, 100));
    assert_eq!(ledger.try_claim(2, one, observed, 5), Err(ClaimError::Conflict(now)));
    let second = ledger.try_claim(2, one, now, 5).unwrap();

    assert!(ledger.release_tokens(&mut claim));
    assert_eq!((ledger.observe(2).requests(), ledger.observe(2).tokens()), (2, 5));
    assert_eq!(claim.tokens(), 0);
    assert!(ledger.release(claim));
    assert!(ledger.release(second));
    assert_eq!((ledger.observe(2).requests(), ledger.observe(2).tokens()), (0, 0));
    let counters = ledger.counters();
    assert_eq!((counters.taken, counters.released), (2, 2));
    assert_eq!((counters.conflicts, counters.stale_releases), (1, 0));
}

#[test]
fn a_full_word_refuses_and_stays() {
    let dir = directory();
    let ledger = Ledger::create(dir.path(), 1).unwrap();
    let one = generation(1);
    ledger.adopt(0, one).unwrap();
    let claim = ledger.claim_any(0, one, u32::MAX).unwrap();
    let full = ledger.observe(0);
    assert_eq!(ledger.claim_any(0, one, 1), Err(ClaimError::Saturated(full)));
    assert_eq!(ledger.observe(0), full);
    let empty = ledger.claim_any(0, one, 0).unwrap();
    assert!(ledger.release(claim) && ledger.release(empty));
    assert_eq!(ledger.claim_any(1, one, 0), Err(ClaimError::OutOfRange));
}

#[test]
fn a_slot_changes_hands_only_when_it_is_empty() {
    let dir = directory();
    let ledger = Ledger::create(dir.path(), 2).unwrap();
    ledger.adopt(0, generation(1)).unwrap();
    let claim = ledger.claim_any(0, generation(1), 7).unwrap();
    let held = ledger.observe(0);
    assert_eq!(ledger.adopt(0, generation(2)), Err(ClaimError::Stale(held)));
    assert_eq!(ledger.adopt(0, generation(1)), Ok(()));
    assert!(ledger.release(claim));
    ledger.adopt(0, generation(2)).unwrap();
    assert_eq!(ledger.claim_any(0, generation(1), 0), Err(ClaimError::Stale(ledger.observe(0))));
    assert_eq!(ledger.adopt(2, generation(1)), Err(ClaimError::OutOfRange));
}

#[test]
fn a_claim_moves_or_stays_whole() {
    let dir = directory();
    let ledger = Ledger::create(dir.path(), 2).unwrap();
    ledger.adopt(0, generation(1)).unwrap();
    let claim = ledger.claim_any(0, generation(1), 9).unwrap();
    let (claim, error) = ledger.move_claim(claim, 1, generation(1), 9).unwrap_err();
    assert!(matches!(error, ClaimError::Stale(_)));
    assert_eq!(ledger.observe(0).requests(), 1);

    ledger.adopt(1, generation(3)).unwrap();
    let moved = ledger.move_claim(claim, 1, generation(3), 4).unwrap();
    assert_eq!((moved.slot(), moved.generation(), moved.tokens()), (1, generation(3), 4));
    assert_eq!(ledger.observe(0).requests(), 0);
    assert!(ledger.release(moved));
}

#[test]
fn all_workers_count() {
    let dir = directory();
    let ledger = Ledger::create(dir.path(), 1).unwrap();
    let one = generation(1);
    ledger.adopt(0, one).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    let mut observed = ledger.observe(0);
                    let mut claim = loop {
                        match ledger.try_claim(0, one, observed, 3) {
                            Ok(claim) => break claim,
                            Err(ClaimError::Conflict(now)) => observed = now,
                            Err(e) => panic!("{e}"),
                        }
                    };
                    ledger.release_tokens(&mut claim);
                    assert!(ledger.release(claim));
                }
            });
        }
    });
    assert_eq!((ledger.observe(0).requests(), ledger.observe(0).tokens()), (0, 0));
    assert_eq!(ledger.counters().taken, 20_000);
    assert_eq!(ledger.counters().released, 20_000);
}

#[test]
fn others_see_a_ledger_while_it_lives() {
    let dir = directory();
    let one = generation(1);
    let (a, b) = (Ledger::create(dir.path(), 4).unwrap(), Ledger::create(dir.path(), 2).unwrap());
    a.adopt(1, one).unwrap();
    b.adopt(1, one).unwrap();
    let mut set = LedgerSet::open(dir.path()).unwrap();
    assert!(set.is_idle(1));
    let (first, second) = (a.claim_any(1, one, 10).unwrap(), b.claim_any(1, one, 20).unwrap());
    assert_eq!(set.load(1, one), Load { requests: 2, tokens: 30 });
    assert_eq!(set.load(1, generation(2)), Load::default());
    assert!(!set.is_idle(1) && set.is_idle(0) && set.is_idle(3));

    a.accept_topology(7);
    assert_eq!(set.accepted_topology(), Some(0));
    b.accept_topology(9);
    assert_eq!(set.accepted_topology(), Some(7));

    assert!(a.release(first));
    drop(b);
    set.refresh().unwrap();
    assert_eq!(set.iter().count(), 1);
    assert!(set.is_idle(1), "a dead process holds nothing: {second:?}");
    drop(a);
    set.refresh().unwrap();
    assert_eq!(set.accepted_topology(), None);
}

#[test]
fn the_file_of_a_dead_process_is_removed() {
    let dir = directory();
    let ledger = Ledger::create(dir.path(), 2).unwrap();
    ledger.adopt(0, generation(1)).unwrap();
    let _held = ledger.claim_any(0, generation(1), 1).unwrap();
    // What a killed process leaves: the bytes, and no lock.
    let left = dir.path().join("ledger-1-00000000000000ff.led");
    fs::copy(dir.path().join(ledger.file_name()), &left).unwrap();

    let set = LedgerSet::open(dir.path()).unwrap();
    assert_eq!(set.iter().map(|(name, _)| name).collect::<Vec<_>>(), [ledger.file_name()]);
    assert_eq!(set.load(0, generation(1)).requests, 1);
    assert!(!left.exists());
}

#[test]
fn what_a_killed_process_was_making_is_removed_later() {
    let dir = directory();
    let (fresh, old) = (dir.path().join("ledger-1-1.new"), dir.path().join("ledger-1-2.new"));
    fs::write(&fresh, b"").unwrap();
    let file = fs::File::create(&old).unwrap();
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(120);
    file.set_modified(long_ago).unwrap();
    LedgerSet::open(dir.path()).unwrap();
    assert!(fresh.exists() && !old.exists());
}

#[test]
fn a_live_ledger_that_cannot_be_read_proves_nothing() {
    let dir = directory();
    let path = dir.path().join("ledger-1-00000000000000aa.led");
    let file = fs::File::create(&path).unwrap();
    file.set_len(16_384).unwrap();
    file.lock().unwrap();
    let mut set = LedgerSet::open(dir.path()).unwrap();
    assert!(!set.is_idle(0));
    assert_eq!(set.accepted_topology(), Some(0));
    let (_, error) = set.unreadable().next().unwrap();
    assert!(error.to_string().contains("magic"), "{error}");
    drop(file);
    set.refresh().unwrap();
    assert!(set.is_idle(0));
    assert!(!path.exists());
}

#[test]
fn a_refused_configuration_is_reported() {
    let dir = directory();
    let ledger = Ledger::create(dir.path(), 1).unwrap();
    let set = LedgerSet::open(dir.path()).unwrap();
    let (_, view) = set.iter().next().unwrap();
    assert_eq!(view.refusal(), None);
    ledger.accept_config(4);
    ledger.refuse_config(5, "unknown plugin \"x\"");
    let refusal = view.refusal().unwrap();
    assert_eq!((refusal.generation, &refusal.reason[..]), (5, "unknown plugin \"x\""));
    assert_eq!(view.accepted_config(), 4);

    ledger.refuse_config(6, &"ü".repeat(5_000));
    let refusal = view.refusal().unwrap();
    assert_eq!(refusal.generation, 6);
    assert_eq!(refusal.reason, "ü".repeat(2_048), "cut between characters");
}

#[test]
fn a_writer_without_its_past_keeps_known_slots_back() {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    let (first, second) = (writer.assign_slot().unwrap(), writer.assign_slot().unwrap());
    let ledger = Ledger::create(dir.path(), 16).unwrap();
    for id in [first, second] {
        ledger.adopt(id.index, id.generation).unwrap();
    }
    let _held = ledger.claim_any(first.index, first.generation, 1).unwrap();
    drop(writer);
    fs::remove_file(dir.path().join("head")).unwrap();

    let (mut writer, opened) = Writer::open_or_create(dir.path(), small()).unwrap();
    assert!(matches!(opened.origin, Origin::Created));
    let known: Vec<_> = writer.slots().take(2).collect();
    assert_eq!(known, [(first, SlotState::Retired), (second, SlotState::Retired)]);
    assert_eq!(writer.assign_slot().unwrap().index, 2);
    writer.free_slot(second);
    let id = writer.assign_slot().unwrap();
    assert_eq!((id.index, id.generation), (second.index, second.generation.next()));
}

//! Models that loom runs through every interleaving and every permitted reordering: the thread that
//! pushes and the one that drains, on the production code.
//!
//! The release of the count of taken records keeps the consumer's loads before the producer's next stores
//! to the same words. Nothing here fails without it: in loom no load meets a store that comes later.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p inlane-segment --lib --release samples::models`.

use std::collections::BTreeSet;

use loom::thread;

use super::ring::{Consumer, Producer, Ring};
use crate::testing::{LoomWords, Mortal, explore};

const CAPACITY: u32 = 2;

fn ring() -> Ring<LoomWords> {
    Ring::new(LoomWords::new(Ring::<()>::words(2, CAPACITY)), 0, 2, CAPACITY)
}

fn drain(consumer: &mut Consumer<LoomWords>) -> Vec<u64> {
    let mut seen = Vec::new();
    let drained = consumer.drain(|record| {
        assert_eq!(record[0], record[1], "half of a record");
        seen.push(record[0]);
    });
    assert!(!drained.damaged);
    seen
}

/// What an execution answers: the records that were accepted, and those that each drain got.
type Answer = (Vec<u64>, Vec<Vec<u64>>);

const RECORDS: u64 = 4;
const DRAINS: usize = 2;

/// A ring of counts and nothing else, in which a load answers with any count that the other side has
/// had since the last load.
#[derive(Clone, Default)]
struct Abstract {
    tried: u64,
    pushed: u64,
    known_taken: u64,
    taken: u64,
    known_pushed: u64,
    answer: Answer,
}

impl Abstract {
    /// Every answer that the protocol allows from here on.
    fn allowed(self, into: &mut BTreeSet<Answer>) {
        let draining = self.taken < self.known_pushed;
        let drains = self.answer.1.len();
        if self.tried == RECORDS && drains == DRAINS && !draining {
            into.insert(self.answer);
            return;
        }
        if self.tried < RECORDS {
            for taken in self.known_taken..=self.taken {
                let mut next = self.clone();
                next.tried += 1;
                next.known_taken = taken;
                if next.pushed - taken < CAPACITY.into() {
                    next.pushed += 1;
                    next.answer.0.push(next.tried);
                }
                next.allowed(into);
            }
        }
        if draining {
            let mut next = self;
            let record = next.answer.0[next.taken as usize];
            next.taken += 1;
            next.answer.1.last_mut().unwrap().push(record);
            next.allowed(into);
        } else if drains < DRAINS {
            for pushed in self.known_pushed..=self.pushed {
                let mut next = self.clone();
                next.known_pushed = pushed;
                next.answer.1.push(Vec::new());
                next.allowed(into);
            }
        }
    }
}

#[test]
fn records_are_whole_and_in_order() {
    let answers = explore(None, 1_000, || {
        let ring = ring();
        let mut producer = Producer::new(ring.clone());
        let reader = thread::spawn({
            let mut consumer = Consumer::new(ring);
            move || ([(); DRAINS].map(|()| drain(&mut consumer)), consumer)
        });
        let accepted: Vec<u64> = (1..=RECORDS).filter(|&n| producer.push(&[n; 2])).collect();
        let (seen, mut consumer) = reader.join().unwrap();
        let rest = drain(&mut consumer);
        let all: Vec<u64> = seen.iter().flatten().chain(&rest).copied().collect();
        assert_eq!(all, accepted, "nothing is lost, doubled or out of order");
        assert_eq!(consumer.dropped() + accepted.len() as u64, RECORDS);
        (accepted, seen.to_vec())
    });
    let mut allowed = BTreeSet::new();
    Abstract::default().allowed(&mut allowed);
    assert_eq!(answers, allowed);
}

/// A producer that dies after any store has pushed what it had counted; the rest of its ring is
/// drained when it is gone.
#[test]
fn records_survive_their_producer_after_any_store() {
    // A record is two words and the count.
    for stores in 0..6 {
        let answers = explore(None, 1, move || {
            let words = LoomWords::new(Ring::<()>::words(2, CAPACITY));
            let reader = thread::spawn({
                let mut consumer = Consumer::new(Ring::new(words.clone(), 0, 2, CAPACITY));
                move || (drain(&mut consumer), consumer)
            });
            let mortal = Mortal::new(words, stores);
            let mut producer = Producer::new(Ring::new(mortal.clone(), 0, 2, CAPACITY));
            for number in 1..=2 {
                producer.push(&[number; 2]);
            }
            assert!(mortal.is_dead());
            let (mut seen, mut consumer) = reader.join().unwrap();
            let early = seen.len();
            seen.extend(drain(&mut consumer));
            assert_eq!(seen, (1..=stores / 3).collect::<Vec<_>>());
            early
        });
        assert_eq!(answers, (0..=stores as usize / 3).collect());
    }
}

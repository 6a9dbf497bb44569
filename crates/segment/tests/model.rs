//! Random operations against literal models: a map of what was published, a list of what was claimed.

#![allow(clippy::unwrap_used)] // Helpers of tests fail by panicking too.

mod support;

use std::collections::{BTreeMap, HashMap};

use inlane_segment::{
    Claim, ClaimError, Document, Ledger, LedgerSet, Load, Observed, Shape, SlotGeneration, SlotId,
    SlotState, SnapshotReader, Writer,
};
use proptest::collection::vec;
use proptest::prelude::*;
use support::{directory, open, small};

const SLOTS: u32 = 16;

#[derive(Clone, Debug)]
enum Publish {
    Assign,
    Document(usize, Vec<u8>),
    Free(u32),
    Grow(u32, u64),
    Restart,
    Retire(u32),
    Row(u32, Vec<u64>),
}

fn publish() -> impl Strategy<Value = Publish> {
    prop_oneof![
        4 => (0..Document::ALL.len(), vec(any::<u8>(), 0..70)).prop_map(|(kind, bytes)| Publish::Document(kind, bytes)),
        8 => (0..SLOTS + 2, vec(any::<u64>(), 0..10)).prop_map(|(slot, row)| Publish::Row(slot, row)),
        3 => Just(Publish::Assign),
        3 => (0..SLOTS).prop_map(Publish::Retire),
        3 => (0..SLOTS).prop_map(Publish::Free),
        1 => (1..SLOTS * 2, 0..128_u64).prop_map(|(slots, bytes)| Publish::Grow(slots, bytes)),
        1 => Just(Publish::Restart),
    ]
}

/// Everything that was published and not replaced.
#[derive(Default)]
struct Published {
    documents: BTreeMap<Document, Vec<u8>>,
    rows: HashMap<u32, [u64; 8]>,
    slots: BTreeMap<u32, (SlotGeneration, SlotState)>,
}

impl Published {
    /// Applies `operation` to the writer and to this model, and compares what they answer.
    fn apply(&mut self, writer: &mut Writer, operation: Publish) {
        let shape = writer.shape();
        match operation {
            Publish::Assign => {
                let free = |slot: &u32| {
                    self.slots.get(slot).is_none_or(|&(_, state)| state == SlotState::Free)
                };
                let lowest = (0..shape.slots).find(free);
                let id = writer.assign_slot();
                assert_eq!(id.map(|id| id.index), lowest);
                if let Some(SlotId { index, generation }) = id {
                    let last = self.slots.get(&index).map_or(SlotGeneration::NONE, |slot| slot.0);
                    assert_eq!(generation, last.next());
                    self.slots.insert(index, (generation, SlotState::Live));
                    self.rows.insert(index, [0; 8]);
                }
            }
            Publish::Document(kind, bytes) => {
                let kind = Document::ALL[kind];
                let fits = bytes.len() as u64 <= shape.documents[kind_index(kind)];
                assert_eq!(writer.publish_document(kind, &bytes).is_ok(), fits);
                if fits {
                    self.documents.insert(kind, bytes);
                }
            }
            Publish::Free(slot) => {
                self.advance(slot, SlotState::Retired, |id| {
                    (writer.free_slot(id), SlotState::Free)
                });
            }
            Publish::Grow(slots, bytes) => {
                let documents = [bytes; Document::ALL.len()];
                writer.grow(Shape { slots, documents, ..small() }).unwrap();
            }
            Publish::Restart => unreachable!("needs the directory"),
            Publish::Retire(slot) => self
                .advance(slot, SlotState::Live, |id| (writer.retire_slot(id), SlotState::Retired)),
            Publish::Row(slot, values) => {
                let fits = slot < shape.slots && values.len() <= 8;
                assert_eq!(writer.publish_row(slot, &values), fits);
                if fits {
                    let mut row = [0; 8];
                    row[..values.len()].copy_from_slice(&values);
                    self.rows.insert(slot, row);
                }
            }
        }
    }

    fn advance(
        &mut self,
        index: u32,
        from: SlotState,
        step: impl FnOnce(SlotId) -> (bool, SlotState),
    ) {
        let (generation, state) =
            self.slots.get(&index).copied().unwrap_or((SlotGeneration::NONE, SlotState::Free));
        let (done, to) = step(SlotId { index, generation });
        assert_eq!(done, state == from);
        if done {
            self.slots.insert(index, (generation, to));
        }
    }

    fn compare(&self, writer: &Writer, reader: &mut SnapshotReader) {
        reader.poll().unwrap();
        let snapshot = reader.snapshot();
        assert_eq!(snapshot.shape(), writer.shape());
        for kind in Document::ALL {
            let bytes = snapshot.document(kind).unwrap().map(|document| document.bytes);
            assert_eq!(bytes.as_ref(), self.documents.get(&kind));
        }
        for slot in 0..snapshot.shape().slots {
            let mut row = [1; 8];
            assert!(snapshot.row(slot, &mut row));
            assert_eq!(row, self.rows.get(&slot).copied().unwrap_or_default());
        }
        let slots = writer.slots().map(|(id, state)| (id.index, (id.generation, state)));
        assert_eq!(slots.collect::<BTreeMap<_, _>>(), self.slots);
    }
}

fn kind_index(kind: Document) -> usize {
    Document::ALL.iter().position(|&other| other == kind).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Book {
    Adopt(u32, u16),
    Claim { slot: u32, generation: u16, tokens: u32, stale: bool },
    Move { claim: usize, slot: u32, tokens: u32 },
    Release(usize),
    ReleaseTokens(usize),
}

fn book() -> impl Strategy<Value = Book> {
    let claim = |(slot, generation, tokens, stale)| Book::Claim { slot, generation, tokens, stale };
    prop_oneof![
        2 => (0..4_u32, 1..4_u16).prop_map(|(slot, generation)| Book::Adopt(slot, generation)),
        6 => (0..4_u32, 0..4_u16, prop_oneof![0..1_000_u32, u32::MAX - 9..u32::MAX], any::<bool>())
            .prop_map(claim),
        2 => (any::<usize>(), 0..4_u32, 0..1_000_u32)
            .prop_map(|(claim, slot, tokens)| Book::Move { claim, slot, tokens }),
        4 => any::<usize>().prop_map(Book::Release),
        2 => any::<usize>().prop_map(Book::ReleaseTokens),
    ]
}

const CAPACITY: u32 = 3;

/// The generation of each slot and all claims held.
#[derive(Default)]
struct Booked {
    generations: [SlotGeneration; CAPACITY as usize],
    claims: Vec<Claim>,
}

impl Booked {
    fn generation(&self, slot: u32) -> SlotGeneration {
        self.generations.get(slot as usize).copied().unwrap_or_default()
    }

    fn load(&self, slot: u32) -> Load {
        let held = self.claims.iter().filter(|claim| claim.slot() == slot);
        held.fold(Load::default(), |sum, claim| Load {
            requests: sum.requests + 1,
            tokens: sum.tokens + u64::from(claim.tokens()),
        })
    }

    /// Why a claim must fail, if it must.
    fn obstacle(&self, slot: u32, generation: SlotGeneration, tokens: u32) -> Option<&'static str> {
        if slot >= CAPACITY {
            Some("range")
        } else if generation == SlotGeneration::NONE || generation != self.generation(slot) {
            Some("stale")
        } else if self.load(slot).tokens + u64::from(tokens) > u32::MAX.into() {
            Some("saturated")
        } else {
            None
        }
    }

    fn apply(&mut self, ledger: &Ledger, operation: Book) {
        let pick =
            |claim: usize, claims: &Vec<Claim>| (!claims.is_empty()).then(|| claim % claims.len());
        match operation {
            Book::Adopt(slot, number) => {
                let generation = SlotGeneration::new(number).unwrap();
                let same = self.generation(slot) == generation;
                let may = slot < CAPACITY && (same || self.load(slot).requests == 0);
                assert_eq!(ledger.adopt(slot, generation).is_ok(), may);
                if may {
                    self.generations[slot as usize] = generation;
                }
            }
            Book::Claim { slot, generation, tokens, stale } => {
                let generation = SlotGeneration::new(generation).unwrap();
                let mut observed = ledger.observe(slot);
                let obstacle = self.obstacle(slot, generation, tokens);
                if stale && obstacle.is_none() {
                    // Another worker claims between the observation and the claim.
                    if let Ok(claim) = ledger.claim_any(slot, generation, 0) {
                        self.claims.push(claim);
                        let refused = ledger.try_claim(slot, generation, observed, tokens);
                        observed = ledger.observe(slot);
                        assert_eq!(refused, Err(ClaimError::Conflict(observed)));
                    }
                }
                match ledger.try_claim(slot, generation, observed, tokens) {
                    Ok(claim) => {
                        assert_eq!(obstacle, None);
                        self.claims.push(claim);
                    }
                    Err(e) => assert_eq!(Some(name(e)), obstacle),
                }
            }
            Book::Move { claim, slot, tokens } => {
                let Some(at) = pick(claim, &self.claims) else { return };
                let generation = self.generation(slot);
                let obstacle = self.obstacle(slot, generation, tokens);
                let old = self.claims.swap_remove(at);
                match ledger.move_claim(old, slot, generation, tokens) {
                    Ok(new) => {
                        assert_eq!(obstacle, None);
                        self.claims.push(new);
                    }
                    Err((old, e)) => {
                        self.claims.push(old);
                        assert_eq!(Some(name(e)), obstacle);
                    }
                }
            }
            Book::Release(claim) => {
                let Some(at) = pick(claim, &self.claims) else { return };
                assert!(ledger.release(self.claims.swap_remove(at)));
            }
            Book::ReleaseTokens(claim) => {
                let Some(at) = pick(claim, &self.claims) else { return };
                assert!(ledger.release_tokens(&mut self.claims[at]));
            }
        }
    }

    fn compare(&self, ledger: &Ledger, set: &LedgerSet) {
        for slot in 0..CAPACITY {
            let (load, observed) = (self.load(slot), ledger.observe(slot));
            assert_eq!(observed.generation(), self.generation(slot));
            assert_eq!(u64::from(observed.requests()), load.requests);
            assert_eq!(u64::from(observed.tokens()), load.tokens);
            assert_eq!(set.load(slot, observed.generation()), load);
            assert_eq!(set.is_idle(slot), load.requests == 0);
        }
        assert_eq!(ledger.observe(CAPACITY), Observed::default());
        assert_eq!(ledger.counters().stale_releases, 0);
    }
}

fn name(error: ClaimError) -> &'static str {
    match error {
        ClaimError::Stale(_) => "stale",
        ClaimError::Saturated(_) => "saturated",
        ClaimError::OutOfRange => "range",
        other => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn readers_and_successors_find_what_was_published(operations in vec(publish(), 1..60)) {
        let dir = directory();
        let (mut writer, _) = open(dir.path());
        let mut reader = SnapshotReader::open(dir.path()).unwrap();
        let mut model = Published::default();
        for operation in operations {
            if matches!(operation, Publish::Restart) {
                let shape = writer.shape();
                drop(writer);
                writer = Writer::open_or_create(dir.path(), shape).unwrap().0;
            } else {
                model.apply(&mut writer, operation);
            }
            model.compare(&writer, &mut reader);
        }
    }

    #[test]
    fn claims_are_counted_exactly(operations in vec(book(), 1..200)) {
        let dir = directory();
        let ledger = Ledger::create(dir.path(), CAPACITY).unwrap();
        let set = LedgerSet::open(dir.path()).unwrap();
        let mut model = Booked::default();
        for operation in operations {
            model.apply(&ledger, operation);
            model.compare(&ledger, &set);
        }
        for claim in model.claims.drain(..) {
            assert!(ledger.release(claim));
        }
        model.compare(&ledger, &set);
        assert_eq!(ledger.counters().taken, ledger.counters().released);
    }
}

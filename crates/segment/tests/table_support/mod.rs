//! What the table's tests share: the deliberately literal model, and memory that can be copied or
//! that fails.
#![allow(dead_code, unreachable_pub)]

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use inlane_segment::table::{TableError, TableReader, TableWriter};
use inlane_segment::words::{HeapWords, Words, WordsMut};

/// Per slot a list of hashes, oldest first. Nothing else, and nothing clever.
#[derive(Clone, Default)]
pub struct Model {
    pub lists: HashMap<u16, Vec<u64>>,
    pub capacities: HashMap<u16, usize>,
    pub default_capacity: usize,
}

impl Model {
    pub fn new(default_capacity: usize) -> Self {
        Self { default_capacity, ..Self::default() }
    }

    pub fn insert_chain(&mut self, slot: u16, hashes: &[u64]) {
        for &hash in hashes {
            let capacity = *self.capacities.entry(slot).or_insert(self.default_capacity);
            let list = self.lists.entry(slot).or_default();
            if let Some(at) = list.iter().position(|&held| held == hash) {
                list.remove(at);
            }
            list.push(hash);
            if list.len() > capacity {
                list.remove(0);
            }
        }
    }

    pub fn remove(&mut self, slot: u16, hash: u64) -> bool {
        let list = self.lists.entry(slot).or_default();
        let before = list.len();
        list.retain(|&held| held != hash);
        list.len() < before
    }

    pub fn clear_slot(&mut self, slot: u16) {
        self.lists.remove(&slot);
        self.capacities.remove(&slot);
    }

    pub fn holds(&self, slot: u16, hash: u64) -> bool {
        self.lists.get(&slot).is_some_and(|list| list.contains(&hash))
    }

    pub fn count_matches(&self, hashes: &[u64], slots: usize) -> (usize, Vec<u32>) {
        let mut out = vec![0; slots];
        for (index, &hash) in hashes.iter().enumerate() {
            let holders: Vec<_> =
                (0..slots).filter(|&slot| self.holds(slot as u16, hash)).collect();
            if holders.is_empty() {
                return (index, out);
            }
            holders.into_iter().for_each(|slot| out[slot] += 1);
        }
        (hashes.len(), out)
    }

    pub fn longest_prefix(&self, hashes: &[u64], slots: usize) -> (usize, Vec<u32>) {
        let prefix = |slot: usize| {
            hashes.iter().take_while(|&&hash| self.holds(slot as u16, hash)).count() as u32
        };
        let out: Vec<_> = (0..slots).map(prefix).collect();
        (out.iter().copied().max().unwrap_or(0) as usize, out)
    }
}

/// Everything the model says, asked of the table.
pub fn assert_same<M: WordsMut>(
    writer: &TableWriter<M>,
    reader: &TableReader<impl Words>,
    model: &Model,
    chains: &[Vec<u64>],
    context: &str,
) {
    let slots = reader.slots();
    let mut total = 0;
    for slot in 0..slots as u16 {
        let held: Vec<_> = writer.iter(slot).collect();
        let expected = model.lists.get(&slot).map_or(&[][..], Vec::as_slice);
        assert_eq!(held, expected, "{context}: recency order of slot {slot}");
        assert_eq!(writer.len(slot), expected.len(), "{context}: length of slot {slot}");
        total += expected.len();
    }
    assert_eq!(writer.total(), total as u64, "{context}: total");
    assert_eq!(reader.total(), total as u64, "{context}: total as read");
    for chain in chains {
        let mut out = vec![0; slots];
        let matched = reader.count_matches(chain, &mut out);
        assert_eq!((matched, out), model.count_matches(chain, slots), "{context}: count_matches");
        let mut out = vec![0; slots];
        let longest = reader.longest_prefix_exact(chain, &mut out);
        assert_eq!((longest, out), model.longest_prefix(chain, slots), "{context}: longest_prefix");
    }
}

/// An independent copy of the words.
pub fn copy(words: &impl Words) -> HeapWords {
    let copy = HeapWords::new(words.len());
    for at in 0..words.len() {
        copy.store(at, words.load(at, Relaxed), Relaxed);
    }
    copy
}

/// Memory that stops its writer (by a panic) before the store after the `limit`-th.
#[derive(Clone)]
pub struct Mortal {
    pub words: HeapWords,
    pub left: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

/// What [`Mortal`] panics with.
pub struct Stopped;

impl Mortal {
    pub fn new(words: HeapWords, limit: usize) -> Self {
        Self { words, left: std::sync::Arc::new(limit.into()) }
    }
}

impl Words for Mortal {
    fn len(&self) -> usize {
        self.words.len()
    }

    fn load(&self, at: usize, order: Ordering) -> u64 {
        self.words.load(at, order)
    }

    fn fence(&self, order: Ordering) {
        self.words.fence(order);
    }
}

impl WordsMut for Mortal {
    fn store(&self, at: usize, value: u64, order: Ordering) {
        let left = self.left.load(Relaxed);
        if left == 0 {
            resume_unwind(Box::new(Stopped));
        }
        self.left.store(left - 1, Relaxed);
        self.words.store(at, value, order);
    }

    fn compare_exchange(
        &self,
        _: usize,
        _: u64,
        _: u64,
        _: Ordering,
        _: Ordering,
    ) -> Result<u64, u64> {
        unreachable!("the table has one writer: it only loads and stores")
    }

    fn fetch_add(&self, _: usize, _: u64, _: Ordering) -> u64 {
        unreachable!("the table has one writer: it only loads and stores")
    }
}

/// SplitMix64: a seeded stream that is the same everywhere.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Uniform in `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

/// The hash of block `index` of a prompt; prompts of one family share their first `shared` blocks.
pub fn block(family: u64, prompt: u64, shared: usize, index: usize) -> u64 {
    let prompt = if index < shared { 0 } else { prompt + 1 };
    Rng(family << 40 ^ prompt << 20 ^ index as u64).next()
}

/// Flips bits and replaces words behind the header.
pub fn damage(words: &HeapWords, rng: &mut Rng, hits: usize) {
    for _ in 0..hits {
        let at = 16 + rng.below(words.len() - 16);
        let flip = if rng.below(2) == 0 { 1 << rng.below(64) } else { rng.next() };
        words.store(at, words.load(at, Relaxed) ^ flip, Relaxed);
    }
}

/// Runs something that memory may stop: nothing if it did.
pub fn unless_stopped<T>(run: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => Some(done),
        Err(payload) if payload.is::<Stopped>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

/// Lets a creator die after each of its stores: what it leaves is no table, before it is done.
pub fn creator_dies(
    needed: usize,
    create: impl Fn(Mortal) -> Result<(), TableError>,
    open: impl Fn(HeapWords) -> Result<(), TableError>,
) {
    for stores in 0.. {
        let mortal = Mortal::new(HeapWords::new(needed), stores);
        let words = mortal.words.clone();
        if let Some(created) = unless_stopped(|| create(mortal)) {
            created.unwrap();
            assert!(open(words).is_ok());
            return;
        }
        assert!(matches!(open(words), Err(TableError::Magic { .. })));
    }
}

/// Lets a writer die after each of the stores of one step. `left` gets the words and how many of the
/// stores were made, `done` what there is after all of them.
pub fn writer_dies<W>(
    words: &HeapWords,
    recover: impl Fn(Mortal) -> Result<W, TableError>,
    step: impl Fn(&mut W),
    mut left: impl FnMut(HeapWords, usize),
    done: impl FnOnce(W, HeapWords),
) {
    for stores in 0.. {
        // The writer is made before the stores are counted, so that it dies in the step.
        let mortal = Mortal::new(copy(words), usize::MAX);
        let mut doomed = recover(mortal.clone()).unwrap();
        mortal.left.store(stores, Relaxed);
        match unless_stopped(|| step(&mut doomed)) {
            None => left(mortal.words, stores),
            Some(()) => return done(doomed, mortal.words),
        }
    }
}

/// Lets a successor die after each of its stores. `left` gets the words and how many were made.
pub fn successor_dies<W>(
    words: &HeapWords,
    recover: impl Fn(Mortal) -> Result<W, TableError>,
    mut left: impl FnMut(HeapWords, usize),
) {
    for stores in 0.. {
        let mortal = Mortal::new(copy(words), stores);
        let words = mortal.words.clone();
        if let Some(recovered) = unless_stopped(|| recover(mortal).map(drop)) {
            return recovered.unwrap();
        }
        left(words, stores);
    }
}

/// Chains whose blocks name their possible holders: the slots that leave the same remainder. A reader
/// can tell a wrong holder without knowing what the writer is doing.
pub mod kinds {
    use super::{AtomicBool, AtomicU64, Duration, Instant, Relaxed, Rng};

    /// Slots, chains, and for how long [`stress`] writes.
    pub const SLOTS: usize = 640;
    pub const CHAINS: u64 = 40;
    const LONG: Duration = Duration::from_secs(1);
    /// So many slots, each [`KINDS`] after the other, hold chain 0 all the time.
    pub const STEADY: u64 = 10;

    /// Remainders.
    pub const KINDS: u64 = 8;
    /// Blocks of a chain.
    pub const LENGTH: u64 = 24;

    pub fn key(chain: u64, index: u64) -> u64 {
        Rng(chain << 8 | index).next() / KINDS * KINDS + chain % KINDS
    }

    pub fn chain(number: u64) -> Vec<u64> {
        (0..LENGTH).map(|index| key(number, index)).collect()
    }

    /// A lookup of a chain: counts blocks per slot, and returns the longest.
    pub type Lookup<R> = fn(&R, &[u64], &mut [u32]) -> usize;

    /// Writes for a while beside two readers that check every answer. Returns of how many lookups of
    /// chain 0 how many did not find all of the steady slots.
    pub fn stress<R: Clone + Send>(
        reader: &R,
        lookups: [Lookup<R>; 2],
        mut write: impl FnMut(&mut Rng),
    ) -> (u64, u64) {
        let (done, asked, short) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for seed in 0..2 {
                let (reader, done, asked, short) = (reader.clone(), &done, &asked, &short);
                scope.spawn(move || {
                    let mut rng = Rng(seed);
                    let mut out = vec![0_u32; SLOTS];
                    while !done.load(Relaxed) {
                        let number = rng.below(CHAINS as usize) as u64;
                        for lookup in lookups {
                            out.fill(0);
                            let found = lookup(&reader, &chain(number), &mut out);
                            for (slot, &count) in out.iter().enumerate() {
                                let right = slot as u64 % KINDS == number % KINDS;
                                assert!(right || count == 0, "slot {slot} in chain {number}");
                                assert!(count as usize <= found, "{count} of {found}");
                            }
                            let steady = |slot| out[(slot * KINDS) as usize] == LENGTH as u32;
                            if number == 0 {
                                asked.fetch_add(1, Relaxed);
                                short.fetch_add(u64::from(!(0..STEADY).all(steady)), Relaxed);
                            }
                        }
                    }
                });
            }
            let (start, mut rng) = (Instant::now(), Rng(99));
            while start.elapsed() < LONG {
                (0..50).for_each(|_| write(&mut rng));
            }
            done.store(true, Relaxed);
        });
        let (asked, short) = (asked.into_inner(), short.into_inner());
        println!("{short} of {asked} lookups short");
        (asked, short)
    }
}

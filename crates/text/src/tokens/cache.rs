//! Pieces of text and their tokens, kept while there is room.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_128_with_seed;

/// What an entry takes beside its tokens: its slot in the list, its place in the map at the map's
/// usual load, the counters of the shared slice and what the allocator adds.
const ENTRY_BYTES: usize = 144;

/// No entry.
const NIL: u32 = u32::MAX;

/// The tokens of pieces of text, shared by all models and all threads of a pool.
///
/// A key is 128 bits of a hash seeded anew in each process (so that no client can prepare two
/// texts with one key) over the piece and its tokenizer's identity. The oldest entries leave when
/// the budget is spent. One mutex, held for a few map operations per prompt: threads of a
/// tokenizer pool take it, an Envoy worker never does.
#[derive(Debug)]
pub struct TokenCache {
    seed: u64,
    budget: usize,
    lru: Mutex<Lru>,
    evictions: AtomicU64,
}

/// Names a piece of text under one tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(pub(super) u128);

#[derive(Debug, Default)]
struct Lru {
    map: HashMap<u128, u32, BuildHasherDefault<Identity>>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Most and least recently used.
    head: u32,
    tail: u32,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    key: u128,
    tokens: Arc<[u32]>,
    newer: u32,
    older: u32,
}

impl TokenCache {
    /// An empty cache that holds at most `budget` bytes, its own bookkeeping included. A budget of
    /// 0 caches nothing.
    pub fn new(budget: usize) -> Self {
        Self::seeded(budget, RandomState::new().hash_one(0_u8))
    }

    pub(super) fn seeded(budget: usize, seed: u64) -> Self {
        let lru = Lru { head: NIL, tail: NIL, ..Lru::default() };
        Self { seed, budget, lru: Mutex::new(lru), evictions: AtomicU64::new(0) }
    }

    /// Bytes that it may hold.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// Number of pieces.
    pub fn len(&self) -> usize {
        self.lock().map.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pieces that had to leave so far.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    pub(super) fn key(&self, tokenizer: u64, piece: &str) -> Key {
        Key(xxh3_128_with_seed(piece.as_bytes(), self.seed ^ tokenizer))
    }

    /// The tokens of each key, `None` for those not held.
    pub(super) fn get(&self, keys: &[Key], out: &mut Vec<Option<Arc<[u32]>>>) {
        let mut lru = self.lock();
        out.extend(keys.iter().map(|key| lru.get(key.0)));
    }

    /// Keeps the tokens of these pieces.
    pub(super) fn put(&self, pieces: Vec<(Key, Arc<[u32]>)>) {
        if pieces.is_empty() {
            return;
        }
        let mut lru = self.lock();
        for (key, tokens) in pieces {
            // One piece that fills the cache would only empty it.
            if size(&tokens) <= self.budget / 4 {
                lru.insert(key.0, tokens);
            }
        }
        let mut evicted = 0;
        while lru.bytes > self.budget && lru.remove_oldest() {
            evicted += 1;
        }
        drop(lru);
        self.evictions.fetch_add(evicted, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Lru> {
        // Each operation leaves the list whole unless an allocation fails, which aborts.
        self.lru.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn size(tokens: &[u32]) -> usize {
    size_of_val(tokens) + ENTRY_BYTES
}

impl Lru {
    fn get(&mut self, key: u128) -> Option<Arc<[u32]>> {
        let at = *self.map.get(&key)?;
        if self.head != at {
            self.unlink(at);
            self.link(at);
        }
        Some(Arc::clone(&self.entries[at as usize].tokens))
    }

    fn insert(&mut self, key: u128, tokens: Arc<[u32]>) {
        if self.map.contains_key(&key) {
            return;
        }
        self.bytes += size(&tokens);
        let entry = Entry { key, tokens, newer: NIL, older: NIL };
        let at = match self.free.pop() {
            Some(at) => {
                self.entries[at as usize] = entry;
                at
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        };
        self.map.insert(key, at);
        self.link(at);
    }

    fn remove_oldest(&mut self) -> bool {
        let at = self.tail;
        if at == NIL {
            return false;
        }
        self.unlink(at);
        let entry = &mut self.entries[at as usize];
        self.bytes -= size(&entry.tokens);
        entry.tokens = Arc::default();
        self.map.remove(&entry.key);
        self.free.push(at);
        true
    }

    fn link(&mut self, at: u32) {
        let head = std::mem::replace(&mut self.head, at);
        let entry = &mut self.entries[at as usize];
        (entry.newer, entry.older) = (NIL, head);
        match self.entries.get_mut(head as usize) {
            Some(old) => old.newer = at,
            None => self.tail = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Entry { newer, older, .. } = self.entries[at as usize];
        match self.entries.get_mut(newer as usize) {
            Some(entry) => entry.older = older,
            None => self.head = older,
        }
        match self.entries.get_mut(older as usize) {
            Some(entry) => entry.newer = newer,
            None => self.tail = newer,
        }
    }
}

/// Keys are hashes already.
#[derive(Debug, Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &TokenCache, piece: &str, tokens: &[u32]) {
        cache.put(vec![(cache.key(1, piece), tokens.into())]);
    }

    fn get(cache: &TokenCache, piece: &str) -> Option<Vec<u32>> {
        let mut out = Vec::new();
        cache.get(&[cache.key(1, piece)], &mut out);
        out.pop().flatten().map(|tokens| tokens.to_vec())
    }

    #[test]
    fn what_was_put_is_found_under_its_tokenizer_only() {
        let cache = TokenCache::seeded(1 << 20, 7);
        put(&cache, "hello", &[1, 2]);
        assert_eq!(get(&cache, "hello"), Some(vec![1, 2]));
        assert_eq!(get(&cache, "hell"), None);
        let mut out = Vec::new();
        cache.get(&[cache.key(2, "hello")], &mut out);
        assert_eq!(out, [None]);
    }

    #[test]
    fn the_least_recently_used_piece_leaves_first_and_the_budget_holds() {
        let room = size(&[0; 10]);
        let cache = TokenCache::seeded(4 * room, 7);
        for piece in ["a", "b", "c", "d"] {
            put(&cache, piece, &[9; 10]);
        }
        assert_eq!(cache.bytes(), 4 * room);
        assert!(get(&cache, "a").is_some());
        put(&cache, "e", &[9; 10]);
        assert_eq!((cache.len(), cache.bytes(), cache.evictions()), (4, 4 * room, 1));
        assert_eq!(get(&cache, "b"), None);
        for piece in ["a", "c", "d", "e"] {
            assert!(get(&cache, piece).is_some(), "{piece}");
        }
    }

    #[test]
    fn slots_are_used_again() {
        let cache = TokenCache::seeded(8 * size(&[0; 4]), 7);
        for piece in 0..1000_u32 {
            put(&cache, &piece.to_string(), &[piece; 4]);
            assert_eq!(get(&cache, &piece.to_string()), Some(vec![piece; 4]));
        }
        assert_eq!(cache.len(), 8);
        assert!(cache.lock().entries.len() <= 9);
    }

    #[test]
    fn a_piece_too_large_for_the_cache_empties_nothing() {
        let cache = TokenCache::seeded(4096, 7);
        put(&cache, "small", &[1]);
        put(&cache, "huge", &[1; 4096]);
        assert_eq!(get(&cache, "huge"), None);
        assert_eq!(get(&cache, "small"), Some(vec![1]));
        let none = TokenCache::seeded(0, 7);
        put(&none, "small", &[1]);
        assert!(none.is_empty());
    }
}

//! The cache against a literal model: plain vectors, searched from end to end.

use proptest::prelude::*;

use super::*;

/// The same semantics, written for reading. A block is named by the order of its first use.
struct Model {
    capacity: usize,
    used: usize,
    /// (block, key) of free blocks, first in line first.
    free: Vec<(usize, Option<u64>)>,
    /// (block, key, references) of the others.
    held: Vec<(usize, Option<u64>, u32)>,
    /// (key, block) in the order of sealing.
    sealed: Vec<(u64, usize)>,
}

impl Model {
    fn new(capacity: usize) -> Self {
        Self { capacity, used: 0, free: vec![], held: vec![], sealed: vec![] }
    }

    fn lookup(&self, key: u64) -> Option<usize> {
        self.sealed.iter().find(|(sealed, _)| *sealed == key).map(|(_, block)| *block)
    }

    fn find(&self, chain: &[u64]) -> usize {
        chain.iter().take_while(|key| self.lookup(**key).is_some()).count()
    }

    fn acquire(&mut self, hits: &[u64], fresh: usize) -> Option<Vec<usize>> {
        let blocks: Vec<_> = hits.iter().map(|key| self.lookup(*key).unwrap()).collect();
        let revived = blocks.iter().filter(|b| self.free.iter().any(|(f, _)| f == *b)).count();
        if self.held.len() + revived + fresh > self.capacity {
            return None;
        }
        for block in &blocks {
            if let Some(at) = self.free.iter().position(|(free, _)| free == block) {
                let (block, key) = self.free.remove(at);
                self.held.push((block, key, 0));
            }
            self.held.iter_mut().find(|(held, ..)| held == block).unwrap().2 += 1;
        }
        let mut table = blocks;
        for _ in 0..fresh {
            let block = if self.used < self.capacity {
                self.used += 1;
                self.used - 1
            } else {
                let (block, _) = self.free.remove(0);
                self.sealed.retain(|(_, sealed)| *sealed != block);
                block
            };
            self.held.push((block, None, 1));
            table.push(block);
        }
        Some(table)
    }

    fn seal(&mut self, block: usize, key: u64) {
        let held = self.held.iter_mut().find(|(held, ..)| *held == block).unwrap();
        if held.1.is_none() {
            held.1 = Some(key);
            self.sealed.push((key, block));
        }
    }

    fn release(&mut self, table: &[usize]) {
        for block in table.iter().rev() {
            let at = self.held.iter().position(|(held, ..)| held == block).unwrap();
            self.held[at].2 -= 1;
            if self.held[at].2 == 0 {
                let (block, key, _) = self.held.remove(at);
                let at = if key.is_none() { 0 } else { self.free.len() };
                self.free.insert(at, (block, key));
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// A sequence with a chain of this many full blocks on the branch, and some blocks behind it.
    Start {
        branch: u64,
        full: usize,
        partial: usize,
    },
    /// The n-th running sequence needs another block, which is sealed with this key if any.
    Grow {
        sequence: usize,
        key: Option<u64>,
    },
    /// The n-th running sequence ends.
    End {
        sequence: usize,
    },
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u64..4, 0_usize..6, 0_usize..2)
            .prop_map(|(branch, full, partial)| Step::Start { branch, full, partial }),
        3 => (0_usize..8, proptest::option::of(0_u64..40))
            .prop_map(|(sequence, key)| Step::Grow { sequence, key }),
        3 => (0_usize..8).prop_map(|sequence| Step::End { sequence }),
        1 => Just(Step::Forget),
    ];
    proptest::collection::vec(step, 1..120)
}

/// Chains that share their first two blocks.
fn chain(branch: u64, full: usize) -> Vec<u64> {
    (0..full as u64).map(|i| if i < 2 { i } else { 10 * branch + i }).collect()
}

fn indices(table: &[BlockId]) -> Vec<usize> {
    table.iter().map(|block| block.index()).collect()
}

proptest! {
    #[test]
    fn behaves_like_the_model(capacity in 1_usize..14, steps in steps()) {
        let mut cache = BlockCache::new(capacity as u32);
        let mut model = Model::new(capacity);
        let mut running: Vec<Vec<BlockId>> = vec![];
        for step in steps {
            match step {
                Step::Start { branch, full, partial } => {
                    let keys = chain(branch, full);
                    let hits = cache.find(&keys);
                    prop_assert_eq!(hits, model.find(&keys));
                    let mut table = vec![];
                    let fresh = full - hits + partial;
                    let got = cache.acquire(&keys[..hits], fresh, &mut table).ok();
                    let expected = model.acquire(&keys[..hits], fresh);
                    prop_assert_eq!(got.map(|()| indices(&table)), expected);
                    if got.is_some() {
                        for (block, key) in table.iter().zip(&keys) {
                            cache.seal(*block, *key);
                            model.seal(block.index(), *key);
                        }
                        running.push(table);
                    } else {
                        prop_assert!(table.is_empty());
                    }
                }
                Step::Grow { sequence, key } => {
                    let Some(table) = running.get_mut(sequence) else { continue };
                    let before = table.len();
                    let got = cache.acquire(&[], 1, table).ok();
                    let expected = model.acquire(&[], 1);
                    prop_assert_eq!(got.map(|()| indices(&table[before..])), expected);
                    if let (Some(()), Some(key)) = (got, key) {
                        cache.seal(table[before], key);
                        model.seal(table[before].index(), key);
                    }
                }
                Step::End { sequence } => {
                    if sequence < running.len() {
                        let mut table = running.remove(sequence);
                        model.release(&indices(&table));
                        cache.release(&mut table);
                    }
                }
                Step::Forget => {
                    cache.forget();
                    let free: Vec<_> = model.free.iter().map(|(block, _)| *block).collect();
                    model.sealed.retain(|(_, block)| !free.contains(block));
                    model.free.iter_mut().for_each(|(_, key)| *key = None);
                }
            }
            let free: Vec<_> = cache.entries().filter(|e| e.references == 0)
                .map(|e| (e.block.index(), e.key)).collect();
            prop_assert_eq!(&free, &model.free);
            let mut held: Vec<_> = cache.entries().filter(|e| e.references > 0)
                .map(|e| (e.block.index(), e.key, e.references)).collect();
            held.sort_unstable();
            model.held.sort_unstable();
            prop_assert_eq!(&held, &model.held);
            prop_assert_eq!(cache.referenced() + cache.free(), capacity);
        }
    }
}

#[test]
fn the_end_of_a_prompt_is_forgotten_first() {
    let mut cache = BlockCache::new(4);
    let mut table = vec![];
    cache.acquire(&[], 4, &mut table).unwrap();
    for (block, key) in table.iter().zip(1..) {
        cache.seal(*block, key);
    }
    cache.release(&mut table);
    cache.acquire(&[], 1, &mut table).unwrap();
    assert_eq!(cache.find(&[1, 2, 3, 4]), 3);
}

#[test]
fn a_younger_twin_takes_over() {
    let mut cache = BlockCache::new(2);
    let (mut first, mut second) = (vec![], vec![]);
    cache.acquire(&[], 1, &mut first).unwrap();
    cache.seal(first[0], 7);
    cache.acquire(&[], 1, &mut second).unwrap();
    cache.seal(second[0], 7);
    cache.release(&mut first);
    cache.acquire(&[], 1, &mut first).unwrap();
    assert_eq!(cache.find(&[7]), 1);
    cache.release(&mut second);
    assert_eq!(cache.acquire(&[7], 1, &mut second), Err(Full));
    assert!(second.is_empty());
}

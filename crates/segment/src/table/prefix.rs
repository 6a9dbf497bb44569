//! The prefix index of one process: a block table in anonymous memory, a ring of picks, one owner.
//!
//! Workers read through [`PrefixIndex`] and tell it what they picked; neither makes them wait. One
//! thread has the [`PrefixOwner`], applies the picks, and does what else changes the table (clearing
//! the slot of an endpoint that is gone). A pick is visible to all workers once it is applied.
//!
//! Memory is reserved, not used: a page costs nothing until it is touched, so the budget can be the
//! most that is acceptable rather than what is expected.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::layout::{TableError, TableSpec};
use super::reader::TableReader;
use super::ring::PickRing;
use super::writer::TableWriter;
use crate::mapped::{MappedView, MappedWords};

/// Why a prefix index could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// The system refused the memory.
    #[error("prefix index: cannot reserve {bytes} bytes")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The sizes make no table.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Sizes of a prefix index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrefixSpec {
    /// The table.
    pub table: TableSpec,
    /// Picks that may be queued for the owner.
    pub picks: usize,
    /// Hashes per queued pick; longer chains take several.
    pub chain: usize,
}

/// The workers' side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PrefixIndex {
    table: TableReader<MappedView>,
    ring: Arc<PickRing>,
}

/// The side of the one thread that changes the table.
#[derive(Debug)]
pub struct PrefixOwner {
    table: TableWriter<MappedWords>,
    ring: Arc<PickRing>,
}

/// What one [`PrefixOwner::drain`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Drained {
    /// Picks applied.
    pub picks: usize,
    /// Blocks that their endpoints did not hold before.
    pub added: usize,
}

impl PrefixIndex {
    /// Reserves the memory and makes an empty index.
    ///
    /// # Errors
    /// If a size is out of range or the system refuses the memory.
    pub fn new(spec: &PrefixSpec) -> Result<(Self, PrefixOwner), PrefixError> {
        let length = spec.table.words()?;
        let words = MappedWords::anonymous(length)
            .map_err(|source| PrefixError::Memory { bytes: length * 8, source })?;
        let view = words.view();
        // The standard library's per-process random state: unpredictable from outside.
        let seed = RandomState::new().build_hasher().finish();
        let writer = TableWriter::create(words, &spec.table, seed)?;
        let ring = Arc::new(PickRing::new(spec.picks, spec.chain));
        let index = Self { table: TableReader::open(view)?, ring: Arc::clone(&ring) };
        Ok((index, PrefixOwner { table: writer, ring }))
    }

    /// Bytes that the table may take. It takes what it has touched.
    pub fn budget_bytes(&self) -> usize {
        self.table.bytes()
    }

    /// The table, for lookups.
    pub fn table(&self) -> &TableReader<MappedView> {
        &self.table
    }

    /// Tells the owner that `slot` was picked for a request with these blocks. Never waits; returns
    /// `false` if the ring was full and (part of) the pick was dropped.
    pub fn push(&self, slot: u16, capacity: Option<NonZeroU32>, hashes: &[u64]) -> bool {
        self.ring.push(slot, capacity, hashes)
    }

    /// Picks dropped so far.
    pub fn dropped(&self) -> u64 {
        self.ring.dropped()
    }
}

impl PrefixOwner {
    /// Applies what is queued, at most one ring full, so that it ends however fast workers push.
    pub fn drain(&mut self) -> Drained {
        let mut drained = Drained::default();
        for _ in 0..self.ring.capacity() {
            let Some(pick) = self.ring.pop() else { break };
            if let Some(capacity) = pick.capacity {
                self.table.set_capacity(pick.slot, capacity);
            }
            drained.added += self.table.insert_chain(pick.slot, &pick.hashes);
            drained.picks += 1;
            self.ring.recycle(pick);
        }
        drained
    }

    /// The table, to change it otherwise. Drain before clearing the slot of an endpoint that is gone,
    /// or picks that are still queued bring blocks back.
    pub fn table(&mut self) -> &mut TableWriter<MappedWords> {
        &mut self.table
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use super::*;

    fn spec() -> PrefixSpec {
        PrefixSpec { table: TableSpec::within(64, 1 << 30), picks: 16, chain: 8 }
    }

    #[test]
    fn picks_become_visible_when_drained() {
        let (index, mut owner) = PrefixIndex::new(&spec()).unwrap();
        let chain: Vec<u64> = (1..=10).collect();
        assert!(index.push(3, NonZeroU32::new(6), &chain));
        let mut out = [0; 64];
        assert_eq!(index.table().count_matches(&chain, &mut out), 0);
        assert_eq!(owner.drain(), Drained { picks: 2, added: 10 });
        assert_eq!(owner.drain(), Drained::default());
        assert_eq!(owner.table().iter(3).collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
        assert_eq!(index.table().count_matches(&chain[4..], &mut out), 6);
        assert_eq!(out[3], 6);
    }

    #[test]
    fn workers_push_while_the_owner_drains() {
        let (index, mut owner) = PrefixIndex::new(&spec()).unwrap();
        let mut applied = 0;
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..3_u16)
                .map(|worker| {
                    let index = index.clone();
                    scope.spawn(move || {
                        let push =
                            |first: u64| index.push(worker, None, &[first, first + 1, first + 2]);
                        (0..2_000).filter(|&pick| push(pick)).count()
                    })
                })
                .collect();
            while !workers.iter().all(|worker| worker.is_finished()) {
                applied += owner.drain().picks;
            }
            applied += owner.drain().picks;
            let pushed: usize = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
            assert_eq!(applied, pushed);
            assert_eq!(pushed as u64 + index.dropped(), 6_000);
        });
    }
}

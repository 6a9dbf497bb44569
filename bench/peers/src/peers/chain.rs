//! `ChainIndex` of the crate `kv-index`: events applied directly, each pod's block map owned by the
//! writer, lookups by `score_into`, which allocates nothing.

use std::sync::Arc;

use kv_index::{ChainBlockMap, ChainIndex, SequenceHash, StoredBlock};

use super::{Bytes, Peer, Reader, Room};
use crate::fleet::{Answer, Event, Fleet, engine};

/// An event as the index takes it.
pub enum Prepared {
    /// Blocks below a parent.
    Stored(u32, Option<SequenceHash>, Vec<StoredBlock>),
    /// Engine hashes.
    Removed(u32, Vec<SequenceHash>),
    /// Everything.
    Cleared(u32),
}

/// The index and the maps of its one lane.
pub struct Chain {
    index: Arc<ChainIndex>,
    maps: Vec<ChainBlockMap>,
}

impl Peer for Chain {
    type Event = Prepared;
    type Reader = ChainReader;

    fn new(fleet: &Fleet, _: Option<Room>) -> Self {
        let pods = fleet.mix.pods;
        let index = ChainIndex::with_max_workers(pods);
        for pod in 0..pods {
            let id = index.intern_worker(&format!("http://pod-{pod}:8000")).expect("at most 1,024");
            assert_eq!(id as usize, pod, "ids are given in order");
        }
        Self { index: Arc::new(index), maps: (0..pods).map(|_| ChainBlockMap::new()).collect() }
    }

    fn prepare(event: &Event) -> Prepared {
        match event {
            Event::Stored { pod, parent, keys } => {
                let blocks = keys.iter().map(|&key| StoredBlock {
                    seq_hash: SequenceHash(engine(key)),
                    content_hash: kv_index::ContentHash(key),
                });
                Prepared::Stored(*pod, parent.map(SequenceHash), blocks.collect())
            }
            Event::Removed { pod, keys } => {
                Prepared::Removed(*pod, keys.iter().map(|&key| SequenceHash(engine(key))).collect())
            }
            Event::Cleared { pod } => Prepared::Cleared(*pod),
        }
    }

    fn apply(&mut self, events: Vec<Prepared>) -> Vec<Prepared> {
        for event in &events {
            match event {
                Prepared::Stored(pod, parent, blocks) => {
                    let map = &mut self.maps[*pod as usize];
                    self.index.apply_stored(*pod, blocks, *parent, map).expect("parents are held");
                }
                Prepared::Removed(pod, hashes) => {
                    self.index.apply_removed(*pod, hashes, &mut self.maps[*pod as usize]);
                }
                Prepared::Cleared(pod) => {
                    self.index.apply_cleared(*pod, &mut self.maps[*pod as usize]);
                }
            }
        }
        events
    }

    fn drain(&mut self) {}

    fn reader(&self) -> ChainReader {
        ChainReader { index: self.index.clone(), scores: Vec::new() }
    }

    fn bytes(&self) -> Bytes {
        Bytes::default()
    }
}

/// Reads into a list that is reused.
pub struct ChainReader {
    index: Arc<ChainIndex>,
    scores: Answer,
}

impl Reader for ChainReader {
    type Query = Vec<u64>;

    fn prepare(keys: &[u64]) -> Vec<u64> {
        keys.to_vec()
    }

    fn look_up(&mut self, query: &Vec<u64>) {
        let scores = &mut self.scores;
        scores.clear();
        self.index.score_into(query, |&key| key, false, |pod, blocks| scores.push((pod, blocks)));
    }

    fn answer(&self) -> Answer {
        let mut found: Answer = self.scores.iter().copied().filter(|&(_, n)| n > 0).collect();
        found.sort_unstable();
        found
    }
}

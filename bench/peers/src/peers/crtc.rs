//! `ConcurrentRadixTreeCompressed` of the crate `dynamo-kv-router`, behind its own thread pool with
//! one event thread; lookups run on the caller's thread, as in the pool.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use dynamo_kv_router::ConcurrentRadixTreeCompressed;
use dynamo_kv_router::indexer::{SyncIndexer, ThreadPoolIndexer};
use dynamo_kv_router::protocols::{
    ExternalSequenceBlockHash, KvCacheEvent, KvCacheEventData, KvCacheRemoveData, KvCacheStoreData,
    KvCacheStoredBlockData, LocalBlockHash, OverlapScores, RouterEvent,
};

use super::{Bytes, Peer, Reader, Room};
use crate::fleet::{Answer, Event, Fleet, engine};

/// The tree and its thread.
pub struct Crtc {
    pool: ThreadPoolIndexer<ConcurrentRadixTreeCompressed>,
}

impl Peer for Crtc {
    type Event = RouterEvent;
    type Reader = CrtcReader;

    fn new(_: &Fleet, _: Option<Room>) -> Self {
        Self { pool: ThreadPoolIndexer::new(ConcurrentRadixTreeCompressed::new(), 1, 16) }
    }

    fn prepare(event: &Event) -> RouterEvent {
        let named = |key: u64| ExternalSequenceBlockHash(engine(key));
        let (pod, data) = match event {
            Event::Stored { pod, parent, keys } => {
                let blocks = keys.iter().map(|&key| KvCacheStoredBlockData {
                    block_hash: named(key),
                    tokens_hash: LocalBlockHash(key),
                    mm_extra_info: None,
                });
                let data = KvCacheStoreData {
                    parent_hash: parent.map(ExternalSequenceBlockHash),
                    start_position: None,
                    blocks: blocks.collect(),
                };
                (*pod, KvCacheEventData::Stored(data))
            }
            Event::Removed { pod, keys } => {
                let block_hashes = keys.iter().map(|&key| named(key)).collect();
                (*pod, KvCacheEventData::Removed(KvCacheRemoveData { block_hashes }))
            }
            Event::Cleared { pod } => (*pod, KvCacheEventData::Cleared),
        };
        RouterEvent::new(u64::from(pod), KvCacheEvent { event_id: 0, data, dp_rank: 0 })
    }

    fn apply(&mut self, events: Vec<RouterEvent>) -> Vec<RouterEvent> {
        for event in events {
            self.pool.enqueue_event(event).expect("the event thread lives");
        }
        Vec::new()
    }

    fn drain(&mut self) {
        block_on(self.pool.flush_and_wait()).expect("the event thread lives");
    }

    fn reader(&self) -> CrtcReader {
        CrtcReader { tree: self.pool.backend_arc(), scores: OverlapScores::new() }
    }

    fn bytes(&self) -> Bytes {
        Bytes::default()
    }
}

/// Reads the tree itself.
pub struct CrtcReader {
    tree: Arc<ConcurrentRadixTreeCompressed>,
    scores: OverlapScores,
}

impl Reader for CrtcReader {
    type Query = Vec<LocalBlockHash>;

    fn prepare(keys: &[u64]) -> Vec<LocalBlockHash> {
        keys.iter().map(|&key| LocalBlockHash(key)).collect()
    }

    fn look_up(&mut self, query: &Vec<LocalBlockHash>) {
        self.scores = self.tree.find_matches(query, false);
    }

    fn answer(&self) -> Answer {
        let scores = self.scores.scores.iter().filter(|&(_, &blocks)| blocks > 0);
        let mut found: Answer =
            scores.map(|(worker, &blocks)| (worker.worker_id as u32, blocks)).collect();
        found.sort_unstable();
        found
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let (mut future, mut context) = (pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

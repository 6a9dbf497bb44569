//! The index itself: a block table, a queue of picks, and the owner that applies them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_queue::ArrayQueue;
use inlane_core::endpoint::{EndpointSet, Slot};
use inlane_segment::mapped::MappedWords;
use inlane_segment::table::{MAX_SLOTS, TableReader, TableSpec, TableWriter};

use super::stats::PrefixStats;

/// Memory of one index. Pages cost nothing before they are used.
const BUDGET_BYTES: usize = 64 << 20;

/// Picks that wait for the owner at most; more are dropped and counted.
const MAX_PENDING: usize = 1_024;

/// Buffers that are kept for reuse, and the blocks that a kept one may have room for.
const MAX_SPARE: usize = 64;
const MAX_SPARE_BLOCKS: usize = 16_384;

/// Bits of a slot's generation that tell tenants apart.
const GENERATION_BITS: u32 = 12;

/// Which endpoint was sent which blocks, shared by all workers of a proxy.
///
/// Workers read ([`count_matches`](Self::count_matches)) and hand picks over
/// ([`record`](Self::record)) without lock or wait. Everything else is for the owner thread, one
/// at a time; a mutex that no worker ever touches sees to that.
///
/// A slot's blocks belong to one tenant. A pick for a later tenant clears the slot first, a pick
/// for an earlier one is dropped, and a match is reported for the current tenant only.
#[derive(Debug)]
pub struct PrefixIndex {
    reader: TableReader<MappedWords>,
    pending: ArrayQueue<Pick>,
    spare: ArrayQueue<Vec<u64>>,
    /// Per slot the tenant whose blocks the table holds, see [`tenant`]; written by the owner.
    tenants: Box<[AtomicU64]>,
    held: AtomicU64,
    dropped: AtomicU64,
    stats: PrefixStats,
    owner: Mutex<Owner>,
}

#[derive(Debug)]
struct Pick {
    slot: Slot,
    capacity: u32,
    hashes: Vec<u64>,
}

#[derive(Debug)]
struct Owner {
    table: TableWriter<MappedWords>,
    /// Per slot the oldest generation that picks are still taken for, once known.
    floor: Vec<Option<u32>>,
}

/// The tag of a slot's tenant; 0 = none.
fn tenant(generation: u32) -> u64 {
    1 << 32 | u64::from(generation)
}

/// Whether `a` is the same generation as `b` or a later one, in serial-number arithmetic.
fn not_before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) & ((1 << GENERATION_BITS) - 1) < 1 << (GENERATION_BITS - 1)
}

impl PrefixIndex {
    /// An empty index.
    ///
    /// # Errors
    /// When there is no memory to be had.
    pub fn new() -> io::Result<Self> {
        let spec = TableSpec::within(MAX_SLOTS, BUDGET_BYTES);
        let words = MappedWords::anonymous(spec.words().map_err(io::Error::other)?)?;
        // The standard library's hasher is seeded from the system's randomness.
        let seed = RandomState::new().hash_one(BUDGET_BYTES);
        let table = TableWriter::create(words, &spec, seed).map_err(io::Error::other)?;
        Ok(Self {
            reader: table.reader(),
            pending: ArrayQueue::new(MAX_PENDING),
            spare: ArrayQueue::new(MAX_SPARE),
            tenants: (0..MAX_SLOTS).map(|_| AtomicU64::new(0)).collect(),
            held: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            stats: PrefixStats::default(),
            owner: Mutex::new(Owner { table, floor: vec![None; MAX_SLOTS] }),
        })
    }

    /// Adds to `counts[slot]` the number of `hashes` held there, up to the first that nobody
    /// holds. Slots beyond the end of `counts` are ignored.
    pub fn count_matches(&self, hashes: &[u64], counts: &mut [u32]) {
        self.reader.count_matches(hashes, counts);
    }

    /// Whether the blocks in the slot are those of this tenant.
    pub fn is_tenant(&self, slot: Slot) -> bool {
        self.tenants
            .get(slot.index as usize)
            .is_some_and(|t| t.load(Ordering::Acquire) == tenant(slot.generation))
    }

    /// Hands a pick over to the owner: the endpoint in `slot` was sent these blocks and remembers
    /// at most `capacity` blocks. Returns `false`, and counts, when too many picks wait.
    pub fn record(&self, slot: Slot, capacity: u32, hashes: &[u64]) -> bool {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(hashes);
        match self.pending.push(Pick { slot, capacity, hashes: buffer }) {
            Ok(()) => true,
            Err(pick) => {
                self.recycle(pick.hashes);
                self.dropped.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }

    /// Applies the picks that wait; returns how many. For the owner thread.
    pub fn drain(&self) -> usize {
        let mut owner = self.owner();
        let mut applied = 0;
        // Bounded, so that busy workers cannot keep the owner here.
        while applied < MAX_PENDING {
            let Some(pick) = self.pending.pop() else { break };
            owner.apply(&pick, &self.tenants);
            self.recycle(pick.hashes);
            applied += 1;
        }
        self.publish_size(&owner);
        applied
    }

    /// Forgets endpoints that are no longer in the pool. For the owner thread.
    pub fn retain(&self, endpoints: &EndpointSet) {
        let mut owner = self.owner();
        let mut present = vec![None; MAX_SLOTS];
        for endpoint in endpoints.as_slice() {
            if let Some(cell) = present.get_mut(endpoint.slot.index as usize) {
                *cell = Some(endpoint.slot.generation);
            }
        }
        for (index, present) in (0..).zip(present) {
            let held = self.tenants[usize::from(index)].load(Ordering::Relaxed);
            let held = (held != 0).then_some(held as u32);
            match (held, present) {
                (Some(held), Some(present)) if !not_before(held, present) => {
                    owner.evict(index, &self.tenants);
                    owner.floor[usize::from(index)] = Some(present);
                }
                (Some(held), None) => {
                    owner.evict(index, &self.tenants);
                    owner.floor[usize::from(index)] = Some(held.wrapping_add(1));
                }
                (_, Some(present)) => owner.floor[usize::from(index)] = Some(present),
                (None, None) => {}
            }
        }
        self.publish_size(&owner);
    }

    /// Forgets everything, the picks that wait included. For the owner thread.
    pub fn reset(&self) {
        let mut owner = self.owner();
        for _ in 0..MAX_PENDING {
            let Some(pick) = self.pending.pop() else { break };
            self.recycle(pick.hashes);
        }
        for tenant in &self.tenants {
            tenant.store(0, Ordering::Release);
        }
        owner.table.reset();
        self.publish_size(&owner);
    }

    /// Blocks held by all endpoints together, as of the last change.
    pub fn size(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Blocks held in a slot.
    pub fn slot_size(&self, slot: u16) -> usize {
        self.reader.len(slot)
    }

    /// Picks that were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// What is counted about matches.
    pub fn stats(&self) -> &PrefixStats {
        &self.stats
    }

    fn owner(&self) -> MutexGuard<'_, Owner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_size(&self, owner: &Owner) {
        self.held.store(owner.table.total(), Ordering::Relaxed);
    }

    /// Keeps a buffer for the next pick; one that grew out of proportion, or one too many, goes.
    fn recycle(&self, buffer: Vec<u64>) {
        if buffer.capacity() <= MAX_SPARE_BLOCKS {
            let _ = self.spare.push(buffer);
        }
    }
}

impl Owner {
    fn apply(&mut self, pick: &Pick, tenants: &[AtomicU64]) {
        let Ok(slot) = u16::try_from(pick.slot.index) else { return };
        let Some((cell, floor)) =
            tenants.get(usize::from(slot)).zip(self.floor.get(usize::from(slot)))
        else {
            return;
        };
        let generation = pick.slot.generation;
        if floor.is_some_and(|floor| !not_before(generation, floor)) {
            return;
        }
        let held = cell.load(Ordering::Relaxed);
        if held != tenant(generation) {
            if held != 0 && !not_before(generation, held as u32) {
                return;
            }
            self.evict(slot, tenants);
            cell.store(tenant(generation), Ordering::Release);
        }
        if let Some(capacity) = NonZeroU32::new(pick.capacity) {
            self.table.set_capacity(slot, capacity);
        }
        self.table.insert_chain(slot, &pick.hashes);
    }

    fn evict(&mut self, slot: u16, tenants: &[AtomicU64]) {
        // First the tenant, so that nobody is credited with blocks while they go.
        if let Some(cell) = tenants.get(usize::from(slot)) {
            cell.store(0, Ordering::Release);
        }
        self.table.clear_slot(slot);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use inlane_core::endpoint::Endpoint;

    use super::*;

    const A: Slot = Slot { index: 0, generation: 1 };
    const B: Slot = Slot { index: 1, generation: 1 };

    fn matches(index: &PrefixIndex, hashes: &[u64]) -> [u32; 2] {
        let mut counts = [0; 2];
        index.count_matches(hashes, &mut counts);
        counts
    }

    fn pool(slots: &[Slot]) -> EndpointSet {
        let endpoint = |slot: &Slot| Endpoint {
            id: format!("default/{}", slot.index),
            namespace: "default".into(),
            name: slot.index.to_string(),
            pod_name: slot.index.to_string(),
            address: String::new(),
            port: 0,
            host_port: String::new(),
            rank: 0,
            labels: BTreeMap::new(),
            slot: *slot,
        };
        EndpointSet::new(0, slots.iter().map(endpoint).collect())
    }

    #[test]
    fn picks_count_once_the_owner_has_them() {
        let index = PrefixIndex::new().unwrap();
        assert!(index.record(A, 10, &[1, 2, 3]));
        assert_eq!(matches(&index, &[1, 2, 3]), [0, 0]);
        assert_eq!(index.drain(), 1);
        assert_eq!(matches(&index, &[1, 2, 9, 3]), [2, 0]);
        assert!(index.is_tenant(A) && !index.is_tenant(B));
        assert_eq!((index.size(), index.slot_size(0)), (3, 3));
        index.reset();
        assert_eq!((matches(&index, &[1]), index.size()), ([0, 0], 0));
    }

    #[test]
    fn matching_stops_where_nobody_holds_and_needs_no_run() {
        let index = PrefixIndex::new().unwrap();
        index.record(A, 10, &[1, 2, 3]);
        index.record(B, 10, &[2, 3]);
        index.drain();
        assert_eq!(matches(&index, &[1, 2, 3]), [3, 2]);
        assert_eq!(matches(&index, &[9, 1, 2, 3]), [0, 0]);
    }

    #[test]
    fn capacity_evicts_the_oldest() {
        let index = PrefixIndex::new().unwrap();
        index.record(A, 3, &[1, 2]);
        index.record(A, 3, &[11, 12]);
        index.drain();
        assert_eq!(matches(&index, &[1, 2]), [0, 0]);
        assert_eq!(matches(&index, &[2]), [1, 0]);
        assert_eq!(index.slot_size(0), 3);
    }

    #[test]
    fn endpoints_that_left_are_forgotten() {
        let index = PrefixIndex::new().unwrap();
        index.record(A, 10, &[1]);
        index.record(B, 10, &[1]);
        index.drain();
        index.retain(&pool(&[A]));
        assert_eq!(matches(&index, &[1]), [1, 0]);
        assert!(!index.is_tenant(B));
        // A late pick for the one that left changes nothing; one for its successor does.
        index.record(B, 10, &[1]);
        index.drain();
        assert_eq!(matches(&index, &[1]), [1, 0]);
        index.record(Slot { generation: 2, ..B }, 10, &[1]);
        index.drain();
        assert_eq!(matches(&index, &[1]), [1, 1]);
    }

    #[test]
    fn a_new_tenant_starts_empty() {
        let index = PrefixIndex::new().unwrap();
        let successor = Slot { generation: 2, ..A };
        index.record(A, 10, &[1, 2]);
        index.record(successor, 10, &[7]);
        index.record(A, 10, &[1, 2]);
        index.drain();
        assert_eq!(matches(&index, &[1, 2]), [0, 0]);
        assert_eq!(matches(&index, &[7]), [1, 0]);
        assert!(index.is_tenant(successor) && !index.is_tenant(A));
        // The topology may be older than the picks.
        index.retain(&pool(&[A]));
        assert!(index.is_tenant(successor));
        index.retain(&pool(&[Slot { generation: 3, ..A }]));
        assert_eq!((matches(&index, &[7]), index.size()), ([0, 0], 0));
    }

    #[test]
    fn generations_wrap() {
        assert!(not_before(0, 0xfff) && !not_before(0xfff, 0));
        assert!(not_before(5, 5) && not_before(6, 5) && !not_before(4, 5));
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let index = PrefixIndex::new().unwrap();
        for _ in 0..MAX_PENDING {
            assert!(index.record(A, 10, &[1]));
        }
        assert!(!index.record(A, 10, &[2]));
        assert_eq!(index.dropped(), 1);
        assert_eq!(index.drain(), MAX_PENDING);
        assert_eq!(matches(&index, &[1]), [1, 0]);
    }

    #[test]
    fn slots_out_of_range_are_ignored() {
        let index = PrefixIndex::new().unwrap();
        for slot in [MAX_SLOTS as u32, 65_536, u32::MAX] {
            index.record(Slot { index: slot, generation: 1 }, 10, &[1]);
        }
        assert_eq!((index.drain(), index.size()), (3, 0));
    }
}

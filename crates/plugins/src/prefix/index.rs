//! The index itself: a block table with its queue of picks, and whose blocks are in which slot.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use inlane_core::endpoint::{EndpointSet, Slot};
use inlane_segment::table::{
    MAX_SLOTS, PrefixError, PrefixIndex as SharedTable, PrefixOwner, PrefixSpec, TableSpec,
    TableStats,
};

use super::stats::PrefixStats;
use super::tenants::Tenants;

/// Memory of one index. Pages cost nothing before they are used.
const BUDGET_BYTES: usize = 64 << 20;

/// Picks that wait for the owner at most, and blocks that each has room for.
const PICKS: usize = 256;
const PICK_BLOCKS: usize = 512;

/// Which endpoint was sent which blocks, shared by all workers of a proxy.
///
/// Workers read ([`count_matches`](Self::count_matches)) and hand picks over
/// ([`record`](Self::record)) without lock or wait. Everything else is for the owner thread, one
/// at a time; a mutex that no worker ever touches sees to that.
///
/// A slot's blocks belong to one tenant: the first that is recorded there, until the owner learns
/// from the topology that it has left ([`retain`](Self::retain)). Picks for any other tenant are
/// not taken, and matches are reported for the tenant only. A pick that was checked just before
/// its endpoint left may still be applied after; its blocks then count for the successor until
/// they age out, which costs a misplaced request and nothing else.
#[derive(Debug)]
pub struct PrefixIndex {
    table: SharedTable,
    /// Whose blocks the table holds.
    tenants: Tenants,
    held: AtomicU64,
    stats: PrefixStats,
    owner: Mutex<PrefixOwner>,
}

impl PrefixIndex {
    /// Bytes of address space: what the index takes at most, once it has touched all of them.
    pub fn budget_bytes(&self) -> usize {
        self.table.budget_bytes()
    }

    /// An empty index.
    ///
    /// # Errors
    /// When there is no memory to be had.
    pub fn new() -> Result<Self, PrefixError> {
        let (table, owner) = SharedTable::new(&PrefixSpec {
            table: TableSpec::within(MAX_SLOTS, BUDGET_BYTES),
            picks: PICKS,
            chain: PICK_BLOCKS,
        })?;
        Ok(Self {
            table,
            tenants: Tenants::new(MAX_SLOTS),
            held: AtomicU64::new(0),
            stats: PrefixStats::default(),
            owner: Mutex::new(owner),
        })
    }

    /// Adds to `counts[slot]` the number of `hashes` held there, up to the first that nobody
    /// holds. Slots beyond the end of `counts` are ignored.
    pub fn count_matches(&self, hashes: &[u64], counts: &mut [u32]) {
        self.table.table().count_matches(hashes, counts);
    }

    /// Whether the blocks in the slot are those of this tenant.
    pub fn is_tenant(&self, slot: Slot) -> bool {
        self.tenants.is_tenant(slot)
    }

    /// Hands a pick over to the owner: the endpoint in `slot` was sent these blocks and remembers
    /// at most `capacity` blocks (0 = the table's default). Returns whether it was taken: the slot
    /// may have another tenant, or too many picks wait, which is counted.
    pub fn record(&self, slot: Slot, capacity: u32, hashes: &[u64]) -> bool {
        if !self.tenants.admit(slot) {
            return false;
        }
        // Below MAX_SLOTS, as there is a cell for it.
        self.table.push(slot.index as u16, NonZeroU32::new(capacity), hashes)
    }

    /// Applies the picks that wait; returns how many. For the owner thread.
    pub fn drain(&self) -> usize {
        let mut owner = self.owner();
        let drained = owner.drain();
        self.publish_size(&mut owner);
        drained.picks
    }

    /// Forgets endpoints that are no longer in the pool. For the owner thread, after every change
    /// of the topology.
    pub fn retain(&self, endpoints: &EndpointSet) {
        let mut owner = self.owner();
        // Picks that wait must not bring blocks back after the slot is cleared.
        owner.drain();
        self.tenants.retain(endpoints, |slot| owner.table().clear_slot(slot));
        self.publish_size(&mut owner);
    }

    /// Forgets everything, the picks that wait included. For the owner thread.
    pub fn reset(&self) {
        let mut owner = self.owner();
        owner.drain();
        owner.table().reset();
        self.publish_size(&mut owner);
    }

    /// Blocks held by all endpoints together, as of the owner's last change.
    pub fn size(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Blocks held in a slot.
    pub fn slot_size(&self, slot: u16) -> usize {
        self.table.table().len(slot)
    }

    /// Picks that were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.table.dropped()
    }

    /// What is counted about matches.
    pub fn stats(&self) -> &PrefixStats {
        &self.stats
    }

    /// What the table counts: evictions and refusals. For the owner thread.
    pub fn table_stats(&self) -> TableStats {
        self.owner().table().stats()
    }

    fn owner(&self) -> MutexGuard<'_, PrefixOwner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_size(&self, owner: &mut PrefixOwner) {
        self.held.store(owner.table().total(), Ordering::Relaxed);
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
        index.retain(&pool(&[A]));
        assert_eq!((matches(&index, &[1]), index.size()), ([1, 0], 1));
        assert!(index.is_tenant(A) && !index.is_tenant(B));
        // A late pick for the one that left is not taken, one for its successor is.
        assert!(!index.record(B, 10, &[1]));
        assert!(index.record(Slot { generation: 2, ..B }, 10, &[1]));
        index.drain();
        assert_eq!(matches(&index, &[1]), [1, 1]);
    }

    #[test]
    fn a_successor_starts_empty() {
        let index = PrefixIndex::new().unwrap();
        let successor = Slot { generation: 2, ..A };
        assert!(index.record(A, 10, &[1, 2]));
        assert!(!index.record(successor, 10, &[7]), "before the topology says so");
        index.retain(&pool(&[successor]));
        assert_eq!((matches(&index, &[1, 2]), index.size()), ([0, 0], 0));
        assert!(index.record(successor, 10, &[7]));
        index.drain();
        assert!(index.is_tenant(successor) && !index.is_tenant(A));
        assert_eq!(matches(&index, &[7]), [1, 0]);
        // A topology that is older than the tenant changes nothing.
        index.retain(&pool(&[A]));
        assert!(index.is_tenant(successor));
        assert_eq!(matches(&index, &[7]), [1, 0]);
    }

    #[test]
    fn a_successor_has_its_own_capacity() {
        let index = PrefixIndex::new().unwrap();
        index.record(A, 2, &[1, 2, 3]);
        index.retain(&pool(&[]));
        index.record(Slot { generation: 2, ..A }, 5, &[1, 2, 3, 4, 5, 6]);
        index.drain();
        assert_eq!(index.slot_size(0), 5);
        assert_eq!(index.table_stats().evicted, 2);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let index = PrefixIndex::new().unwrap();
        for _ in 0..PICKS {
            assert!(index.record(A, 10, &[1]));
        }
        assert!(!index.record(A, 10, &[2]));
        assert_eq!(index.dropped(), 1);
        assert_eq!(index.drain(), PICKS);
        assert_eq!(matches(&index, &[1]), [1, 0]);
    }

    #[test]
    fn workers_record_while_the_topology_changes() {
        let index = PrefixIndex::new().unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in 0..2u32 {
                let (index, stop) = (&index, &stop);
                scope.spawn(move || {
                    for generation in (0..).map(|i: u32| i % 4_096) {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        index.record(Slot { index: worker, generation }, 10, &[7]);
                        assert!(matches(index, &[7]).iter().all(|&count| count <= 1));
                    }
                });
            }
            for generation in 0..2_000u32 {
                let slots = [0, 1].map(|index| Slot { index, generation: generation % 4_096 });
                index.drain();
                index.retain(&pool(&slots[..generation as usize % 3]));
            }
            stop.store(true, Ordering::Relaxed);
        });
        index.drain();
        index.reset();
        assert_eq!((matches(&index, &[7]), index.size()), ([0, 0], 0));
    }

    #[test]
    fn slots_out_of_range_are_ignored() {
        let index = PrefixIndex::new().unwrap();
        for slot in [MAX_SLOTS as u32, 65_536, u32::MAX] {
            assert!(!index.record(Slot { index: slot, generation: 1 }, 10, &[1]));
        }
        assert_eq!((index.drain(), index.size()), (0, 0));
    }
}

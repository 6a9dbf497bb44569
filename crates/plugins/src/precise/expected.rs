//! What engines are expected to hold: the blocks of requests that were just sent to them.
//!
//! An engine reports blocks when it has scheduled a request. Until then the next request with the
//! same start would not find them, and a burst would be scattered. So the blocks count as held where a
//! request went, for a time.
//!
//! Workers read, and hand prompts over through a bounded ring, without lock or wait. The owner thread
//! applies them, and drops each with the first pass after its time: exactly its blocks, except those
//! that a later prompt at the same endpoint expects as well. Keys cover all that comes before
//! them, so prompts share a front or nothing, and what a slot is expected to hold is a prefix of
//! every prompt.
//!
//! Memory: a block table of at most [`BUDGET_BYTES`] and [`MOST_KEYS`] keys of eight bytes. Beyond
//! that prompts are not expected, which is counted.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use inlane_core::endpoint::{EndpointSet, Slot};
use inlane_segment::mapped::{MappedView, MappedWords};
use inlane_segment::table::{
    MAX_SLOTS, PickRing, PrefixError, TableReader, TableSpec, TableWriter,
};

use crate::prefix::tenants::Tenants;

/// Memory of the table. Pages cost nothing before they are used.
const BUDGET_BYTES: usize = 32 << 20;
/// Keys of prompts whose time is not up.
const MOST_KEYS: usize = 1 << 19;
/// Prompts that wait for the owner, and keys that each has room for; longer ones take several places.
const PROMPTS: usize = 256;
const PROMPT_KEYS: usize = 512;
/// In place of a slot: what is left of a prompt whose endpoint was cleared.
const NOBODY: u16 = u16::MAX;

/// The expectations of one index.
#[derive(Debug)]
pub(super) struct Expected {
    table: TableReader<MappedView>,
    ring: PickRing,
    tenants: Tenants,
    ttl_ms: AtomicU64,
    /// Blocks expected at all endpoints together.
    size: AtomicU64,
    /// Prompts, or parts of long ones, that the owner had no room for.
    refused: AtomicU64,
    owner: Mutex<Owner>,
}

#[derive(Debug)]
struct Owner {
    table: TableWriter<MappedWords>,
    /// The oldest first.
    prompts: VecDeque<Prompt>,
    /// The keys of all of them, one after the other.
    keys: VecDeque<u64>,
}

/// A prompt, or a part of a long one, that is expected at an endpoint.
#[derive(Debug, Clone, Copy)]
struct Prompt {
    until_ms: u64,
    slot: u16,
    len: u32,
}

impl Expected {
    /// Expects nothing yet.
    ///
    /// # Errors
    /// When there is no memory to be had.
    pub(super) fn new() -> Result<Self, PrefixError> {
        let spec = TableSpec {
            // Nothing leaves but with its time.
            default_capacity: u32::MAX,
            ..TableSpec::within(MAX_SLOTS, BUDGET_BYTES)
        };
        let length = spec.words()?;
        let words = MappedWords::anonymous(length)
            .map_err(|source| PrefixError::Memory { bytes: length * 8, source })?;
        let view = words.view();
        // The standard library's per-process random state: unpredictable from outside.
        let seed = RandomState::new().build_hasher().finish();
        let writer = TableWriter::create(words, &spec, seed)?;
        Ok(Self {
            table: TableReader::open(view)?,
            ring: PickRing::new(PROMPTS, PROMPT_KEYS),
            tenants: Tenants::new(MAX_SLOTS),
            ttl_ms: AtomicU64::new(0),
            size: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            owner: Mutex::new(Owner {
                table: writer,
                prompts: VecDeque::new(),
                keys: VecDeque::new(),
            }),
        })
    }

    /// Whether nothing is expected of anybody, as of the owner's last pass: one load.
    pub(super) fn is_empty(&self) -> bool {
        self.size() == 0
    }

    /// Adds to `out[slot]` how many of the keys, from the first on, are expected there.
    pub(super) fn prefixes(&self, keys: &[u64], out: &mut [u32]) {
        self.table.longest_prefix(keys, out);
    }

    /// Whether what is expected in the slot is expected of this tenant.
    pub(super) fn is_tenant(&self, slot: Slot) -> bool {
        self.tenants.is_tenant(slot)
    }

    /// Expects a prompt's blocks in the slot for `ttl_ms` from the owner's next pass on. Returns
    /// whether that was taken: the slot may have another tenant, or too many prompts wait.
    pub(super) fn expect(&self, slot: Slot, keys: &[u64], ttl_ms: u64) -> bool {
        if keys.is_empty() || !self.tenants.admit(slot) {
            return false;
        }
        // Changes with the configuration only.
        if self.ttl_ms.load(Relaxed) != ttl_ms {
            self.ttl_ms.store(ttl_ms, Relaxed);
        }
        // Below MAX_SLOTS, as it was admitted.
        self.ring.push(slot.index as u16, None, keys)
    }

    /// Drops what is due and applies what waits. Returns the number of prompts. For the owner.
    pub(super) fn pass(&self, now_ms: u64) -> usize {
        if self.is_empty() && self.ring.is_empty() {
            return 0;
        }
        let mut owner = self.owner();
        let dropped = owner.drop_due(now_ms);
        let applied = self.apply(&mut owner, now_ms);
        self.size.store(owner.table.total(), Relaxed);
        dropped + applied
    }

    /// Forgets the blocks of a slot, the prompts that wait included. For the owner.
    pub(super) fn clear(&self, slot: u16, now_ms: u64) {
        let mut owner = self.owner();
        self.apply(&mut owner, now_ms);
        owner.clear(slot);
        self.size.store(owner.table.total(), Relaxed);
    }

    /// Forgets endpoints that are no longer in the pool. For the owner, after every change of the
    /// topology.
    pub(super) fn retain(&self, endpoints: &EndpointSet, now_ms: u64) {
        let mut owner = self.owner();
        // Prompts that wait must not bring blocks back after the slot is cleared.
        self.apply(&mut owner, now_ms);
        self.tenants.retain(endpoints, |slot| owner.clear(slot));
        self.size.store(owner.table.total(), Relaxed);
    }

    /// Calls `visit` with every slot of which something is expected. For the owner.
    pub(super) fn slots(&self, visit: impl FnMut(u16)) {
        let mut slots: Vec<u16> = self.owner().prompts.iter().map(|prompt| prompt.slot).collect();
        slots.sort_unstable();
        slots.dedup();
        slots.into_iter().filter(|&slot| slot != NOBODY).for_each(visit);
    }

    /// Blocks expected at all endpoints together, as of the owner's last pass.
    pub(super) fn size(&self) -> u64 {
        self.size.load(Relaxed)
    }

    /// Prompts, or parts of long ones, that there was no room for.
    pub(super) fn dropped(&self) -> u64 {
        self.ring.dropped() + self.refused.load(Relaxed)
    }

    fn apply(&self, owner: &mut Owner, now_ms: u64) -> usize {
        let until_ms = now_ms.saturating_add(self.ttl_ms.load(Relaxed));
        let mut applied = 0;
        // At most one ring full, so that it ends however fast workers push.
        for _ in 0..self.ring.capacity() {
            let Some(pick) = self.ring.pop() else { break };
            if !owner.add(until_ms, pick.slot, &pick.hashes) {
                self.refused.fetch_add(1, Relaxed);
            }
            applied += 1;
            self.ring.recycle(pick);
        }
        applied
    }

    fn owner(&self) -> MutexGuard<'_, Owner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner {
    /// Whether there was room.
    fn add(&mut self, until_ms: u64, slot: u16, keys: &[u64]) -> bool {
        let Ok(len) = u32::try_from(keys.len()) else { return false };
        if self.keys.len() + keys.len() > MOST_KEYS {
            return false;
        }
        self.table.insert_chain(slot, keys);
        self.keys.extend(keys);
        self.prompts.push_back(Prompt { until_ms, slot, len });
        true
    }

    fn drop_due(&mut self, now_ms: u64) -> usize {
        let mut dropped = 0;
        while let Some(&Prompt { slot, len, .. }) =
            self.prompts.front().filter(|prompt| prompt.until_ms <= now_ms)
        {
            self.prompts.pop_front();
            let len = len as usize;
            if slot != NOBODY {
                let kept = self.shared(slot, len);
                // The last first, so that what is left is a prefix all the while.
                for &key in self.keys.range(kept..len).rev() {
                    self.table.remove(slot, key);
                }
            }
            self.keys.drain(..len);
            dropped += 1;
        }
        dropped
    }

    /// How many of the first `len` keys, which are those of the prompt that was popped last, a later
    /// prompt in the slot has as well.
    fn shared(&self, slot: u16, len: usize) -> usize {
        let (mut most, mut start) = (0, len);
        for prompt in &self.prompts {
            let theirs = prompt.len as usize;
            if prompt.slot == slot {
                // Keys that are equal at one place are equal at all before it.
                let (mut low, mut high) = (0, len.min(theirs));
                while low < high {
                    let middle = low + (high - low) / 2;
                    if self.keys.get(middle) == self.keys.get(start + middle) {
                        low = middle + 1;
                    } else {
                        high = middle;
                    }
                }
                most = most.max(low);
            }
            start += theirs;
        }
        most
    }

    fn clear(&mut self, slot: u16) {
        self.table.clear_slot(slot);
        let prompts = self.prompts.iter_mut().filter(|prompt| prompt.slot == slot);
        prompts.for_each(|prompt| prompt.slot = NOBODY);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use inlane_core::rng::Rng;

    use super::*;

    const A: Slot = Slot { index: 0, generation: 1 };
    const B: Slot = Slot { index: 3, generation: 1 };

    fn prefixes(expected: &Expected, keys: &[u64]) -> [u32; 4] {
        let mut out = [0; 4];
        expected.prefixes(keys, &mut out);
        out
    }

    #[test]
    fn blocks_are_expected_for_a_time() {
        let expected = Expected::new().unwrap();
        assert!(expected.expect(A, &[1, 2, 3], 100));
        assert!(expected.is_empty(), "the owner has not passed");
        assert_eq!(expected.pass(1_000), 1);
        assert_eq!(prefixes(&expected, &[1, 2, 9]), [2, 0, 0, 0]);
        assert_eq!((expected.size(), expected.pass(1_099)), (3, 0));
        assert_eq!(prefixes(&expected, &[1, 2, 3]), [3, 0, 0, 0]);
        assert_eq!((expected.pass(1_100), expected.size()), (1, 0));
        assert_eq!(prefixes(&expected, &[1, 2, 3]), [0; 4]);
    }

    #[test]
    fn a_later_prompt_keeps_what_it_shares() {
        let expected = Expected::new().unwrap();
        expected.expect(A, &[1, 2, 3, 4], 100);
        expected.expect(B, &[1, 2, 3, 4], 100);
        expected.pass(0);
        expected.expect(A, &[1, 2, 7], 100);
        expected.pass(50);
        expected.pass(100);
        assert_eq!(prefixes(&expected, &[1, 2, 3, 4]), [2, 0, 0, 0]);
        assert_eq!(prefixes(&expected, &[1, 2, 7]), [3, 0, 0, 0]);
        expected.pass(150);
        assert_eq!(prefixes(&expected, &[1]), [0; 4]);
    }

    #[test]
    fn a_cleared_slot_is_not_cleared_again_by_old_prompts() {
        let expected = Expected::new().unwrap();
        expected.expect(A, &[1, 2], 100);
        expected.clear(0, 0);
        assert_eq!((prefixes(&expected, &[1, 2]), expected.size()), ([0; 4], 0));
        expected.expect(A, &[1, 2, 3], 100);
        expected.pass(50);
        expected.pass(120);
        assert_eq!(prefixes(&expected, &[1, 2, 3]), [3, 0, 0, 0]);
        let mut slots = Vec::new();
        expected.slots(|slot| slots.push(slot));
        assert_eq!(slots, [0]);
    }

    #[test]
    fn endpoints_that_left_are_forgotten() {
        let expected = Expected::new().unwrap();
        expected.expect(A, &[1], 100);
        expected.retain(&EndpointSet::default(), 0);
        assert_eq!((prefixes(&expected, &[1]), expected.is_empty()), ([0; 4], true));
        assert!(!expected.expect(A, &[1], 100), "late");
        let successor = Slot { generation: 2, ..A };
        assert!(expected.expect(successor, &[1], 100));
        assert!(expected.is_tenant(successor) && !expected.is_tenant(A));
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let expected = Expected::new().unwrap();
        let keys: Vec<u64> = (0..PROMPT_KEYS as u64).collect();
        for round in 0..(MOST_KEYS / PROMPT_KEYS) as u64 {
            let keys: Vec<u64> = keys.iter().map(|key| key + round * 10_000).collect();
            assert!(expected.expect(A, &keys, 1_000));
            expected.pass(0);
        }
        assert_eq!((expected.size(), expected.dropped()), (MOST_KEYS as u64, 0));
        expected.expect(A, &[u64::MAX], 1_000);
        expected.pass(1);
        assert_eq!((expected.size(), expected.dropped()), (MOST_KEYS as u64, 1));
        for _ in 0..=PROMPTS {
            expected.expect(B, &[7], 1_000);
        }
        assert_eq!(expected.dropped(), 2);
        expected.pass(1_000);
        assert_eq!(prefixes(&expected, &[7]), [0, 0, 0, 1]);
        assert_eq!(expected.size(), 1);
    }

    #[test]
    fn slots_out_of_range_are_ignored() {
        let expected = Expected::new().unwrap();
        for index in [MAX_SLOTS as u32, 65_535, u32::MAX] {
            assert!(!expected.expect(Slot { index, generation: 1 }, &[1], 10));
        }
    }

    /// Against a list of (slot, until, keys).
    #[test]
    fn it_expects_what_a_list_of_prompts_expects() {
        let expected = Expected::new().unwrap();
        let mut model: Vec<(u16, u64, Vec<u64>)> = Vec::new();
        let mut rng = Rng::new(7);
        // With few forks, so that prompts share fronts; some longer than a place in the ring.
        let chain = |rng: &mut Rng| -> Vec<u64> {
            let (len, fork) = (u64::from(rng.below(700)), u64::from(rng.below(3) * 256));
            let branch = (fork + u64::from(rng.below(2))) << 32;
            (0..len).map(|i| if i < fork { i } else { i | 1 << 63 | branch }).collect()
        };
        for step in 0..600u64 {
            let now = step * 10;
            for _ in 0..rng.below(3) {
                let (slot, keys) = (rng.below(3) as u16, chain(&mut rng));
                let taken = expected.expect(Slot { index: slot.into(), generation: 1 }, &keys, 100);
                assert_eq!(taken, !keys.is_empty());
                model.push((slot, now + 100, keys));
            }
            expected.pass(now);
            model.retain(|(_, until, _)| *until > now);
            if rng.below(20) == 0 {
                let slot = rng.below(3) as u16;
                expected.clear(slot, now);
                model.retain(|(other, ..)| *other != slot);
            }
            let asked = chain(&mut rng);
            let mut counts: BTreeMap<u16, u32> = BTreeMap::new();
            for (slot, _, keys) in &model {
                let shared = asked.iter().zip(keys).take_while(|(a, b)| a == b).count() as u32;
                let most = counts.entry(*slot).or_default();
                *most = shared.max(*most);
            }
            let wanted = [0, 1, 2, 3].map(|slot| counts.get(&slot).copied().unwrap_or(0));
            assert_eq!(prefixes(&expected, &asked), wanted, "step {step}");
        }
    }
}

//! The host table: which Envoy host stands for which endpoint slot.
//!
//! The main thread writes, workers read. An entry is a host pointer and the slot generation it was
//! made for, both in atomics. The writer stores the generation before the pointer and clears the
//! pointer before anything else changes; a reader takes the pointer first and then compares the
//! generation, so that it never gets the host of another tenant of the slot. The pointer is only
//! ever handed back to Envoy, which checks it against its own hosts; nothing here follows it.

use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use inlane_core::endpoint::Slot;

/// Envoy's host object, opaque.
pub type HostPtr = *mut std::ffi::c_void;

#[derive(Debug, Default)]
struct Entry {
    host: AtomicPtr<std::ffi::c_void>,
    generation: AtomicU32,
}

/// Slot → host, fixed size, wait-free to read.
#[derive(Debug)]
pub struct HostTable {
    entries: Box<[Entry]>,
}

impl HostTable {
    /// A table for slots below `capacity`.
    pub fn new(capacity: usize) -> Self {
        Self { entries: (0..capacity).map(|_| Entry::default()).collect() }
    }

    /// The host of `slot`, unless it has none or the slot has another tenant.
    pub fn get(&self, slot: Slot) -> Option<HostPtr> {
        let entry = self.entries.get(slot.index as usize)?;
        let host = entry.host.load(Ordering::Acquire);
        let same = entry.generation.load(Ordering::Relaxed) == slot.generation;
        (same && !host.is_null()).then_some(host)
    }

    /// Any host, the first one from a place that `seed` chooses. Walks the table: for the time when
    /// nothing better is known.
    pub fn any(&self, seed: u64) -> Option<HostPtr> {
        let count = self.entries.len();
        let first = (seed % count.max(1) as u64) as usize;
        (0..count).find_map(|n| {
            let host = self.entries[(first + n) % count].host.load(Ordering::Acquire);
            (!host.is_null()).then_some(host)
        })
    }

    /// Enters a host. Main thread only.
    pub fn set(&self, slot: Slot, host: HostPtr) {
        if let Some(entry) = self.entries.get(slot.index as usize) {
            entry.host.store(std::ptr::null_mut(), Ordering::Release);
            entry.generation.store(slot.generation, Ordering::Release);
            entry.host.store(host, Ordering::Release);
        }
    }

    /// Takes the host of `slot` out, if it is still that tenant's. Main thread only.
    pub fn clear(&self, slot: Slot) {
        if let Some(entry) = self.entries.get(slot.index as usize)
            && entry.generation.load(Ordering::Relaxed) == slot.generation
        {
            entry.host.store(std::ptr::null_mut(), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_belongs_to_one_tenancy() {
        let table = HostTable::new(2);
        let (first, second) = (Slot { index: 1, generation: 1 }, Slot { index: 1, generation: 2 });
        let host = 0x10 as HostPtr;
        assert_eq!(table.get(first), None);
        table.set(first, host);
        assert_eq!(table.get(first), Some(host));
        assert_eq!(table.get(second), None);
        assert_eq!(table.any(7), Some(host));
        table.clear(second);
        assert_eq!(table.get(first), Some(host));
        table.clear(first);
        assert_eq!((table.get(first), table.any(0)), (None, None));
        table.set(Slot { index: 9, generation: 0 }, host);
        assert_eq!(table.get(Slot { index: 9, generation: 0 }), None);
    }
}

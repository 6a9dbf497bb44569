//! Which requests run where, and the tightest time per output token that any of them asked for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Release};
use std::sync::{Mutex, OnceLock, PoisonError};

use inlane_core::endpoint::Slot;

/// Slots of one chunk, and chunks: memory comes as slots are used.
const CHUNK: usize = 256;
const CHUNKS: usize = 256;
/// Requests that are remembered per endpoint; more are not counted.
const MOST: usize = 4_096;
/// No request expires.
const NEVER: u64 = u64::MAX;

/// The requests that this proxy has running on each endpoint.
///
/// A decision reads two words per endpoint without waiting; it may see one of them a change earlier
/// than the other. Adding and removing happen after a
/// choice and at the end of a stream, under a lock of that endpoint alone; removal is linear in the
/// requests that run there. About 40 bytes per endpoint and 24 per running request.
#[derive(Debug)]
pub(super) struct Running {
    chunks: Box<[OnceLock<Box<[Cell]>>]>,
}

#[derive(Debug)]
struct Cell {
    count: AtomicU32,
    /// Bits of the tightest target.
    tightest: AtomicU64,
    /// When the first of the requests expires.
    expires_ms: AtomicU64,
    requests: Mutex<Tenant>,
}

/// The requests of a slot, and whose slot it is.
#[derive(Debug, Default)]
struct Tenant {
    generation: u32,
    requests: Vec<Request>,
}

#[derive(Debug, Clone, Copy)]
struct Request {
    id: u64,
    /// Target for the time per output token, ms; 0 = none.
    tpot_ms: f64,
    expires_ms: u64,
}

/// What runs on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Summary {
    /// Requests.
    pub(super) requests: u32,
    /// The smallest target for the time per output token, ms. A request without one counts as 0,
    /// as in the reference, and so hides the others' targets.
    pub(super) tightest_tpot_ms: f64,
}

impl Default for Running {
    fn default() -> Self {
        Self { chunks: (0..CHUNKS).map(|_| OnceLock::new()).collect() }
    }
}

impl Running {
    /// What runs on the endpoint of `slot`. Does not wait: requests that have expired are forgotten
    /// here when nobody else is changing the endpoint, and by the next caller otherwise.
    pub(super) fn read(&self, slot: Slot, now_ms: u64) -> Summary {
        let Some(cell) = self.existing(slot) else { return Summary::default() };
        if cell.expires_ms.load(Acquire) <= now_ms
            && let Ok(mut tenant) = cell.requests.try_lock()
        {
            tenant.requests.retain(|request| request.expires_ms > now_ms);
            cell.publish(&tenant);
        }
        Summary {
            requests: cell.count.load(Acquire),
            tightest_tpot_ms: f64::from_bits(cell.tightest.load(Acquire)),
        }
    }

    /// Adds a request. One that is there already, and one whose target is negative, is not added.
    pub(super) fn add(&self, slot: Slot, id: u64, tpot_ms: f64, expires_ms: Option<u64>) {
        let Some(cell) = self.cell(slot) else { return };
        let mut tenant = cell.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if tenant.generation != slot.generation {
            tenant.requests.clear();
            tenant.generation = slot.generation;
        }
        let known = tenant.requests.iter().any(|request| request.id == id);
        // Written so that NaN is refused.
        if tpot_ms >= 0.0 && !known && tenant.requests.len() < MOST {
            let expires_ms = expires_ms.unwrap_or(NEVER);
            tenant.requests.push(Request { id, tpot_ms, expires_ms });
        }
        cell.publish(&tenant);
    }

    /// Removes a request, when it is there.
    pub(super) fn remove(&self, slot: Slot, id: u64) {
        let Some(cell) = self.existing(slot) else { return };
        let mut tenant = cell.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if tenant.generation == slot.generation {
            tenant.requests.retain(|request| request.id != id);
            cell.publish(&tenant);
        }
    }

    fn existing(&self, slot: Slot) -> Option<&Cell> {
        let at = slot.index as usize;
        self.chunks.get(at / CHUNK)?.get()?.get(at % CHUNK)
    }

    fn cell(&self, slot: Slot) -> Option<&Cell> {
        let at = slot.index as usize;
        let make = || (0..CHUNK).map(|_| Cell::new()).collect();
        self.chunks.get(at / CHUNK)?.get_or_init(make).get(at % CHUNK)
    }
}

impl Cell {
    fn new() -> Self {
        Self {
            count: AtomicU32::new(0),
            tightest: AtomicU64::new(0f64.to_bits()),
            expires_ms: AtomicU64::new(NEVER),
            requests: Mutex::new(Tenant::default()),
        }
    }

    /// Makes a change visible to decisions.
    fn publish(&self, tenant: &Tenant) {
        let requests = &tenant.requests;
        let tightest = requests.iter().map(|r| r.tpot_ms).reduce(f64::min).unwrap_or(0.0);
        let expires_ms = requests.iter().map(|r| r.expires_ms).min().unwrap_or(NEVER);
        self.count.store(requests.len() as u32, Release);
        self.tightest.store(tightest.to_bits(), Release);
        self.expires_ms.store(expires_ms, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(index: u32, generation: u32) -> Slot {
        Slot { index, generation }
    }

    fn read(running: &Running, slot: Slot, now_ms: u64) -> (u32, f64) {
        let summary = running.read(slot, now_ms);
        (summary.requests, summary.tightest_tpot_ms)
    }

    #[test]
    fn the_tightest_target_is_that_of_a_running_request() {
        let (running, at) = (Running::default(), slot(300, 1));
        assert_eq!(read(&running, at, 0), (0, 0.0));
        running.add(at, 1, 20.0, None);
        running.add(at, 2, 5.0, None);
        running.add(at, 2, 1.0, None);
        running.add(at, 3, -1.0, None);
        running.add(at, 4, f64::NAN, None);
        assert_eq!(read(&running, at, 0), (2, 5.0));
        assert_eq!(read(&running, slot(299, 1), 0), (0, 0.0));
        running.remove(at, 2);
        assert_eq!(read(&running, at, 0), (1, 20.0));
        running.add(at, 5, 0.0, None);
        assert_eq!(read(&running, at, 0), (2, 0.0), "one without a target hides the others'");
        running.remove(at, 1);
        running.remove(at, 5);
        running.remove(at, 5);
        assert_eq!(read(&running, at, 0), (0, 0.0));
    }

    #[test]
    fn requests_expire() {
        let (running, at) = (Running::default(), slot(0, 1));
        running.add(at, 1, 5.0, Some(100));
        running.add(at, 2, 7.0, Some(200));
        assert_eq!(read(&running, at, 99), (2, 5.0));
        assert_eq!(read(&running, at, 100), (1, 7.0));
        assert_eq!(read(&running, at, 200), (0, 0.0));
    }

    #[test]
    fn a_new_tenant_of_a_slot_starts_empty() {
        let running = Running::default();
        running.add(slot(0, 1), 1, 5.0, None);
        running.add(slot(0, 2), 2, 9.0, None);
        assert_eq!(read(&running, slot(0, 2), 0), (1, 9.0));
        running.remove(slot(0, 1), 2);
        assert_eq!(read(&running, slot(0, 2), 0), (1, 9.0), "another tenant's request");
        running.add(slot(u32::MAX, 1), 1, 1.0, None);
        assert_eq!(read(&running, slot(u32::MAX, 1), 0), (0, 0.0), "beyond the table");
    }

    #[test]
    fn an_endpoint_remembers_a_bounded_number() {
        let (running, at) = (Running::default(), slot(0, 1));
        (0..5_000).for_each(|id| running.add(at, id, 1.0, None));
        assert_eq!(running.read(at, 0).requests as usize, MOST);
    }
}

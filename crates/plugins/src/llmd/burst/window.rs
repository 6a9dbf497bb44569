//! Windows: who arrived together.
//!
//! A request enrolls under a short lock. When the window has closed, whoever comes first places all
//! its requests; the others of the window find the result. A window is forgotten some seconds after
//! it closed, so one whose requests were all cancelled costs nothing for long.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use inlane_core::endpoint::Slot;
use inlane_core::plugin::Ticket;

/// How long the result of a window is kept after it closed, ms.
const KEPT_MS: u64 = 10_000;
/// Bits of a ticket that number the request within its window.
const PLACE_BITS: u32 = 24;

/// A request in a window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// Chained hashes of its prompts' blocks.
    pub(crate) blocks: Vec<u64>,
}

/// What has been collected.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The requests in the order in which they came.
    pub(crate) entries: Vec<Entry>,
    /// The candidates of the first request with blocks.
    pub(crate) replicas: Vec<Slot>,
}

/// One window.
#[derive(Debug)]
pub(crate) struct Window {
    id: u64,
    closes_ms: u64,
    /// `None` once it has been taken to be placed.
    batch: Mutex<Option<Batch>>,
    placed: OnceLock<Vec<Option<Slot>>>,
}

/// The windows of one instance.
#[derive(Debug, Default)]
pub(crate) struct Windows(Mutex<Recent>);

#[derive(Debug, Default)]
struct Recent {
    next_id: u64,
    /// By closing time; only the last one may be open.
    windows: VecDeque<Arc<Window>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Windows {
    /// Adds a request to the open window, or to a new one that stays open for `length_ms`.
    /// `replicas` are its candidates. `None` when the window has `most` requests.
    pub(crate) fn enroll(
        &self,
        entry: Entry,
        replicas: impl Iterator<Item = Slot>,
        (now_ms, length_ms, most): (u64, u64, usize),
    ) -> Option<Ticket> {
        let mut recent = lock(&self.0);
        recent.forget(now_ms);
        let open = recent.windows.back().filter(|window| window.closes_ms > now_ms).cloned();
        let open = open.filter(|window| lock(&window.batch).is_some());
        let window = open.unwrap_or_else(|| recent.open(now_ms + length_ms));
        let mut batch = lock(&window.batch);
        drop(recent);
        let Batch { entries, replicas: known } = batch.as_mut()?;
        if entries.len() >= most.min(1 << PLACE_BITS) {
            return None;
        }
        if known.is_empty() && !entry.blocks.is_empty() {
            known.extend(replicas);
        }
        let id = window.id << PLACE_BITS | entries.len() as u64;
        entries.push(entry);
        Some(Ticket { id, ready_at_ms: window.closes_ms })
    }

    /// Where the request with `ticket` goes. The first to ask closes the window and has `place` say
    /// it for all of them; those that ask meanwhile wait for that.
    pub(crate) fn placed(
        &self,
        ticket: Ticket,
        place: impl FnOnce(Batch) -> Vec<Option<Slot>>,
    ) -> Option<Slot> {
        let id = ticket.id >> PLACE_BITS;
        let window = lock(&self.0).windows.iter().find(|window| window.id == id).cloned()?;
        let taken = || lock(&window.batch).take().map(place).unwrap_or_default();
        let placed = window.placed.get_or_init(taken);
        let at = usize::try_from(ticket.id & ((1 << PLACE_BITS) - 1)).ok()?;
        placed.get(at).copied().flatten()
    }
}

impl Recent {
    fn open(&mut self, closes_ms: u64) -> Arc<Window> {
        let window = Arc::new(Window {
            id: self.next_id,
            closes_ms,
            batch: Mutex::new(Some(Batch::default())),
            placed: OnceLock::new(),
        });
        self.next_id += 1;
        self.windows.push_back(Arc::clone(&window));
        window
    }

    fn forget(&mut self, now_ms: u64) {
        while self.windows.front().is_some_and(|w| w.closes_ms.saturating_add(KEPT_MS) < now_ms) {
            self.windows.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(index: u32) -> Slot {
        Slot { index, generation: 1 }
    }

    fn enroll(windows: &Windows, now_ms: u64, most: usize) -> Option<Ticket> {
        let entry = Entry { blocks: vec![1] };
        windows.enroll(entry, [slot(7)].into_iter(), (now_ms, 100, most))
    }

    #[test]
    fn requests_share_a_window_until_it_closes() {
        let windows = Windows::default();
        let first = enroll(&windows, 10, 9).unwrap();
        let second = enroll(&windows, 109, 9).unwrap();
        assert_eq!((first.ready_at_ms, second.ready_at_ms), (110, 110));
        assert_eq!(enroll(&windows, 110, 9).unwrap().ready_at_ms, 210);
        let place = |batch: Batch| {
            assert_eq!((batch.entries.len(), batch.replicas), (2, vec![slot(7)]));
            vec![None, Some(slot(3))]
        };
        assert_eq!(windows.placed(second, place), Some(slot(3)));
        assert_eq!(windows.placed(first, |_| panic!("placed once")), None);
    }

    #[test]
    fn a_full_window_takes_nobody() {
        let windows = Windows::default();
        assert!(enroll(&windows, 0, 1).is_some());
        assert!(enroll(&windows, 1, 1).is_none());
        assert!(enroll(&windows, 100, 1).is_some());
    }

    #[test]
    fn a_window_that_was_placed_takes_nobody() {
        let windows = Windows::default();
        let early = enroll(&windows, 0, 9).unwrap();
        windows.placed(early, |batch| vec![None; batch.entries.len()]);
        assert_eq!(enroll(&windows, 50, 9).unwrap().ready_at_ms, 150);
    }

    #[test]
    fn old_windows_are_forgotten() {
        let windows = Windows::default();
        let old = enroll(&windows, 0, 9).unwrap();
        enroll(&windows, 20_000, 9).unwrap();
        assert_eq!(windows.placed(old, |_| panic!("gone")), None);
        assert_eq!(lock(&windows.0).windows.len(), 1);
    }
}

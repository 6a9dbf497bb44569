//! Prompts that begin as one before did, and whether the index knew them.
//!
//! A prompt that was sent a while ago should be found somewhere. One that is not was evicted, or the
//! index is blind; when that happens to all of them, it is blind.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Fronts remembered.
const FRONTS: usize = 1 << 12;
/// A prompt may take this long to be in the index, in ms.
const KNOWN_AFTER_MS: u64 = 2_000;
/// Repeats without one that is found that say something.
const ENOUGH: u64 = 20;
/// Counted in turns of this many ms.
const TURN_MS: u64 = 60_000;

/// Bits of a word that say when; the others say what.
const WHEN_BITS: u32 = 24;
const WHEN: u64 = (1 << WHEN_BITS) - 1;

/// What was seen, and how often again. All counts may miss some: two workers may meet.
#[derive(Debug)]
pub(super) struct Repeats {
    /// Upper bits of a front's key, and when it was first seen (in units of 256 ms).
    fronts: Box<[AtomicU64]>,
    repeats: AtomicU64,
    found: AtomicU64,
    /// The two counts when the turn began, and when that was.
    turn: [AtomicU64; 3],
}

impl Default for Repeats {
    fn default() -> Self {
        Self {
            fronts: (0..FRONTS).map(|_| AtomicU64::new(0)).collect(),
            repeats: AtomicU64::new(0),
            found: AtomicU64::new(0),
            turn: Default::default(),
        }
    }
}

impl Repeats {
    /// Notes a prompt whose front has this key.
    pub(super) fn note(&self, front: u64, found: bool, now_ms: u64) {
        let Some(cell) = self.fronts.get(front as usize % FRONTS) else { return };
        let (seen, when) = (cell.load(Relaxed), now_ms >> 8 & WHEN);
        if seen == 0 || (seen ^ front) & !WHEN != 0 {
            cell.store(front & !WHEN | when.max(1), Relaxed);
            return;
        }
        // Time wraps after 50 days; a front that old counts as new once.
        if (when.wrapping_sub(seen) & WHEN) << 8 >= KNOWN_AFTER_MS {
            self.repeats.fetch_add(1, Relaxed);
            self.found.fetch_add(u64::from(found), Relaxed);
        }
    }

    /// Repeats of the running turn, where there are enough of them and none was found. For one
    /// thread.
    pub(super) fn never_found(&self, now_ms: u64) -> Option<u64> {
        let (repeats, found) = self.totals();
        let [repeats_before, found_before, began_ms] = &self.turn;
        let since = repeats.saturating_sub(repeats_before.load(Relaxed));
        let blind = since >= ENOUGH && found == found_before.load(Relaxed);
        if blind || now_ms.saturating_sub(began_ms.load(Relaxed)) >= TURN_MS {
            repeats_before.store(repeats, Relaxed);
            found_before.store(found, Relaxed);
            began_ms.store(now_ms, Relaxed);
        }
        blind.then_some(since)
    }

    /// Repeats so far, and those of them that were found.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.repeats.load(Relaxed), self.found.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_counts_again_when_it_had_time_to_be_known() {
        let repeats = Repeats::default();
        for (now_ms, total) in [(10_000, 0), (10_500, 0), (13_000, 1), (20_000, 2)] {
            repeats.note(5 << 40, true, now_ms);
            assert_eq!(repeats.totals(), (total, total), "{now_ms}");
        }
        repeats.note(6 << 40, false, 30_000);
        assert_eq!(repeats.totals(), (2, 2), "another prompt in the same place");
    }

    #[test]
    fn one_that_is_found_is_enough() {
        let repeats = Repeats::default();
        let note = |found: bool, at: u64| repeats.note(9 << 40, found, at);
        (0..40).for_each(|n| note(n == 30, n * 3_000));
        assert_eq!(repeats.never_found(120_000), None);
        (40..70).for_each(|n| note(false, n * 3_000));
        assert_eq!(repeats.never_found(210_000), Some(30));
        assert_eq!(repeats.never_found(215_000), None, "said");
    }

    #[test]
    fn first_prompts_say_nothing() {
        let repeats = Repeats::default();
        (1..2_000_u64).for_each(|n| repeats.note(n << 40 | n, false, n * 10));
        assert_eq!(repeats.totals(), (0, 0));
    }
}

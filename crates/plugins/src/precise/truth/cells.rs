//! What is counted of endpoints.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use inlane_core::endpoint::Slot;

use super::counters::Tally;
use super::{SAMPLES, SLOTS};

/// Cells that are made together.
const GROUP: usize = 64;

/// Cells by slot. A group is made with the first response of an endpoint in it: most pools are small.
#[derive(Debug)]
pub(super) struct Cells(Box<[OnceLock<Box<[Cell]>>]>);

impl Default for Cells {
    fn default() -> Self {
        Self((0..SLOTS.div_ceil(GROUP)).map(|_| OnceLock::new()).collect())
    }
}

impl Cells {
    /// The cell of the endpoint in `slot`, if that endpoint is the one that is counted.
    pub(super) fn get(&self, slot: Slot) -> Option<&Cell> {
        let (index, tenant) = (slot.index as usize, tenant(slot));
        let cell = self.0.get(index / GROUP)?.get()?.get(index % GROUP)?;
        (cell.tenant.load(Relaxed) == tenant).then_some(cell)
    }

    /// The cell of the endpoint in `slot`, which is counted from now on if it was not yet.
    pub(super) fn make(&self, slot: Slot) -> Option<&Cell> {
        let group = self.0.get(slot.index as usize / GROUP)?;
        let group = group.get_or_init(|| (0..GROUP).map(|_| Cell::default()).collect());
        let cell = group.get(slot.index as usize % GROUP)?;
        cell.welcome(tenant(slot));
        Some(cell)
    }
}

/// Counts of one endpoint. Only ever grow while the slot has the same tenant.
#[derive(Debug, Default)]
pub(super) struct Cell {
    /// Generation of the endpoint that is counted.
    tenant: AtomicU64,
    pub(super) predictions: AtomicU64,
    pub(super) refuted: AtomicU64,
    pub(super) reports: AtomicU64,
    pub(super) missed: AtomicU64,
    /// Responses without a number, of an endpoint that has never given one.
    pub(super) silent: AtomicU64,
    pub(super) predicted_tokens: AtomicU64,
    pub(super) reported_tokens: AtomicU64,
    /// For engines that report nothing.
    pub(super) tally: Tally,
    pub(super) has_reported: AtomicBool,
    pub(super) distrusted: AtomicBool,
}

impl Cell {
    pub(super) fn counts(&self) -> Counts {
        Counts {
            predictions: self.predictions.load(Relaxed),
            refuted: self.refuted.load(Relaxed),
            reports: self.reports.load(Relaxed),
            missed: self.missed.load(Relaxed),
        }
    }

    /// A new tenant starts anew. Two workers that see it at the same time lose each other a count.
    fn welcome(&self, generation: u64) {
        if self.tenant.swap(generation, Relaxed) == generation {
            return;
        }
        for count in [
            &self.predictions,
            &self.refuted,
            &self.reports,
            &self.missed,
            &self.silent,
            &self.predicted_tokens,
            &self.reported_tokens,
        ] {
            count.store(0, Relaxed);
        }
        self.tally.clear();
        self.has_reported.store(false, Relaxed);
        self.distrusted.store(false, Relaxed);
    }
}

/// A reading of what reports and predictions came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) predictions: u64,
    pub(super) refuted: u64,
    pub(super) reports: u64,
    pub(super) missed: u64,
}

impl Counts {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            predictions: self.predictions.saturating_sub(before.predictions),
            refuted: self.refuted.saturating_sub(before.refuted),
            reports: self.reports.saturating_sub(before.reports),
            missed: self.missed.saturating_sub(before.missed),
        }
    }

    /// Takes half of what came since `self` as said.
    pub(super) fn halfway_to(self, now: Self) -> Self {
        let mean = |a: u64, b: u64| a + b.saturating_sub(a) / 2;
        Self {
            predictions: mean(self.predictions, now.predictions),
            refuted: mean(self.refuted, now.refuted),
            reports: mean(self.reports, now.reports),
            missed: mean(self.missed, now.missed),
        }
    }

    pub(super) fn is_refuted(self) -> bool {
        self.predictions >= SAMPLES && self.refuted * 5 >= self.predictions * 4
    }

    pub(super) fn is_missed(self) -> bool {
        self.reports >= SAMPLES && self.missed * 5 >= self.reports * 4
    }
}

/// Never 0, which is nobody.
fn tenant(slot: Slot) -> u64 {
    u64::from(slot.generation) + 1
}

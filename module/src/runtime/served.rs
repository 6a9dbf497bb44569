//! What decisions are made on: one configuration applied to one topology, and where its numbers are.

use std::sync::Arc;

use inlane_core::columns::{InFlight, Metrics};
use inlane_core::endpoint::{EndpointSet, Slot};
use inlane_core::plan::Plan;
use inlane_core::plugin::LoadSource;
use inlane_core::request::BlockUnit;
use inlane_core::snapshot::{MetricsRow, Pool, ROW_WORDS};
use inlane_segment::{Ledger, SlotGeneration, Snapshot};

/// Why there is nothing to decide on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// No segment, or none that can be read.
    NoSnapshot,
    /// The segment has no topology yet.
    NoTopology,
    /// The segment has no configuration yet, or only refused ones.
    NoConfiguration,
}

impl Unserved {
    /// A word for it, in pages and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSnapshot => "no-snapshot",
            Self::NoTopology => "no-topology",
            Self::NoConfiguration => "no-configuration",
        }
    }
}

/// Everything a worker needs for a decision; immutable, swapped as a whole.
#[derive(Debug)]
pub struct Serving {
    /// Configuration and endpoints.
    pub plan: Arc<Plan>,
    /// The rows.
    pub snapshot: Snapshot,
    /// This process's bookings.
    pub ledger: Arc<Ledger>,
    /// The pool.
    pub pool: Pool,
    /// Generation of the configuration.
    pub config_generation: u64,
    /// Generation of the topology.
    pub topology_generation: u64,
}

impl Serving {
    /// The pool's members.
    pub fn endpoints(&self) -> &EndpointSet {
        self.plan.endpoints()
    }

    /// Reads every endpoint's row. An endpoint whose last scrape is older than `stale_after_ms`
    /// is marked as not fresh. One pass over the rows, a few nanoseconds each.
    pub fn fill_metrics(&self, metrics: &mut Metrics, now_ms: u64, stale_after_ms: u64) {
        for (ix, endpoint) in self.endpoints().as_slice().iter().enumerate() {
            let mut words = [0; ROW_WORDS];
            if !self.snapshot.row(endpoint.slot.index, &mut words) {
                metrics.fresh[ix] = false;
                continue;
            }
            let row = MetricsRow::from_words(&words);
            metrics.waiting[ix] = row.waiting;
            metrics.running[ix] = row.running;
            metrics.kv_usage[ix] = row.kv_usage;
            metrics.cache_block_size[ix] = row.cache_block_size;
            metrics.cache_num_blocks[ix] = row.cache_num_blocks;
            metrics.fresh[ix] = row.scraped_at_ms != 0
                && now_ms.saturating_sub(row.scraped_at_ms) <= stale_after_ms;
        }
    }

    /// The block unit in which bodies should be hashed, from the first endpoint's present numbers,
    /// and how many blocks of a prompt. `metrics` is memory to work in.
    pub fn block_unit(&self, metrics: &mut Metrics) -> Option<(BlockUnit, usize)> {
        let first = self.endpoints().as_slice().first()?;
        metrics.reset(1);
        if let Some(row) = self.row(first.slot) {
            metrics.cache_block_size[0] = row.cache_block_size;
            metrics.cache_num_blocks[0] = row.cache_num_blocks;
        }
        let unit = self.plan.block_unit(metrics, 0)?;
        Some((unit, self.plan.block_limit(unit)))
    }

    /// The row of one endpoint.
    pub fn row(&self, slot: Slot) -> Option<MetricsRow> {
        let mut words = [0; ROW_WORDS];
        let read = self.snapshot.row(slot.index, &mut words);
        read.then(|| MetricsRow::from_words(&words))
    }
}

impl LoadSource for Serving {
    fn in_flight(&self, slot: Slot) -> InFlight {
        let observed = self.ledger.observe(slot.index);
        if slot_generation(slot) != Some(observed.generation()) {
            return InFlight::default();
        }
        InFlight {
            requests: observed.requests(),
            tokens: u64::from(observed.tokens()),
            word: observed.word,
        }
    }
}

/// The slot's generation in the ledger's terms.
pub fn slot_generation(slot: Slot) -> Option<SlotGeneration> {
    SlotGeneration::new(u16::try_from(slot.generation).ok()?)
}

/// What is served at the moment.
#[derive(Debug)]
pub struct Served {
    /// Differs between any two of one runtime.
    pub epoch: u64,
    /// What to decide on, or why there is nothing.
    pub state: Result<Serving, Unserved>,
}

impl Served {
    /// Before the first snapshot.
    pub fn empty() -> Self {
        Self { epoch: 0, state: Err(Unserved::NoSnapshot) }
    }

    /// What to decide on, if there is something.
    pub fn serving(&self) -> Option<&Serving> {
        self.state.as_ref().ok()
    }
}

//! What the parts of the control plane share: everything is on one thread, so borrows are short
//! and never held across an await point.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use inlane_core::cycle::isolate;
use inlane_core::decision::PluginError;
use inlane_core::plugin::{Extraction, Findings};
use inlane_engine::EngineSample;

use crate::gauges::PoolGauges;
use crate::kv::KvEvents;
use crate::latency::Training;
use crate::pool::{PublishedPool, now_ms};
use crate::scrape::source::Target;
use crate::scrape::{FetchError, Sink};

/// The state.
pub(crate) struct Shared {
    pub(crate) pool: RefCell<PublishedPool>,
    pub(crate) gauges: RefCell<PoolGauges>,
    pub(crate) config: RefCell<InputStatus>,
    pub(crate) endpoints: RefCell<InputStatus>,
    /// The latency models in the making, while a configuration asks for them.
    pub(crate) training: RefCell<Option<Training>>,
    /// The KV-cache events that are followed, while a configuration asks for them.
    pub(crate) events: RefCell<Option<KvEvents>>,
    /// Writes of the segment that failed.
    pub(crate) publish_errors: Cell<u64>,
    /// Whether pool and configuration are published and the process is not about to end.
    pub(crate) ready: Cell<bool>,
}

/// How the last attempts to take in a file went.
#[derive(Debug, Default, Clone)]
pub(crate) struct InputStatus {
    /// Why what the file says now is not in force, wholly or in part; `None` when it is.
    pub(crate) error: Option<String>,
    /// Contents taken.
    pub(crate) accepted: u64,
    /// Contents refused.
    pub(crate) refused: u64,
}

impl InputStatus {
    /// Content was taken; `reservation` is what is wrong with a part of it.
    pub(crate) fn accept(&mut self, reservation: Option<String>) {
        self.accepted += 1;
        self.error = reservation;
    }

    /// Content was refused.
    pub(crate) fn refuse(&mut self, error: String) {
        self.refused += 1;
        self.error = Some(error);
    }
}

impl Shared {
    pub(crate) fn new(pool: PublishedPool) -> Self {
        Self {
            pool: RefCell::new(pool),
            gauges: RefCell::default(),
            config: RefCell::default(),
            endpoints: RefCell::default(),
            training: RefCell::default(),
            events: RefCell::default(),
            publish_errors: Cell::new(0),
            ready: Cell::new(false),
        }
    }

    /// Computes the pool gauges.
    pub(crate) fn refresh_gauges(&self, staleness: Duration) {
        let pool = self.pool.borrow();
        let rows = pool.members().map(|member| &member.row);
        self.gauges.borrow_mut().refresh(rows, now_ms(), staleness);
    }

    /// Notes a write of the segment that failed.
    pub(crate) fn publish_failed(&self, error: &inlane_segment::Error, what: &str) {
        if self.publish_errors.get() == 0 {
            tracing::error!(error = %error, what, "cannot publish");
        }
        self.publish_errors.set(self.publish_errors.get() + 1);
    }
}

impl Sink for Shared {
    fn scraped(&self, target: &Target, sample: &EngineSample, places: &[Option<u8>]) {
        if let Err(error) = self.pool.borrow_mut().apply(target.key(), sample, places) {
            self.publish_failed(&error, "LoRA adapters");
        }
    }

    fn extracted(
        &self,
        target: &Target,
        places: &[Option<u8>],
        extraction: Box<dyn Extraction>,
    ) -> Result<(), PluginError> {
        let mut done = Ok(());
        let read = |found: &mut Findings<'_>| done = isolate(|| extraction.finish(found));
        if let Err(error) = self.pool.borrow_mut().extract(target.key(), places, read) {
            self.publish_failed(&error, "models");
        }
        done
    }

    fn failed(&self, target: &Target, error: &FetchError) {
        self.pool.borrow_mut().note_failure(target.key(), error.to_string());
    }
}

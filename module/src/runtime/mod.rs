//! The runtime: what all parts of one Envoy that name the same segment share.
//!
//! ```text
//!            watcher thread                    owner thread            workers
//! segment ──► follows generations ──► Served ────────────────────────► decide, claim
//!            compiles plans, models    hosts ◄── main thread           push picks, latencies
//!                                                prefix tables ◄────── (bounded rings)
//!         ◄───────────────────────────────────── observed latencies ◄─┘
//! ```
//!
//! Workers only load the current [`Served`] and never wait for a thread of this module. The threads
//! hold the runtime weakly: when Envoy has destroyed the last filter and cluster that refer to it,
//! they end, and the ledger goes with them.

mod host_changes;
mod index;
#[cfg(test)]
mod index_tests;
mod models;
mod observations;
mod owner;
mod served;
mod tenants;
mod timer;
pub mod tokens;
mod watcher;
#[cfg(test)]
mod watcher_tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use inlane_core::registry::{KeptState, Registry};
use inlane_plugins::prefix::PrefixIndex;
use parking_lot::Mutex;

pub use host_changes::{Clusters, HostChange, HostOperations, PodsHosts, Wake};
pub use served::{Served, Serving, ShadowPlan, Unserved, slot_generation};
pub use timer::{Alarm, Timer};
#[cfg(test)]
pub(crate) use watcher::Watcher;

use tokens::TokenService;

use crate::metrics::Families;
use crate::record::DecisionLog;
use crate::settings::Settings;

/// Makes the plugin registry; a user's own module passes its own.
pub type MakeRegistry = fn() -> Registry;

/// Shared by filters, cluster and admin pages of one segment.
#[derive(Debug)]
pub struct Runtime {
    segment_dir: PathBuf,
    served: ArcSwap<Served>,
    /// Plugin state that outlives configurations.
    pub kept: KeptState,
    /// Clusters whose hosts follow the topology.
    pub clusters: Clusters,
    /// Metrics.
    pub metrics: Families,
    /// The last decisions of every worker.
    pub log: DecisionLog,
    /// Bytes of request bodies held.
    pub held_bytes: AtomicU64,
    /// Generation of the latency models that were last looked at; 0 = none yet.
    pub model_generation: AtomicU64,
    /// The control plane's last sign of life, boot-time clock in ns; 0 = none yet.
    pub heartbeat_ns: AtomicU64,
    /// Wakes streams that wait for a moment.
    pub timer: Timer,
    /// Tokenizers, where a configuration wants them.
    pub tokens: TokenService,
    /// Asks the owner thread to forget all prefixes.
    pub reset_prefixes: AtomicBool,
    /// The last time somebody warned of missing decisions, in ms; see [`Runtime::warn_undecided`].
    warned_ms: AtomicU64,
    registry: MakeRegistry,
    settings: ArcSwap<Settings>,
}

static RUNTIMES: Mutex<Vec<(PathBuf, Weak<Runtime>)>> = Mutex::new(Vec::new());

impl Runtime {
    /// The runtime of `settings.segment_dir`, started when it is the first part to ask for it.
    ///
    /// # Errors
    /// Metrics that cannot be registered, threads that cannot be started.
    pub fn get(settings: &Settings, registry: MakeRegistry) -> Result<Arc<Self>, String> {
        let mut runtimes = RUNTIMES.lock();
        runtimes.retain(|(_, runtime)| runtime.strong_count() > 0);
        let same = |(dir, _): &&(PathBuf, Weak<Self>)| *dir == settings.segment_dir;
        if let Some(runtime) = runtimes.iter().find(same).and_then(|(_, r)| r.upgrade()) {
            return Ok(runtime);
        }
        let runtime = Arc::new(Self::new(settings, registry)?);
        watcher::start(Arc::downgrade(&runtime))?;
        owner::start(Arc::downgrade(&runtime))?;
        runtime.timer.start()?;
        runtimes.push((settings.segment_dir.clone(), Arc::downgrade(&runtime)));
        Ok(runtime)
    }

    /// Takes over the settings of the scheduler filter, which hold for what all parts share:
    /// `staleMetrics`, `removalGrace`, `recordedDecisions`, `legacyMetricNames` and others. Envoy
    /// makes clusters before filters, so until then they are those of the part that came first.
    pub fn configure(&self, settings: &Settings) {
        self.log.set_limit(settings.recorded_decisions);
        self.settings.store(Arc::new(settings.clone()));
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// A runtime without threads.
    pub(crate) fn new(settings: &Settings, registry: MakeRegistry) -> Result<Self, String> {
        Ok(Self {
            segment_dir: settings.segment_dir.clone(),
            served: ArcSwap::from_pointee(Served::empty()),
            kept: KeptState::default(),
            clusters: Clusters::default(),
            metrics: Families::new().map_err(|e| format!("metrics: {e}"))?,
            log: DecisionLog::new(settings.recorded_decisions),
            held_bytes: AtomicU64::new(0),
            model_generation: AtomicU64::new(0),
            heartbeat_ns: AtomicU64::new(0),
            timer: Timer::default(),
            tokens: TokenService::default(),
            reset_prefixes: AtomicBool::new(false),
            warned_ms: AtomicU64::new(0),
            registry,
            settings: ArcSwap::from_pointee(settings.clone()),
        })
    }

    /// Directory of the segment.
    pub fn segment_dir(&self) -> &Path {
        &self.segment_dir
    }

    /// What decisions are made on now.
    pub fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// The prefix indexes, by the name under which they are kept.
    pub fn prefixes(&self) -> Vec<(String, Arc<PrefixIndex>)> {
        self.kept.all::<PrefixIndex>()
    }

    pub(crate) fn publish(&self, served: Served) {
        self.served.store(Arc::new(served));
    }

    /// Whether it is time to warn again that requests go without a decision: once in ten seconds,
    /// whoever asks first.
    pub fn warn_undecided(&self, now_ms: u64) -> bool {
        const EVERY_MS: u64 = 10_000;
        let last = self.warned_ms.load(Ordering::Relaxed);
        let due = last == 0 || now_ms.saturating_sub(last) >= EVERY_MS;
        due && self
            .warned_ms
            .compare_exchange(last, now_ms.max(1), Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_rate_limited() {
        let runtime = Runtime::new(&Settings::default(), Registry::new).unwrap();
        assert!(runtime.warn_undecided(5));
        assert!(!runtime.warn_undecided(6));
        assert!(!runtime.warn_undecided(10_004));
        assert!(runtime.warn_undecided(10_005));
    }
}

//! The watcher thread: follows the segment and publishes what it says.
//!
//! It looks at a few generation words every [`TICK`]. When a document has changed it copies it out,
//! validates and compiles it, lets the main thread add the hosts, and swaps what workers see. A
//! document that cannot be used is reported back through the ledger; the last good one stays.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use envoy_proxy_dynamic_modules_rust_sdk::{envoy_log_error, envoy_log_info, envoy_log_warn};
use inlane_core::config::{self, LoadedConfig};
use inlane_core::endpoint::EndpointSet;
use inlane_core::plan::{Plan, StaleMetrics as PlanStaleMetrics};
use inlane_core::snapshot::{ConfigDocument, Pool, Topology};
use inlane_plugins::token_producer::{self, Wish};
use inlane_segment::{Document, Ledger, SnapshotReader};

use super::Runtime;
use super::index::Index;
use super::models::Models;
use super::served::{Served, Serving, ShadowPlan, Unserved, scalar_places};
use super::tenants::{SETTLE, Tenants};
use crate::clock;
use crate::scheduler::Parsers;
use crate::settings::StaleMetrics;

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(5);
/// How often it tries to open a segment that is not there.
const REOPEN: Duration = Duration::from_millis(100);
/// Starts the thread.
pub(super) fn start(runtime: Weak<Runtime>) -> Result<(), String> {
    let run = move || {
        let mut watcher = Watcher::default();
        while let Some(runtime) = runtime.upgrade() {
            watcher.tick(&runtime);
            drop(runtime);
            std::thread::sleep(TICK);
        }
    };
    std::thread::Builder::new()
        .name("inlane-watcher".into())
        .spawn(run)
        .map(drop)
        .map_err(|e| format!("the watcher thread cannot be started: {e}"))
}

/// The thread's memory. One pass is a [`tick`](Self::tick).
#[derive(Debug, Default)]
pub(crate) struct Watcher {
    reader: Option<SnapshotReader>,
    next_open: Option<Instant>,
    /// The last complaint, so that it is logged once.
    complaint: String,
    ledger: Option<Arc<Ledger>>,
    /// Generation looked at, and the configuration that is served, with its own generation.
    config_seen: Option<u64>,
    config: Option<(u64, Arc<LoadedConfig>)>,
    topology_seen: Option<u64>,
    topology: Option<(Pool, Arc<EndpointSet>)>,
    models: Models,
    index: Index,
    tenants: Tenants,
    /// A topology that is accepted once no worker can be in the middle of a decision on an older.
    accepting: Option<(Instant, u64)>,
    /// What stale metrics mean in what is served.
    plan_settings: (StaleMetrics, u16),
    epoch: u64,
}

impl Watcher {
    /// Looks at everything once.
    pub(crate) fn tick(&mut self, runtime: &Runtime) {
        let changed = self.follow(runtime);
        let Some(reader) = &self.reader else { return };
        let age = reader.heartbeat_age();
        let heartbeat = clock::now_ns().saturating_sub(age.as_nanos() as u64);
        runtime.heartbeat_ns.store(heartbeat, Ordering::Relaxed);

        let new_config = self.read_config(runtime);
        let new_topology = self.read_topology();
        let new_settings = self.plan_settings != plan_settings(runtime);
        if changed || new_config || new_topology || new_settings {
            self.publish(runtime);
        }
        self.follow_models(runtime, new_config);
        if let Err(error) = runtime.tokens.follow(&runtime.served(), &runtime.settings()) {
            self.complain(error);
        }
        self.follow_index(runtime, new_config);
        self.let_go(runtime);
    }

    /// Opens the segment or follows it. Answers whether the snapshot is another one.
    fn follow(&mut self, runtime: &Runtime) -> bool {
        let outcome = match &mut self.reader {
            Some(reader) => reader.poll(),
            None => {
                let now = Instant::now();
                if self.next_open.is_some_and(|next| now < next) {
                    return false;
                }
                self.next_open = Some(now + REOPEN);
                SnapshotReader::open(runtime.segment_dir()).map(|reader| {
                    self.reader = Some(reader);
                    true
                })
            }
        };
        match outcome {
            Ok(changed) => {
                if changed {
                    self.complaint.clear();
                    self.config_seen = None;
                    self.topology_seen = None;
                    self.models.start_over();
                    self.index.start_over();
                }
                let renewed = self.renew_ledger(runtime, changed);
                changed | renewed
            }
            Err(error) => {
                self.complain(error.to_string());
                false
            }
        }
    }

    /// Makes a ledger when there is none, when the directory was made anew, or when the segment
    /// has more slots than the ledger. Claims in an old ledger end there.
    fn renew_ledger(&mut self, runtime: &Runtime, changed: bool) -> bool {
        let Some(reader) = &self.reader else { return false };
        let slots = reader.snapshot().shape().slots;
        let good = |ledger: &Arc<Ledger>| {
            let file = runtime.segment_dir().join(ledger.file_name());
            ledger.capacity() >= slots && (!changed || file.exists())
        };
        if self.ledger.as_ref().is_some_and(good) {
            return false;
        }
        match Ledger::create(runtime.segment_dir(), slots) {
            Ok(ledger) => {
                self.ledger = Some(Arc::new(ledger));
                true
            }
            Err(error) => {
                self.complain(format!("the ledger cannot be made: {error}"));
                false
            }
        }
    }

    fn complain(&mut self, complaint: String) {
        if self.complaint != complaint {
            envoy_log_warn!("inlane: {complaint}");
            self.complaint = complaint;
        }
    }

    fn read_config(&mut self, runtime: &Runtime) -> bool {
        let Some(reader) = &self.reader else { return false };
        let snapshot = reader.snapshot();
        let generation = snapshot.document_generation(Document::Config);
        if self.config_seen == Some(generation) {
            return false;
        }
        let document = match snapshot.document(Document::Config) {
            Ok(Some(document)) => document,
            Ok(None) => return false,
            Err(error) => {
                self.complain(error.to_string());
                return false;
            }
        };
        self.config_seen = Some(document.generation);
        let parsed = serde_json::from_slice::<ConfigDocument>(&document.bytes)
            .map_err(|e| format!("configuration document: {e}"));
        let registry = (runtime.registry)();
        let loaded = parsed.and_then(|parsed| {
            config::load(&parsed, &registry, &runtime.kept).map_err(|e| e.to_string())
        });
        match loaded {
            Ok(config) => {
                envoy_log_info!(
                    "inlane: configuration generation {} accepted",
                    document.generation
                );
                for warning in &config.warnings {
                    envoy_log_warn!("inlane: configuration: {warning}");
                }
                self.config = Some((document.generation, Arc::new(config)));
                true
            }
            Err(error) => {
                envoy_log_error!(
                    "inlane: configuration generation {} refused, the last one stays: {error}",
                    document.generation
                );
                if let Some(ledger) = &self.ledger {
                    ledger.refuse_config(document.generation, &error);
                }
                false
            }
        }
    }

    fn read_topology(&mut self) -> bool {
        let Some(reader) = &self.reader else { return false };
        let snapshot = reader.snapshot();
        let generation = snapshot.document_generation(Document::Topology);
        if self.topology_seen == Some(generation) {
            return false;
        }
        let document = match snapshot.document(Document::Topology) {
            Ok(Some(document)) => document,
            Ok(None) => return false,
            Err(error) => {
                self.complain(error.to_string());
                return false;
            }
        };
        self.topology_seen = Some(document.generation);
        match serde_json::from_slice::<Topology>(&document.bytes) {
            Ok(topology) => {
                let set = topology.endpoint_set(document.generation);
                self.topology = Some((topology.pool, Arc::new(set)));
                true
            }
            Err(error) => {
                envoy_log_error!("inlane: topology document refused: {error}");
                false
            }
        }
    }

    /// Hands latency models to the plugins.
    fn follow_models(&mut self, runtime: &Runtime, plugins_changed: bool) {
        let Some(reader) = &self.reader else { return };
        let followed = self.models.follow(runtime, reader.snapshot(), plugins_changed);
        runtime.model_generation.store(self.models.generation(), Ordering::Relaxed);
        if let Err(error) = followed {
            self.complain(error);
        }
    }

    /// Hands the index of cached blocks to the plugins.
    fn follow_index(&mut self, runtime: &Runtime, plugins_changed: bool) {
        let Some(reader) = &self.reader else { return };
        let config = self.config.as_ref().map(|(_, config)| &**config);
        let followed = self.index.follow(runtime, reader.snapshot(), config, plugins_changed);
        if let Err(error) = followed {
            self.complain(error);
        }
    }

    /// Brings hosts and ledger in line with the topology and swaps what workers see.
    fn publish(&mut self, runtime: &Runtime) {
        let (Some(reader), Some(ledger)) = (&self.reader, &self.ledger) else { return };
        let snapshot = reader.snapshot().clone();
        let ledger = Arc::clone(ledger);
        let topology = self.topology.clone();
        if let Some((_, set)) = &topology {
            self.tenants.admit(&runtime.clusters, set, &ledger);
        }
        self.plan_settings = plan_settings(runtime);
        let state = match (topology, &self.config) {
            (None, _) => Err(Unserved::NoTopology),
            (_, None) => Err(Unserved::NoConfiguration),
            (Some((pool, set)), Some((config_generation, config))) => {
                let (stale, denial) = self.plan_settings;
                let stale = match stale {
                    StaleMetrics::Neutral => PlanStaleMetrics::Mean,
                    StaleMetrics::LastKnown => PlanStaleMetrics::Trust,
                };
                let topology_generation = set.generation();
                ledger.accept_config(*config_generation);
                self.accepting = Some((Instant::now(), topology_generation));
                let plan_of = |config: &Arc<LoadedConfig>| {
                    let plan = Plan::new(Arc::clone(config), Arc::clone(&set));
                    plan.with_stale_metrics(stale).with_denial_status(denial)
                };
                let shadow = ShadowPlan::of(config, plan_of);
                let plan = plan_of(config);
                Ok(Serving {
                    shadow,
                    scalars: scalar_places(&plan),
                    media: token_producer::estimate(config),
                    parsers: Parsers::of(config),
                    tokens: Wish::of(config),
                    plan: Arc::new(plan),
                    snapshot,
                    ledger,
                    pool,
                    config_generation: *config_generation,
                    topology_generation,
                })
            }
        };
        self.epoch += 1;
        let present = self.topology.as_ref().map(|(_, set)| Arc::clone(set));
        runtime.publish(Served { epoch: self.epoch, state });
        runtime.kept.release_unused();
        if let Some(set) = present {
            self.tenants.dismiss(&set);
        }
    }

    /// Reports a topology that no worker can be behind any more, and lets hosts go.
    fn let_go(&mut self, runtime: &Runtime) {
        let Some(ledger) = &self.ledger else { return };
        if let Some((_, generation)) = self.accepting.take_if(|(at, _)| at.elapsed() >= SETTLE) {
            ledger.accept_topology(generation);
        }
        self.tenants.release(&runtime.clusters, ledger, runtime.settings().removal_grace);
    }
}
/// The settings that plans are made with.
fn plan_settings(runtime: &Runtime) -> (StaleMetrics, u16) {
    let settings = runtime.settings();
    (settings.stale_metrics, settings.admission_denial_status)
}

//! A pool for unit tests: a real segment in a directory of its own, and a runtime that follows it
//! without threads.
//!
//! The watcher's passes are made by [`World::tick`], the cluster's main thread is [`FakeCluster`].
//! Endpoint `n` of the pool is called `pod-<n>` and has the address `10.0.0.<n + 1>:8000`.

mod plugins;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use inlane_core::endpoint::EndpointIx;
use inlane_core::registry::Registry;
use inlane_core::snapshot::{ConfigDocument, FailureMode, Pool, Topology, TopologyEndpoint};
use inlane_segment::{Document, LedgerSet, Observed, Shape, SlotId, Writer};
use parking_lot::Mutex;
use tempfile::TempDir;

pub(crate) use plugins::{LEAST_BOOKED, PROBED, Shown, registry, script};

use crate::cluster::hosts::HostPtr;
use crate::runtime::{HostOperations, PodsHosts, Runtime, Served, Wake, Watcher};
use crate::settings::Settings;

/// Settings under which a slow machine changes no outcome.
pub(crate) fn settings() -> Settings {
    Settings {
        decision_budget: Duration::from_secs(60),
        metrics_stale_after: Duration::from_secs(600),
        ..Settings::default()
    }
}

/// A pool with everything that a decision needs.
pub(crate) struct World {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) watcher: Watcher,
    pub(crate) topology: Topology,
    /// `None` while the control plane is away.
    pub(crate) writer: Option<Writer>,
    dir: TempDir,
}

impl World {
    /// A pool of `endpoints` that is scheduled by [`LEAST_BOOKED`].
    pub(crate) fn new(endpoints: u32) -> Self {
        Self::with(settings(), registry, LEAST_BOOKED, endpoints)
    }

    /// A pool that is served.
    pub(crate) fn with(
        settings: Settings,
        registry: fn() -> Registry,
        config: &str,
        endpoints: u32,
    ) -> Self {
        let mut world = Self::empty(settings, registry);
        world.open(Shape { slots: 64, ..Shape::default() });
        world.publish_config(config);
        world.set_endpoints(0..endpoints);
        world.tick();
        world
    }

    /// A runtime whose segment nobody has made yet.
    pub(crate) fn empty(settings: Settings, registry: fn() -> Registry) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { segment_dir: dir.path().join("inlane"), ..settings };
        let runtime = Arc::new(Runtime::new(&settings, registry).unwrap());
        Self {
            runtime,
            settings: Arc::new(settings),
            watcher: Watcher::default(),
            topology: Topology::default(),
            writer: None,
            dir,
        }
    }

    /// Starts a control plane.
    pub(crate) fn open(&mut self, shape: Shape) {
        let path = self.dir.path().join("inlane");
        let (mut writer, _) = Writer::open_or_create(path, shape).unwrap();
        writer.beat();
        self.writer = Some(writer);
    }

    /// Ends the control plane and removes everything that it has made.
    pub(crate) fn wipe(&mut self) {
        self.writer = None;
        self.topology = Topology::default();
        std::fs::remove_dir_all(self.dir.path().join("inlane")).unwrap();
    }

    pub(crate) fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().unwrap()
    }

    pub(crate) fn publish_config(&mut self, text: &str) -> u64 {
        let document = ConfigDocument {
            source: "test".into(),
            text: text.into(),
            allow_experimental_plugins: true,
        };
        let bytes = serde_json::to_vec(&document).unwrap();
        self.writer().publish_document(Document::Config, &bytes).unwrap()
    }

    /// Publishes a topology of the pods with these numbers. A pod keeps its slot.
    pub(crate) fn set_endpoints(&mut self, pods: impl IntoIterator<Item = u32>) -> u64 {
        let mut present: BTreeMap<String, TopologyEndpoint> =
            self.topology.endpoints.drain(..).map(|e| (e.name.clone(), e)).collect();
        for pod in pods {
            let name = format!("pod-{pod}");
            let endpoint = present.remove(&name).unwrap_or_else(|| {
                let slot = self.writer.as_mut().unwrap().assign_slot().unwrap();
                endpoint(pod, slot)
            });
            self.topology.endpoints.push(endpoint);
        }
        self.publish_topology()
    }

    pub(crate) fn publish_topology(&mut self) -> u64 {
        let bytes = serde_json::to_vec(&self.topology).unwrap();
        self.writer().publish_document(Document::Topology, &bytes).unwrap()
    }

    pub(crate) fn set_failure_mode(&mut self, failure_mode: FailureMode) {
        self.topology.pool = Pool { failure_mode, ..Pool::default() };
        self.publish_topology();
        self.tick();
    }

    /// One pass of the watcher.
    pub(crate) fn tick(&mut self) {
        self.watcher.tick(&self.runtime);
    }

    pub(crate) fn served(&self) -> Arc<Served> {
        self.runtime.served()
    }

    /// What is booked on an endpoint of what is served.
    pub(crate) fn load(&self, endpoint: EndpointIx) -> Observed {
        let served = self.served();
        let serving = served.serving().unwrap();
        serving.ledger.observe(serving.endpoints()[endpoint].slot.index)
    }

    /// Requests booked on each endpoint.
    pub(crate) fn booked(&self) -> Vec<u32> {
        let served = self.served();
        let count = served.serving().unwrap().endpoints().len();
        (0..).take(count).map(|endpoint| self.load(endpoint).requests()).collect()
    }

    /// Claims that were released without being held: never, unless something released twice.
    pub(crate) fn stale_releases(&self) -> u64 {
        self.served().serving().unwrap().ledger.counters().stale_releases
    }

    /// The ledgers of this directory, as the control plane sees them.
    pub(crate) fn ledgers(&self) -> LedgerSet {
        let mut set = LedgerSet::open(self.dir.path().join("inlane")).unwrap();
        set.refresh().unwrap();
        set
    }

    /// Attaches a cluster whose main thread carries changes out as soon as it is woken.
    pub(crate) fn attach(&self) -> (Arc<PodsHosts>, Arc<FakeCluster>) {
        let cluster = Arc::new(FakeCluster {
            runtime: Arc::downgrade(&self.runtime),
            hosts: OnceLock::new(),
            present: Mutex::default(),
            added: Mutex::default(),
        });
        let hosts = Arc::new(PodsHosts::new(256, Box::new(MainThread(Arc::clone(&cluster)))));
        // A cluster that is not set yet is not woken: nothing is filed before it is attached.
        let _ = cluster.hosts.set(Arc::downgrade(&hosts));
        self.runtime.clusters.attach(&hosts);
        (hosts, cluster)
    }

    /// The text of all metrics.
    pub(crate) fn metrics(&self) -> String {
        let mut text = Vec::new();
        self.runtime.metrics.render(self.settings.legacy_metric_names, &mut text);
        String::from_utf8(text).unwrap()
    }
}

fn endpoint(pod: u32, slot: SlotId) -> TopologyEndpoint {
    let name = format!("pod-{pod}");
    TopologyEndpoint {
        namespace: "default".into(),
        pod_name: name.clone(),
        name,
        address: format!("10.0.0.{}", pod + 1),
        port: 8000,
        rank: 0,
        labels: BTreeMap::new(),
        slot: slot.index,
        slot_generation: slot.generation.number().into(),
    }
}

/// The main thread of a [`FakeCluster`].
struct MainThread(Arc<FakeCluster>);

impl Wake for MainThread {
    fn wake(&self) {
        if let Some(hosts) = self.0.hosts.get().and_then(Weak::upgrade) {
            hosts.apply(&*self.0);
        }
    }
}

/// A cluster whose host pointers are made of the address.
pub(crate) struct FakeCluster {
    runtime: Weak<Runtime>,
    hosts: OnceLock<Weak<PodsHosts>>,
    present: Mutex<BTreeSet<String>>,
    /// Every address that was added, and whether workers could already choose it then.
    pub(crate) added: Mutex<Vec<(String, bool)>>,
}

impl FakeCluster {
    /// The pointer of the host of pod `pod`.
    pub(crate) fn host(pod: u32) -> HostPtr {
        std::ptr::without_provenance_mut(0x100 * (pod as usize + 1))
    }

    /// The addresses of the hosts that the cluster has.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.present.lock().iter().cloned().collect()
    }
}

impl HostOperations for FakeCluster {
    fn find_or_add(&self, address: &str) -> Option<HostPtr> {
        let served = self.runtime.upgrade()?.served();
        let mut endpoints = served.serving().into_iter().flat_map(|s| s.endpoints().as_slice());
        let known = endpoints.any(|endpoint| endpoint.host_port == address);
        self.added.lock().push((address.to_owned(), known));
        self.present.lock().insert(address.to_owned());
        let last = address.split(':').next()?.rsplit('.').next()?;
        Some(Self::host(last.parse::<u32>().ok()? - 1))
    }

    fn remove(&self, address: &str) {
        self.present.lock().remove(address);
    }
}

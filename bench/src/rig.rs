//! A proxy's worker without the proxy: a compiled configuration over a real segment.
//!
//! Owns a segment directory in memory with one row and one claim word per pod, so that what is
//! timed reads the memory that a worker would read. The rows hold random but seeded numbers.

use std::num::NonZeroU32;
use std::sync::Arc;

use inlane_core::columns::InFlight;
use inlane_core::config::load;
use inlane_core::cycle::{Ask, Scratch};
use inlane_core::endpoint::{EndpointIx, EndpointSet, Slot};
use inlane_core::plan::Plan;
use inlane_core::plugin::LoadSource;
use inlane_core::registry::KeptState;
use inlane_core::request::{BlockUnit, Prompt, Request};
use inlane_core::snapshot::{ConfigDocument, MetricsRow, ROW_WORDS, Topology, TopologyEndpoint};
use inlane_plugins::prefix::PrefixIndex;
use inlane_segment::{Ledger, Observed, Shape, SlotGeneration, Snapshot, SnapshotReader, Writer};
use inlane_text::{Api, BlockHasher, BlockSize, Limits, Scanner};
use tempfile::TempDir;

use crate::Fallible;

/// Bytes per chunk of a body, as Envoy reads them from a socket.
const CHUNK: usize = 16 << 10;
/// When everything happens, boot-time ms.
const NOW_MS: u64 = 1_000_000;

/// The four scorers of the comparison with their weights.
pub const SCORERS: [(&str, u32); 4] = [
    ("queue-scorer", 2),
    ("kv-cache-utilization-scorer", 2),
    ("running-requests-size-scorer", 1),
    ("prefix-cache-scorer", 3),
];

/// A worker's view of a pool.
pub struct Rig {
    plan: Plan,
    scratch: Scratch,
    segment: Segment,
    kept: KeptState,
    unit: BlockUnit,
    seed: u64,
}

/// The memory shared with the control plane.
pub struct Segment {
    snapshot: Snapshot,
    ledger: Ledger,
    // The files live as long as these.
    _writer: Writer,
    _dir: TempDir,
}

/// A reader of bodies.
pub type BodyScanner = Scanner<BlockHasher>;

/// A scanner of bodies that hashes blocks of `unit`.
pub fn scanner(api: Api, unit: BlockUnit) -> BodyScanner {
    let blocks = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
    let size = match unit {
        BlockUnit::Bytes(n) => BlockSize::Bytes(blocks(n)),
        BlockUnit::Tokens(n) => BlockSize::Tokens(blocks(n)),
    };
    Scanner::new(api, Limits::default(), BlockHasher::new(size, 1 << 20))
}

/// Scans a body in chunks, as it would arrive.
///
/// # Panics
/// On a body that is no request: the bodies are this crate's own.
pub fn scan(scanner: &mut BodyScanner, api: Api, body: &[u8]) {
    scanner.reset(api);
    let fed = body.chunks(CHUNK).try_for_each(|chunk| scanner.feed(chunk));
    let read = fed.and_then(|()| scanner.finish().map(drop));
    assert!(read.is_ok() && !scanner.needs_second_pass(), "{read:?}");
}

impl Segment {
    fn new(pods: u32) -> Fallible<(Self, Topology)> {
        let shm = std::path::Path::new("/dev/shm");
        let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
        let dir = tempfile::tempdir_in(parent)?;
        let path = dir.path().join("segment");
        let shape = Shape { slots: pods.max(16), ..Shape::default() };
        let (mut writer, _) = Writer::open_or_create(&path, shape)?;
        let ledger = Ledger::create(&path, shape.slots)?;
        let mut rng = fastrand::Rng::with_seed(7);
        let mut endpoints = Vec::new();
        for pod in 0..pods {
            let slot = writer.assign_slot().ok_or("no slot is free")?;
            ledger.adopt(slot.index, slot.generation)?;
            let row = MetricsRow {
                waiting: rng.u32(..10),
                running: rng.u32(..50),
                kv_usage: rng.f64(),
                scraped_at_ms: NOW_MS,
                cache_block_size: 16,
                cache_num_blocks: 100_000,
                scrapes: 1,
                ..MetricsRow::default()
            };
            writer.publish_row(slot.index, &row.to_words());
            endpoints.push(TopologyEndpoint {
                namespace: "default".into(),
                name: format!("pod-{pod:05}"),
                pod_name: format!("pod-{pod:05}"),
                address: format!("10.{}.{}.{}", pod >> 16, pod >> 8 & 0xff, pod & 0xff),
                port: 8000,
                rank: 0,
                labels: [("llm-d.ai/role".to_owned(), "decode".to_owned())].into(),
                slot: slot.index,
                slot_generation: slot.generation.number().into(),
            });
        }
        let snapshot = SnapshotReader::open(&path)?.snapshot().clone();
        let topology = Topology { endpoints, ..Topology::default() };
        Ok((Self { snapshot, ledger, _writer: writer, _dir: dir }, topology))
    }

    /// The row of a slot.
    pub fn row(&self, slot: u32) -> Option<MetricsRow> {
        let mut words = [0; ROW_WORDS];
        self.snapshot.row(slot, &mut words).then(|| MetricsRow::from_words(&words))
    }

    /// Books a request of `tokens` on a slot against its present word, and gives it back.
    ///
    /// # Panics
    /// When the booking fails: nobody else books here.
    pub fn book(&self, slot: Slot, tokens: u32) {
        let observed = self.ledger.observe(slot.index);
        let claim = self.ledger.try_claim(slot.index, observed.generation(), observed, tokens);
        assert!(claim.is_ok_and(|claim| self.ledger.release(claim)), "{slot:?}");
    }
}

impl LoadSource for Segment {
    fn in_flight(&self, slot: Slot) -> InFlight {
        let observed: Observed = self.ledger.observe(slot.index);
        let generation = u16::try_from(slot.generation).ok().and_then(SlotGeneration::new);
        if generation != Some(observed.generation()) {
            return InFlight::default();
        }
        let (requests, tokens) = (observed.requests(), u64::from(observed.tokens()));
        InFlight { requests, tokens, word: observed.word }
    }
}

impl Rig {
    /// A pool of `pods` with these scorers (type and weight) and this picker.
    ///
    /// # Errors
    /// A configuration that is refused, or shared memory that cannot be had.
    pub fn new(scorers: &[(&str, u32)], picker: &str, pods: u32) -> Fallible<Self> {
        Self::configured(&configuration(scorers, picker), pods)
    }

    /// A pool of `pods` with this configuration.
    ///
    /// # Errors
    /// A configuration that is refused, or shared memory that cannot be had.
    pub fn configured(text: &str, pods: u32) -> Fallible<Self> {
        let text = text.to_owned();
        let kept = KeptState::default();
        let document = ConfigDocument { text, ..ConfigDocument::default() };
        let config = load(&document, &inlane_plugins::registry(), &kept)?;
        let (segment, topology) = Segment::new(pods)?;
        let endpoints: EndpointSet = topology.endpoint_set(1);
        let plan = Plan::new(Arc::new(config), Arc::new(endpoints));
        let scratch = Scratch::new(&plan);
        let mut rig = Self { plan, scratch, segment, kept, unit: BlockUnit::Tokens(64), seed: 0 };
        rig.begin();
        rig.unit = rig.plan.block_unit(&rig.scratch.columns.metrics, 0).unwrap_or(rig.unit);
        Ok(rig)
    }

    /// What prompts are hashed in.
    pub fn unit(&self) -> BlockUnit {
        self.unit
    }

    /// The shared memory.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// The pool.
    pub fn endpoints(&self) -> &EndpointSet {
        self.plan.endpoints()
    }

    /// Begins a request: forgets the last one and reads every row.
    pub fn begin(&mut self) {
        self.plan.begin(&mut self.scratch);
        let metrics = &mut self.scratch.columns.metrics;
        for (ix, endpoint) in self.plan.endpoints().as_slice().iter().enumerate() {
            let Some(row) = self.segment.row(endpoint.slot.index) else {
                metrics.fresh[ix] = false;
                continue;
            };
            metrics.waiting[ix] = row.waiting;
            metrics.running[ix] = row.running;
            metrics.kv_usage[ix] = row.kv_usage;
            metrics.cache_block_size[ix] = row.cache_block_size;
            metrics.cache_num_blocks[ix] = row.cache_num_blocks;
            metrics.fresh[ix] = NOW_MS.saturating_sub(row.scraped_at_ms) <= 2_000;
        }
    }

    /// Runs the data producers.
    pub fn produce(&mut self, scanner: &BodyScanner) {
        let Self { plan, scratch, segment, unit, .. } = self;
        with_request(scanner, *unit, |request| {
            plan.produce(&Ask::new(request, segment, NOW_MS), scratch);
        });
    }

    /// Decides on the columns as they are.
    ///
    /// # Panics
    /// When nobody may serve the request: every pod may.
    pub fn decide(&mut self, scanner: &BodyScanner) -> EndpointIx {
        self.seed += 1;
        let Self { plan, scratch, unit, seed, .. } = self;
        let outcome =
            with_request(scanner, *unit, |request| plan.decide(request, NOW_MS, *seed, scratch));
        outcome.unwrap_or_else(|error| panic!("no destination: {error}"))
    }

    /// Everything that one request asks of a worker between its last byte and its departure, then
    /// the release of its booking, and the owner's part: its pick applied to the prefix index.
    pub fn serve(&mut self, scanner: &BodyScanner) {
        self.begin();
        self.produce(scanner);
        let target = self.decide(scanner);
        let slot = self.plan.endpoints()[target].slot;
        self.segment.book(slot, 100);
        let Self { plan, scratch, unit, seed, .. } = self;
        with_request(scanner, *unit, |request| {
            plan.apply_records(request, NOW_MS, *seed, scratch);
        });
        for (_, index) in self.kept.all::<PrefixIndex>() {
            index.drain();
        }
    }
}

/// A configuration with one profile of these scorers (type and weight) and this picker.
pub fn configuration(scorers: &[(&str, u32)], picker: &str) -> String {
    let plugins: String = scorers.iter().map(|(kind, _)| format!("- type: {kind}\n")).collect();
    let references: String = scorers
        .iter()
        .map(|(kind, weight)| format!("  - {{pluginRef: {kind}, weight: {weight}}}\n"))
        .collect();
    format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}\
         - type: {picker}\nschedulingProfiles:\n- name: default\n  plugins:\n{references}  \
         - pluginRef: {picker}\n"
    )
}

fn with_request<R>(
    scanner: &BodyScanner,
    unit: BlockUnit,
    work: impl FnOnce(&Request<'_>) -> R,
) -> R {
    let mut prompts = [Prompt::Blocks { unit, tokens: 0, contents: &[] }];
    for (to, from) in prompts.iter_mut().zip(scanner.sink().prompts()) {
        *to = Prompt::Blocks { unit, tokens: from.tokens, contents: from.contents };
    }
    let model = scanner.summary().model;
    work(&Request {
        id: "bench",
        model,
        target_model: model,
        prompts: &prompts,
        ..Request::default()
    })
}

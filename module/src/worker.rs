//! What a worker thread keeps for itself: scratch memory, stream records, handles of metrics.
//!
//! One per worker and runtime, in a thread-local; no other thread ever sees it. Hooks borrow it for
//! as long as they compute and never across a call into Envoy, which may call another hook.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use inlane_core::columns::Metrics;
use inlane_core::cycle::{ExtensionPoint, Laps, Scratch};
use inlane_core::effect::{PluginIx, TokenRelease};
use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_core::exposition::Histogram;
use inlane_core::plan::Plan;
use inlane_core::request::Request;
use inlane_core::rng::Rng;
use inlane_text::{Api, BlockSize, Limits, Scanner};
use prometheus::IntCounter;

use crate::clock;
use crate::metrics::plugins::TIMED_EVERY;
use crate::metrics::{ModelLabels, ModelSeries};
use crate::record::Ring;
use crate::runtime::{Runtime, Served, Serving};
use crate::scheduler::PromptSink;
use crate::stream::{Record, Records, Token};

/// Scanners kept for reuse.
const IDLE_SCANNERS: usize = 32;
/// Label sets whose handles are kept.
const SERIES: usize = 16;
/// Target models whose counters are kept; past that the cache starts over.
const ATTEMPT_MODELS: usize = 64;
/// Bodies from this size on take their scanner's memory with them.
const LARGE_BODY: u64 = 1 << 20;

/// The scanner of request bodies, hashing as it goes.
pub type BodyScanner = Scanner<PromptSink>;

/// A worker's memory for one runtime.
pub struct Worker {
    runtime: Weak<Runtime>,
    epoch: u64,
    scratch: Option<Scratch>,
    /// The same for the shadow configuration.
    shadow: Option<Scratch>,
    /// Streams between decision and end.
    pub records: Records,
    /// Where decisions are logged.
    pub ring: Arc<Ring>,
    /// Numbers of one endpoint, while a body's block unit is asked for.
    pub first: Metrics,
    rng: Rng,
    scanners: Vec<BodyScanner>,
    /// Handles of the labels seen last, the latest at the end.
    series: Vec<(ModelLabels, Arc<ModelSeries>)>,
    /// Counters per target model and endpoint of the present epoch.
    attempts: HashMap<String, Vec<Option<[IntCounter; 2]>>>,
    /// Times of plugins of the present epoch.
    plugin_times: Vec<(ExtensionPoint, PluginIx, Arc<Histogram>)>,
    /// Decisions so far, wrapping.
    decisions: u32,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("records", &self.records.count()).finish_non_exhaustive()
    }
}

thread_local! {
    static WORKERS: RefCell<Vec<Worker>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with this thread's memory for `runtime`. `None` when a hook of this thread is in the
/// middle of using it, or the thread is ending.
pub fn with<R>(runtime: &Arc<Runtime>, work: impl FnOnce(&mut Worker) -> R) -> Option<R> {
    WORKERS
        .try_with(|workers| {
            let mut workers = workers.try_borrow_mut().ok()?;
            let mine = |w: &Worker| std::ptr::eq(w.runtime.as_ptr(), Arc::as_ptr(runtime));
            let at = match workers.iter().position(mine) {
                Some(at) => at,
                None => {
                    workers.retain(|worker| worker.runtime.strong_count() > 0);
                    workers.push(Worker::new(runtime));
                    workers.len() - 1
                }
            };
            Some(work(&mut workers[at]))
        })
        .ok()
        .flatten()
}

impl Worker {
    fn new(runtime: &Arc<Runtime>) -> Self {
        // Workers must not draw the same numbers: the address of the thread's own memory differs.
        let local = 0u8;
        let seed = clock::now_ns() ^ (std::ptr::from_ref(&local) as u64).rotate_left(32);
        Self {
            runtime: Arc::downgrade(runtime),
            epoch: 0,
            scratch: None,
            shadow: None,
            records: Records::default(),
            ring: runtime.log.ring(),
            first: Metrics::default(),
            rng: Rng::new(seed),
            scanners: Vec::new(),
            series: Vec::new(),
            attempts: HashMap::new(),
            plugin_times: Vec::new(),
            decisions: 0,
        }
    }

    /// A seed for a decision.
    pub fn seed(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Whether the next decision is one of those whose plugins are timed.
    pub fn is_timed(&mut self) -> bool {
        let timed = self.decisions.is_multiple_of(TIMED_EVERY);
        self.decisions = self.decisions.wrapping_add(1);
        timed
    }

    /// Takes the scratch memory, fitted to what is served. Give it back with
    /// [`put_scratch`](Self::put_scratch).
    pub fn take_scratch(&mut self, served: &Served, serving: &Serving) -> Scratch {
        match self.scratch.take() {
            Some(scratch) if self.epoch == served.epoch => scratch,
            stale => {
                self.epoch = served.epoch;
                self.attempts.clear();
                self.plugin_times.clear();
                match stale {
                    Some(mut scratch) => {
                        serving.plan.begin(&mut scratch);
                        scratch
                    }
                    None => Scratch::new(&serving.plan),
                }
            }
        }
    }

    /// Gives the scratch memory back.
    pub fn put_scratch(&mut self, scratch: Scratch) {
        self.scratch = Some(scratch);
    }

    /// Takes the scratch memory of the shadow configuration. Give it back with
    /// [`put_shadow`](Self::put_shadow).
    pub fn take_shadow(&mut self, plan: &Plan) -> Scratch {
        self.shadow.take().unwrap_or_else(|| Scratch::new(plan))
    }

    /// Gives the shadow's scratch memory back.
    pub fn put_shadow(&mut self, scratch: Scratch) {
        self.shadow = Some(scratch);
    }

    /// A scanner for one body.
    pub fn take_scanner(&mut self, api: Api, size: BlockSize, max_blocks: usize) -> BodyScanner {
        let mut scanner = self.scanners.pop().unwrap_or_else(|| {
            Scanner::new(api, Limits::default(), PromptSink::new(size, max_blocks))
        });
        scanner.reset(api);
        scanner.sink_mut().configure(size, max_blocks);
        scanner
    }

    /// Gives a scanner back.
    pub fn put_scanner(&mut self, scanner: BodyScanner) {
        if self.scanners.len() < IDLE_SCANNERS && scanner.summary().bytes < LARGE_BODY {
            self.scanners.push(scanner);
        }
    }

    /// The metric handles of a request's labels. Those of the last few label sets are at hand.
    pub fn series(&mut self, runtime: &Runtime, labels: Labels<'_>) -> Arc<ModelSeries> {
        if let Some(at) = self.series.iter().rposition(|(known, _)| labels.are(known)) {
            return Arc::clone(&self.series[at].1);
        }
        let labels = ModelLabels {
            model: labels.model.to_owned(),
            target_model: labels.target_model.to_owned(),
            fairness_id: labels.fairness_id.to_owned(),
            priority: labels.priority,
        };
        let series = runtime.metrics.model(&labels);
        if self.series.len() >= SERIES {
            self.series.remove(0);
        }
        self.series.push((labels, Arc::clone(&series)));
        series
    }

    /// Counts a successful attempt on an endpoint of the present epoch.
    pub fn count_attempt(
        &mut self,
        runtime: &Runtime,
        target_model: &str,
        endpoints: &EndpointSet,
        target: EndpointIx,
    ) {
        if !self.attempts.contains_key(target_model) {
            if self.attempts.len() >= ATTEMPT_MODELS {
                self.attempts.clear();
            }
            self.attempts.insert(target_model.to_owned(), vec![None; endpoints.len()]);
        }
        let counters = self.attempts.get_mut(target_model);
        let Some(counters) = counters.and_then(|c| c.get_mut(target as usize)) else { return };
        let counters = counters.get_or_insert_with(|| {
            let endpoint = &endpoints[target];
            let port = endpoint.port.to_string();
            let (pod, namespace) = (&endpoint.pod_name, &endpoint.namespace);
            runtime.metrics.attempts("success", target_model, pod, namespace, &port)
        });
        counters.iter().for_each(IntCounter::inc);
    }
}

impl Worker {
    /// Counts how long the plugins of `plan`, that of the present epoch, took; `laps` are in
    /// nanoseconds.
    pub fn observe_laps(&mut self, runtime: &Runtime, plan: &Plan, laps: &Laps) {
        for lap in laps.as_slice() {
            let known = |(point, plugin, _): &&(ExtensionPoint, PluginIx, _)| {
                *point == lap.point && *plugin == lap.plugin
            };
            let seconds = lap.taken as f64 * 1e-9;
            if let Some((.., times)) = self.plugin_times.iter().find(known) {
                times.observe(seconds);
            } else if let Some(instance) = plan.config().plugin(lap.plugin) {
                let times = &runtime.metrics.plugin_times;
                let times = times.of(lap.point, instance.type_name, &instance.name);
                times.observe(seconds);
                self.plugin_times.push((lap.point, lap.plugin, times));
            }
        }
    }
}

/// The labels of a request, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    /// The model that the client named.
    pub model: &'a str,
    /// The model after rewriting.
    pub target_model: &'a str,
    /// Fairness id.
    pub fairness_id: &'a str,
    /// Priority.
    pub priority: i32,
}

impl<'a> Labels<'a> {
    /// Those of a request.
    pub fn of(request: &Request<'a>) -> Self {
        Self {
            model: request.model,
            target_model: request.target_model,
            fairness_id: request.fairness_id,
            priority: request.priority,
        }
    }

    fn are(&self, known: &ModelLabels) -> bool {
        self.model == known.model
            && self.target_model == known.target_model
            && self.fairness_id == known.fairness_id
            && self.priority == known.priority
    }
}

impl Worker {
    /// The endpoint of a stream's present attempt.
    pub(crate) fn current(&mut self, token: Token) -> Option<EndpointIx> {
        self.records.get_mut(token)?.current
    }

    /// The first byte of a stream's response has arrived: its prompt has been processed.
    pub fn first_byte(&mut self, token: Token) {
        let Some(record) = self.records.get_mut(token) else { return };
        let Some(serving) = record.served.serving() else { return };
        if record.release == TokenRelease::FirstByte
            && let Some(claim) = &mut record.claim
        {
            serving.ledger.release_tokens(claim);
        }
        for claim in record.more_claims.drain(..) {
            serving.ledger.release(claim);
        }
    }

    /// A stream has ended: its bookings are released.
    pub fn end(&mut self, token: Token) {
        let Some(record) = self.records.remove(token) else { return };
        let Record { served, claim, more_claims, .. } = record;
        let Some(serving) = served.serving() else { return };
        for claim in claim.into_iter().chain(more_claims) {
            serving.ledger.release(claim);
        }
    }
}

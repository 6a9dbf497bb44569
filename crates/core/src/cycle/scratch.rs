//! What a worker keeps between decisions: all memory that a decision needs.
//!
//! One per worker. [`Plan::begin`] fits it to the plan; after a few requests of the largest kind
//! no decision allocates any more. Size: about 60 bytes per endpoint, plus 12 per endpoint and
//! profile, plus 8 per endpoint and scorer.

use std::sync::Arc;

use crate::columns::Columns;
use crate::config::{LoadedConfig, Profile};
use crate::decision::{Decision, PluginError, ProfileRun, Rejection};
use crate::effect::{Effects, PluginIx};
use crate::endpoint::EndpointIx;
use crate::plan::Plan;
use crate::plugin::Round;
use crate::state::CycleState;

use super::laps::Laps;

/// Errors kept for one request; more are only counted.
const RECENT: usize = 64;

/// Failures of plugins, which never fail a request.
#[derive(Debug, Default)]
pub struct Failures {
    counts: Vec<u64>,
    recent: Vec<(PluginIx, PluginError)>,
}

impl Failures {
    /// How often each instance failed since this scratch was made for the configuration; indexed
    /// by [`PluginIx`].
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The failures of the request at hand.
    pub fn recent(&self) -> &[(PluginIx, PluginError)] {
        &self.recent
    }

    pub(crate) fn add(&mut self, plugin: PluginIx, error: PluginError) {
        if let Some(count) = self.counts.get_mut(usize::from(plugin)) {
            *count += 1;
        }
        if self.recent.len() < RECENT {
            self.recent.push((plugin, error));
        }
    }
}

/// Memory of the steps, no meaning between them.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// What the handler wants next.
    pub(crate) round: Round,
    /// Candidates that every screener so far keeps.
    pub(crate) screened: Vec<EndpointIx>,
    /// Reasons of a plugin that may still fail.
    pub(crate) rejections: Vec<Rejection>,
    /// What a filter was given.
    pub(crate) before: Vec<EndpointIx>,
    /// Candidates with fresh metrics.
    pub(crate) fresh: Vec<EndpointIx>,
    /// Their scores.
    pub(crate) fresh_scores: Vec<f64>,
    /// One bit per endpoint.
    pub(crate) bits: Vec<u64>,
}

/// Makes `bits` the set of `list`, endpoints of a pool of `len`.
pub(crate) fn mark(bits: &mut Vec<u64>, len: usize, list: &[EndpointIx]) {
    bits.clear();
    bits.resize(len.div_ceil(64), 0);
    for &ix in list {
        bits[ix as usize / 64] |= 1 << (ix % 64);
    }
}

/// The memory and the outcome of one decision at a time.
#[derive(Debug)]
pub struct Scratch {
    /// The numbers. The caller fills the metrics after [`Plan::begin`].
    pub columns: Columns,
    /// Per-cycle state of the plugins.
    pub state: CycleState,
    /// The outcome.
    pub decision: Decision,
    /// What the outcome asks for.
    pub effects: Effects,
    /// Plugins that failed.
    pub failures: Failures,
    /// How long plugins take, for who wants to know.
    pub laps: Laps,
    /// Endpoints that may serve the request, ascending.
    pub(crate) candidates: Vec<EndpointIx>,
    pub(crate) work: Work,
    config: Arc<LoadedConfig>,
}

impl Scratch {
    /// Memory for decisions of `plan`.
    pub fn new(plan: &Plan) -> Self {
        let mut scratch = Self {
            columns: Columns::default(),
            state: CycleState::default(),
            decision: Decision::default(),
            effects: Effects::new(),
            failures: Failures::default(),
            laps: Laps::default(),
            candidates: Vec::new(),
            work: Work::default(),
            config: Arc::clone(&plan.config),
        };
        scratch.adopt(&plan.config);
        plan.begin(&mut scratch);
        scratch
    }

    /// Endpoints that may serve the request, ascending.
    pub fn candidates(&self) -> &[EndpointIx] {
        &self.candidates
    }

    /// Whether this scratch was begun for a plan of that configuration and size.
    pub(crate) fn fits(&self, plan: &Plan) -> bool {
        Arc::ptr_eq(&self.config, &plan.config) && self.columns.len() == plan.endpoints.len()
    }

    fn adopt(&mut self, config: &Arc<LoadedConfig>) {
        self.config = Arc::clone(config);
        self.columns = Columns::default();
        self.columns.metrics.with_adapters = config.reads_adapters;
        self.state = config.states().instantiate();
        let run = |p: &Profile| ProfileRun {
            name: p.name.clone(),
            scores: vec![Vec::new(); p.scorers.len()],
            ..ProfileRun::default()
        };
        self.decision =
            Decision { profiles: config.profiles.iter().map(run).collect(), ..Decision::default() };
        self.failures = Failures { counts: vec![0; config.plugins.len()], recent: Vec::new() };
    }
}

impl Plan {
    /// Starts a request: forgets the last one, makes every endpoint a candidate, sets all metrics
    /// to 0 and fresh and all attributes to absent. The caller then fills
    /// `scratch.columns.metrics`.
    pub fn begin(&self, scratch: &mut Scratch) {
        if !Arc::ptr_eq(&scratch.config, &self.config) {
            scratch.adopt(&self.config);
        }
        scratch.columns.reset(self.endpoints.len());
        scratch.state.clear();
        scratch.failures.recent.clear();
        scratch.laps.forget();
        scratch.candidates.clear();
        scratch.candidates.extend((0..).take(self.endpoints.len()));
        scratch.decision.screened.clear();
        scratch.reset_outcome();
    }

    /// Lets only the endpoints of `subset` serve the request. Indices that do not exist are
    /// ignored.
    pub fn restrict(&self, subset: &[EndpointIx], scratch: &mut Scratch) {
        let len = self.endpoints.len();
        scratch.candidates.clear();
        scratch.candidates.extend(subset.iter().filter(|&&ix| (ix as usize) < len));
        scratch.candidates.sort_unstable();
        scratch.candidates.dedup();
    }
}

impl Scratch {
    /// Forgets the last decision, keeps columns and candidates.
    pub(crate) fn reset_outcome(&mut self) {
        self.decision.primary = 0;
        self.decision.port = None;
        self.decision.peer = None;
        self.decision.profiles.iter_mut().for_each(ProfileRun::reset);
        self.effects.clear();
    }
}

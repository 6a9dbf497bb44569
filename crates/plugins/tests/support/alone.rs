//! One plugin by itself: built from the registry, over a pool in which every column is filled.
//!
//! Tests and benchmarks run each role of each registered type through this, so a new type is
//! covered as soon as it is registered. A type that does not load without parameters, or whose
//! common case needs some, has a row in [`SETTINGS`].
#![allow(dead_code, reason = "tests and benchmarks each use a part")]

use std::collections::BTreeMap;
use std::hint::black_box;

use inlane_core::columns::{Columns, InFlight};
use inlane_core::decision::{Decision, ProfileRun, Rejection};
use inlane_core::effect::{Effect, Effects};
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet, Slot};
use inlane_core::plugin::{Candidates, Cycle, LoadSource, Producing, Roles, Round, Settled};
use inlane_core::registry::{Build, KeptState, Params, Peers, Registry, Schema};
use inlane_core::request::{BlockUnit, Media, Prompt, Request};
use inlane_core::rng::Rng;
use inlane_core::state::CycleState;
use inlane_plugins::prefix::PrefixIndex;

#[path = "alone/sample.rs"]
mod sample;

use sample::{Sample, columns};

/// When everything happens, boot-time ms.
const NOW_MS: u64 = 1_000_000;
/// Blocks of the request's prompt: 8 KB of text.
const BLOCKS: usize = 32;
/// Requests that went elsewhere before, so that indexes and tables are not empty.
const EARLIER: u64 = 64;

/// Parameters in YAML, by type.
const SETTINGS: &[(&str, &str)] = &[
    ("active-request-scorer", "{maxBusyScore: 0.8}"),
    ("by-label", "{label: zone, validValues: [a, b]}"),
    ("cel-filter", "{expression: \"endpoint.waiting < 8 && request.headers['x-zone'] == 'a'\"}"),
    ("cel-scorer", "{expression: endpoint.prefix_ratio / (1.0 + endpoint.in_flight_requests)}"),
    ("context-length-aware", "{enableFiltering: true}"),
    (
        "disagg-profile-handler",
        "{deciders: {prefill: prefix-based-pd-decider, encode: always-disagg-multimodal-decider}}",
    ),
    (
        "disaggregatedset-rollout-screener",
        "{scope: {labelSelector: app=model}, headerSelectors: [{name: zone, headerName: x-zone, \
         labelKey: zone, mode: prefer}], revisionGating: {mode: sum, requireRoles: {values: \
         [decode]}, revisionLabelKey: revision, roleLabelKey: llm-d.ai/role}}",
    ),
    (
        "endpoint-attribute-filter",
        "{attribute: age, algorithm: {type: threshold, \
         threshold: {operator: LessThan, value: 0.9}}}",
    ),
    ("endpoint-attribute-scorer", "{attributeKey: age, algorithm: {type: linear_lower_is_better}}"),
    ("file-discovery", "{path: endpoints.yaml}"),
    ("k8s-notification-source", "{version: v1, kind: Pod}"),
    ("multicluster-file-discovery", "{path: endpoints.yaml}"),
    ("header-label-affinity-scorer", "{headerName: x-zone, labelKey: zone}"),
    ("label-selector-filter", "{matchLabels: {zone: a}}"),
    ("max-score-picker", "{maxNumOfEndpoints: 3}"),
    ("pd-profile-handler", "{deciderPluginName: prefix-based-pd-decider}"),
    ("prefix-based-pd-decider", "{nonCachedTokens: 128}"),
    ("prefix-cache-affinity-filter", "{explorationProbability: 0.5}"),
    ("priority-holdback-policy", "{minCeiling: 0.5}"),
    ("random-picker", "{maxNumOfEndpoints: 3}"),
    (
        "request-attribute-reporter",
        "{attributes: [{key: {name: cost}, expression: usage.prompt_tokens}]}",
    ),
    ("session-id-producer", "{headerName: x-session-id}"),
    ("utilization-filter", "{conditions: [{metric: active-requests, maxValue: 40}]}"),
    ("weighted-random-picker", "{maxNumOfEndpoints: 3}"),
];

/// Profile handlers that serve one profile only.
const SINGLE: [&str; 2] = ["single-profile-handler", "data-parallel-profile-handler"];

/// Headers that some plugin may look for.
const HEADERS: [(&str, &str); 5] = [
    ("x-zone", "a"),
    ("x-session-id", "session-7"),
    ("x-session-token", "ZGVmYXVsdC9wb2QtMDAwMDE="),
    ("x-slo-ttft-ms", "800"),
    ("x-slo-tpot-ms", "40"),
];

const MEDIA: [Media<'static>; 1] =
    [Media { modality: "image", hash: "5f2b", prompt: 0, offset: 10, length: 400 }];

/// Roles that allocate, and why they may.
const MAY_ALLOCATE: &[(&str, Role)] = &[
    // Makes and shares out one window of requests that wait for each other, some ms long.
    ("burst-prefix-cache-producer", Role::Producer),
    // One number per revision, once per request and before the decision.
    ("disaggregatedset-rollout-screener", Role::Screener),
    // For conformance tests: reads a list out of a header.
    ("header-based-testing-filter", Role::Filter),
    // The session id is kept as a text of its own, before the decision.
    ("session-id-producer", Role::Producer),
];

/// What a plugin is run as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Admitter,
    Decider,
    Filter,
    Handler,
    Picker,
    Producer,
    Scorer,
    Screener,
}

impl Role {
    /// The role as names of rows have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admitter => "admitter",
            Self::Decider => "decider",
            Self::Filter => "filter",
            Self::Handler => "handler",
            Self::Picker => "picker",
            Self::Producer => "producer",
            Self::Scorer => "scorer",
            Self::Screener => "screener",
        }
    }
}

/// See the [module](self).
pub(crate) struct Alone {
    roles: Roles,
    instance: u16,
    /// Bookings, by slot.
    load: Bookings,
    kept_state: KeptState,
    endpoints: EndpointSet,
    columns: Columns,
    state: CycleState,
    settled: Settled,
    blocks: Vec<u64>,
    all: Vec<EndpointIx>,
    totals: Vec<f64>,
    decision: Decision,
    effects: Effects,
    // Memory that a worker would reuse from decision to decision.
    kept: Vec<EndpointIx>,
    rejections: Vec<Rejection>,
    scores: Vec<f64>,
    pub(crate) targets: Vec<EndpointIx>,
    round: Round,
}

struct Bookings(Vec<InFlight>);

impl LoadSource for Bookings {
    fn in_flight(&self, slot: Slot) -> InFlight {
        self.0.get(slot.index as usize).copied().unwrap_or_default()
    }
}

/// Instances that others refer to, under the names of their types.
struct Others(BTreeMap<String, Roles>);

impl Peers for Others {
    fn roles(&self, name: &str) -> Option<&Roles> {
        self.0.get(name)
    }

    fn of_type(&self, _type_name: &str) -> Vec<&str> {
        Vec::new()
    }
}

/// Every type and each of its roles that a decision or its preparation calls.
///
/// # Errors
/// All types that do not load.
pub(crate) fn roles(registry: &Registry) -> Result<Vec<(&'static str, Role)>, String> {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (name, plugin) in registry.iter().filter(|(name, plugin)| *name == plugin.name) {
        match Alone::new(registry, plugin.name, 1) {
            Ok(alone) => found.extend(alone.plays().into_iter().map(|role| (name, role))),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors.join("\n")) }
}

/// Whether the type allocates in that role, and may.
pub(crate) fn may_allocate(type_name: &str, role: Role) -> bool {
    MAY_ALLOCATE.contains(&(type_name, role))
}

impl Alone {
    /// An instance of the type over `pods` endpoints.
    ///
    /// # Errors
    /// The type does not load: it needs a row in [`SETTINGS`].
    pub(crate) fn new(registry: &Registry, type_name: &str, pods: u32) -> Result<Self, String> {
        let mut schema = Schema::default();
        let kept_state = KeptState::default();
        let mut others = Others(BTreeMap::new());
        let mut instances = Vec::new();
        build(registry, type_name, &mut schema, &kept_state, &mut others, &mut instances)?;
        let instance = u16::try_from(instances.len() - 1).map_err(|e| e.to_string())?;
        let roles = others.0.remove(type_name).ok_or("built")?;
        let endpoints = EndpointSet::new(1, (0..pods).map(endpoint).collect())
            .with_adapters(vec!["base".into(), "adapter".into()]);
        let mut settled = Settled::default();
        if let Some(role) = &roles.per_topology {
            settled.set(instance, role.settle(&endpoints));
        }
        let mut rng = Rng::new(11);
        let mut alone = Self {
            instance,
            load: Bookings((0..pods).map(|_| InFlight::random(&mut rng)).collect()),
            kept_state,
            columns: columns(&schema, pods as usize, &mut rng),
            state: schema.states.instantiate(),
            settled,
            blocks: (0..BLOCKS).map(|_| rng.next_u64()).collect(),
            all: (0..pods).collect(),
            totals: (0..pods).map(|_| rng.unit() * 4.0).collect(),
            decision: decision(type_name),
            effects: Effects::new(),
            kept: Vec::new(),
            rejections: Vec::new(),
            scores: Vec::new(),
            targets: Vec::new(),
            round: Round::default(),
            roles,
            endpoints,
        };
        alone.remember();
        Ok(alone)
    }

    /// What the plugin can be run as.
    pub(crate) fn plays(&self) -> Vec<Role> {
        let Roles {
            admitter, decider, filter, handler, picker, producer, scorer, screener, ..
        } = &self.roles;
        let roles = [
            (admitter.is_some(), Role::Admitter),
            (decider.is_some(), Role::Decider),
            (filter.is_some(), Role::Filter),
            (handler.is_some(), Role::Handler),
            (picker.is_some(), Role::Picker),
            (producer.is_some(), Role::Producer),
            (scorer.is_some(), Role::Scorer),
            (screener.is_some(), Role::Screener),
        ];
        roles.into_iter().filter(|(plays, _)| *plays).map(|(_, role)| role).collect()
    }

    /// Gives all endpoints the same total.
    pub(crate) fn tie(&mut self) {
        self.totals.fill(1.0);
    }

    /// Does once what a decision asks of the plugin in that role.
    ///
    /// # Errors
    /// The plugin's own, or that it has no such role.
    pub(crate) fn run(&mut self, role: Role, seed: u64) -> Result<(), String> {
        let mut run = || {
            Some(match role {
                Role::Admitter => self.admit(seed),
                Role::Decider => self.decide(seed),
                Role::Filter => self.filter(seed),
                Role::Handler => self.handle(seed),
                Role::Picker => self.pick(seed),
                Role::Producer => self.produce(seed),
                Role::Scorer => self.score(seed),
                Role::Screener => self.screen(seed),
            })
        };
        run().unwrap_or_else(|| Err(format!("is no {}", role.name())))
    }

    /// Lets the plugin record earlier choices, as far as it records any.
    fn remember(&mut self) {
        for seed in 0..EARLIER {
            // What fails here fails again when it is run.
            let _ = self.produce(seed);
            let Some(hook) = self.roles.post_choice.clone() else { continue };
            let target = EndpointIx::try_from(seed).unwrap_or(0) % self.all.len().max(1) as u32;
            let mut decision = self.decision.clone();
            for run in &mut decision.profiles {
                run.ran = true;
                run.targets.push(target);
            }
            let mut effects = std::mem::take(&mut self.effects);
            effects.clear();
            self.with_cycle(seed, |cx| {
                hook.post_choice(cx, &decision, &mut effects);
                let records = effects.iter().filter(|e| matches!(e, Effect::Record { .. }));
                records.for_each(|effect| hook.apply(cx, effect));
            });
            self.effects = effects;
            self.kept_state.all::<PrefixIndex>().iter().for_each(|(_, index)| {
                index.drain();
            });
        }
        let _ = self.produce(0);
    }

    fn with_cycle<R>(&self, seed: u64, work: impl FnOnce(&Cycle<'_>) -> R) -> R {
        let prompts = prompt(&self.blocks);
        let Self { endpoints, columns, state, settled, .. } = self;
        work(&Cycle {
            request: &request(&prompts),
            endpoints,
            columns,
            state,
            settled,
            peer: Some(0),
            now_ms: NOW_MS,
            seed,
        })
    }

    fn admit(&self, seed: u64) -> Result<(), String> {
        let admitter = self.roles.admitter.as_ref().ok_or("no admitter")?;
        let verdict = self.with_cycle(seed, |cx| admitter.admit(cx, &self.all));
        black_box(verdict).map(drop).map_err(|e| e.to_string())
    }

    fn decide(&self, seed: u64) -> Result<(), String> {
        let decider = self.roles.decider.as_ref().ok_or("no decider")?;
        let verdict = self.with_cycle(seed, |cx| decider.decide(cx, Some(0)));
        black_box(verdict).map(drop).map_err(|e| e.to_string())
    }

    fn filter(&mut self, seed: u64) -> Result<(), String> {
        let (mut kept, mut rejections) = self.take_lists();
        let filter = self.roles.filter.as_ref().ok_or("no filter")?;
        let mut candidates = Candidates::new(&mut kept, &mut rejections, 0);
        let outcome = self.with_cycle(seed, |cx| filter.filter(cx, &mut candidates));
        (self.kept, self.rejections) = (kept, rejections);
        outcome.map_err(|e| e.to_string())
    }

    fn screen(&mut self, seed: u64) -> Result<(), String> {
        let (mut kept, mut rejections) = self.take_lists();
        let screener = self.roles.screener.as_ref().ok_or("no screener")?;
        let mut candidates = Candidates::new(&mut kept, &mut rejections, 0);
        let prompts = prompt(&self.blocks);
        let request = request(&prompts);
        let outcome = screener.screen(&self.producing(&request, seed), &mut candidates);
        (self.kept, self.rejections) = (kept, rejections);
        outcome.map_err(|e| e.to_string())
    }

    fn produce(&mut self, seed: u64) -> Result<(), String> {
        let producer = self.roles.producer.clone().ok_or("no producer")?;
        let (mut columns, mut state) =
            (std::mem::take(&mut self.columns), std::mem::take(&mut self.state));
        state.clear();
        let prompts = prompt(&self.blocks);
        let request = request(&prompts);
        let mut cx = self.producing(&request, seed);
        // Far enough from the window of the request before.
        cx.now_ms += seed * 1_000;
        let ticket = if producer.has_window() { producer.enroll(&cx) } else { Ok(None) };
        let ready_at_ms = ticket.as_ref().ok().and_then(|t| t.map(|ticket| ticket.ready_at_ms));
        cx.now_ms = ready_at_ms.unwrap_or(cx.now_ms);
        let tickets = ticket.map(|ticket| ticket.map(|ticket| (self.instance, ticket)));
        let outcome = tickets.and_then(|tickets| {
            let tickets = tickets.as_slice();
            producer.produce(&Producing { tickets, ..cx }, &mut columns, &mut state)
        });
        (self.columns, self.state) = (columns, state);
        outcome.map_err(|e| e.to_string())
    }

    fn score(&mut self, seed: u64) -> Result<(), String> {
        let mut scores = std::mem::take(&mut self.scores);
        scores.clear();
        scores.resize(self.all.len(), f64::NAN);
        let scorer = self.roles.scorer.as_ref().ok_or("no scorer")?;
        let outcome = self.with_cycle(seed, |cx| scorer.score(cx, &self.all, &mut scores));
        self.scores = scores;
        outcome.map_err(|e| e.to_string())
    }

    fn pick(&mut self, seed: u64) -> Result<(), String> {
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        let picker = self.roles.picker.as_ref().ok_or("no picker")?;
        let outcome =
            self.with_cycle(seed, |cx| picker.pick(cx, &self.all, &self.totals, &mut targets));
        self.targets = targets;
        outcome.map_err(|e| e.to_string())
    }

    /// All rounds of a handler; every profile that it runs finds the first endpoint.
    fn handle(&mut self, seed: u64) -> Result<(), String> {
        let (mut decision, mut round) =
            (std::mem::take(&mut self.decision), std::mem::take(&mut self.round));
        decision.profiles.iter_mut().for_each(ProfileRun::reset);
        let handler = self.roles.handler.as_ref().ok_or("no handler")?;
        let outcome = self.with_cycle(seed, |cx| {
            loop {
                round.run.clear();
                round.skip.clear();
                handler.next(cx, &decision, &mut round)?;
                if round.run.is_empty() {
                    return handler.primary(cx, &decision).map(drop);
                }
                for &ix in &round.run {
                    let run = &mut decision.profiles[usize::from(ix)];
                    run.ran = true;
                    run.targets.push(0);
                }
            }
        });
        (self.decision, self.round) = (decision, round);
        outcome.map_err(|e| e.to_string())
    }

    fn take_lists(&mut self) -> (Vec<EndpointIx>, Vec<Rejection>) {
        let (mut kept, mut rejections) =
            (std::mem::take(&mut self.kept), std::mem::take(&mut self.rejections));
        rejections.clear();
        kept.clear();
        kept.extend_from_slice(&self.all);
        (kept, rejections)
    }

    fn producing<'a>(&'a self, request: &'a Request<'a>, seed: u64) -> Producing<'a> {
        Producing {
            request,
            endpoints: &self.endpoints,
            candidates: &self.all,
            load: &self.load,
            settled: &self.settled,
            tickets: &[],
            now_ms: NOW_MS,
            seed,
        }
    }
}

/// Builds a type after those that its parameters refer to.
fn build(
    registry: &Registry,
    name: &str,
    schema: &mut Schema,
    kept: &KeptState,
    others: &mut Others,
    instances: &mut Vec<String>,
) -> Result<(), String> {
    let (_, plugin) = registry.get(name).ok_or_else(|| format!("{name} is not registered"))?;
    let row = SETTINGS.iter().find(|(of, _)| *of == name);
    let value = row.map(|(_, text)| serde_yaml::from_str(text)).transpose();
    let params = Params::new(value.map_err(|e| format!("{name}: {e}"))?);
    for other in (plugin.references)(&params) {
        if !others.0.contains_key(&other) {
            build(registry, &other, schema, kept, others, instances)?;
        }
    }
    let instance = u16::try_from(instances.len()).map_err(|e| e.to_string())?;
    let mut bench = Build::new(plugin.name, plugin.name, instance, schema, kept).among(others);
    let roles = (plugin.build)(&mut bench, &params).map_err(|e| format!("{name}: {e}"))?;
    instances.push(name.to_owned());
    others.0.insert(name.to_owned(), roles);
    Ok(())
}

fn endpoint(slot: u32) -> Endpoint {
    let zone = if slot.is_multiple_of(2) { "a" } else { "b" };
    let range = if slot.is_multiple_of(3) { "0-4096" } else { "0-1024" };
    let revision = if slot % 10 < 7 { "1" } else { "2" };
    let labels = [
        ("app", "model"),
        ("revision", revision),
        ("llm-d.ai/role", "decode"),
        ("llm-d.ai/context-length-range", range),
        ("topology.kubernetes.io/zone", zone),
        ("zone", zone),
    ];
    let address = format!("10.0.{}.{}", slot / 256, slot % 256);
    Endpoint {
        id: format!("default/pod-{slot:05}"),
        namespace: "default".into(),
        name: format!("pod-{slot:05}"),
        pod_name: format!("pod-{slot:05}"),
        host_port: Endpoint::join_host_port(&address, 8000),
        address,
        port: 8000,
        rank: 0,
        labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        slot: Slot { index: slot, generation: 3 },
    }
}

fn decision(type_name: &str) -> Decision {
    let names: &[&str] =
        if SINGLE.contains(&type_name) { &["default"] } else { &["decode", "prefill", "encode"] };
    let run = |name: &&str| ProfileRun { name: (*name).to_owned(), ..ProfileRun::default() };
    Decision { profiles: names.iter().map(run).collect(), ..Decision::default() }
}

fn prompt(blocks: &[u64]) -> [Prompt<'_>; 1] {
    let tokens = blocks.len() as u64 * 64;
    [Prompt::Blocks { unit: BlockUnit::Tokens(64), tokens, contents: blocks }]
}

fn request<'a>(prompts: &'a [Prompt<'a>]) -> Request<'a> {
    Request {
        id: "request",
        model: "adapter",
        target_model: "adapter",
        headers: &HEADERS,
        fairness_id: "tenant",
        prompts,
        media: &MEDIA,
        prompt_bytes: prompts.iter().map(Prompt::token_count).sum::<u64>() * 4,
        body_bytes: 9_000,
        ..Request::default()
    }
}

//! A small world for the plugins' unit tests: a pool, its columns, and instances built from YAML.

use std::collections::BTreeMap;

use inlane_core::columns::{Attribute, Col, Columns, InFlight, Scalar};
use inlane_core::decision::{Decision, PluginError, ProfileIx, ProfileRun, Rejection};
use inlane_core::effect::{Effect, Effects};
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet, Slot};
use inlane_core::plugin::{
    Candidates, Cycle, LoadSource, Producing, Roles, Round, Settled, Ticket,
};
use inlane_core::registry::{Build, BuildError, DataUse, KeptState, Params, Peers, Schema};
use inlane_core::request::Request;
use inlane_core::state::CycleState;

use crate::registry;

/// A built instance.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) roles: Roles,
    pub(crate) data: DataUse,
    pub(crate) warnings: Vec<String>,
}

/// A pool of endpoints `a`, `b`, `c`, … in slots 0, 1, 2, …
pub(crate) struct World {
    schema: Schema,
    pub(crate) kept: KeptState,
    pub(crate) endpoints: EndpointSet,
    pub(crate) columns: Columns,
    pub(crate) state: CycleState,
    pub(crate) settled: Settled,
    /// The endpoint that others should be close to.
    pub(crate) peer: Option<EndpointIx>,
    /// Places in windows.
    pub(crate) tickets: Vec<(u16, Ticket)>,
    pub(crate) now_ms: u64,
    pub(crate) seed: u64,
    /// What has been built, by name.
    built: BTreeMap<&'static str, Roles>,
    next_instance: u16,
}

/// What has been built before, for plugins that refer to others.
struct Earlier<'a>(&'a BTreeMap<&'static str, Roles>);

impl Peers for Earlier<'_> {
    fn roles(&self, name: &str) -> Option<&Roles> {
        self.0.get(name)
    }

    fn of_type(&self, type_name: &str) -> Vec<&str> {
        self.0.keys().copied().filter(|name| *name == type_name).collect()
    }
}

/// An endpoint that is nothing but its id and its slot.
pub(crate) fn endpoint_in(slot: Slot, id: String) -> Endpoint {
    Endpoint {
        id,
        namespace: "default".into(),
        name: slot.index.to_string(),
        pod_name: slot.index.to_string(),
        address: String::new(),
        port: 0,
        host_port: String::new(),
        rank: 0,
        labels: BTreeMap::new(),
        slot,
    }
}

impl World {
    pub(crate) fn new(len: usize) -> Self {
        Self::labelled(&vec![&[] as &[(&str, &str)]; len])
    }

    pub(crate) fn labelled(labels: &[&[(&str, &str)]]) -> Self {
        let endpoint = |(slot, labels): (u32, &&[(&str, &str)])| {
            let name =
                char::from(b'a' + (slot % 26) as u8).to_string().repeat(slot as usize / 26 + 1);
            Endpoint {
                id: format!("default/{:03}{name}", slot / 26),
                namespace: "default".into(),
                pod_name: name.clone(),
                name,
                address: "10.0.0.1".into(),
                port: 8000,
                host_port: "10.0.0.1:8000".into(),
                rank: 0,
                labels: labels
                    .iter()
                    .map(|(k, v)| (k.to_string(), v.to_string()))
                    .collect::<BTreeMap<_, _>>(),
                slot: Slot { index: slot, generation: 1 },
            }
        };
        let endpoints = EndpointSet::new(1, (0..).zip(labels).map(endpoint).collect());
        let mut columns = Columns::default();
        columns.reset(labels.len());
        Self {
            schema: Schema::default(),
            kept: KeptState::default(),
            endpoints,
            columns,
            state: CycleState::default(),
            settled: Settled::default(),
            peer: None,
            tickets: Vec::new(),
            now_ms: 0,
            seed: 1,
            built: BTreeMap::new(),
            next_instance: 0,
        }
    }

    /// Builds an instance that is named like its type.
    pub(crate) fn build(&mut self, type_name: &str, parameters: &str) -> Result<Built, BuildError> {
        let registry = registry();
        let (_, plugin) = registry.get(type_name).expect("registered");
        let value =
            (!parameters.is_empty()).then(|| serde_yaml::from_str(parameters).expect("YAML"));
        let instance = self.next_instance;
        self.next_instance += 1;
        let earlier = Earlier(&self.built);
        let build = Build::new(plugin.name, plugin.name, instance, &mut self.schema, &self.kept);
        let mut build = build.among(&earlier);
        let roles = (plugin.build)(&mut build, &Params::new(value))?;
        let (data, warnings) = build.finish();
        self.built.insert(plugin.name, roles.clone());
        self.state = self.schema.states.instantiate();
        if let Some(role) = &roles.per_topology {
            self.settled.set(instance, role.settle(&self.endpoints));
        }
        Ok(Built { roles, data, warnings })
    }

    /// The instance built last.
    pub(crate) fn last_instance(&self) -> u16 {
        self.next_instance - 1
    }

    /// Gives an endpoint a port of its own.
    pub(crate) fn relocate(&mut self, endpoint: EndpointIx, port: u16) {
        let mut endpoints = self.endpoints.as_slice().to_vec();
        let moved = &mut endpoints[endpoint as usize];
        moved.port = port;
        moved.host_port = Endpoint::join_host_port(&moved.address, port);
        self.endpoints = EndpointSet::new(1, endpoints);
    }

    /// The column of `T` that `producer` fills.
    pub(crate) fn column<T: Attribute>(&mut self, producer: &str) -> Col<T> {
        self.schema.column(producer)
    }

    /// The column of the custom metric `name`.
    pub(crate) fn scalar(&mut self, name: &str, producer: &str) -> Col<Scalar> {
        self.schema.scalar(name, producer)
    }

    pub(crate) fn all(&self) -> Vec<EndpointIx> {
        (0..).take(self.endpoints.len()).collect()
    }

    pub(crate) fn cycle<'a>(&'a self, request: &'a Request<'a>) -> Cycle<'a> {
        Cycle {
            request,
            endpoints: &self.endpoints,
            columns: &self.columns,
            state: &self.state,
            settled: &self.settled,
            peer: self.peer,
            now_ms: self.now_ms,
            seed: self.seed,
        }
    }

    /// The endpoints that a filter keeps.
    pub(crate) fn filter(&self, built: &Built) -> Vec<EndpointIx> {
        self.filter_for(built, &Request::default())
    }

    /// The endpoints that a filter keeps for a request.
    pub(crate) fn filter_for(&self, built: &Built, request: &Request<'_>) -> Vec<EndpointIx> {
        let (mut kept, mut rejections) = (self.all(), Vec::<Rejection>::new());
        let filter = built.roles.filter.as_ref().expect("a filter");
        let mut candidates = Candidates::new(&mut kept, &mut rejections, 0);
        filter.filter(&self.cycle(request), &mut candidates).expect("filters");
        assert_eq!(kept.len() + rejections.len(), self.endpoints.len());
        kept
    }

    /// The raw scores of all endpoints.
    pub(crate) fn score(&self, built: &Built) -> Vec<f64> {
        self.score_some(built, &self.all())
    }

    /// The raw scores of all endpoints for a request.
    pub(crate) fn score_for(&self, built: &Built, request: &Request<'_>) -> Vec<f64> {
        let mut out = vec![f64::NAN; self.endpoints.len()];
        let scorer = built.roles.scorer.as_ref().expect("a scorer");
        scorer.score(&self.cycle(request), &self.all(), &mut out).expect("scores");
        out
    }

    pub(crate) fn score_some(&self, built: &Built, candidates: &[EndpointIx]) -> Vec<f64> {
        let mut out = vec![f64::NAN; candidates.len()];
        let scorer = built.roles.scorer.as_ref().expect("a scorer");
        scorer.score(&self.cycle(&Request::default()), candidates, &mut out).expect("scores");
        out
    }

    /// What a picker chooses from totals of all endpoints, with the current seed.
    pub(crate) fn pick(&self, built: &Built, totals: &[f64]) -> Vec<EndpointIx> {
        let mut targets = Vec::new();
        let picker = built.roles.picker.as_ref().expect("a picker");
        let candidates: Vec<EndpointIx> = (0..).take(totals.len()).collect();
        picker
            .pick(&self.cycle(&Request::default()), &candidates, totals, &mut targets)
            .expect("picks");
        targets
    }

    /// Resets attribute columns and runs a producer over all endpoints.
    pub(crate) fn produce(
        &mut self,
        built: &Built,
        request: &Request<'_>,
        load: &dyn LoadSource,
    ) -> Result<(), PluginError> {
        let all = self.all();
        self.state.clear();
        let cx = Producing {
            request,
            endpoints: &self.endpoints,
            candidates: &all,
            load,
            settled: &self.settled,
            tickets: &self.tickets,
            now_ms: self.now_ms,
            seed: self.seed,
        };
        let producer = built.roles.producer.as_ref().expect("a producer");
        producer.produce(&cx, &mut self.columns, &mut self.state)
    }

    /// A decision in which the profiles have not run yet.
    pub(crate) fn decision(profiles: &[&str]) -> Decision {
        let run = |name: &&str| ProfileRun { name: name.to_string(), ..Default::default() };
        Decision { profiles: profiles.iter().map(run).collect(), ..Decision::default() }
    }

    /// The effects of a choice; the first result is the primary one.
    pub(crate) fn choose(
        &self,
        built: &Built,
        request: &Request<'_>,
        results: &[(&str, EndpointIx)],
    ) -> Effects {
        let profiles = results.iter().map(|(name, target)| ProfileRun {
            name: name.to_string(),
            ran: true,
            targets: vec![*target],
            ..Default::default()
        });
        let decision = Decision { profiles: profiles.collect(), ..Decision::default() };
        let mut effects = Effects::new();
        let hook = built.roles.post_choice.as_ref().expect("a post-choice hook");
        hook.post_choice(&self.cycle(request), &decision, &mut effects);
        effects
    }

    /// Carries out the effects that concern the plugin itself.
    pub(crate) fn apply(&self, built: &Built, request: &Request<'_>, effects: &[Effect]) {
        let hook = built.roles.post_choice.as_ref().expect("a post-choice hook");
        for effect in effects {
            hook.apply(&self.cycle(request), effect);
        }
    }
}

/// Runs a handler to its end; `found` are the targets of a profile. Answers with what every round
/// ran.
pub(crate) fn rounds(
    built: &Built,
    cx: &Cycle<'_>,
    decision: &mut Decision,
    found: impl Fn(ProfileIx) -> Vec<EndpointIx>,
) -> Vec<Vec<ProfileIx>> {
    let handler = built.roles.handler.as_ref().expect("a handler");
    let mut rounds = Vec::new();
    loop {
        let mut round = Round::default();
        handler.next(cx, decision, &mut round).expect("a round");
        for &ix in &round.skip {
            decision.profiles[usize::from(ix)].skipped = true;
        }
        if round.run.is_empty() {
            return rounds;
        }
        for &ix in &round.run {
            let run = &mut decision.profiles[usize::from(ix)];
            assert!(!run.ran, "profile {ix} runs twice");
            run.targets = found(ix);
            (run.ran, run.failed) = (true, run.targets.is_empty());
        }
        rounds.push(round.run);
    }
}

/// No bookings anywhere.
pub(crate) struct Idle;

impl LoadSource for Idle {
    fn in_flight(&self, _slot: Slot) -> InFlight {
        InFlight::default()
    }
}

/// How often each endpoint is picked first in `trials` picks with different seeds.
pub(crate) fn first_picks(
    world: &mut World,
    built: &Built,
    totals: &[f64],
    trials: u64,
) -> Vec<u64> {
    let mut counts = vec![0; totals.len()];
    for seed in 0..trials {
        world.seed = seed;
        counts[world.pick(built, totals)[0] as usize] += 1;
    }
    counts
}

/// Pearson's statistic against expected probabilities; a zero probability demands a zero count.
pub(crate) fn chi_square(counts: &[u64], probabilities: &[f64]) -> f64 {
    let total: u64 = counts.iter().sum();
    counts
        .iter()
        .zip(probabilities)
        .map(|(&count, &p)| {
            let expected = p * total as f64;
            if expected == 0.0 {
                assert_eq!(count, 0);
                return 0.0;
            }
            (count as f64 - expected).powi(2) / expected
        })
        .sum()
}

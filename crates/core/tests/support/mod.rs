//! Small plugins under the names that configurations use, and pools to run them on.
#![allow(dead_code, reason = "each test crate uses its own part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::columns::Columns;
use inlane_core::columns::{Col, InFlight, PrefixMatch, UncachedTokens};
use inlane_core::config::{LoadedConfig, load};
use inlane_core::decision::{Decision, PluginError, ProfileIx, ScheduleError};
use inlane_core::effect::{Effect, Effects, PluginIx, TokenRelease};
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet, Slot};
use inlane_core::plan::Plan;
use inlane_core::plugin::{
    AfterResponse, Candidates, Category, Cycle, DataProducer, Filter, LoadSource, Part, Picker,
    PostChoice, PreCall, Producing, ProfileHandler, Refusal, RequestFacts, Responding, Roles,
    Scorer,
};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, KeptState, Params, PluginType, Registry, Stability,
    TOKENIZED_PROMPT, metric_keys,
};
use inlane_core::request::Request;
use inlane_core::snapshot::ConfigDocument;
use inlane_core::state::CycleState;
use serde::Deserialize;

/// `max - x` over `max - min` of a metric, 1 when all are equal.
struct Lowest {
    read: fn(&Columns, EndpointIx) -> f64,
    metrics: bool,
}

impl Scorer for Lowest {
    fn category(&self) -> Category {
        Category::Distribution
    }
    fn reads_metrics(&self) -> bool {
        self.metrics
    }
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for (&ix, out) in candidates.iter().zip(&mut *out) {
            *out = (self.read)(cx.columns, ix);
            min = min.min(*out);
            max = max.max(*out);
        }
        for out in out {
            *out = if max == min { 1.0 } else { (max - *out) / (max - min) };
        }
        Ok(())
    }
}

/// `1 - kv`, raw.
struct FreeCache;

impl Scorer for FreeCache {
    fn category(&self) -> Category {
        Category::Distribution
    }
    fn reads_metrics(&self) -> bool {
        true
    }
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        for (&ix, out) in candidates.iter().zip(out) {
            *out = 1.0 - cx.columns.metrics.kv_usage[ix as usize];
        }
        Ok(())
    }
}

struct MatchRatio(Col<PrefixMatch>);

impl Scorer for MatchRatio {
    fn category(&self) -> Category {
        Category::Affinity
    }
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let found = cx.columns.get(self.0);
        for (&ix, out) in candidates.iter().zip(out) {
            let m = found.get(ix as usize).copied().flatten().unwrap_or_default();
            *out = f64::from(m.match_blocks) / f64::from(m.total_blocks.max(1));
        }
        Ok(())
    }
}

/// Requests in flight, as booked.
struct Bookings(Col<InFlight>);

impl Scorer for Bookings {
    fn category(&self) -> Category {
        Category::Distribution
    }
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let load = cx.columns.get(self.0);
        for (&ix, out) in candidates.iter().zip(out) {
            let requests = load.get(ix as usize).copied().flatten().unwrap_or_default().requests;
            *out = 1.0 / (1.0 + f64::from(requests));
        }
        Ok(())
    }
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, default)]
struct RoleFilterParams {
    /// Look again at every request.
    dynamic: bool,
}

/// Keeps endpoints whose label `role` is this, or absent.
struct RoleFilter {
    role: &'static str,
    dynamic: bool,
}

impl Filter for RoleFilter {
    fn is_static(&self) -> bool {
        !self.dynamic
    }
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        candidates.retain(|ix| match cx.endpoints[ix].label("role") {
            Some(role) if role != self.role => Err("other role"),
            _ => Ok(()),
        });
        Ok(())
    }
}

/// Drops endpoints with a queue.
struct Unqueued;

impl Filter for Unqueued {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let waiting = &cx.columns.metrics.waiting;
        candidates.retain(|ix| if waiting[ix as usize] > 0 { Err("queue") } else { Ok(()) });
        Ok(())
    }
}

/// Takes the best total, the first of equals.
struct Best;

impl Picker for Best {
    fn pick(
        &self,
        _: &Cycle<'_>,
        candidates: &[EndpointIx],
        totals: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        let mut best = 0;
        for (i, total) in totals.iter().enumerate() {
            if *total > totals[best] {
                best = i;
            }
        }
        targets.push(candidates[best]);
        Ok(())
    }
}

struct AnyOne(PluginIx);

impl Picker for AnyOne {
    fn pick(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        _: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        let at = cx.rng(self.0.into()).below(candidates.len() as u32);
        targets.push(candidates[at as usize]);
        Ok(())
    }
}

/// Picks what it was told to, sound or not.
struct Stubborn(Vec<EndpointIx>);

impl Picker for Stubborn {
    fn pick(
        &self,
        _: &Cycle<'_>,
        _: &[EndpointIx],
        _: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        targets.extend(&self.0);
        Ok(())
    }
}

struct Single;

impl ProfileHandler for Single {
    fn validate(&self, profiles: &[String]) -> Result<(), String> {
        match profiles.len() {
            1 => Ok(()),
            _ => Err("SingleProfileHandler cannot support multiple scheduling profiles".into()),
        }
    }
    fn next(
        &self,
        _: &Cycle<'_>,
        decision: &Decision,
        run: &mut Vec<ProfileIx>,
    ) -> Result<(), ScheduleError> {
        if !decision.profiles[0].ran {
            run.push(0);
        }
        Ok(())
    }
    fn primary(&self, _: &Cycle<'_>, decision: &Decision) -> Result<ProfileIx, ScheduleError> {
        match decision.profiles[0].failed {
            true => Err(ScheduleError::Handler("the only profile failed".into())),
            false => Ok(0),
        }
    }
}

/// Runs every profile once; the last one is the primary. Or does what `mode` says.
struct Every(String);

impl ProfileHandler for Every {
    fn next(
        &self,
        _: &Cycle<'_>,
        decision: &Decision,
        run: &mut Vec<ProfileIx>,
    ) -> Result<(), ScheduleError> {
        match self.0.as_str() {
            "endless" => run.push(0),
            "unknown" if decision.profiles.iter().all(|p| !p.ran) => run.push(99),
            "nothing" => {}
            "panic" => panic!("handler bug"),
            _ => run.extend((0..).zip(&decision.profiles).filter(|(_, p)| !p.ran).map(|(i, _)| i)),
        }
        Ok(())
    }
    fn primary(&self, _: &Cycle<'_>, decision: &Decision) -> Result<ProfileIx, ScheduleError> {
        match self.0.as_str() {
            "lost" => Ok(99),
            _ => Ok(decision.profiles.len() as ProfileIx - 1),
        }
    }
}

struct Tokens;

impl DataProducer for Tokens {
    fn produce(
        &self,
        _: &Producing<'_>,
        _: &mut Columns,
        _: &mut CycleState,
    ) -> Result<(), PluginError> {
        Ok(())
    }
}

/// Says that the endpoint named like the model holds half of every prompt.
struct Prefixes(Col<PrefixMatch>);

impl DataProducer for Prefixes {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        _: &mut CycleState,
    ) -> Result<(), PluginError> {
        let total_blocks = (cx.request.token_count() / 64) as u32;
        let out = columns.get_mut(self.0);
        for &ix in cx.candidates {
            let holds = cx.endpoints[ix].name == cx.request.target_model;
            let match_blocks = if holds { total_blocks / 2 } else { 0 };
            out[ix as usize] = Some(PrefixMatch {
                match_blocks,
                total_blocks,
                block_size_tokens: 64,
                cached_blocks: match_blocks,
            });
        }
        Ok(())
    }
}

impl PostChoice for Prefixes {
    fn post_choice(&self, _: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        effects.extend(decision.target().map(|endpoint| Effect::Record { plugin: 0, endpoint }));
    }
}

struct Load {
    load: Col<InFlight>,
    cost: Col<UncachedTokens>,
}

impl DataProducer for Load {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        _: &mut CycleState,
    ) -> Result<(), PluginError> {
        for &ix in cx.candidates {
            let now = cx.load.in_flight(cx.endpoints[ix].slot);
            columns.get_mut(self.load)[ix as usize] = Some(now);
            let cost = UncachedTokens(cx.request.token_count() as i64);
            columns.get_mut(self.cost)[ix as usize] = Some(cost);
        }
        Ok(())
    }
}

impl PostChoice for Load {
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        let Some(endpoint) = decision.target() else { return };
        let cost = cx.columns.get(self.cost)[endpoint as usize].unwrap_or_default();
        effects.push(Effect::Claim {
            endpoint,
            tokens: cost.0 as u64,
            release: TokenRelease::FirstByte,
            until_first_byte: false,
        });
    }
}

/// Fails in every role, by panic or by error, after having done half its work.
struct Broken {
    panics: bool,
}

impl Broken {
    fn fail(&self) -> Result<(), PluginError> {
        if self.panics {
            panic!("broken on purpose");
        }
        Err(PluginError::new("broken on purpose"))
    }
}

impl Filter for Broken {
    fn filter(&self, _: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        candidates.retain(|ix| if ix == 0 { Err("half done") } else { Ok(()) });
        self.fail()
    }
}

impl Scorer for Broken {
    fn category(&self) -> Category {
        Category::Balance
    }
    fn score(&self, _: &Cycle<'_>, _: &[EndpointIx], out: &mut [f64]) -> Result<(), PluginError> {
        out[0] = 1.0;
        self.fail()
    }
}

impl Picker for Broken {
    fn pick(
        &self,
        _: &Cycle<'_>,
        candidates: &[EndpointIx],
        _: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        targets.push(candidates[0]);
        self.fail()
    }
}

impl DataProducer for Broken {
    fn produce(
        &self,
        _: &Producing<'_>,
        _: &mut Columns,
        _: &mut CycleState,
    ) -> Result<(), PluginError> {
        self.fail()
    }
}

impl PostChoice for Broken {
    fn post_choice(&self, _: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        effects.extend(decision.target().map(|endpoint| Effect::Record { plugin: 0, endpoint }));
        let _ = self.fail();
    }
    fn apply(&self, _: &Cycle<'_>, _: &Effect) {
        let _ = self.fail();
    }
}

impl PreCall for Broken {
    fn pre_call(&self, _: &Request<'_>, _: &mut RequestFacts) -> Result<(), Refusal> {
        let _ = self.fail();
        Ok(())
    }
}

impl AfterResponse for Broken {
    fn response_headers(&self, _: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        headers.push(("half".into(), "done".into()));
        let _ = self.fail();
    }
    fn complete(&self, _: &Responding<'_>) {
        let _ = self.fail();
    }
}

/// Names the tenant in the facts and in a response header; refuses requests without a model.
struct Tenant;

impl PreCall for Tenant {
    fn pre_call(&self, request: &Request<'_>, facts: &mut RequestFacts) -> Result<(), Refusal> {
        if request.model.is_empty() {
            return Err(Refusal { status: 400, message: "no model".into() });
        }
        facts.fairness_id = Some(format!("tenant of {}", request.model));
        Ok(())
    }
}

impl AfterResponse for Tenant {
    fn response_headers(&self, cx: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        headers.push(("x-served".into(), cx.request_id.into()));
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct BrokenParams {
    panics: bool,
    role: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct NameParams {
    prefix_match_info_producer_name: String,
    /// Makes a producer of this name.
    own: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct PickParams {
    targets: Vec<EndpointIx>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ModeParams {
    mode: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct KeyParams {
    requires: Vec<String>,
    uses: Vec<String>,
}

type Builder = fn(&mut Build<'_>, &Params) -> Result<Roles, BuildError>;

fn plugin(name: &'static str, build: Builder) -> PluginType {
    PluginType {
        name,
        deprecated_names: &[],
        stability: Stability::Beta,
        default_producer_of: &[],
        build,
    }
}

/// The test plugins.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::new();
    let mut add = |name, build: Builder| {
        registry.register(plugin(name, build));
    };
    add("queue-scorer", |b, _| {
        b.require_key(metric_keys::WAITING, CORE_METRICS_EXTRACTOR);
        let read = |c: &Columns, ix| f64::from(c.metrics.waiting[ix as usize]);
        Ok(Roles::default().scorer(Arc::new(Lowest { read, metrics: true })))
    });
    add("running-requests-size-scorer", |b, _| {
        b.require_key(metric_keys::RUNNING, CORE_METRICS_EXTRACTOR);
        let read = |c: &Columns, ix| f64::from(c.metrics.running[ix as usize]);
        Ok(Roles::default().scorer(Arc::new(Lowest { read, metrics: true })))
    });
    add("kv-cache-utilization-scorer", |b, _| {
        b.require_key(metric_keys::KV_USAGE, CORE_METRICS_EXTRACTOR);
        Ok(Roles::default().scorer(Arc::new(FreeCache)))
    });
    add("prefix-cache-scorer", |b, p| {
        let p: NameParams = p.decode()?;
        let mut producer = p.prefix_match_info_producer_name;
        if !p.own.is_empty() {
            b.create_producer("approx-prefix-cache-producer", p.own.clone(), Params::default());
            producer = p.own;
        }
        let col = b.require(&producer, "approx-prefix-cache-producer");
        Ok(Roles::default().scorer(Arc::new(MatchRatio(col))))
    });
    add("active-request-scorer", |b, _| {
        let col = b.require("", "inflight-load-producer");
        Ok(Roles::default().scorer(Arc::new(Bookings(col))))
    });
    add("token-load-scorer", |b, _| {
        let col = b.require("", "inflight-load-producer");
        let _: Col<UncachedTokens> = b.require("", "inflight-load-producer");
        Ok(Roles::default().scorer(Arc::new(Bookings(col))))
    });
    add("decode-filter", |_, p| {
        let dynamic = p.decode::<RoleFilterParams>()?.dynamic;
        Ok(Roles::default().filter(Arc::new(RoleFilter { role: "decode", dynamic })))
    });
    add("prefill-filter", |_, p| {
        let dynamic = p.decode::<RoleFilterParams>()?.dynamic;
        Ok(Roles::default().filter(Arc::new(RoleFilter { role: "prefill", dynamic })))
    });
    add("unqueued-filter", |_, _| Ok(Roles::default().filter(Arc::new(Unqueued))));
    add("max-score-picker", |_, _| Ok(Roles::default().picker(Arc::new(Best))));
    add("random-picker", |b, _| Ok(Roles::default().picker(Arc::new(AnyOne(b.instance())))));
    add("stubborn-picker", |_, p| {
        Ok(Roles::default().picker(Arc::new(Stubborn(p.decode::<PickParams>()?.targets))))
    });
    add("single-profile-handler", |_, _| Ok(Roles::default().handler(Arc::new(Single))));
    add("every-profile-handler", |_, p| {
        Ok(Roles::default().handler(Arc::new(Every(p.decode::<ModeParams>()?.mode))))
    });
    add("metrics-data-source", |_, _| Ok(Roles::default().part(Part::DataSource)));
    add("endpoint-notification-source", |_, _| Ok(Roles::default().part(Part::DataSource)));
    add("core-metrics-extractor", |b, _| {
        for key in [metric_keys::WAITING, metric_keys::RUNNING, metric_keys::KV_USAGE] {
            b.produce_key(key);
        }
        Ok(Roles::default().part(Part::Extractor))
    });
    add("file-discovery", |_, _| Ok(Roles::default().part(Part::Discovery)));
    add("openai-parser", |_, _| Ok(Roles::default().part(Part::Parser)));
    add("slo-deadline-ordering-policy", |_, _| Ok(Roles::default().part(Part::OrderingPolicy)));
    add("broken", |_, p| {
        let BrokenParams { panics, role } = p.decode()?;
        let broken = Arc::new(Broken { panics });
        Ok(match role.as_str() {
            "filter" => Roles::default().filter(broken),
            "picker" => Roles::default().picker(broken),
            "producer" => Roles::default().producer(broken),
            "post_choice" => Roles::default().post_choice(broken),
            "hooks" => Roles::default().pre_call(broken.clone()).after_response(broken),
            "build" => panic!("broken while building"),
            _ => Roles::default().scorer(broken),
        })
    });
    add("tenant", |_, _| {
        Ok(Roles::default().pre_call(Arc::new(Tenant)).after_response(Arc::new(Tenant)))
    });
    add("linked-producer", |b, p| {
        let KeyParams { requires, uses } = p.decode()?;
        b.produce_key("Link");
        requires.iter().for_each(|name| b.require_key("Link", name));
        uses.iter().for_each(|name| b.use_key("Link", name));
        Ok(Roles::default().producer(Arc::new(Tokens)))
    });
    registry.register(PluginType {
        default_producer_of: &["PrefixCacheMatchInfoDataKey"],
        ..plugin("approx-prefix-cache-producer", |b, _| {
            b.require_key(TOKENIZED_PROMPT, "token-producer");
            let prefixes = Arc::new(Prefixes(b.produce()));
            Ok(Roles::default().producer(prefixes.clone()).post_choice(prefixes))
        })
    });
    registry.register(PluginType {
        default_producer_of: &["InFlightLoadDataKey"],
        ..plugin("inflight-load-producer", |b, _| {
            let _: Col<PrefixMatch> = b.optional("", "approx-prefix-cache-producer");
            let load = Arc::new(Load { load: b.produce(), cost: b.produce() });
            Ok(Roles::default().producer(load.clone()).post_choice(load))
        })
    });
    registry.register(PluginType {
        default_producer_of: &[TOKENIZED_PROMPT],
        deprecated_names: &["tokenizer"],
        ..plugin("token-producer", |b, _| {
            b.produce_key(TOKENIZED_PROMPT);
            Ok(Roles::default().producer(Arc::new(Tokens)))
        })
    });
    registry.register(PluginType {
        stability: Stability::Alpha,
        ..plugin("session-affinity-scorer", |_, _| Ok(Roles::default().scorer(Arc::new(FreeCache))))
    });
    registry
}

/// Loads the text below the two header lines.
pub(crate) fn try_config(body: &str) -> Result<LoadedConfig, String> {
    let text = format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{body}");
    try_text(&text)
}

/// Loads a whole text.
pub(crate) fn try_text(text: &str) -> Result<LoadedConfig, String> {
    let document =
        ConfigDocument { source: "c.yaml".into(), text: text.into(), ..Default::default() };
    load(&document, &registry(), &KeptState::default()).map_err(|e| e.to_string())
}

/// Loads the text below the two header lines, which must be right.
pub(crate) fn config(body: &str) -> LoadedConfig {
    try_config(body).unwrap()
}

/// An endpoint `default/<name>` with labels.
pub(crate) fn endpoint(name: &str, labels: &[(&str, &str)]) -> Endpoint {
    Endpoint {
        id: format!("default/{name}"),
        namespace: "default".into(),
        name: name.into(),
        pod_name: name.into(),
        address: "10.0.0.1".into(),
        port: 8000,
        host_port: "10.0.0.1:8000".into(),
        rank: 0,
        labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect::<BTreeMap<_, _>>(),
        slot: Slot::default(),
    }
}

/// A pool of endpoints without labels.
pub(crate) fn pool(names: &[&str]) -> Arc<EndpointSet> {
    Arc::new(EndpointSet::new(1, names.iter().map(|n| endpoint(n, &[])).collect()))
}

/// A plan of the configuration below the two header lines.
pub(crate) fn plan(body: &str, endpoints: Arc<EndpointSet>) -> Plan {
    Plan::new(Arc::new(config(body)), endpoints)
}

/// Nothing is booked.
pub(crate) struct Idle;

impl LoadSource for Idle {
    fn in_flight(&self, _: Slot) -> InFlight {
        InFlight::default()
    }
}

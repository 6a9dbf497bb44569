//! Cases about whole configurations: loading them, and deciding with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::config::{self, ConfigError, LoadedConfig};
use inlane_core::cycle::{Ask, Scratch};
use inlane_core::decision::ScheduleError;
use inlane_core::endpoint::{Endpoint, EndpointIx};
use inlane_core::plan::Plan;
use inlane_core::plugin::{Producing, RequestFacts};
use inlane_core::registry::{KeptState, Registry, TOKENIZED_PROMPT};
use inlane_core::snapshot::ConfigDocument;
use inlane_plugins::token_producer;
use serde_json::{Value, json};

use super::answer::Sent;
use super::bench::settle;
use super::check::{self, Checks};
use super::effects::carry_out;
use super::ledger::Ledger;
use super::pool::Pool;
use super::reference::as_reference;
use super::request::LiveRequest;
use super::schema::{Case, RequestSpec};
use super::single::seed;

pub(super) fn load(
    config: &Value,
    registry: &Registry,
    kept: &KeptState,
) -> Result<LoadedConfig, ConfigError> {
    let document = ConfigDocument {
        source: "case".into(),
        text: config.to_string(),
        allow_experimental_plugins: true,
    };
    config::load(&document, registry, kept)
}

pub(super) fn epp_config(
    case: &Case,
    registry: &Registry,
    checks: &mut Checks,
) -> Result<(), String> {
    let config = case.config.as_ref().ok_or("the case has no config")?;
    let loaded = load(config, registry, &KeptState::default());
    checks.valid(&case.expect, loaded.err().map(|e| e.to_string()));
    Ok(())
}

/// A proxy in small: a plan with the state that requests share.
pub(super) struct Proxy {
    kept: KeptState,
    pub(super) plan: Plan,
    scratch: Scratch,
    ledger: Ledger,
    requests: u64,
    /// The case's own time.
    pub(super) now_ms: u64,
}

/// How much of the path a request takes before it is decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Path {
    /// The attributes are given. Only plugins that rate endpoints read the state they keep.
    Given,
    /// The data producers run.
    Producers,
    /// The hooks before the decision run, and then the data producers.
    Whole,
}

impl Proxy {
    pub(super) fn new(config: &Value, registry: &Registry, pool: &Pool) -> Result<Self, String> {
        let kept = KeptState::default();
        let config = load(config, registry, &kept).map_err(|e| e.to_string())?;
        let plan = as_reference(Plan::new(Arc::new(config), Arc::clone(&pool.endpoints)));
        let scratch = Scratch::new(&plan);
        Ok(Self { kept, plan, scratch, ledger: Ledger::default(), requests: 0, now_ms: 1_000 })
    }

    /// Serves one request up to the point where it leaves. Producers come before the attributes
    /// that the case gives.
    pub(super) fn serve(
        &mut self,
        request: &mut LiveRequest,
        pool: &Pool,
        candidates: &[EndpointIx],
        path: Path,
    ) -> Result<EndpointIx, ScheduleError> {
        self.requests += 1;
        self.now_ms += 1;
        let seed = seed(self.requests);
        let Self { plan, scratch, ledger, now_ms, .. } = self;
        plan.begin(scratch);
        if path == Path::Whole {
            let mut facts = RequestFacts::default();
            request
                .with(|r| plan.pre_call(r, &mut facts, scratch))
                .map_err(ScheduleError::Denied)?;
        }
        pool.fill_metrics(&mut scratch.columns);
        request.with(|r| {
            let ask = Ask { seed, ..Ask::new(r, ledger, *now_ms) }.within(Some(candidates));
            if path == Path::Given {
                plan.restrict(candidates, scratch);
                read_state(plan, &ask, candidates, scratch);
                return;
            }
            let tickets = plan.enroll(&ask, scratch);
            let ready = tickets.iter().map(|(_, ticket)| ticket.ready_at_ms).max();
            *now_ms = ready.unwrap_or(0).max(*now_ms);
            plan.produce(&Ask { tickets: &tickets, now_ms: *now_ms, ..ask }, scratch);
        });
        let now_ms = *now_ms;
        pool.fill_attributes(&plan.config().schema, &mut scratch.columns);
        let target = request.with(|r| plan.decide(r, now_ms, seed, scratch))?;
        request.with(|r| plan.apply_records(r, now_ms, seed, scratch));
        settle(&self.kept);
        carry_out(&self.scratch.effects, pool, &mut self.ledger, request);
        Ok(target)
    }

    /// The headers that plugins set on the response of the last request.
    pub(super) fn response_headers(
        &mut self,
        request: &LiveRequest,
        target: EndpointIx,
    ) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        let Self { plan, scratch, now_ms, .. } = self;
        let sent = Sent::new(&scratch.decision, &scratch.effects, *now_ms);
        let (endpoints, failures) = (plan.endpoints(), &mut scratch.failures);
        sent.with(endpoints, request.id(), Some(target), *now_ms, false, |cx| {
            plan.response_headers(cx, &mut headers, failures);
        });
        headers
    }

    /// Targets of every profile that has some, by name.
    pub(super) fn targets(&self, pool: &Pool) -> Value {
        let runs = self.scratch.decision.profiles.iter().filter(|run| !run.targets.is_empty());
        let targets = runs.map(|run| (run.name.clone(), json!(pool.names(&run.targets))));
        targets.collect::<serde_json::Map<_, _>>().into()
    }

    /// Targets of the primary profile.
    pub(super) fn primary_targets(&self) -> &[EndpointIx] {
        self.scratch.decision.primary_run().map_or(&[], |run| &run.targets)
    }

    /// `host:port` of every target of the primary profile, with the port that the handler chose.
    pub(super) fn destination(&self, pool: &Pool) -> String {
        let hosts = self.primary_targets().iter().map(|&ix| {
            let endpoint = &pool.endpoints[ix];
            match self.scratch.decision.port {
                Some(port) => Endpoint::join_host_port(&endpoint.address, port),
                None => endpoint.host_port.clone(),
            }
        });
        hosts.collect::<Vec<_>>().join(",")
    }

    /// Tokenizes a body where the configuration has a token producer.
    pub(super) fn tokenize(&self, request: &mut LiveRequest) -> Result<(), String> {
        let config = self.plan.config();
        let mut producers = config.producers.iter().filter_map(|&ix| config.plugin(ix));
        let tokenizes =
            producers.any(|p| p.data.produces.iter().any(|k| k.name == TOKENIZED_PROMPT));
        if !tokenizes {
            return Ok(());
        }
        request.tokenize(&token_producer::estimate(config))
    }

    fn check(&self, expect: &Value, pool: &Pool, request: &LiveRequest, checks: &mut Checks) {
        let decision = &self.scratch.decision;
        if let Some(expected) = expect.get("primary_profile") {
            let primary = decision.primary_run().map(|run| run.name.as_str());
            checks.equal("primary_profile", expected, &json!(primary));
        }
        if let Some(expected) = expect.get("targets") {
            checks.equal("targets", expected, &self.targets(pool));
        }
        for (profile, expected) in expect["totals"].as_object().into_iter().flatten() {
            let run = decision.profile(profile);
            let totals: BTreeMap<String, f64> = run
                .into_iter()
                .flat_map(|run| run.candidates.iter().zip(&run.totals))
                .map(|(&ix, &total)| (pool.name(ix).to_owned(), total))
                .collect();
            let tolerance = check::tolerance(expect);
            checks.numbers(&format!("totals.{profile}"), expected, &totals, tolerance);
        }
        if let Some(expected) = expect.get("headers_after") {
            checks.equal("headers_after", expected, &request.headers_after());
        }
    }
}

pub(super) fn schedule(
    case: &Case,
    registry: &Registry,
    checks: &mut Checks,
) -> Result<(), String> {
    let pool = Pool::new(&case.endpoints)?;
    let config = case.config.as_ref().ok_or("the case has no config")?;
    let mut proxy = Proxy::new(config, registry, &pool)?;
    let mut serve = |wait_ms,
                     spec: &RequestSpec,
                     ids: Option<&[String]>,
                     expect: &Value,
                     checks: &mut Checks| {
        proxy.now_ms += wait_ms;
        let mut request = LiveRequest::new(spec);
        if case.run_producers {
            proxy.tokenize(&mut request)?;
        }
        let candidates = pool.candidates(ids)?;
        let path = if case.run_producers { Path::Producers } else { Path::Given };
        // Whether there was nobody from the start is the director's question, not the scheduler's.
        let outcome = proxy.serve(&mut request, &pool, &candidates, path).map_err(|e| match e {
            ScheduleError::NoEndpoints => filtered(),
            other => other,
        });
        match (outcome, expect.get("error").filter(|e| !e.is_null())) {
            (Ok(_), None) => proxy.check(expect, &pool, &request, checks),
            (Ok(_), Some(error)) => {
                checks.problem(format!("error: expected {error}, got {}", proxy.targets(&pool)));
            }
            (Err(error), None) => checks.problem(format!("expected a decision, got: {error}")),
            (Err(error), Some(expected)) => check_error(expected, &error, checks),
        }
        Ok::<_, String>(())
    };
    if case.steps.is_empty() {
        return serve(0, &case.request, None, &case.expect, checks);
    }
    let mut waited = 0;
    for (step, i) in case.steps.iter().zip(0..) {
        checks.enter(format!("steps[{i}]"));
        if step.op == "wait" {
            waited += step.wait_ms;
            continue;
        }
        let wait_ms = step.wait_ms + std::mem::take(&mut waited);
        serve(wait_ms, &step.request, step.endpoints.as_deref(), &step.expect, checks)?;
    }
    Ok(())
}

/// What the reference's scheduler says when nobody is left.
fn filtered() -> ScheduleError {
    ScheduleError::Filtered {
        profile: String::new(),
        said: "failed to run scheduler profile".into(),
    }
}

/// Lets plugins that rate endpoints read what they keep, each in its producer half. A producer that
/// does nothing else is left alone: its data are given.
fn read_state(plan: &Plan, ask: &Ask<'_>, candidates: &[EndpointIx], scratch: &mut Scratch) {
    let &Ask { request, load, now_ms, seed, .. } = ask;
    let (endpoints, settled) = (&**plan.endpoints(), plan.settled());
    let cx =
        Producing { request, endpoints, candidates, load, settled, tickets: &[], now_ms, seed };
    let config = plan.config();
    for roles in config.producers.iter().filter_map(|&ix| Some(&config.plugin(ix)?.roles)) {
        let Some(producer) = &roles.producer else { continue };
        if roles.filter.is_some() || roles.scorer.is_some() || roles.picker.is_some() {
            let Scratch { columns, state, .. } = scratch;
            // One that fails has nothing to say, as in a proxy.
            let _ = producer.produce(&cx, columns, state);
        }
    }
}

fn check_error(expected: &Value, error: &ScheduleError, checks: &mut Checks) {
    let http = error.http();
    if let Some(code) = expected.get("code") {
        checks.equal("error.code", code, &json!(http.code));
    }
    if let Some(reason) = expected.get("drop_reason") {
        let got = if reason == "" {
            json!(http.drop_reason.unwrap_or(""))
        } else {
            json!(http.drop_reason)
        };
        checks.equal("error.drop_reason", reason, &got);
    }
    if let Some(part) = expected["message_contains"].as_str() {
        let detail = error.detail();
        if !detail.contains(part) {
            checks.problem(format!("error.message: expected '{part}' in '{detail}'"));
        }
    }
}

//! Cases about whole configurations: loading them, and deciding with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::config::{self, ConfigError, LoadedConfig};
use inlane_core::cycle::{Ask, Scratch};
use inlane_core::decision::ScheduleError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plan::Plan;
use inlane_core::plugin::{Refusal, RequestFacts};
use inlane_core::registry::{KeptState, Registry};
use inlane_core::snapshot::ConfigDocument;
use serde_json::{Value, json};

use super::bench::settle;
use super::check::{self, Checks};
use super::effects::carry_out;
use super::ledger::Ledger;
use super::pool::Pool;
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
}

impl Proxy {
    pub(super) fn new(config: &Value, registry: &Registry, pool: &Pool) -> Result<Self, String> {
        let kept = KeptState::default();
        let config = load(config, registry, &kept).map_err(|e| e.to_string())?;
        let plan = Plan::new(Arc::new(config), Arc::clone(&pool.endpoints));
        let scratch = Scratch::new(&plan);
        Ok(Self { kept, plan, scratch, ledger: Ledger::default(), requests: 0 })
    }

    /// Runs the hooks before the decision.
    pub(super) fn pre_call(
        &mut self,
        request: &LiveRequest,
        facts: &mut RequestFacts,
    ) -> Result<(), Refusal> {
        request.with(|r| self.plan.pre_call(r, facts, &mut self.scratch))
    }

    /// Serves one request up to the point where it leaves. Producers, when they run, come before
    /// the attributes that the case gives.
    pub(super) fn serve(
        &mut self,
        request: &mut LiveRequest,
        pool: &Pool,
        candidates: &[EndpointIx],
        produce: bool,
    ) -> Result<EndpointIx, ScheduleError> {
        self.requests += 1;
        let (now_ms, seed) = (1_000 + self.requests, seed(self.requests));
        let Self { plan, scratch, ledger, .. } = self;
        plan.begin(scratch);
        pool.fill_metrics(&mut scratch.columns);
        request.with(|r| match produce {
            true => {
                let ask = Ask { seed, ..Ask::new(r, ledger, now_ms) };
                plan.produce(&ask.within(Some(candidates)), scratch);
            }
            false => plan.restrict(candidates, scratch),
        });
        pool.fill_attributes(&plan.config().schema, &mut scratch.columns);
        let target = request.with(|r| plan.decide(r, now_ms, seed, scratch))?;
        request.with(|r| plan.apply_records(r, now_ms, seed, scratch));
        settle(&self.kept);
        carry_out(&self.scratch.effects, pool, &mut self.ledger, request);
        Ok(target)
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

    /// Whether the configuration has a token producer, so that bodies are tokenized.
    pub(super) fn tokenizes(&self) -> bool {
        let config = self.plan.config();
        config.producers.iter().filter_map(|&ix| config.plugin(ix)).any(|p| {
            p.data.produces.iter().any(|key| key.name == inlane_core::registry::TOKENIZED_PROMPT)
        })
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
    let mut serve =
        |spec: &RequestSpec, ids: Option<&[String]>, expect: &Value, checks: &mut Checks| {
            let mut request = LiveRequest::new(spec);
            if case.run_producers && proxy.tokenizes() {
                request.tokenize()?;
            }
            let candidates = pool.candidates(ids)?;
            let outcome = proxy.serve(&mut request, &pool, &candidates, case.run_producers);
            match (outcome, expect.get("error").filter(|e| !e.is_null())) {
                (Ok(_), None) => proxy.check(expect, &pool, &request, checks),
                (Ok(_), Some(error)) => {
                    checks
                        .problem(format!("error: expected {error}, got {}", proxy.targets(&pool)));
                }
                (Err(error), None) => checks.problem(format!("expected a decision, got: {error}")),
                (Err(error), Some(expected)) => check_error(expected, &error, checks),
            }
            Ok::<_, String>(())
        };
    if case.steps.is_empty() {
        return serve(&case.request, None, &case.expect, checks);
    }
    for (step, i) in case.steps.iter().zip(0..) {
        checks.enter(format!("steps[{i}]"));
        serve(&step.request, step.endpoints.as_deref(), &step.expect, checks)?;
    }
    Ok(())
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
        let body = error.body();
        if !body.contains(part) {
            checks.problem(format!("error.message: expected '{part}' in '{body}'"));
        }
    }
}

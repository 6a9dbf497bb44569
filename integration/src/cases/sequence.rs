//! Cases about plugins with state: steps on instances that live as long as the case.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use inlane_core::columns::{Attribute, Columns, PrefixMatch, UncachedTokens};
use inlane_core::decision::{Decision, ProfileIx, ProfileRun};
use inlane_core::effect::{Effect, Effects};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, LoadSource, Producing, Responding, Settled};
use inlane_core::registry::{Registry, TOKENIZED_PROMPT};
use inlane_core::state::CycleState;
use serde_json::{Value, json};

use super::bench::Bench;
use super::check::Checks;
use super::effects::carry_out;
use super::ledger::Ledger;
use super::pool::Pool;
use super::request::LiveRequest;
use super::schema::{Case, RequestSpec, ResultSpec, Step};
use super::single::{check_kept, check_scores, run_filter, run_scorer, seed};

/// A request that several steps work on, with what plugins remember of it.
struct Ongoing {
    request: LiveRequest,
    state: CycleState,
    /// The endpoint published as peer.
    peer: Option<EndpointIx>,
}

struct Sequence<'a> {
    bench: Bench<'a>,
    pool: Pool,
    settled: Settled,
    ledger: Ledger,
    requests: BTreeMap<String, Ongoing>,
    started: Instant,
}

pub(super) fn sequence(
    case: &Case,
    registry: &Registry,
    checks: &mut Checks,
) -> Result<(), String> {
    let mut bench = Bench::new(registry);
    for spec in &case.plugins {
        bench.build(spec)?;
    }
    let pool = Pool::new(&case.endpoints)?;
    let mut sequence = Sequence {
        settled: bench.settled(&pool.endpoints),
        bench,
        pool,
        ledger: Ledger::default(),
        requests: BTreeMap::new(),
        started: Instant::now(),
    };
    for (step, i) in case.steps.iter().zip(0..) {
        checks.enter(format!("steps[{i}] {}", step.op));
        sequence.step(step, checks).map_err(|e| format!("steps[{i}] {}: {e}", step.op))?;
        sequence.bench.settle();
    }
    Ok(())
}

impl Sequence<'_> {
    fn step(&mut self, step: &Step, checks: &mut Checks) -> Result<(), String> {
        if step.op == "wait" {
            sleep(Duration::from_millis(step.wait_ms));
            return Ok(());
        }
        let plugin = self.bench.find(&step.plugin)?;
        let mut ongoing = self.take_request(&step.request)?;
        let outcome = match step.op.as_str() {
            "score" | "filter" => self.rate(plugin, &ongoing, step, checks),
            "produce" => self.produce(plugin, &mut ongoing, step, checks),
            "pre_request" => self.pre_request(plugin, &mut ongoing, step, checks),
            "response_header" => self.response_header(plugin, &ongoing, step, checks),
            "response_body" => self.response_body(plugin, &ongoing, step),
            "inflight" => {
                self.check_load(&step.expect, checks);
                Ok(())
            }
            op => Err(format!("unknown op '{op}'")),
        };
        self.requests.insert(ongoing.request.id().to_owned(), ongoing);
        outcome
    }

    /// The request of that id: the same one in every step.
    fn take_request(&mut self, spec: &RequestSpec) -> Result<Ongoing, String> {
        if let Some(known) = self.requests.remove(&spec.request_id) {
            return Ok(known);
        }
        Ok(Ongoing {
            request: LiveRequest::new(spec),
            state: self.bench.schema.states.instantiate(),
            peer: self.pool.peer(spec)?,
        })
    }

    fn now_ms(&self) -> u64 {
        1_000 + self.started.elapsed().as_millis() as u64
    }

    fn cycle<R>(
        &self,
        ongoing: &Ongoing,
        columns: &Columns,
        call: impl FnOnce(&Cycle<'_>) -> R,
    ) -> R {
        ongoing.request.with(|request| {
            let (endpoints, now_ms) = (&*self.pool.endpoints, self.now_ms());
            let state = &ongoing.state;
            let (settled, peer) = (&self.settled, ongoing.peer);
            call(&Cycle {
                request,
                endpoints,
                columns,
                state,
                settled,
                peer,
                now_ms,
                seed: seed(0),
            })
        })
    }

    fn rate(
        &self,
        plugin: usize,
        ongoing: &Ongoing,
        step: &Step,
        checks: &mut Checks,
    ) -> Result<(), String> {
        let roles = &self.bench.instances[plugin].roles;
        let columns = self.pool.columns(&self.bench.schema);
        let candidates = self.pool.candidates(step.endpoints.as_deref())?;
        self.cycle(ongoing, &columns, |cx| {
            if step.op == "filter" {
                let filter = roles.filter.as_deref().ok_or("the plugin is no filter")?;
                let kept = run_filter(filter, cx, candidates)?;
                return check_kept(checks, &self.pool, &step.expect, &kept);
            }
            let scorer = roles.scorer.as_deref().ok_or("the plugin is no scorer")?;
            let scores = run_scorer(scorer, cx, &self.pool, &candidates)?;
            check_scores(checks, &step.expect, &scores);
            Ok(())
        })
    }

    fn produce(
        &self,
        plugin: usize,
        ongoing: &mut Ongoing,
        step: &Step,
        checks: &mut Checks,
    ) -> Result<(), String> {
        let instance = &self.bench.instances[plugin];
        if instance.data.produces.iter().any(|key| key.name == TOKENIZED_PROMPT) {
            ongoing.request.tokenize()?;
        }
        let candidates = self.pool.candidates(step.endpoints.as_deref())?;
        let columns = self.produced(plugin, ongoing, &candidates)?;
        let name = &instance.name;
        check_attribute(checks, &step.expect["prefix"], "prefix", &self.pool, |ix| {
            let found: PrefixMatch = value(&self.bench, &columns, name, ix)?;
            Some(json!({
                "match_blocks": found.match_blocks,
                "total_blocks": found.total_blocks,
                "block_size_tokens": found.block_size_tokens,
                "cached_blocks": found.cached_blocks,
            }))
        });
        let what = "uncached_request_tokens";
        check_attribute(checks, &step.expect[what], what, &self.pool, |ix| {
            let UncachedTokens(tokens) = value(&self.bench, &columns, name, ix)?;
            Some(json!(tokens))
        });
        Ok(())
    }

    /// The columns of the case after the producer has run.
    fn produced(
        &self,
        plugin: usize,
        ongoing: &mut Ongoing,
        candidates: &[EndpointIx],
    ) -> Result<Columns, String> {
        let producer = self.bench.instances[plugin].roles.producer.as_deref();
        let producer = producer.ok_or("the plugin is no producer")?;
        let mut columns = self.pool.columns(&self.bench.schema);
        let Ongoing { request, state, .. } = ongoing;
        request.with(|request| {
            let (endpoints, load, now_ms) = (&*self.pool.endpoints, &self.ledger, self.now_ms());
            let (settled, tickets, seed) = (&self.settled, &[], seed(0));
            let cx =
                Producing { request, endpoints, candidates, load, settled, tickets, now_ms, seed };
            producer.produce(&cx, &mut columns, state).map_err(|e| e.to_string())
        })?;
        Ok(columns)
    }

    fn pre_request(
        &mut self,
        plugin: usize,
        ongoing: &mut Ongoing,
        step: &Step,
        checks: &mut Checks,
    ) -> Result<(), String> {
        let instance = &self.bench.instances[plugin];
        // The reference computes a request's cost again for the chosen endpoint. Here the cost is
        // a column, which a decision always finds filled.
        let costs = instance.data.produces.iter().any(|key| key.name == UncachedTokens::KEY);
        let columns = match costs {
            true => self.produced(plugin, ongoing, &self.pool.candidates(None)?)?,
            false => self.pool.columns(&self.bench.schema),
        };
        let decision = given(&step.result, &self.pool)?;
        let mut effects = Effects::new();
        if let Some(hook) = self.bench.instances[plugin].roles.post_choice.as_deref() {
            self.cycle(ongoing, &columns, |cx| {
                hook.post_choice(cx, &decision, &mut effects);
                for effect in effects.iter().filter(|e| matches!(e, Effect::Record { .. })) {
                    hook.apply(cx, effect);
                }
            });
        }
        carry_out(&effects, &self.pool, &mut self.ledger, &mut ongoing.request);
        if let Some(expected) = step.expect.get("headers_after") {
            checks.equal("headers_after", expected, &ongoing.request.headers_after());
        }
        Ok(())
    }

    fn responding<R>(
        &self,
        ongoing: &Ongoing,
        target: Option<&str>,
        call: impl FnOnce(&Responding<'_>) -> R,
    ) -> Result<R, String> {
        let target = target.map(|id| self.pool.ix(id)).transpose()?;
        Ok(call(&Responding {
            endpoints: &self.pool.endpoints,
            profiles: &[],
            targets: &[],
            kept: &[],
            request_id: ongoing.request.id(),
            endpoint: target.and_then(|ix| self.pool.endpoints.get(ix)),
            streaming: true,
            status: 200,
            first_byte_ms: None,
            total_ms: 0.0,
            complete: true,
            prompt_tokens: None,
            completion_tokens: None,
            cached_tokens: None,
        }))
    }

    fn response_header(
        &self,
        plugin: usize,
        ongoing: &Ongoing,
        step: &Step,
        checks: &mut Checks,
    ) -> Result<(), String> {
        let mut headers = Vec::new();
        if let Some(hook) = self.bench.instances[plugin].roles.after_response.as_deref() {
            self.responding(ongoing, step.target.as_deref(), |cx| {
                hook.response_headers(cx, &mut headers);
            })?;
        }
        if let Some(expected) = step.expect.get("response_headers") {
            let headers = headers.into_iter().map(|(name, value)| (name, json!(value)));
            let headers: Value = headers.collect::<serde_json::Map<_, _>>().into();
            checks.equal("response_headers", expected, &headers);
        }
        Ok(())
    }

    fn response_body(
        &mut self,
        plugin: usize,
        ongoing: &Ongoing,
        step: &Step,
    ) -> Result<(), String> {
        let id = ongoing.request.id();
        if step.start_of_stream {
            self.ledger.first_byte(id);
        }
        if step.end_of_stream {
            self.ledger.end(id);
            if let Some(hook) = self.bench.instances[plugin].roles.after_response.as_deref() {
                self.responding(ongoing, step.target.as_deref(), |cx| hook.complete(cx))?;
            }
        }
        Ok(())
    }

    fn check_load(&self, expect: &Value, checks: &mut Checks) {
        for (id, expected) in expect["inflight"].as_object().into_iter().flatten() {
            match self.pool.ix(id) {
                Err(error) => checks.problem(error),
                Ok(ix) => {
                    let load = self.ledger.in_flight(self.pool.endpoints[ix].slot);
                    let got = json!({"tokens": load.tokens, "requests": load.requests});
                    checks.equal(&format!("inflight.{id}"), expected, &got);
                }
            }
        }
    }
}

/// What a producer wrote for one endpoint.
fn value<T: Attribute>(
    bench: &Bench<'_>,
    columns: &Columns,
    producer: &str,
    ix: EndpointIx,
) -> Option<T> {
    let col = bench.schema.find::<T>(producer)?;
    columns.get(col).get(ix as usize).copied().flatten()
}

/// Compares the attributes that a producer wrote with those expected: the same endpoints, and of
/// each the fields that are listed.
fn check_attribute(
    checks: &mut Checks,
    expected: &Value,
    what: &str,
    pool: &Pool,
    got: impl Fn(EndpointIx) -> Option<Value>,
) {
    let Some(expected) = expected.as_object() else { return };
    for ix in (0..).take(pool.endpoints.len()) {
        let id = pool.name(ix);
        let what = format!("{what}.{id}");
        match (expected.get(id).filter(|e| !e.is_null()), got(ix)) {
            (None, None) => {}
            (Some(expected), Some(got)) => match expected.as_object() {
                None => checks.equal(&what, expected, &got),
                Some(fields) => {
                    for (field, expected) in fields {
                        checks.equal(&format!("{what}.{field}"), expected, &got[field]);
                    }
                }
            },
            (expected, got) => {
                let show = |v: Option<&Value>| v.map_or("nothing".into(), Value::to_string);
                checks.problem(format!(
                    "{what}: expected {}, got {}",
                    show(expected),
                    show(got.as_ref())
                ));
            }
        }
    }
}

/// The decision that a step takes as given.
fn given(result: &ResultSpec, pool: &Pool) -> Result<Decision, String> {
    let mut decision = Decision::default();
    for (name, targets) in &result.targets {
        let ids = targets.as_deref().unwrap_or_default();
        let targets = ids.iter().map(|id| pool.ix(id)).collect::<Result<Vec<_>, _>>()?;
        decision.profiles.push(ProfileRun {
            name: name.clone(),
            ran: true,
            failed: targets.is_empty(),
            candidates: targets.clone(),
            totals: vec![0.0; targets.len()],
            ranking: targets.clone(),
            targets,
            ..ProfileRun::default()
        });
    }
    let primary = decision.profiles.iter().position(|run| run.name == result.primary);
    let primary = primary.ok_or_else(|| format!("no result of profile '{}'", result.primary))?;
    decision.primary = ProfileIx::try_from(primary).map_err(|e| e.to_string())?;
    Ok(decision)
}

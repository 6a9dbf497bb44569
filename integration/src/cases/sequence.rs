//! Cases about plugins with state: steps on instances that live as long as the case.
//!
//! Time is the case's own: every step takes a millisecond, and waiting takes none.

use std::collections::BTreeMap;

use inlane_core::columns::{Attribute, Columns, PrefixMatch, UncachedTokens};
use inlane_core::decision::{Decision, ProfileIx, ProfileRun};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, LoadSource, Producing, Settled, Tickets};
use inlane_core::registry::{Registry, TOKENIZED_PROMPT};
use inlane_core::state::CycleState;
use inlane_plugins::token_producer;
use serde_json::{Value, json};

use super::answer::Sent;
use super::attributes::Written;
use super::bench::Bench;
use super::check::Checks;
use super::effects::carry_out;
use super::ledger::Ledger;
use super::pool::Pool;
use super::request::LiveRequest;
use super::schema::{Case, RequestSpec, ResultSpec, Step};
use super::single::{check_kept, check_scores, run_filter, run_scorer, seed};

/// Between two requests of a burst, ms.
const BURST_GAP_MS: u64 = 4;

/// A request that several steps work on, with what plugins remember of it.
pub(super) struct Ongoing {
    pub(super) request: LiveRequest,
    state: CycleState,
    /// The endpoint published as peer.
    peer: Option<EndpointIx>,
    /// What the last filter or scorer was given.
    candidates: Option<Vec<EndpointIx>>,
    /// What each plugin last filtered or scored by. A decision's hooks see the same columns.
    rated: BTreeMap<usize, Columns>,
    pub(super) sent: Sent,
}

pub(super) struct Sequence<'a> {
    pub(super) bench: Bench<'a>,
    pub(super) pool: Pool,
    settled: Settled,
    ledger: Ledger,
    requests: BTreeMap<String, Ongoing>,
    pub(super) now_ms: u64,
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
    let mut sequence = Sequence::new(bench, Pool::new(&case.endpoints)?);
    for (step, i) in case.steps.iter().zip(0..) {
        checks.enter(format!("steps[{i}] {}", step.op));
        sequence.step(step, checks).map_err(|e| format!("steps[{i}] {}: {e}", step.op))?;
    }
    Ok(())
}

impl<'a> Sequence<'a> {
    pub(super) fn new(bench: Bench<'a>, pool: Pool) -> Self {
        Self {
            settled: bench.settled(&pool.endpoints),
            bench,
            pool,
            ledger: Ledger::default(),
            requests: BTreeMap::new(),
            now_ms: 1_000,
        }
    }

    fn step(&mut self, step: &Step, checks: &mut Checks) -> Result<(), String> {
        self.now_ms += 1 + step.wait_ms;
        match step.op.as_str() {
            "wait" => return Ok(()),
            "inflight" => {
                self.check_load(&step.expect, checks);
                return Ok(());
            }
            _ => {}
        }
        let plugin = self.bench.find(&step.plugin)?;
        if step.op == "burst" {
            return self.burst(plugin, step, checks);
        }
        let mut ongoing = self.take_request(&step.request)?;
        let outcome = match step.op.as_str() {
            "score" | "filter" => self.rate(plugin, &mut ongoing, step, checks),
            "produce" => self.produce(plugin, &mut ongoing, step, checks),
            "pre_request" => self.pre_request(plugin, &mut ongoing, step, checks),
            "response_header" => self.response_header(plugin, &ongoing, step, checks),
            "response_body" => self.response_body(plugin, &mut ongoing, step),
            op => Err(format!("unknown op '{op}'")),
        };
        self.keep_request(ongoing);
        self.bench.settle();
        outcome
    }

    /// The request of that id: the same one in every step.
    pub(super) fn take_request(&mut self, spec: &RequestSpec) -> Result<Ongoing, String> {
        if let Some(known) = self.requests.remove(&spec.request_id) {
            return Ok(known);
        }
        Ok(Ongoing {
            request: LiveRequest::new(spec),
            state: self.bench.schema.states.instantiate(),
            peer: self.pool.peer(spec)?,
            candidates: None,
            rated: BTreeMap::new(),
            sent: Sent::default(),
        })
    }

    pub(super) fn keep_request(&mut self, ongoing: Ongoing) {
        self.requests.insert(ongoing.request.id().to_owned(), ongoing);
    }

    fn cycle<R>(
        &self,
        ongoing: &Ongoing,
        columns: &Columns,
        call: impl FnOnce(&Cycle<'_>) -> R,
    ) -> R {
        ongoing.request.with(|request| {
            let (endpoints, now_ms) = (&*self.pool.endpoints, self.now_ms);
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

    /// Runs a filter or a scorer. A plugin that keeps state reads it in its producer half first;
    /// what the case gives comes after.
    fn rate(
        &self,
        plugin: usize,
        ongoing: &mut Ongoing,
        step: &Step,
        checks: &mut Checks,
    ) -> Result<(), String> {
        let roles = &self.bench.instances[plugin].roles;
        let candidates = self.pool.candidates(step.endpoints.as_deref())?;
        let columns = match &roles.producer {
            None => self.pool.columns(&self.bench.schema),
            Some(_) => {
                let mut columns = self.produced(plugin, ongoing, &candidates)?;
                self.pool.fill_attributes(&self.bench.schema, &mut columns);
                columns
            }
        };
        ongoing.candidates = Some(candidates.clone());
        ongoing.rated.insert(plugin, columns.clone());
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

    /// Runs a producer, after the wait that it may ask for.
    pub(super) fn produce(
        &mut self,
        plugin: usize,
        ongoing: &mut Ongoing,
        step: &Step,
        checks: &mut Checks,
    ) -> Result<(), String> {
        let instance = &self.bench.instances[plugin];
        if instance.data.produces.iter().any(|key| key.name == TOKENIZED_PROMPT) {
            ongoing.request.tokenize(&token_producer::estimate_of(&instance.params))?;
        }
        let candidates = self.pool.candidates(step.endpoints.as_deref())?;
        let tickets = self.enroll(plugin, ongoing, &candidates)?;
        let ready = tickets.iter().map(|(_, ticket)| ticket.ready_at_ms).max();
        self.now_ms = self.now_ms.max(ready.unwrap_or(0));
        let columns = self.produced_with(plugin, ongoing, &candidates, &tickets)?;
        let producer = &self.bench.instances[plugin].name;
        let (schema, columns, pool) = (&self.bench.schema, &columns, &self.pool);
        Written { schema, columns, pool, producer }.check(&step.expect, checks);
        Ok(())
    }

    /// Requests that arrive one after another, before any of them has been served.
    fn burst(&mut self, plugin: usize, step: &Step, checks: &mut Checks) -> Result<(), String> {
        let candidates = self.pool.candidates(step.endpoints.as_deref())?;
        let mut waiting = Vec::new();
        let mut results = vec![None; step.requests.len()];
        for (at, spec) in step.requests.iter().enumerate() {
            if at > 0 {
                let next_ms = self.now_ms + BURST_GAP_MS;
                self.serve_until(next_ms, plugin, &candidates, &mut waiting, &mut results);
                self.now_ms = next_ms;
            }
            let ongoing = self.take_request(spec)?;
            // One that is refused a place fails when it is served.
            let tickets = self.enroll(plugin, &ongoing, &candidates).unwrap_or_default();
            waiting.push((at, ongoing, tickets));
        }
        self.serve_until(u64::MAX, plugin, &candidates, &mut waiting, &mut results);
        self.bench.settle();

        let expected = step.expect["requests"].as_array();
        for (at, expected) in expected.into_iter().flatten().enumerate() {
            let Some(Some(result)) = results.get(at) else {
                checks.problem(format!("requests[{at}]: there is no such request"));
                continue;
            };
            let failed = expected["error"].as_bool().unwrap_or(false);
            checks.equal(&format!("requests[{at}].error"), &json!(failed), &json!(result.is_err()));
            if let Some(assigned) = expected.get("assigned") {
                let got = result.as_deref().unwrap_or_default();
                checks.equal(&format!("requests[{at}].assigned"), assigned, &json!(got));
            }
        }
        Ok(())
    }

    /// Serves the waiting requests whose windows close up to `end_ms`, in the order of closing.
    fn serve_until(
        &mut self,
        end_ms: u64,
        plugin: usize,
        candidates: &[EndpointIx],
        waiting: &mut Vec<(usize, Ongoing, Tickets)>,
        results: &mut [Option<Result<String, String>>],
    ) {
        let ready = |tickets: &Tickets| tickets.iter().map(|(_, t)| t.ready_at_ms).max();
        waiting.sort_by_key(|(at, _, tickets)| (ready(tickets), *at));
        let due = waiting.partition_point(|(_, _, tickets)| ready(tickets) <= Some(end_ms));
        for (at, mut ongoing, tickets) in waiting.drain(..due) {
            self.now_ms = self.now_ms.max(ready(&tickets).unwrap_or(0));
            let columns = self.produced_with(plugin, &mut ongoing, candidates, &tickets);
            results[at] = Some(columns.map(|columns| self.assigned(plugin, &columns)));
            self.keep_request(ongoing);
        }
    }

    /// The endpoint that a producer matched a request with; empty when there is none.
    fn assigned(&self, plugin: usize, columns: &Columns) -> String {
        let (schema, pool) = (&self.bench.schema, &self.pool);
        let written =
            Written { schema, columns, pool, producer: &self.bench.instances[plugin].name };
        let matched = |ix: &EndpointIx| {
            written.value::<PrefixMatch>(*ix).is_some_and(|found| found.match_blocks > 0)
        };
        let found = (0..).take(pool.endpoints.len()).find(matched);
        found.map(|ix| pool.name(ix).to_owned()).unwrap_or_default()
    }

    fn enroll(
        &self,
        plugin: usize,
        ongoing: &Ongoing,
        candidates: &[EndpointIx],
    ) -> Result<Tickets, String> {
        let producer = self.bench.instances[plugin].roles.producer.as_deref();
        let Some(producer) = producer.filter(|p| p.has_window()) else { return Ok(Vec::new()) };
        let instance = PluginIx::try_from(plugin).map_err(|e| e.to_string())?;
        let ticket = self.producing(ongoing, candidates, &Tickets::new(), |cx| producer.enroll(cx));
        Ok(ticket
            .map_err(|e| e.to_string())?
            .map(|ticket| (instance, ticket))
            .into_iter()
            .collect())
    }

    fn producing<R>(
        &self,
        ongoing: &Ongoing,
        candidates: &[EndpointIx],
        tickets: &Tickets,
        call: impl FnOnce(&Producing<'_>) -> R,
    ) -> R {
        ongoing.request.with(|request| {
            let (endpoints, load, now_ms) = (&*self.pool.endpoints, &self.ledger, self.now_ms);
            let (settled, seed) = (&self.settled, seed(0));
            call(&Producing {
                request,
                endpoints,
                candidates,
                load,
                settled,
                tickets,
                now_ms,
                seed,
            })
        })
    }

    /// The columns of the case after the producer has run.
    fn produced(
        &self,
        plugin: usize,
        ongoing: &mut Ongoing,
        candidates: &[EndpointIx],
    ) -> Result<Columns, String> {
        self.produced_with(plugin, ongoing, candidates, &Tickets::new())
    }

    fn produced_with(
        &self,
        plugin: usize,
        ongoing: &mut Ongoing,
        candidates: &[EndpointIx],
        tickets: &Tickets,
    ) -> Result<Columns, String> {
        let producer = self.bench.instances[plugin].roles.producer.as_deref();
        let producer = producer.ok_or("the plugin is no producer")?;
        let mut columns = self.pool.columns(&self.bench.schema);
        let mut state = std::mem::take(&mut ongoing.state);
        let outcome = self.producing(ongoing, candidates, tickets, |cx| {
            producer.produce(cx, &mut columns, &mut state)
        });
        ongoing.state = state;
        outcome.map_err(|e| e.to_string())?;
        Ok(columns)
    }

    pub(super) fn pre_request(
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
        let everybody = self.pool.candidates(None)?;
        let columns = match ongoing.rated.get(&plugin) {
            _ if costs => self.produced(plugin, ongoing, &everybody)?,
            Some(rated) => rated.clone(),
            None => self.pool.columns(&self.bench.schema),
        };
        let candidates = ongoing.candidates.as_ref().unwrap_or(&everybody);
        let decision = given(&step.result, &self.pool, candidates)?;
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
        ongoing.sent = Sent::new(&decision, &effects, self.now_ms);
        if let Some(expected) = step.expect.get("headers_after") {
            checks.equal("headers_after", expected, &ongoing.request.headers_after());
        }
        Ok(())
    }

    pub(super) fn target(&self, step: &Step) -> Result<Option<EndpointIx>, String> {
        step.target.as_deref().map(|id| self.pool.ix(id)).transpose()
    }

    fn response_header(
        &self,
        plugin: usize,
        ongoing: &Ongoing,
        step: &Step,
        checks: &mut Checks,
    ) -> Result<(), String> {
        let (id, target) = (ongoing.request.id(), self.target(step)?);
        let mut headers = Vec::new();
        if let Some(hook) = self.bench.instances[plugin].roles.after_response.as_deref() {
            ongoing.sent.with(&self.pool.endpoints, id, target, self.now_ms, false, |cx| {
                hook.response_headers(cx, &mut headers);
            });
        }
        if let Some(expected) = step.expect.get("response_headers") {
            let headers = headers.into_iter().map(|(name, value)| (name, json!(value)));
            let headers: Value = headers.collect::<serde_json::Map<_, _>>().into();
            checks.equal("response_headers", expected, &headers);
        }
        Ok(())
    }

    pub(super) fn response_body(
        &mut self,
        plugin: usize,
        ongoing: &mut Ongoing,
        step: &Step,
    ) -> Result<(), String> {
        let target = self.target(step)?;
        let Ongoing { request, sent, .. } = ongoing;
        let id = request.id();
        sent.chunk(self.now_ms);
        if step.start_of_stream {
            self.ledger.first_byte(id);
        }
        if step.end_of_stream {
            self.ledger.end(id);
            if let Some(hook) = self.bench.instances[plugin].roles.after_response.as_deref() {
                sent.with(&self.pool.endpoints, id, target, self.now_ms, true, |cx| {
                    hook.complete(cx);
                });
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

/// The decision that a step takes as given, among the candidates that were looked at before.
fn given(result: &ResultSpec, pool: &Pool, candidates: &[EndpointIx]) -> Result<Decision, String> {
    let mut decision = Decision::default();
    for (name, targets) in &result.targets {
        let ids = targets.as_deref().unwrap_or_default();
        let targets = ids.iter().map(|id| pool.ix(id)).collect::<Result<Vec<_>, _>>()?;
        decision.profiles.push(ProfileRun {
            name: name.clone(),
            ran: true,
            failed: targets.is_empty(),
            candidates: candidates.to_vec(),
            totals: vec![0.0; candidates.len()],
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

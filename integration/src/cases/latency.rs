//! Cases about predicted latency: a predictor that says what the case says, and what the plugin makes
//! of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use inlane_core::decision::PluginError;
use inlane_core::effect::PluginIx;
use inlane_core::registry::Registry;
use inlane_latency::{Available, PodType, Row, Target};
use inlane_plugins::predicted_latency::{
    Forecast, LatencyState, Lesson, Predictor, Question, Workspace, lessons,
};
use serde_json::{Value, json};

use super::bench::Bench;
use super::check::Checks;
use super::pool::Pool;
use super::schema::{Case, PredictionSpec, Step};
use super::sequence::{Ongoing, Sequence};

/// Features are single precision.
const SINGLE: f64 = 1e-6;

/// Feature rows of the last call, by endpoint.
type Rows = Arc<Mutex<BTreeMap<String, Row>>>;

/// A predictor that says what the case says.
struct Stub {
    predictions: BTreeMap<String, PredictionSpec>,
    fails: bool,
    seen: Rows,
}

impl Predictor for Stub {
    fn predict(
        &self,
        question: &Question<'_>,
        _work: &mut Workspace,
        out: &mut [Forecast],
    ) -> Result<Available, PluginError> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clear();
        for ((&ix, row), out) in question.candidates.iter().zip(question.rows).zip(out) {
            let name = question.endpoints.get(ix).map_or("", |e| &e.name);
            seen.insert(name.to_owned(), *row);
            let missing = || PluginError::new(format!("no prediction for '{name}'"));
            let found = self.predictions.get(name).ok_or_else(missing)?;
            *out = Forecast { first_ms: found.ttft_ms, per_token_ms: found.tpot_ms };
        }
        match self.fails {
            true => Err(PluginError::new("the predictor fails")),
            false => Ok(Available { first: true, per_token: true }),
        }
    }
}

struct Run<'a> {
    sequence: Sequence<'a>,
    plugin: usize,
    state: Arc<LatencyState>,
    seen: Rows,
    /// Kinds of the training samples so far.
    taught: Vec<&'static str>,
    /// How many of them each request has taught.
    by_request: BTreeMap<String, usize>,
}

pub(super) fn predicted_latency(
    case: &Case,
    registry: &Registry,
    checks: &mut Checks,
) -> Result<(), String> {
    let mut bench = Bench::new(registry);
    for spec in &case.plugins {
        bench.build(spec)?;
    }
    let plugin = bench.build(case.plugin()?)?;
    let state = bench.kept::<LatencyState>().pop().ok_or("the plugin predicts no latency")?;
    let seen = Rows::default();
    let stub = Stub {
        predictions: case.predictor.clone(),
        fails: case.predictor_error,
        seen: Arc::clone(&seen),
    };
    state.set_predictor(Some(Box::new(stub)));
    let sequence = Sequence::new(bench, Pool::new(&case.endpoints)?);
    let (taught, by_request) = Default::default();
    let mut run = Run { sequence, plugin, state, seen, taught, by_request };
    if case.steps.is_empty() {
        let (request, expect) = (case.request.clone(), case.expect.clone());
        return run
            .step(&Step { op: "produce".into(), request, expect, ..Step::default() }, checks);
    }
    for (step, i) in case.steps.iter().zip(0..) {
        checks.enter(format!("steps[{i}] {}", step.op));
        run.step(step, checks).map_err(|e| format!("steps[{i}] {}: {e}", step.op))?;
    }
    Ok(())
}

impl Run<'_> {
    fn step(&mut self, step: &Step, checks: &mut Checks) -> Result<(), String> {
        let Self { sequence, plugin, .. } = self;
        sequence.now_ms += 1 + step.wait_ms;
        if step.op == "wait" {
            return Ok(());
        }
        let mut ongoing = sequence.take_request(&step.request)?;
        match step.op.as_str() {
            "produce" => {
                sequence.produce(*plugin, &mut ongoing, step, checks)?;
                self.check_features(&step.expect, checks);
            }
            "pre_request" => sequence.pre_request(*plugin, &mut ongoing, step, checks)?,
            "response_body" => {
                sequence.response_body(*plugin, &mut ongoing, step)?;
                self.learn(&ongoing, step)?;
            }
            op => return Err(format!("unknown op '{op}'")),
        }
        self.sequence.keep_request(ongoing);
        if let Some(expected) = step.expect.get("training_targets") {
            checks.equal("training_targets", expected, &json!(self.taught));
        }
        Ok(())
    }

    /// Counts the samples that a chunk brings. The reference sends each as soon as it is known; here
    /// they are taken at the end of the stream, and before that one can only look.
    fn learn(&mut self, ongoing: &Ongoing, step: &Step) -> Result<(), String> {
        let (pool, target) = (&self.sequence.pool, self.sequence.target(step)?);
        let (id, now_ms) = (ongoing.request.id(), self.sequence.now_ms);
        let kinds: Vec<&str> = if step.end_of_stream {
            std::iter::from_fn(|| self.state.samples.pop()).map(|s| kind(s.target)).collect()
        } else {
            let plugin = PluginIx::try_from(self.plugin).map_err(|e| e.to_string())?;
            let kinds = |found: Lesson| kind(found.sample.target);
            ongoing.sent.with(&pool.endpoints, id, target, now_ms, false, |cx| {
                lessons(plugin, cx).map(kinds).collect()
            })
        };
        let known = self.by_request.entry(id.to_owned()).or_default();
        self.taught.extend(kinds.iter().skip(*known));
        *known = kinds.len().max(*known);
        Ok(())
    }

    fn check_features(&self, expect: &Value, checks: &mut Checks) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, expected) in expect["features"].as_object().into_iter().flatten() {
            let Some(row) = seen.get(id) else {
                checks.problem(format!("features.{id}: expected {expected}, got nothing"));
                continue;
            };
            let row = features(row);
            for (name, expected) in expected.as_object().into_iter().flatten() {
                let what = format!("features.{id}.{name}");
                match (expected.as_f64(), row[name].as_f64()) {
                    (Some(a), Some(b)) => checks.close(&what, a, b, SINGLE * a.abs().max(1.0)),
                    _ => checks.equal(&what, expected, &row[name]),
                }
            }
        }
    }
}

/// The kind of a sample as the reference calls it: there, the time to the end of a response that is
/// not streamed is a time to first token.
fn kind(target: Target) -> &'static str {
    match target {
        Target::FirstToken | Target::EndToEnd => "ttft",
        Target::PerToken => "tpot",
    }
}

/// A row under the names of its features.
fn features(row: &Row) -> Value {
    let pod_type = match row.pod_type {
        PodType::None => "",
        PodType::Prefill => "prefill",
        PodType::Decode => "decode",
    };
    json!({
        "kv_cache_percentage": row.kv_cache_percentage,
        "input_token_length": row.input_token_length,
        "num_request_waiting": row.num_request_waiting,
        "num_request_running": row.num_request_running,
        "num_tokens_generated": row.num_tokens_generated,
        "prefix_cache_score": row.prefix_cache_score,
        "prefill_tokens_in_flight": row.prefill_tokens_in_flight,
        "decode_tokens_in_flight": row.decode_tokens_in_flight,
        "encoder_input_size": row.encoder_input_size,
        "encoder_matched_size": row.encoder_matched_size,
        "pod_type": pod_type,
    })
}

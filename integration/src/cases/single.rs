//! Cases about one plugin: filter, scorer, picker, admitter, config.

use std::collections::BTreeMap;

use inlane_core::columns::Columns;
use inlane_core::decision::Rejection;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles, Scorer, Settled};
use inlane_core::registry::Registry;
use inlane_core::rng::Rng;
use inlane_core::state::CycleState;
use serde_json::{Value, json};

use super::bench::Bench;
use super::check::{self, Checks};
use super::pool::Pool;
use super::request::LiveRequest;
use super::schema::Case;

/// Seeds that have nothing to do with each other.
pub(super) fn seed(trial: u64) -> u64 {
    Rng::new(trial).next_u64()
}

pub(super) fn config(case: &Case, registry: &Registry, checks: &mut Checks) -> Result<(), String> {
    let mut bench = Bench::new(registry);
    for spec in &case.plugins {
        bench.build(spec)?;
    }
    checks.valid(&case.expect, bench.build(case.plugin()?).err());
    Ok(())
}

/// One plugin, its endpoints, and what a decision would show it.
struct Alone<'a> {
    bench: Bench<'a>,
    plugin: usize,
    pool: Pool,
    columns: Columns,
    state: CycleState,
    settled: Settled,
    peer: Option<EndpointIx>,
    request: LiveRequest,
}

impl<'a> Alone<'a> {
    /// The plugin of a case, after those that it lists beside it.
    fn new(case: &Case, registry: &'a Registry, pool: Pool) -> Result<Self, String> {
        let mut bench = Bench::new(registry);
        for spec in &case.plugins {
            bench.build(spec)?;
        }
        let plugin = bench.build(case.plugin()?)?;
        Ok(Self {
            plugin,
            columns: pool.columns(&bench.schema),
            state: bench.schema.states.instantiate(),
            settled: bench.settled(&pool.endpoints),
            peer: pool.peer(&case.request)?,
            request: LiveRequest::new(&case.request),
            bench,
            pool,
        })
    }

    fn roles(&self) -> &Roles {
        &self.bench.instances[self.plugin].roles
    }

    /// Shows the plugin one decision; `trial` sets the dice.
    fn decide<R>(&self, trial: u64, call: impl FnOnce(&Cycle<'_>) -> R) -> R {
        let Self { pool, columns, state, settled, peer, .. } = self;
        let (endpoints, peer, seed) = (&*pool.endpoints, *peer, seed(trial));
        self.request.with(|request| {
            call(&Cycle { request, endpoints, columns, state, settled, peer, now_ms: 1, seed })
        })
    }
}

pub(super) fn filter(case: &Case, registry: &Registry, checks: &mut Checks) -> Result<(), String> {
    let alone = Alone::new(case, registry, Pool::new(&case.endpoints)?)?;
    let filter = alone.roles().filter.as_deref().ok_or("the plugin is no filter")?;
    let candidates = alone.pool.candidates(None)?;
    let run = |trial| alone.decide(trial, |cx| run_filter(filter, cx, candidates.clone()));
    if case.trials == 0 {
        return check_kept(checks, &alone.pool, &case.expect, &run(0)?);
    }
    let mut outcomes = BTreeMap::new();
    for trial in 0..case.trials {
        let mut kept = alone.pool.names(&run(trial)?);
        kept.sort_unstable();
        *outcomes.entry(kept.join(",")).or_default() += 1;
    }
    let expect = sorted_outcomes(&case.expect);
    checks.frequencies("outcomes", &expect, &outcomes, case.trials, true);
    Ok(())
}

/// Runs a filter; the endpoints that it keeps.
pub(super) fn run_filter(
    filter: &dyn Filter,
    cx: &Cycle<'_>,
    mut kept: Vec<EndpointIx>,
) -> Result<Vec<EndpointIx>, String> {
    let mut rejections: Vec<Rejection> = Vec::new();
    let mut candidates = Candidates::new(&mut kept, &mut rejections, 0);
    filter.filter(cx, &mut candidates).map_err(|e| e.to_string())?;
    Ok(kept)
}

/// The expectation with the ids of each outcome in order: which endpoints are kept together counts.
fn sorted_outcomes(expect: &Value) -> Value {
    let mut expect = expect.clone();
    if let Some(outcomes) = expect["outcomes"].as_object_mut() {
        let sorted = std::mem::take(outcomes).into_iter().map(|(ids, probability)| {
            let mut ids: Vec<&str> = ids.split(',').map(str::trim).collect();
            ids.sort_unstable();
            (ids.join(","), probability)
        });
        outcomes.extend(sorted);
    }
    expect
}

/// Compares kept endpoints. A case lists them in the order of its own endpoint list; what counts
/// is that the order of the pool is kept. A filter that brings an order of its own is compared
/// with the order that the case gives.
pub(super) fn check_kept(
    checks: &mut Checks,
    pool: &Pool,
    expect: &Value,
    kept: &[EndpointIx],
) -> Result<(), String> {
    let Some(expected) = expect["kept"].as_array() else { return Ok(()) };
    let ids: Vec<String> = expected.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let expected = match kept.is_sorted() {
        true => pool.names(&pool.candidates(Some(&ids))?),
        false => ids,
    };
    checks.equal("kept", &json!(expected), &json!(pool.names(kept)));
    Ok(())
}

pub(super) fn scorer(case: &Case, registry: &Registry, checks: &mut Checks) -> Result<(), String> {
    let alone = Alone::new(case, registry, Pool::new(&case.endpoints)?)?;
    let scorer = alone.roles().scorer.as_deref().ok_or("the plugin is no scorer")?;
    let candidates = alone.pool.candidates(None)?;
    let scores = alone.decide(0, |cx| run_scorer(scorer, cx, &alone.pool, &candidates))?;
    check_scores(checks, &case.expect, &scores);
    Ok(())
}

/// Runs a scorer; the raw scores of the endpoints that it scores.
pub(super) fn run_scorer(
    scorer: &dyn Scorer,
    cx: &Cycle<'_>,
    pool: &Pool,
    candidates: &[EndpointIx],
) -> Result<BTreeMap<String, f64>, String> {
    let mut scores = vec![f64::NAN; candidates.len()];
    scorer.score(cx, candidates, &mut scores).map_err(|e| e.to_string())?;
    let scored = candidates.iter().zip(scores).filter(|(_, score)| !score.is_nan());
    Ok(scored.map(|(&ix, score)| (pool.name(ix).to_owned(), score)).collect())
}

pub(super) fn check_scores(checks: &mut Checks, expect: &Value, scores: &BTreeMap<String, f64>) {
    checks.numbers("scores", &expect["scores"], scores, check::tolerance(expect));
    for id in expect["unscored"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if let Some(score) = scores.get(id) {
            checks.problem(format!("unscored.{id}: expected nothing, got {score}"));
        }
    }
}

pub(super) fn picker(case: &Case, registry: &Registry, checks: &mut Checks) -> Result<(), String> {
    let alone = Alone::new(case, registry, Pool::named(case.scored.keys())?)?;
    let picker = alone.roles().picker.as_deref().ok_or("the plugin is no picker")?;
    let candidates = alone.pool.candidates(None)?;
    let totals: Vec<f64> = candidates.iter().map(|&ix| case.scored[alone.pool.name(ix)]).collect();

    let (mut first, mut included, mut orders) =
        <(BTreeMap<_, _>, BTreeMap<_, _>, BTreeMap<_, _>)>::default();
    let trials = case.trials.max(1);
    for trial in 0..trials {
        let mut targets = Vec::new();
        let picked = alone.decide(trial, |cx| picker.pick(cx, &candidates, &totals, &mut targets));
        picked.map_err(|e| e.to_string())?;
        let names = alone.pool.names(&targets);
        if let Some(count) = case.expect["count"].as_u64().filter(|&n| n != names.len() as u64) {
            checks.problem(format!("count: expected {count}, got {}", names.len()));
            return Ok(());
        }
        if let Some(name) = names.first() {
            *first.entry(name.clone()).or_default() += 1;
        }
        *orders.entry(names.join(",")).or_default() += 1;
        for name in names {
            *included.entry(name).or_default() += 1;
        }
    }
    checks.frequencies("first", &case.expect, &first, trials, true);
    checks.frequencies("included", &case.expect, &included, trials, false);
    checks.frequencies("orders", &case.expect, &orders, trials, true);
    Ok(())
}

pub(super) fn admit(case: &Case, registry: &Registry, checks: &mut Checks) -> Result<(), String> {
    let alone = Alone::new(case, registry, Pool::new(&case.endpoints)?)?;
    let admitter = alone.roles().admitter.as_deref().ok_or("the plugin is no admitter")?;
    let candidates = alone.pool.candidates(None)?;
    let trials = case.trials.max(1);
    let mut admitted = 0;
    for trial in 0..trials {
        let denied = alone.decide(trial, |cx| admitter.admit(cx, &candidates));
        admitted += u64::from(denied.map_err(|e| e.to_string())?.is_none());
    }
    if let Some(expected) = case.expect["admit_rate"].as_f64() {
        let rate = admitted as f64 / trials as f64;
        checks.close("admit_rate", expected, rate, check::likely(&case.expect));
    }
    Ok(())
}

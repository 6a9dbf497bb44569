//! One run of one profile: filters, scorers, picker, ranking.

use crate::config::Profile;
use crate::decision::{PluginError, ProfileRun};
use crate::effect::PluginIx;
use crate::endpoint::EndpointIx;
use crate::plan::{Plan, ProfilePlan};
use crate::plugin::{Candidates, Cycle};

use super::guard::isolate;
use super::laps::{ExtensionPoint, Laps};
use super::rank::rank;
use super::score;
use super::scratch::{Failures, Work, mark};

/// What a profile runs on.
pub(crate) struct Setting<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) profile: &'a Profile,
    pub(crate) settled: &'a ProfilePlan,
    /// Endpoints that may serve the request, ascending.
    pub(crate) allowed: &'a [EndpointIx],
}

/// Runs the profile; the outcome is in `run`, replacing that of an earlier round.
pub(crate) fn run_profile(
    at: &Setting<'_>,
    cx: &Cycle<'_>,
    run: &mut ProfileRun,
    work: &mut Work,
    failures: &mut Failures,
    laps: &mut Laps,
) {
    run.reset();
    run.ran = true;
    start(at, &mut run.candidates);
    filter(at, cx, run, work, laps);
    if run.candidates.is_empty() {
        run.failed = true;
    } else {
        score_all(at, cx, run, work, laps);
        pick(at, cx, run, work, laps);
    }
    for (plugin, error) in &run.errors {
        failures.add(*plugin, error.clone());
    }
}

/// The survivors of the settled filters that the request may use.
fn start(at: &Setting<'_>, candidates: &mut Vec<EndpointIx>) {
    let survivors = &at.settled.survivors;
    if at.allowed.len() == at.plan.endpoints.len() {
        candidates.extend_from_slice(survivors);
        return;
    }
    let mut allowed = at.allowed.iter().peekable();
    candidates.extend(survivors.iter().filter(|&ix| {
        while allowed.next_if(|a| *a < ix).is_some() {}
        allowed.next_if_eq(&ix).is_some()
    }));
}

fn filter(
    at: &Setting<'_>,
    cx: &Cycle<'_>,
    run: &mut ProfileRun,
    work: &mut Work,
    laps: &mut Laps,
) {
    let rest = at.profile.filters.iter().zip(0..).skip(at.settled.settled);
    for (&plugin, position) in rest {
        if run.candidates.is_empty() {
            return;
        }
        let Some(filter) = at.plan.roles(plugin).and_then(|r| r.filter.as_deref()) else {
            continue;
        };
        work.before.clear();
        work.before.extend_from_slice(&run.candidates);
        let rejected = run.rejections.len();
        let mut kept = Candidates::new(&mut run.candidates, &mut run.rejections, position);
        let filtered =
            laps.time(ExtensionPoint::Filter, plugin, || isolate(|| filter.filter(cx, &mut kept)));
        if let Err(error) = filtered {
            run.candidates.clone_from(&work.before);
            run.rejections.truncate(rejected);
            run.errors.push((plugin, error));
        }
    }
}

fn score_all(
    at: &Setting<'_>,
    cx: &Cycle<'_>,
    run: &mut ProfileRun,
    work: &mut Work,
    laps: &mut Laps,
) {
    run.totals.resize(run.candidates.len(), 0.0);
    for (scorer, scores) in at.profile.scorers.iter().zip(&mut run.scores) {
        let Some(role) = at.plan.roles(scorer.plugin).and_then(|r| r.scorer.as_deref()) else {
            continue;
        };
        let stale = at.plan.stale_metrics;
        let scored = laps.time(ExtensionPoint::Scorer, scorer.plugin, || {
            score::score(role, cx, &run.candidates, stale, work, scores)
        });
        match scored {
            Ok(()) => score::add(&mut run.totals, scores, scorer.weight),
            Err(error) => run.errors.push((scorer.plugin, error)),
        }
    }
}

/// Lets the picker choose. Without a usable choice the best total is taken.
fn pick(at: &Setting<'_>, cx: &Cycle<'_>, run: &mut ProfileRun, work: &mut Work, laps: &mut Laps) {
    let ProfileRun { candidates, totals, targets, ranking, errors, .. } = run;
    let picked = laps.time(ExtensionPoint::Picker, at.profile.picker, || {
        try_pick(at, cx, candidates, totals, targets, work)
    });
    if let Err(error) = picked {
        targets.clear();
        errors.push((at.profile.picker, error));
    }
    rank(candidates, totals, targets, cx.seed, ranking);
    if targets.is_empty() {
        targets.extend(ranking.first());
    }
}

fn try_pick(
    at: &Setting<'_>,
    cx: &Cycle<'_>,
    candidates: &[EndpointIx],
    totals: &[f64],
    targets: &mut Vec<EndpointIx>,
    work: &mut Work,
) -> Result<(), PluginError> {
    let picker: PluginIx = at.profile.picker;
    let Some(picker) = at.plan.roles(picker).and_then(|r| r.picker.as_deref()) else {
        return Err(PluginError::new("is no picker"));
    };
    isolate(|| picker.pick(cx, candidates, totals, targets))?;
    let sound = match targets[..] {
        [] => return Err(PluginError::new("picked nothing")),
        [one] => candidates.contains(&one),
        _ => are_distinct_candidates(targets, candidates, at.plan.endpoints.len(), &mut work.bits),
    };
    if sound { Ok(()) } else { Err(PluginError::new("picked what was no candidate")) }
}

/// Whether all `targets` are candidates, none of them twice.
fn are_distinct_candidates(
    targets: &[EndpointIx],
    candidates: &[EndpointIx],
    endpoints: usize,
    bits: &mut Vec<u64>,
) -> bool {
    mark(bits, endpoints, candidates);
    targets.iter().all(|&ix| {
        let mask = 1 << (ix % 64);
        bits.get_mut(ix as usize / 64).is_some_and(|word| {
            let there = *word & mask != 0;
            *word &= !mask;
            there
        })
    })
}

//! Scoring: raw scores of one scorer, and adding them to the totals.

use crate::columns::Metrics;
use crate::decision::PluginError;
use crate::endpoint::EndpointIx;
use crate::plan::StaleMetrics;
use crate::plugin::{Cycle, Scorer};

use super::guard::isolate;
use super::scratch::Work;

/// A score as the totals count it: 0 for NaN, cut to `[0, 1]`.
fn clamp(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) }
}

/// Adds `weight` times the clamped scores. The order of calls is the order of additions: floating
/// point sums depend on it.
pub(crate) fn add(totals: &mut [f64], scores: &[f64], weight: f64) {
    for (total, &score) in totals.iter_mut().zip(scores) {
        *total += clamp(score) * weight;
    }
}

/// Fills `scores`, parallel to `candidates`, NaN = not scored. After an error all are NaN.
pub(crate) fn score(
    scorer: &dyn Scorer,
    cx: &Cycle<'_>,
    candidates: &[EndpointIx],
    stale: StaleMetrics,
    work: &mut Work,
    scores: &mut Vec<f64>,
) -> Result<(), PluginError> {
    scores.clear();
    scores.resize(candidates.len(), f64::NAN);
    let outcome = isolate(|| {
        let wary = stale == StaleMetrics::Mean && scorer.reads_metrics();
        if wary && candidates.iter().any(|&ix| !is_fresh(&cx.columns.metrics, ix)) {
            score_fresh(scorer, cx, candidates, work, scores)
        } else {
            scorer.score(cx, candidates, scores)
        }
    });
    if outcome.is_err() {
        scores.fill(f64::NAN);
    }
    outcome
}

fn is_fresh(metrics: &Metrics, ix: EndpointIx) -> bool {
    metrics.fresh.get(ix as usize).copied().unwrap_or(false)
}

/// Scores the candidates with fresh metrics among themselves; the others get the mean.
fn score_fresh(
    scorer: &dyn Scorer,
    cx: &Cycle<'_>,
    candidates: &[EndpointIx],
    work: &mut Work,
    scores: &mut [f64],
) -> Result<(), PluginError> {
    let metrics = &cx.columns.metrics;
    let Work { fresh, fresh_scores, .. } = work;
    fresh.clear();
    fresh.extend(candidates.iter().filter(|&&ix| is_fresh(metrics, ix)));
    if fresh.is_empty() {
        return Ok(());
    }
    fresh_scores.clear();
    fresh_scores.resize(fresh.len(), f64::NAN);
    scorer.score(cx, fresh, fresh_scores)?;
    let (mut sum, mut scored) = (0.0, 0u32);
    for &score in fresh_scores.iter().filter(|s| !s.is_nan()) {
        sum += clamp(score);
        scored += 1;
    }
    let mean = if scored == 0 { f64::NAN } else { sum / f64::from(scored) };
    let mut answers = fresh_scores.iter();
    for (&ix, score) in candidates.iter().zip(scores) {
        let answer = if is_fresh(metrics, ix) { answers.next().copied() } else { None };
        *score = answer.unwrap_or(mean);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_clamped_and_nan_is_nothing() {
        let mut totals = [0.5; 5];
        add(&mut totals, &[f64::NAN, -3.0, 1.01, 0.25, f64::INFINITY], 2.0);
        assert_eq!(totals, [0.5, 0.5, 2.5, 1.0, 2.5]);
        add(&mut totals[..1], &[1.0], -1.0);
        assert_eq!(totals[0], -0.5);
    }
}

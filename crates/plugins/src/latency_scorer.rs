//! `latency-scorer`: weighs what the predicted latency leaves of the client's targets.

use std::sync::Arc;

use inlane_core::columns::{Col, LatencyInfo, PrefixMatch};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, metric_keys,
};
use serde::Deserialize;

use crate::approx_prefix_cache_producer;

/// Who publishes predictions, unless configured.
pub(crate) const PREDICTOR: &str = "predicted-latency-producer";

/// Headrooms that differ by no more than this are equal.
const NEGLIGIBLE: f64 = 1e-9;

/// The type `latency-scorer`.
pub const TYPE: PluginType = PluginType::new("latency-scorer", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Weight of the headroom to the first token.
    ttft_weight: f64,
    /// Weight of the headroom per output token.
    tpot_weight: f64,
    /// `least`: closest to the target wins; `most`: farthest from it. Anything else is `least`.
    headroom_selection_strategy: String,
    /// Weight of free KV cache while there are no predictions.
    #[serde(rename = "compositeKVWeight")]
    composite_kv_weight: f64,
    /// Weight of a short queue while there are no predictions.
    composite_queue_weight: f64,
    /// Weight of a prefix match while there are no predictions.
    composite_prefix_weight: f64,
    /// Instance that publishes predictions; empty = `predicted-latency-producer`.
    latency_prediction_info_producer_name: String,
    /// Instance that publishes prefix matches; empty = `approx-prefix-cache-producer`.
    prefix_match_info_producer_name: String,
    /// What becomes of an endpoint without a prediction while others have one.
    without_prediction: WithoutPrediction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
enum WithoutPrediction {
    /// It meets the targets with nothing left.
    Positive,
    /// It is not scored.
    Unscored,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            ttft_weight: 0.8,
            tpot_weight: 0.2,
            headroom_selection_strategy: "least".into(),
            composite_kv_weight: 1.0,
            composite_queue_weight: 1.0,
            composite_prefix_weight: 1.0,
            latency_prediction_info_producer_name: String::new(),
            prefix_match_info_producer_name: String::new(),
            without_prediction: WithoutPrediction::Positive,
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let strategy = parameters.headroom_selection_strategy.as_str();
    if !matches!(strategy, "" | "least" | "most") {
        build.warn(format!(
            "headroomSelectionStrategy: expected least or most, found {strategy:?}, using least"
        ));
    }
    build.use_key(metric_keys::KV_USAGE, CORE_METRICS_EXTRACTOR);
    build.use_key(metric_keys::WAITING, CORE_METRICS_EXTRACTOR);
    let Parameters { composite_kv_weight, composite_queue_weight, composite_prefix_weight, .. } =
        parameters;
    let scorer = LatencyScorer {
        latency: build.require(&parameters.latency_prediction_info_producer_name, PREDICTOR),
        prefix: build.optional(
            &parameters.prefix_match_info_producer_name,
            approx_prefix_cache_producer::TYPE.name,
        ),
        weights: shares([parameters.ttft_weight, parameters.tpot_weight]),
        composite: shares([composite_kv_weight, composite_queue_weight, composite_prefix_weight]),
        most: strategy == "most",
        skip_unpredicted: parameters.without_prediction == WithoutPrediction::Unscored,
    };
    Ok(Roles::default().scorer(Arc::new(scorer)))
}

/// The weights divided by their sum; all on the first when the sum is not positive.
fn shares<const N: usize>(weights: [f64; N]) -> [f64; N] {
    let sum: f64 = weights.iter().sum();
    let positive = sum > 0.0 && sum.is_finite();
    let mut at = 0;
    weights.map(|weight| {
        at += 1;
        if positive { weight / sum } else { f64::from(u8::from(at == 1)) }
    })
}

/// Scores the best class of endpoints by its headrooms, the others 0 (llm-d-router
/// `latency-scorer`):
///
/// 1. No candidate has a prediction: a weighted mean of free KV cache, relative queue and prefix
///    match, rounded to hundredths.
/// 2. Some candidate meets both targets, or has no prediction: those, by the configured strategy.
/// 3. Else, closest to the targets first: those without a request from here; those that fail the
///    time per output token alone; the first token alone; both.
///
/// Within the class, with `n` the absolute headroom scaled to 0…1 over the class (0.5 where all are
/// equal; a dimension where all are equal has no weight unless both are) and
/// `c = ttftWeight * n(ttft) + tpotWeight * n(tpot)`:
///
/// ```text
/// least: score = (trunc((1 - c) * 100) + 1) / 100          most: score = (trunc(c * 100) + 1) / 100
/// ```
#[derive(Debug)]
struct LatencyScorer {
    latency: Col<LatencyInfo>,
    prefix: Col<PrefixMatch>,
    /// Of time to first token and time per output token.
    weights: [f64; 2],
    /// Of KV cache, queue and prefix.
    composite: [f64; 3],
    most: bool,
    skip_unpredicted: bool,
}

/// Which targets a prediction fails, the better ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Meets,
    FailsTpot,
    FailsTtft,
    FailsBoth,
}

fn class(info: &LatencyInfo) -> Class {
    match (info.ttft_headroom < 0.0, info.tpot_headroom < 0.0) {
        (false, false) => Class::Meets,
        (false, true) => Class::FailsTpot,
        (true, false) => Class::FailsTtft,
        (true, true) => Class::FailsBoth,
    }
}

/// Smallest and largest value of a class.
#[derive(Debug, Clone, Copy)]
struct Span {
    min: f64,
    max: f64,
}

impl Span {
    const EMPTY: Self = Self { min: f64::INFINITY, max: f64::NEG_INFINITY };

    fn include(&mut self, value: f64) {
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }

    fn is_flat(self) -> bool {
        self.max - self.min <= NEGLIGIBLE
    }

    fn share(self, value: f64) -> f64 {
        if self.is_flat() { 0.5 } else { (value - self.min) / (self.max - self.min) }
    }
}

impl LatencyScorer {
    fn score_composite(&self, cx: &Cycle<'_>, candidates: &[EndpointIx], out: &mut [f64]) {
        let (metrics, prefix) = (&cx.columns.metrics, cx.columns.get(self.prefix));
        let waiting = |ix: EndpointIx| metrics.waiting.get(ix as usize).copied().unwrap_or(0);
        let longest = f64::from(candidates.iter().map(|&ix| waiting(ix)).max().unwrap_or(0));
        let [kv, queue, matching] = self.composite;
        for (&ix, out) in candidates.iter().zip(out) {
            let free = 1.0 - metrics.kv_usage.get(ix as usize).copied().unwrap_or(0.0);
            let short = match longest {
                0.0 => 1.0,
                longest => (longest - f64::from(waiting(ix))) / longest,
            };
            let found = prefix.get(ix as usize).copied().flatten().unwrap_or_default();
            let ratio = match found.total_blocks {
                0 => 0.0,
                total => f64::from(found.match_blocks) / f64::from(total),
            };
            *out = ((kv * free + queue * short + matching * ratio) * 100.0).round() / 100.0;
        }
    }

    /// Scores the candidates of one class, given by their headrooms; the others get 0.
    fn score_class(
        &self,
        most: bool,
        candidates: &[EndpointIx],
        out: &mut [f64],
        headrooms: impl Fn(EndpointIx) -> Option<(f64, f64)>,
    ) {
        let (mut ttft, mut tpot) = (Span::EMPTY, Span::EMPTY);
        for (first, each) in candidates.iter().filter_map(|&ix| headrooms(ix)) {
            ttft.include(first.abs());
            tpot.include(each.abs());
        }
        let [alpha, beta] = match (ttft.is_flat(), tpot.is_flat()) {
            (true, false) => [0.0, 1.0],
            (false, true) => [1.0, 0.0],
            _ => self.weights,
        };
        for (&ix, out) in candidates.iter().zip(out) {
            let Some((first, each)) = headrooms(ix) else {
                *out = 0.0;
                continue;
            };
            let c = alpha * ttft.share(first.abs()) + beta * tpot.share(each.abs());
            let step = if most { c * 100.0 } else { (1.0 - c) * 100.0 }.trunc();
            // A headroom that is no number is as bad as any.
            *out = (if step.is_nan() { 0.0 } else { step } + 1.0) / 100.0;
        }
    }
}

impl Scorer for LatencyScorer {
    fn category(&self) -> Category {
        Category::Balance
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
        let column = cx.columns.get(self.latency);
        let info = |ix: EndpointIx| column.get(ix as usize).copied().flatten();
        let (mut predicted, mut unpredicted, mut fresh) = (false, false, false);
        let mut best = Class::FailsBoth;
        for &ix in candidates {
            let Some(info) = info(ix) else {
                unpredicted = true;
                continue;
            };
            predicted = true;
            fresh |= info.dispatched == 0;
            best = best.min(class(&info));
        }
        if !predicted {
            self.score_composite(cx, candidates, out);
            return Ok(());
        }
        let headrooms = |info: LatencyInfo| (info.ttft_headroom, info.tpot_headroom);
        if best == Class::Meets || (unpredicted && !self.skip_unpredicted) {
            self.score_class(self.most, candidates, out, |ix| match info(ix) {
                Some(info) => (class(&info) == Class::Meets).then_some(headrooms(info)),
                None if self.skip_unpredicted => None,
                None => Some((0.0, 0.0)),
            });
        } else {
            self.score_class(false, candidates, out, |ix| {
                let eligible = |info: &LatencyInfo| match fresh {
                    true => info.dispatched == 0,
                    false => class(info) == best,
                };
                info(ix).filter(eligible).map(headrooms)
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::{LatencyInfo, PrefixMatch};
    use proptest::prelude::*;

    use super::shares;
    use crate::testing::{Built, World};

    /// Headrooms and requests dispatched per endpoint.
    fn world(infos: &[Option<(f64, f64, u32)>], parameters: &str) -> (World, Built) {
        let mut world = World::new(infos.len());
        let scorer = world.build("latency-scorer", parameters).unwrap();
        let column = world.column::<LatencyInfo>("predicted-latency-producer");
        for (cell, info) in world.columns.get_mut(column).iter_mut().zip(infos) {
            *cell = info.map(|(ttft_headroom, tpot_headroom, dispatched)| LatencyInfo {
                ttft_headroom,
                tpot_headroom,
                dispatched,
                ..Default::default()
            });
        }
        (world, scorer)
    }

    fn scores(infos: &[(f64, f64, u32)], parameters: &str) -> Vec<f64> {
        let infos: Vec<_> = infos.iter().copied().map(Some).collect();
        let (world, scorer) = world(&infos, parameters);
        world.score(&scorer)
    }

    const MOST: &str = "{headroomSelectionStrategy: most}";

    #[test]
    fn the_strategy_decides_which_end_wins() {
        let infos = [(10.0, 0.0, 0), (20.0, 0.0, 0), (50.0, 0.0, 0)];
        assert_eq!(scores(&infos, ""), [1.01, 0.76, 0.01]);
        assert_eq!(scores(&infos, MOST), [0.01, 0.26, 1.01]);
        assert_eq!(scores(&infos, "{headroomSelectionStrategy: worst}"), [1.01, 0.76, 0.01]);
    }

    #[test]
    fn both_dimensions_are_weighed() {
        let infos = [(10.0, 8.0, 0), (30.0, 4.0, 0), (20.0, 0.0, 0)];
        let found = scores(&infos, "");
        for (found, expected) in found.iter().zip([0.81, 0.1, 0.61]) {
            assert!((found - expected).abs() < 0.0101, "{found} {expected}");
        }
        assert_eq!(scores(&infos, "{ttftWeight: 0, tpotWeight: 3}"), [0.01, 0.51, 1.01]);
        assert_eq!(scores(&infos, "{ttftWeight: -1, tpotWeight: 0}"), [1.01, 0.01, 0.51]);
    }

    #[test]
    fn one_alone_or_all_equal_score_just_over_a_half() {
        assert_eq!(scores(&[(10.0, 1.0, 0)], ""), [0.51]);
        assert_eq!(scores(&[(10.0, 1.0, 0), (10.0, 1.0, 4)], MOST), [0.51, 0.51]);
        assert_eq!(scores(&[], ""), [] as [f64; 0]);
    }

    #[test]
    fn meeting_the_targets_beats_everything_else() {
        assert_eq!(scores(&[(-1.0, 5.0, 0), (90.0, 5.0, 9), (5.0, -1.0, 0)], ""), [0.0, 0.51, 0.0]);
    }

    #[test]
    fn failures_are_ranked_and_scored_least() {
        let infos = [(5.0, -1.0, 1), (-1.0, 5.0, 1), (-1.0, -1.0, 1), (5.0, -3.0, 1)];
        assert_eq!(scores(&infos, MOST), [1.01, 0.0, 0.0, 0.01]);
        assert_eq!(scores(&infos[1..3], MOST), [0.51, 0.0]);
        assert_eq!(scores(&infos[2..3], MOST), [0.51]);
    }

    #[test]
    fn of_failures_those_without_requests_come_first() {
        let infos = [(5.0, -1.0, 1), (-90.0, -9.0, 0), (-10.0, -9.0, 0)];
        assert_eq!(scores(&infos, MOST), [0.0, 0.01, 1.01]);
    }

    #[test]
    fn no_prediction_counts_as_nothing_left_unless_told_otherwise() {
        let infos = [None, Some((40.0, 0.0, 1)), Some((-5.0, 0.0, 1))];
        let (with, scorer) = world(&infos, "");
        assert_eq!(with.score(&scorer), [1.01, 0.01, 0.0]);
        let (with, scorer) = world(&[None, Some((-5.0, -1.0, 1))], "");
        assert_eq!(with.score(&scorer), [0.51, 0.0]);
        let (without, scorer) = world(&infos, "{withoutPrediction: unscored}");
        assert_eq!(without.score(&scorer), [0.0, 0.51, 0.0]);
        let (without, scorer) =
            world(&[None, Some((-5.0, -1.0, 1))], "{withoutPrediction: unscored}");
        assert_eq!(without.score(&scorer), [0.0, 0.51]);
    }

    #[test]
    fn without_predictions_load_and_prefix_decide() {
        let (mut world, scorer) = world(&[None; 3], "");
        let column = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        let found = PrefixMatch { match_blocks: 1, total_blocks: 2, ..Default::default() };
        world.columns.get_mut(column)[0] = Some(found);
        world.columns.metrics.kv_usage = vec![0.2, 0.0, 1.0];
        world.columns.metrics.waiting = vec![4, 0, 8];
        // (0.8 + 0.5 + 0.5) / 3, (1 + 1 + 0) / 3, 0
        assert_eq!(world.score(&scorer), [0.6, 0.67, 0.0]);
        world.columns.metrics.waiting = vec![0; 3];
        assert_eq!(world.score(&scorer), [0.77, 0.67, 0.33]);
    }

    #[test]
    fn composite_weights_may_be_anything() {
        let none = "{compositeKVWeight: 0, compositeQueueWeight: 0, compositePrefixWeight: 0}";
        let (mut world, scorer) = world(&[None], none);
        world.columns.metrics.kv_usage[0] = 0.3;
        assert_eq!(world.score(&scorer), [0.7]);
        assert_eq!(shares([1.0, 3.0]), [0.25, 0.75]);
        assert_eq!(shares([f64::INFINITY, 1.0]), [1.0, 0.0]);
    }

    #[test]
    fn a_headroom_that_is_no_number_is_worst() {
        let found = scores(&[(f64::NAN, 0.0, 1), (5.0, 0.0, 1), (9.0, 0.0, 1)], "");
        assert_eq!(found, [0.01, 1.01, 0.01]);
    }

    #[test]
    fn parameters_are_decoded_strictly() {
        let mut world = World::new(0);
        for parameters in ["{ttftWeights: 1}", "{ttftWeight: much}", "{withoutPrediction: no}"] {
            assert!(world.build("latency-scorer", parameters).is_err(), "{parameters}");
        }
        let built = world.build("latency-scorer", "{headroomSelectionStrategy: best}").unwrap();
        assert_eq!(built.warnings.len(), 1);
        let key = built.data.requires[0].to_string();
        assert_eq!(key, "LatencyPredictionInfoDataKey/predicted-latency-producer");
    }

    proptest! {
        #[test]
        fn scores_stay_in_their_steps(
            infos in proptest::collection::vec(
                proptest::option::of((-100.0..100.0f64, -10.0..10.0f64, 0..3u32)), 1..30),
            most: bool,
        ) {
            let (world, scorer) = world(&infos, if most { MOST } else { "" });
            let scores = world.score(&scorer);
            prop_assert!(scores.iter().all(|s| *s == 0.0 || (0.01..=1.01).contains(s)));
            prop_assert!(infos.iter().all(Option::is_none) || scores.iter().any(|s| *s > 0.0));
        }
    }
}

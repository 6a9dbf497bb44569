//! `token-load-scorer`: prefers endpoints with few projected tokens in flight.

use std::sync::Arc;

use inlane_core::columns::{Col, InFlight, UncachedTokens};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::inflight_load_producer;

/// Tokens at which the score reaches 0, unless configured.
const DEFAULT_THRESHOLD: i64 = 4_194_304;

/// The type `token-load-scorer`.
pub const TYPE: PluginType = PluginType::new("token-load-scorer", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Tokens at which the score is 0; not positive = the default.
    queue_threshold_tokens: i64,
    /// Instance that publishes in-flight load; empty = `inflight-load-producer`.
    in_flight_load_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            queue_threshold_tokens: DEFAULT_THRESHOLD,
            in_flight_load_producer_name: String::new(),
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let mut threshold = parameters.queue_threshold_tokens;
    if threshold <= 0 {
        build.warn(format!(
            "queueThresholdTokens: {threshold} is not positive, using {DEFAULT_THRESHOLD}"
        ));
        threshold = DEFAULT_THRESHOLD;
    }
    let producer = &parameters.in_flight_load_producer_name;
    let load = build.require(producer, inflight_load_producer::TYPE.name);
    let own = build.require(producer, inflight_load_producer::TYPE.name);
    Ok(Roles::default().scorer(Arc::new(TokenLoadScorer { load, own, threshold })))
}

/// `1 - min(t, T) / T` with `t` the tokens in flight plus what this request would add and
/// `T = queueThresholdTokens`; 1 when `t` is not positive (llm-d-router `token-load-scorer`).
#[derive(Debug)]
struct TokenLoadScorer {
    load: Col<InFlight>,
    own: Col<UncachedTokens>,
    threshold: i64,
}

impl Scorer for TokenLoadScorer {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let (load, own) = (cx.columns.get(self.load), cx.columns.get(self.own));
        for (&ix, out) in candidates.iter().zip(out) {
            let load = load.get(ix as usize).copied().flatten().unwrap_or_default();
            let own = own.get(ix as usize).copied().flatten().unwrap_or_default();
            let tokens = i64::try_from(load.tokens).unwrap_or(i64::MAX).saturating_add(own.0);
            let tokens = tokens.clamp(0, self.threshold);
            *out = 1.0 - tokens as f64 / self.threshold as f64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::{InFlight, UncachedTokens};

    use crate::testing::{Built, World};

    const PRODUCER: &str = "inflight-load-producer";

    /// In-flight and own tokens per endpoint.
    fn world(tokens: &[(Option<u64>, Option<i64>)], parameters: &str) -> (World, Built) {
        let mut world = World::new(tokens.len());
        let scorer = world.build("token-load-scorer", parameters).unwrap();
        let (load, own) = (world.column::<InFlight>(PRODUCER), world.column(PRODUCER));
        for (i, &(in_flight, mine)) in tokens.iter().enumerate() {
            let in_flight = in_flight.map(|tokens| InFlight { tokens, ..Default::default() });
            world.columns.get_mut(load)[i] = in_flight;
            world.columns.get_mut(own)[i] = mine.map(UncachedTokens);
        }
        (world, scorer)
    }

    #[test]
    fn what_is_in_flight_and_what_would_be_added_count() {
        let tokens = [
            (Some(200), Some(50)),
            (None, Some(1_000)),
            (Some(0), None),
            (None, None),
            (Some(999_999), Some(1)),
            (None, Some(-5)),
        ];
        let (world, scorer) = world(&tokens, "{queueThresholdTokens: 1000}");
        assert_eq!(world.score(&scorer), [0.75, 0.0, 1.0, 1.0, 0.0, 1.0]);
    }

    #[test]
    fn tokens_without_measure_are_full_load() {
        let (world, scorer) = world(&[(Some(u64::MAX), Some(i64::MAX))], "");
        assert_eq!(world.score(&scorer), [0.0]);
    }

    #[test]
    fn a_threshold_that_is_not_positive_is_the_default() {
        let (world, scorer) = world(&[(Some(2_097_152), None)], "{queueThresholdTokens: 0}");
        assert_eq!(world.score(&scorer), [0.5]);
        assert_eq!(scorer.warnings.len(), 1);
    }

    #[test]
    fn the_projected_cost_is_required_of_the_same_producer() {
        let (_, scorer) = world(&[], "{inFlightLoadProducerName: mine}");
        let keys: Vec<String> = scorer.data.requires.iter().map(ToString::to_string).collect();
        assert_eq!(keys, ["InFlightLoadDataKey/mine", "UncachedRequestTokensDataKey/mine"]);
        assert!(World::new(0).build("token-load-scorer", "{threshold: 1}").is_err());
    }
}

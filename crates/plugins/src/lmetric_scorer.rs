//! `lmetric-scorer`: new prefill tokens times batch size, lower is better.

use std::sync::Arc;

use inlane_core::columns::{Col, InFlight, PrefixMatch};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use serde::Deserialize;

use crate::{approx_prefix_cache_producer, inflight_load_producer, token_producer};

/// The type `lmetric-scorer`.
pub const TYPE: PluginType = PluginType::new("lmetric-scorer", build);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Instance that publishes prefix matches; empty = `approx-prefix-cache-producer`.
    prefix_match_info_producer_name: String,
    /// Instance that publishes in-flight load; empty = `inflight-load-producer`.
    in_flight_load_producer_name: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    let prefix = build.require(
        &parameters.prefix_match_info_producer_name,
        approx_prefix_cache_producer::TYPE.name,
    );
    let load =
        build.require(&parameters.in_flight_load_producer_name, inflight_load_producer::TYPE.name);
    Ok(Roles::default().scorer(Arc::new(LmetricScorer { prefix, load })))
}

/// With `p` the prompt tokens that the endpoint would have to compute and `b` the requests it would
/// have, this one included:
///
/// ```text
/// cost = max(1, p) * b            score = lowest cost among the candidates / cost
/// ```
///
/// After Zhang et al., "LMetric: Simple is Better - Multiplication May Be All You Need for LLM
/// Request Scheduling", arXiv 2603.15202, 2026. Counting this request, and at least one token (the
/// last one is computed always), keeps both factors positive: idle endpoints are told apart by their
/// caches, and fully cached ones by their load.
#[derive(Debug)]
struct LmetricScorer {
    prefix: Col<PrefixMatch>,
    load: Col<InFlight>,
}

/// Prompt tokens that a cache does not cover.
fn new_tokens(input: u64, found: Option<PrefixMatch>) -> u64 {
    let found = found.unwrap_or_default();
    let covered = u64::from(found.match_blocks) * u64::from(found.block_size_tokens);
    input.saturating_sub(covered).max(1)
}

impl Scorer for LmetricScorer {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let input = cx.request.token_count();
        let (prefix, load) = (cx.columns.get(self.prefix), cx.columns.get(self.load));
        let mut lowest = f64::INFINITY;
        for (&ix, out) in candidates.iter().zip(&mut *out) {
            let found = prefix.get(ix as usize).copied().flatten();
            let load = load.get(ix as usize).copied().flatten().unwrap_or_default();
            *out = new_tokens(input, found) as f64 * (f64::from(load.requests) + 1.0);
            lowest = lowest.min(*out);
        }
        for out in out {
            *out = lowest / *out;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::{InFlight, PrefixMatch};
    use inlane_core::request::{Prompt, Request};
    use proptest::prelude::*;

    use crate::testing::World;

    /// Scores of endpoints with (blocks of 64 tokens held, requests in flight).
    fn scores(input: u64, endpoints: &[(u32, u32)]) -> Vec<f64> {
        let mut world = World::new(endpoints.len());
        let scorer = world.build("lmetric-scorer", "").unwrap();
        let prefix = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        let load = world.column::<InFlight>("inflight-load-producer");
        for (i, &(match_blocks, requests)) in endpoints.iter().enumerate() {
            let block_size_tokens = 64;
            world.columns.get_mut(prefix)[i] =
                Some(PrefixMatch { match_blocks, block_size_tokens, ..Default::default() });
            world.columns.get_mut(load)[i] = Some(InFlight { requests, ..Default::default() });
        }
        let ids = vec![7; input as usize];
        let prompts = [Prompt::Tokens(&ids)];
        let request = Request { prompts: &prompts, ..Default::default() };
        let (all, mut out) = (world.all(), vec![f64::NAN; endpoints.len()]);
        let scorer = scorer.roles.scorer.as_ref().unwrap();
        scorer.score(&world.cycle(&request), &all, &mut out).unwrap();
        out
    }

    #[test]
    fn twice_the_product_is_half_the_score() {
        // 640 * 1, 320 * 2, 320 * 4, 640 * 4
        assert_eq!(scores(640, &[(0, 0), (5, 1), (5, 3), (0, 3)]), [1.0, 1.0, 0.5, 0.25]);
    }

    #[test]
    fn neither_factor_is_ever_nothing() {
        // Idle ones differ by cache, fully cached ones by load.
        assert_eq!(scores(640, &[(0, 0), (5, 0)]), [0.5, 1.0]);
        assert_eq!(scores(640, &[(10, 3), (11, 0)]), [0.25, 1.0]);
        assert_eq!(scores(0, &[(0, 0), (0, 1)]), [1.0, 0.5]);
        assert_eq!(scores(640, &[]), [] as [f64; 0]);
    }

    #[test]
    fn absent_columns_count_as_cold_and_idle() {
        let mut world = World::new(2);
        let scorer = world.build("lmetric-scorer", "").unwrap();
        assert_eq!(world.score(&scorer), [1.0, 1.0]);
        assert!(world.build("lmetric-scorer", "{beta: 1}").is_err());
    }

    proptest! {
        #[test]
        fn the_best_is_one_and_the_order_is_that_of_the_products(
            endpoints in proptest::collection::vec((0..20u32, 0..200u32), 1..30),
        ) {
            let scores = scores(640, &endpoints);
            let cost = |i: usize| {
                let (blocks, requests) = endpoints[i];
                u64::from(640u32.saturating_sub(blocks * 64).max(1)) * u64::from(requests + 1)
            };
            prop_assert!(scores.iter().all(|s| *s > 0.0 && *s <= 1.0));
            prop_assert!(scores.contains(&1.0));
            for i in 1..scores.len() {
                prop_assert_eq!(scores[i - 1] < scores[i], cost(i - 1) > cost(i));
            }
        }
    }
}

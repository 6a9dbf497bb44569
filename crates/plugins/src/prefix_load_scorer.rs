//! `prefix-load-scorer`: the share of the prompt that is cached, minus the relative load.

use std::sync::Arc;

use inlane_core::columns::{Col, InFlight, PrefixMatch};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::{approx_prefix_cache_producer, inflight_load_producer};

/// The type `prefix-load-scorer`.
pub const TYPE: PluginType = PluginType::new("prefix-load-scorer", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// What a load of twice the mean costs, in whole prompts.
    beta: f64,
    /// What is counted as load.
    load: Load,
    /// Instance that publishes prefix matches; empty = `approx-prefix-cache-producer`.
    prefix_match_info_producer_name: String,
    /// Instance that publishes in-flight load; empty = `inflight-load-producer`.
    in_flight_load_producer_name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Load {
    /// Requests in flight.
    Requests,
    /// Projected tokens in flight.
    Tokens,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            beta: 1.0,
            load: Load::Requests,
            prefix_match_info_producer_name: String::new(),
            in_flight_load_producer_name: String::new(),
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let Parameters { beta, load: counted, .. } = parameters;
    if !(beta >= 0.0 && beta.is_finite()) {
        let message = format!("expected a number that is not negative, found {beta}");
        return Err(BuildError::field("beta", message));
    }
    let prefix = build.require(
        &parameters.prefix_match_info_producer_name,
        approx_prefix_cache_producer::TYPE.name,
    );
    let load =
        build.require(&parameters.in_flight_load_producer_name, inflight_load_producer::TYPE.name);
    Ok(Roles::default().scorer(Arc::new(PrefixLoadScorer { prefix, load, counted, beta })))
}

/// With `r` the cached share of the prompt and `l` the load of an endpoint:
///
/// ```text
/// relative = (l - mean) / max(1, mean)            mean over the candidates
/// score    = clamp((r - beta * relative + beta) / (1 + 2 * beta))
/// ```
///
/// The term `r - beta * relative` is that of the `loadaware` router of vLLM's production stack (pull
/// request 1035, 2026). It is shifted and scaled so that an idle endpoint with the whole prompt scores
/// 1 and one without any of it at twice the mean load scores 0; the order changes only beyond that.
#[derive(Debug)]
struct PrefixLoadScorer {
    prefix: Col<PrefixMatch>,
    load: Col<InFlight>,
    counted: Load,
    beta: f64,
}

impl Scorer for PrefixLoadScorer {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let (prefix, load) = (cx.columns.get(self.prefix), cx.columns.get(self.load));
        let load = |ix: EndpointIx| {
            let load = load.get(ix as usize).copied().flatten().unwrap_or_default();
            match self.counted {
                Load::Requests => f64::from(load.requests),
                Load::Tokens => load.tokens as f64,
            }
        };
        let sum: f64 = candidates.iter().map(|&ix| load(ix)).sum();
        let mean = sum / candidates.len().max(1) as f64;
        for (&ix, out) in candidates.iter().zip(out) {
            let found = prefix.get(ix as usize).copied().flatten().unwrap_or_default();
            let share = match found.total_blocks {
                0 => 0.0,
                total => f64::from(found.match_blocks) / f64::from(total),
            };
            let relative = (load(ix) - mean) / mean.max(1.0);
            let score = (share - self.beta * relative + self.beta) / (1.0 + 2.0 * self.beta);
            *out = score.clamp(0.0, 1.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::{InFlight, PrefixMatch};

    use crate::testing::World;

    /// Scores of endpoints with (blocks held of 4, requests in flight).
    fn scores(parameters: &str, endpoints: &[(u32, u32)]) -> Vec<f64> {
        let mut world = World::new(endpoints.len());
        let scorer = world.build("prefix-load-scorer", parameters).unwrap();
        let prefix = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        let load = world.column::<InFlight>("inflight-load-producer");
        for (i, &(match_blocks, requests)) in endpoints.iter().enumerate() {
            let found = PrefixMatch { match_blocks, total_blocks: 4, ..Default::default() };
            world.columns.get_mut(prefix)[i] = Some(found);
            let tokens = u64::from(requests) * 100;
            world.columns.get_mut(load)[i] = Some(InFlight { requests, tokens, word: 0 });
        }
        world.score(&scorer)
    }

    #[test]
    fn a_cached_prompt_outweighs_the_mean_load_once_more() {
        // Mean 4: relative loads -1, 0, 0, 1.
        assert_eq!(scores("", &[(4, 0), (4, 4), (0, 4), (0, 8)]), [1.0, 2.0 / 3.0, 1.0 / 3.0, 0.0]);
        assert_eq!(scores("", &[(4, 8), (0, 4), (0, 0)]), [1.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0]);
        let tokens = scores("{load: tokens}", &[(4, 8), (0, 4), (0, 0)]);
        assert_eq!(tokens, [1.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0]);
    }

    #[test]
    fn scores_are_clamped() {
        // Mean 10, the last one at four times that.
        let found = scores("", &[(0, 0), (0, 0), (0, 0), (0, 40)]);
        assert_eq!(found, [2.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0, 0.0]);
    }

    #[test]
    fn beta_weighs_load_against_cache() {
        assert_eq!(scores("{beta: 0}", &[(1, 0), (4, 99)]), [0.25, 1.0]);
        let heavy = scores("{beta: 10}", &[(0, 4), (4, 6)]);
        assert!(heavy[0] > heavy[1]);
    }

    #[test]
    fn small_pools_are_no_exception() {
        assert_eq!(scores("", &[(4, 3)]), [2.0 / 3.0]);
        assert_eq!(scores("", &[(0, 0), (0, 0)]), [1.0 / 3.0, 1.0 / 3.0]);
        assert_eq!(scores("", &[]), [] as [f64; 0]);
    }

    #[test]
    fn parameters_are_checked() {
        let mut world = World::new(0);
        for parameters in ["{beta: -1}", "{beta: .inf}", "{load: kv}", "{alpha: 1}"] {
            assert!(world.build("prefix-load-scorer", parameters).is_err(), "{parameters}");
        }
    }
}

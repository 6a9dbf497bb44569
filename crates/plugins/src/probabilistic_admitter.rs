//! `probabilistic-admitter`: turns sheddable requests away with odds that grow with the load.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Admitter, Cycle, Roles};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, metric_keys,
};
use serde::Deserialize;

/// Saturation of an endpoint whose metrics are not known.
const UNKNOWN: f64 = 1.0;

/// The type `probabilistic-admitter`.
pub const TYPE: PluginType = PluginType::new("probabilistic-admitter", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Queue length that counts as full.
    queue_depth_threshold: f64,
    /// KV-cache use that counts as full.
    kv_cache_util_threshold: f64,
    /// How steeply the odds grow.
    power: f64,
    /// Odds when full, before the cap at 1.
    k: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { queue_depth_threshold: 5.0, kv_cache_util_threshold: 0.8, power: 5.0, k: 300.0 }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    for (field, value) in [
        ("queueDepthThreshold", parameters.queue_depth_threshold),
        ("kvCacheUtilThreshold", parameters.kv_cache_util_threshold),
        ("power", parameters.power),
        ("k", parameters.k),
    ] {
        if !(value > 0.0 && value.is_finite()) {
            let message = format!("expected a positive number, found {value}");
            return Err(BuildError::field(field, message));
        }
    }
    build.require_key(metric_keys::WAITING, CORE_METRICS_EXTRACTOR);
    build.require_key(metric_keys::KV_USAGE, CORE_METRICS_EXTRACTOR);
    let salt = u64::from(build.instance());
    Ok(Roles::default().admitter(Arc::new(ProbabilisticAdmitter { parameters, salt })))
}

/// Denies a request with negative priority with probability `min(sat^power * k, 1)`, where `sat` is
/// the mean over the endpoints of `max(q / queueDepthThreshold, kv / kvCacheUtilThreshold)`; an
/// endpoint without fresh metrics counts as 1 (llm-d-router `probabilistic-admitter`).
#[derive(Debug)]
struct ProbabilisticAdmitter {
    parameters: Parameters,
    salt: u64,
}

impl ProbabilisticAdmitter {
    /// The probability with which a sheddable request is denied.
    fn odds(&self, cx: &Cycle<'_>, candidates: &[EndpointIx]) -> f64 {
        let Parameters { queue_depth_threshold, kv_cache_util_threshold, power, k } =
            self.parameters;
        let metrics = &cx.columns.metrics;
        let saturation = |&ix: &EndpointIx| {
            let ix = ix as usize;
            let known = metrics.fresh.get(ix).copied().unwrap_or(false);
            match (known, metrics.waiting.get(ix), metrics.kv_usage.get(ix)) {
                (true, Some(&queue), Some(&usage)) => {
                    let queue = f64::from(queue) / queue_depth_threshold;
                    queue.max(usage / kv_cache_util_threshold)
                }
                _ => UNKNOWN,
            }
        };
        let sum: f64 = candidates.iter().map(saturation).sum();
        ((sum / candidates.len() as f64).powf(power) * k).min(1.0)
    }
}

impl Admitter for ProbabilisticAdmitter {
    fn admit(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
    ) -> Result<Option<String>, PluginError> {
        if cx.request.priority >= 0 || candidates.is_empty() {
            return Ok(None);
        }
        let odds = self.odds(cx, candidates);
        let denied = cx.rng(self.salt).unit() < odds;
        Ok(denied.then(|| format!("the pool is saturated, {odds:.3} of such requests are denied")))
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::request::Request;

    use crate::testing::{Built, World};

    fn world(queues: &[u32], usage: &[f64], parameters: &str) -> (World, Built) {
        let mut world = World::new(queues.len());
        let admitter = world.build("probabilistic-admitter", parameters).unwrap();
        world.columns.metrics.waiting = queues.to_vec();
        world.columns.metrics.kv_usage = usage.to_vec();
        (world, admitter)
    }

    /// How many of 10,000 requests are denied.
    fn denied((world, admitter): &mut (World, Built), priority: i32) -> u32 {
        let request = Request { priority, ..Default::default() };
        let admitter = admitter.roles.admitter.as_ref().unwrap();
        let mut denied = 0;
        for seed in 0..10_000 {
            world.seed = seed;
            let verdict = admitter.admit(&world.cycle(&request), &world.all()).unwrap();
            denied += u32::from(verdict.is_some());
        }
        denied
    }

    #[test]
    fn odds_follow_the_saturation() {
        // (1 / 5)^5 * 300 = 0.096, standard deviation 29.
        let found = denied(&mut world(&[1], &[0.0], ""), -1);
        assert!((960 - 120..=960 + 120).contains(&found), "{found}");
        // Mean of 0.25 and 0.15, by KV cache: 0.2.
        let found = denied(&mut world(&[0, 0], &[0.2, 0.12], ""), -1);
        assert!((960 - 120..=960 + 120).contains(&found), "{found}");
        let found = denied(&mut world(&[1], &[0.0], "{power: 1, k: 2.5}"), -1);
        assert!((5_000 - 200..=5_000 + 200).contains(&found), "{found}");
    }

    #[test]
    fn extremes_are_certain() {
        assert_eq!(denied(&mut world(&[0, 0], &[0.0, 0.0], ""), -1), 0);
        assert_eq!(denied(&mut world(&[9], &[0.0], ""), -5), 10_000);
        assert_eq!(denied(&mut world(&[9], &[1.0], ""), 0), 0);
        assert_eq!(denied(&mut world(&[], &[], ""), -1), 0);
    }

    #[test]
    fn unknown_load_counts_as_full() {
        let mut unread = world(&[0], &[0.0], "");
        unread.0.columns.metrics.fresh[0] = false;
        assert_eq!(denied(&mut unread, -1), 10_000);
    }

    #[test]
    fn parameters_must_be_positive() {
        let mut world = World::new(0);
        for field in ["queueDepthThreshold", "kvCacheUtilThreshold", "power", "k"] {
            for value in ["0", "-1", ".nan", ".inf"] {
                let parameters = format!("{{{field}: {value}}}");
                let error = world.build("probabilistic-admitter", &parameters).err().unwrap();
                assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
            }
        }
        assert!(world.build("probabilistic-admitter", "{threshold: 1}").is_err());
    }
}

//! `utilization-detector`: how full the pool is by queue lengths and KV caches.

use std::sync::Arc;
use std::time::Duration;

use inlane_core::columns::{Metrics, NEVER_SCRAPED};
use inlane_core::config::GoDuration;
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Candidates, Cycle, Filter, Part, Roles};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, metric_keys,
};
use serde::Deserialize;

/// The type `utilization-detector`.
pub const TYPE: PluginType = PluginType::new("utilization-detector", build);

const STALENESS: GoDuration = GoDuration { negative: false, length: Duration::from_millis(200) };

/// All parameters.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    /// Waiting requests at which an endpoint counts as full.
    pub queue_depth_threshold: i64,
    /// KV-cache use at which an endpoint counts as full.
    pub kv_cache_util_threshold: f64,
    /// How old metrics may be, for this plugin alone.
    pub metrics_staleness_threshold: GoDuration,
    /// How far the filter lets endpoints go beyond full, as a fraction.
    pub headroom: f64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            queue_depth_threshold: 5,
            kv_cache_util_threshold: 0.8,
            metrics_staleness_threshold: STALENESS,
            headroom: 0.0,
        }
    }
}

impl Parameters {
    /// Decodes and checks the parameters.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn read(params: &Params) -> Result<Self, BuildError> {
        let read: Self = params.decode()?;
        let Self { queue_depth_threshold: queue, kv_cache_util_threshold: kv, headroom, .. } = read;
        if queue <= 0 {
            let message = format!("must be strictly positive, found {queue}");
            return Err(BuildError::field("queueDepthThreshold", message));
        }
        if !(kv > 0.0 && kv <= 1.0) {
            let message = format!("expected above 0 and at most 1, found {kv}");
            return Err(BuildError::field("kvCacheUtilThreshold", message));
        }
        let GoDuration { negative, length } = read.metrics_staleness_threshold;
        if negative || length.is_zero() {
            let message = "must be strictly positive";
            return Err(BuildError::field("metricsStalenessThreshold", message));
        }
        if !(headroom >= 0.0 && headroom.is_finite()) {
            let message = format!("expected a number that is not negative, found {headroom}");
            return Err(BuildError::field("headroom", message));
        }
        Ok(read)
    }

    /// How full one endpoint is: `max(waiting / queueDepthThreshold, kv / kvCacheUtilThreshold)`,
    /// 1 where the metrics are older than `metricsStalenessThreshold`.
    fn endpoint(&self, metrics: &Metrics, endpoint: EndpointIx) -> f64 {
        match self.load(metrics, endpoint) {
            None => 1.0,
            Some((waiting, kv)) => {
                (waiting / self.queue_depth_threshold as f64).max(kv / self.kv_cache_util_threshold)
            }
        }
    }

    /// How full the endpoints are: the mean over them, 1 for none of them; above 1 = more is asked
    /// of them than they can do (llm-d-router `utilization-detector`).
    pub fn saturation(&self, metrics: &Metrics, endpoints: &[EndpointIx]) -> f64 {
        if endpoints.is_empty() {
            return 1.0;
        }
        let sum: f64 = endpoints.iter().map(|&ix| self.endpoint(metrics, ix)).sum();
        sum / endpoints.len() as f64
    }

    /// Waiting requests and KV-cache use of an endpoint whose metrics are young enough.
    fn load(&self, metrics: &Metrics, endpoint: EndpointIx) -> Option<(f64, f64)> {
        let ix = endpoint as usize;
        let age = *metrics.age_ms.get(ix)?;
        let bound = self.metrics_staleness_threshold.length;
        if age == NEVER_SCRAPED || Duration::from_millis(age.into()) > bound {
            return None;
        }
        Some((f64::from(*metrics.waiting.get(ix)?), *metrics.kv_usage.get(ix)?))
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters = Parameters::read(params)?;
    for key in [metric_keys::WAITING, metric_keys::KV_USAGE] {
        build.use_key(key, CORE_METRICS_EXTRACTOR);
    }
    Ok(Roles::default()
        .part(Part::SaturationDetector)
        .filter(Arc::new(UtilizationDetector(parameters))))
}

/// Keeps endpoints with metrics no older than `metricsStalenessThreshold` and `waiting < queueDepthThreshold * (1 + headroom)` and
/// `kv < kvCacheUtilThreshold * (1 + headroom)`; all of them when that leaves none (llm-d-router
/// `utilization-detector`).
#[derive(Debug)]
struct UtilizationDetector(Parameters);

impl Filter for UtilizationDetector {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let metrics = &cx.columns.metrics;
        let room = 1.0 + self.0.headroom;
        let queue_limit = self.0.queue_depth_threshold as f64 * room;
        let kv_limit = self.0.kv_cache_util_threshold * room;
        let verdict = |ix| match self.0.load(metrics, ix) {
            None => Err("metrics are stale"),
            Some((waiting, _)) if waiting >= queue_limit => Err("queue is full"),
            Some((_, kv)) if kv < kv_limit => Ok(()),
            Some(_) => Err("KV cache is full"),
        };
        if candidates.as_slice().iter().any(|&ix| verdict(ix).is_ok()) {
            candidates.retain(verdict);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn world(pods: &[(u32, f64, bool)]) -> World {
        let mut world = World::new(pods.len());
        let metrics = &mut world.columns.metrics;
        for (ix, &(waiting, kv, fresh)) in pods.iter().enumerate() {
            (metrics.waiting[ix], metrics.kv_usage[ix]) = (waiting, kv);
            metrics.age_ms[ix] = if fresh { 200 } else { 201 };
        }
        world
    }

    fn kept(pods: &[(u32, f64, bool)], parameters: &str) -> Vec<EndpointIx> {
        let mut world = world(pods);
        let built = world.build("utilization-detector", parameters).unwrap();
        world.filter(&built)
    }

    #[test]
    fn saturation_is_the_mean_of_the_worse_of_two() {
        let parameters = Parameters::default();
        let pods = world(&[(5, 0.1, true), (0, 0.4, true), (0, 0.0, false), (0, 0.0, true)]);
        let saturation =
            |endpoints: &[u32]| parameters.saturation(&pods.columns.metrics, endpoints);
        assert_eq!(saturation(&[0, 1]), 0.75);
        assert_eq!(saturation(&[2, 3]), 0.5, "a stale one counts 1");
        assert_eq!(saturation(&[]), 1.0);
        assert_eq!(saturation(&[77]), 1.0);
        let full = world(&[(50, 0.1, true)]);
        assert_eq!(parameters.saturation(&full.columns.metrics, &[0]), 10.0);
    }

    #[test]
    fn endpoints_at_a_threshold_are_dropped() {
        let pods =
            [(4, 0.79, true), (5, 0.1, true), (0, 0.8, true), (0, 0.0, false), (0, f64::NAN, true)];
        assert_eq!(kept(&pods, ""), [0]);
        assert_eq!(kept(&pods, "{headroom: 0.5}"), [0, 1, 2]);
        assert_eq!(kept(&pods, "{queueDepthThreshold: 6}"), [0, 1]);
    }

    #[test]
    fn an_empty_result_is_everybody() {
        assert_eq!(kept(&[(5, 0.1, true), (0, 0.9, true), (0, 0.0, false)], ""), [0, 1, 2]);
        assert_eq!(kept(&[], ""), [0u32; 0]);
    }

    #[test]
    fn it_works_without_a_metrics_source() {
        let mut world = World::new(0);
        let built = world.build("utilization-detector", "").unwrap();
        assert!(built.data.requires.is_empty() && built.data.uses.len() == 2);
        assert!(built.roles.plays(Part::SaturationDetector));
    }

    #[test]
    fn metrics_are_stale_by_a_bound_of_its_own() {
        let pods = [(5, 0.9, true), (0, 0.0, false)];
        assert_eq!(kept(&pods, ""), [0, 1], "nobody is left, hence everybody");
        assert_eq!(kept(&pods, "{metricsStalenessThreshold: 201ms}"), [1]);
        let mut never = world(&[(0, 0.0, true), (0, 0.0, true)]);
        never.columns.metrics.age_ms[0] = NEVER_SCRAPED;
        let parameters = "{metricsStalenessThreshold: 10000h}";
        let built = never.build("utilization-detector", parameters).unwrap();
        assert!(built.warnings.is_empty());
        assert_eq!(never.filter(&built), [1]);
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{queueDepthThreshold: 0}", "queueDepthThreshold"),
            ("{queueDepthThreshold: 1.5}", "queueDepthThreshold"),
            ("{kvCacheUtilThreshold: 0}", "kvCacheUtilThreshold"),
            ("{kvCacheUtilThreshold: 1.01}", "kvCacheUtilThreshold"),
            ("{kvCacheUtilThreshold: .nan}", "kvCacheUtilThreshold"),
            ("{metricsStalenessThreshold: 0s}", "metricsStalenessThreshold"),
            ("{metricsStalenessThreshold: -1s}", "metricsStalenessThreshold"),
            ("{headroom: -0.1}", "headroom"),
            ("{headroom: .inf}", "headroom"),
            ("{queueDepth: 5}", "queueDepth"),
        ] {
            let error = world.build("utilization-detector", parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
    }
}

//! `kv-cache-utilization-scorer`: prefers endpoints with free KV cache.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{CORE_METRICS_EXTRACTOR, PluginType, metric_keys};

/// The type `kv-cache-utilization-scorer`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("kv-cache-utilization-scorer", |build, _| {
    build.require_key(metric_keys::KV_USAGE, CORE_METRICS_EXTRACTOR);
    Ok(Roles::default().scorer(Arc::new(KvCacheUtilizationScorer)))
});

/// `1 - usage`, whatever the other endpoints do (llm-d-router `kv-cache-utilization-scorer`). An
/// engine that reports more than 1 gives a negative score, which the cycle clamps to 0.
#[derive(Debug)]
struct KvCacheUtilizationScorer;

impl Scorer for KvCacheUtilizationScorer {
    fn category(&self) -> Category {
        Category::Distribution
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
        let usage = &cx.columns.metrics.kv_usage;
        for (&ix, out) in candidates.iter().zip(out) {
            *out = 1.0 - usage.get(ix as usize).copied().unwrap_or(0.0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn free_cache_is_the_score() {
        let mut world = World::new(3);
        let scorer = world.build("kv-cache-utilization-scorer", "").unwrap();
        world.columns.metrics.kv_usage = vec![0.8, 0.0, 1.5];
        assert_eq!(world.score(&scorer), [1.0 - 0.8, 1.0, -0.5]);
    }
}

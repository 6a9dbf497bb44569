//! `multicluster-kv-cache-utilization-scorer`: prefers clusters whose pods have free KV cache.

use std::sync::Arc;

use inlane_core::columns::{Col, Scalar};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::PluginType;

use super::{KV_CACHE_UTILIZATION, reported};
use crate::ignored::ignore;

/// The type `multicluster-kv-cache-utilization-scorer`. Parameters are ignored.
pub const TYPE: PluginType =
    PluginType::new("multicluster-kv-cache-utilization-scorer", |build, params| {
        ignore(build, params);
        let usage = build.scalar(KV_CACHE_UTILIZATION, "");
        let scorer = MulticlusterKvCacheUtilizationScorer { usage };
        Ok(Roles::default().scorer(Arc::new(scorer)))
    })
    .alpha();

/// `1 - usage`, with the cluster's average (llm-d-router
/// `multicluster-kv-cache-utilization-scorer`). A cluster that reports none is not scored.
#[derive(Debug)]
struct MulticlusterKvCacheUtilizationScorer {
    usage: Col<Scalar>,
}

impl Scorer for MulticlusterKvCacheUtilizationScorer {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        for (&ix, out) in candidates.iter().zip(out) {
            if let Some(usage) = reported(cx.columns, self.usage, ix) {
                *out = 1.0 - usage;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::Scalar;

    use super::KV_CACHE_UTILIZATION;
    use crate::testing::World;

    #[test]
    fn free_cache_is_the_score_of_those_that_report() {
        let mut world = World::new(3);
        let scorer = world.build("multicluster-kv-cache-utilization-scorer", "").unwrap();
        let column = world.scalar(KV_CACHE_UTILIZATION, "");
        world.columns.get_mut(column)[0] = Some(Scalar(0.25));
        world.columns.get_mut(column)[2] = Some(Scalar(1.5));
        let scores = world.score(&scorer);
        assert_eq!([scores[0], scores[2]], [0.75, -0.5]);
        assert!(scores[1].is_nan());
    }
}

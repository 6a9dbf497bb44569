//! `load-aware-scorer`: an absolute scale of queue length, at most 0.5.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, metric_keys,
};
use serde::Deserialize;

/// Queue length at which the score reaches 0, unless configured.
const DEFAULT_THRESHOLD: i64 = 128;

/// The type `load-aware-scorer`.
pub const TYPE: PluginType = PluginType::new("load-aware-scorer", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Waiting requests at which the score is 0; not positive = the default.
    threshold: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { threshold: DEFAULT_THRESHOLD }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { mut threshold } = params.decode()?;
    if threshold <= 0 {
        build.warn(format!("threshold: {threshold} is not positive, using {DEFAULT_THRESHOLD}"));
        threshold = DEFAULT_THRESHOLD;
    }
    build.require_key(metric_keys::WAITING, CORE_METRICS_EXTRACTOR);
    Ok(Roles::default().scorer(Arc::new(LoadAwareScorer { threshold: threshold as f64 })))
}

/// `0.5 * (1 - min(q, threshold) / threshold)` with `q` the engine's waiting requests, so 0.5 for
/// an empty queue (llm-d-router `load-aware-scorer`).
#[derive(Debug)]
struct LoadAwareScorer {
    threshold: f64,
}

impl Scorer for LoadAwareScorer {
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
        let waiting = &cx.columns.metrics.waiting;
        for (&ix, out) in candidates.iter().zip(out) {
            let q = f64::from(waiting.get(ix as usize).copied().unwrap_or(0));
            *out = 0.5 * (1.0 - q.min(self.threshold) / self.threshold);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn falls_from_a_half_to_zero_at_the_threshold() {
        let mut world = World::new(5);
        let scorer = world.build("load-aware-scorer", "").unwrap();
        world.columns.metrics.waiting = vec![0, 2, 64, 128, 4_000];
        assert_eq!(world.score(&scorer), [0.5, 0.492_187_5, 0.25, 0.0, 0.0]);
    }

    #[test]
    fn a_threshold_that_is_not_positive_is_the_default() {
        let mut world = World::new(1);
        let scorer = world.build("load-aware-scorer", "{threshold: -3}").unwrap();
        world.columns.metrics.waiting[0] = 64;
        assert_eq!(world.score(&scorer), [0.25]);
        assert_eq!(scorer.warnings.len(), 1);
        let scorer = world.build("load-aware-scorer", "{threshold: 256}").unwrap();
        assert_eq!(world.score(&scorer), [0.375]);
        assert!(world.build("load-aware-scorer", "{treshold: 1}").is_err());
        assert!(world.build("load-aware-scorer", "{threshold: 1.5}").is_err());
    }
}

//! `running-requests-size-scorer`: prefers endpoints whose engine runs few requests.

use std::sync::Arc;

use inlane_core::plugin::Roles;
use inlane_core::registry::{CORE_METRICS_EXTRACTOR, PluginType, metric_keys};

use crate::lowest::LowestScorer;

/// The type `running-requests-size-scorer`. Parameters are ignored, as in the reference.
///
/// `(max - q) / (max - min)` with `q` the engine's running requests, over the candidates; 1 for
/// all when they are equal (llm-d-router `running-requests-size-scorer`).
pub const TYPE: PluginType = PluginType::new("running-requests-size-scorer", |build, _| {
    build.require_key(metric_keys::RUNNING, CORE_METRICS_EXTRACTOR);
    Ok(Roles::default().scorer(Arc::new(LowestScorer(|metrics| &metrics.running))))
});

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn scores_are_min_max_of_running_requests() {
        let mut world = World::new(3);
        let scorer = world.build("running-requests-size-scorer", "").unwrap();
        world.columns.metrics.running = vec![2, 4, 5];
        world.columns.metrics.waiting = vec![9, 0, 0];
        assert_eq!(world.score(&scorer), [1.0, 1.0 / 3.0, 0.0]);
        world.columns.metrics.running = vec![7, 7, 7];
        assert_eq!(world.score(&scorer), [1.0; 3]);
    }
}

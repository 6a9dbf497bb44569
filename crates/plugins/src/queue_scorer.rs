//! `queue-scorer`: prefers endpoints with a short queue.

use std::sync::Arc;

use inlane_core::plugin::Roles;
use inlane_core::registry::{CORE_METRICS_EXTRACTOR, PluginType, metric_keys};

use crate::lowest::LowestScorer;

/// The type `queue-scorer`. Parameters are ignored, as in the reference.
///
/// `(max - q) / (max - min)` with `q` the engine's waiting requests, over the candidates; 1 for
/// all when they are equal (llm-d-router `queue-scorer`).
pub const TYPE: PluginType = PluginType::new("queue-scorer", |build, _| {
    build.require_key(metric_keys::WAITING, CORE_METRICS_EXTRACTOR);
    Ok(Roles::default().scorer(Arc::new(LowestScorer(|metrics| &metrics.waiting))))
});

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn scores_are_relative_to_the_candidates() {
        let mut world = World::new(3);
        let scorer = world.build("queue-scorer", "{anything: 1}").unwrap();
        world.columns.metrics.waiting = vec![10, 5, 0];
        assert_eq!(world.score(&scorer), [0.0, 0.5, 1.0]);
        assert_eq!(world.score_some(&scorer, &[1, 0]), [1.0, 0.0]);
        assert_eq!(world.score_some(&scorer, &[0]), [1.0]);
    }

    #[test]
    fn missing_metrics_count_as_an_empty_queue() {
        let mut world = World::new(2);
        let scorer = world.build("queue-scorer", "").unwrap();
        world.columns.metrics.waiting[1] = 3;
        assert_eq!(world.score(&scorer), [1.0, 0.0]);
        assert_eq!(scorer.data.requires[0].to_string(), "WaitingQueueSize/core-metrics-extractor");
    }
}

//! `multicluster-queue-scorer`: prefers clusters whose pods have short queues.

use std::sync::Arc;

use inlane_core::columns::{Col, Scalar};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::PluginType;

use super::{QUEUE_SIZE, reported};
use crate::ignored::ignore;

/// The type `multicluster-queue-scorer`. Parameters are ignored.
pub const TYPE: PluginType = PluginType::new("multicluster-queue-scorer", |build, params| {
    ignore(build, params);
    let queue = build.scalar(QUEUE_SIZE, "");
    Ok(Roles::default().scorer(Arc::new(MulticlusterQueueScorer { queue })))
})
.alpha();

/// `(max - q) / (max - min)` with `q` the cluster's average queue length, over the candidates that
/// report one; 1 for all when they are equal (llm-d-router `multicluster-queue-scorer`). The others
/// are not scored.
#[derive(Debug)]
struct MulticlusterQueueScorer {
    queue: Col<Scalar>,
}

impl Scorer for MulticlusterQueueScorer {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for (&ix, out) in candidates.iter().zip(&mut *out) {
            if let Some(queue) = reported(cx.columns, self.queue, ix) {
                *out = queue;
                min = min.min(queue);
                max = max.max(queue);
            }
        }
        for out in out.iter_mut().filter(|out| !out.is_nan()) {
            *out = if max == min { 1.0 } else { (max - *out) / (max - min) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::Scalar;

    use super::QUEUE_SIZE;
    use crate::testing::World;

    fn scores(queues: &[Option<f64>]) -> Vec<f64> {
        let mut world = World::new(queues.len());
        let scorer = world.build("multicluster-queue-scorer", "").unwrap();
        let column = world.scalar(QUEUE_SIZE, "");
        for (cell, queue) in world.columns.get_mut(column).iter_mut().zip(queues) {
            *cell = queue.map(Scalar);
        }
        world.score(&scorer)
    }

    #[test]
    fn clusters_that_report_are_compared_with_each_other() {
        let found = scores(&[Some(10.0), Some(30.0), None, Some(15.0), Some(f64::NAN)]);
        assert_eq!([found[0], found[1], found[3]], [1.0, 0.0, 0.75]);
        assert!(found[2].is_nan() && found[4].is_nan());
    }

    #[test]
    fn equal_queues_score_one() {
        assert_eq!(scores(&[Some(7.5), Some(7.5)]), [1.0, 1.0]);
        assert_eq!(scores(&[Some(900.0)]), [1.0]);
        assert!(scores(&[None])[0].is_nan());
    }

    #[test]
    fn parameters_are_ignored() {
        let built = World::new(0).build("multicluster-queue-scorer", "{a: 1}").unwrap();
        assert_eq!(built.warnings.len(), 1);
    }
}

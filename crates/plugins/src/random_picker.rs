//! `random-picker`: any endpoint, whatever the totals.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, Picker, Roles};
use inlane_core::registry::PluginType;

use crate::picking::Picking;

/// The type `random-picker`.
pub const TYPE: PluginType = PluginType::new("random-picker", |build, params| {
    let picking = Picking::build(build, params)?;
    Ok(Roles::default().picker(Arc::new(RandomPicker(picking))))
});

/// `maxNumOfEndpoints` distinct endpoints, every sequence equally likely (llm-d-router
/// `random-picker`).
#[derive(Debug)]
struct RandomPicker(Picking);

impl Picker for RandomPicker {
    fn pick(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        _totals: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        pick_uniformly(self.0, cx, candidates, targets);
        Ok(())
    }
}

/// Appends `picking.count` distinct candidates to `targets`: a Fisher–Yates shuffle, stopped when
/// enough are drawn.
pub(crate) fn pick_uniformly(
    picking: Picking,
    cx: &Cycle<'_>,
    candidates: &[EndpointIx],
    targets: &mut Vec<EndpointIx>,
) {
    let mut rng = picking.rng(cx);
    let mut below = |bound: usize| rng.below(u32::try_from(bound).unwrap_or(u32::MAX)) as usize;
    if picking.count == 1 {
        targets.extend(candidates.get(below(candidates.len())));
        return;
    }
    let start = targets.len();
    targets.extend_from_slice(candidates);
    let pool = &mut targets[start..];
    let count = picking.count.min(pool.len());
    for i in 0..count {
        let j = i + below(pool.len() - i);
        pool.swap(i, j);
    }
    targets.truncate(start + count);
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, chi_square, first_picks};

    #[test]
    fn totals_do_not_matter() {
        let mut world = World::new(0);
        for parameters in ["", "{maxNumOfEndpoints: 3}"] {
            let picker = world.build("random-picker", parameters).unwrap();
            let counts = first_picks(&mut world, &picker, &[9.0, 0.0, 1.0, 1.0], 10_000);
            // 99.9 % quantile for 3 degrees of freedom.
            assert!(chi_square(&counts, &[0.25; 4]) < 16.27, "{counts:?}");
        }
    }

    #[test]
    fn targets_are_distinct_and_at_most_all() {
        let mut world = World::new(0);
        let picker = world.build("random-picker", "{maxNumOfEndpoints: 5}").unwrap();
        for seed in 0..50 {
            world.seed = seed;
            let mut picked = world.pick(&picker, &[0.0; 3]);
            picked.sort_unstable();
            assert_eq!(picked, [0, 1, 2]);
        }
    }
}

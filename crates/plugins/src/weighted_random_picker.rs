//! `weighted-random-picker`: endpoints at random, with odds in proportion to their totals.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, Picker, Roles};
use inlane_core::registry::PluginType;

use crate::picking::{Draws, Picking, take_best};
use crate::random_picker::pick_uniformly;

/// The type `weighted-random-picker`.
pub const TYPE: PluginType = PluginType::new("weighted-random-picker", |build, params| {
    let picking = Picking::build(build, params)?;
    Ok(Roles::default().picker(Arc::new(WeightedRandomPicker(picking))))
});

/// A-Res (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006): the
/// largest of the keys `U^(1/w)`, `U` uniform and `w` the total; the first target is `i` with
/// probability `w_i / Σw`. Without a positive total, like `random-picker` (llm-d-router
/// `weighted-random-picker`).
///
/// Keys are compared as `ln(U) / w`, the same order without rounding to 1 for large `w`. Totals
/// that are not positive have the smallest key and are taken only to fill up, in random order.
#[derive(Debug)]
struct WeightedRandomPicker(Picking);

/// What the reference uses for a draw of 0.
const SMALLEST_DRAW: f64 = 1e-10;

fn key(total: f64, position: EndpointIx, draws: Draws) -> f64 {
    if total > 0.0 {
        draws.unit(position).max(SMALLEST_DRAW).ln() / total
    } else {
        f64::NEG_INFINITY
    }
}

impl Picker for WeightedRandomPicker {
    fn pick(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        totals: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        if !totals.iter().any(|&total| total > 0.0) {
            pick_uniformly(self.0, cx, candidates, targets);
            return Ok(());
        }
        let draws = self.0.draws(cx);
        let key = |position: EndpointIx| key(totals[position as usize], position, draws);
        if self.0.count == 1 {
            let mut best = (f64::NEG_INFINITY, None);
            for (position, &endpoint) in (0..).zip(candidates) {
                let key = key(position);
                if key > best.0 {
                    best = (key, Some(endpoint));
                }
            }
            targets.extend(best.1);
            return Ok(());
        }
        take_best(candidates, self.0.count, targets, |a, b| {
            let by_key = key(b).partial_cmp(&key(a)).filter(|o| o.is_ne());
            by_key.unwrap_or_else(|| draws.bits(a).cmp(&draws.bits(b)))
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{World, chi_square, first_picks};

    #[test]
    fn odds_follow_the_totals() {
        let mut world = World::new(0);
        for parameters in ["", "{maxNumOfEndpoints: 2}"] {
            let picker = world.build("weighted-random-picker", parameters).unwrap();
            let counts = first_picks(&mut world, &picker, &[3.0, 1.0, 0.0], 10_000);
            // 99.9 % quantile for 1 degree of freedom.
            assert!(chi_square(&counts, &[0.75, 0.25, 0.0]) < 10.83, "{counts:?}");
            // The scale of the totals does not matter, however large.
            let counts = first_picks(&mut world, &picker, &[3e17, 1e17, 0.0], 10_000);
            assert!(chi_square(&counts, &[0.75, 0.25, 0.0]) < 10.83, "{counts:?}");
        }
    }

    #[test]
    fn without_positive_totals_all_are_equal() {
        let mut world = World::new(0);
        let picker = world.build("weighted-random-picker", "").unwrap();
        let counts = first_picks(&mut world, &picker, &[0.0, -1.0, f64::NAN], 10_000);
        // 99.9 % quantile for 2 degrees of freedom.
        assert!(chi_square(&counts, &[1.0 / 3.0; 3]) < 13.82, "{counts:?}");
    }

    #[test]
    fn zero_totals_fill_up() {
        let mut world = World::new(0);
        let picker = world.build("weighted-random-picker", "{maxNumOfEndpoints: 3}").unwrap();
        let mut fillers = [0u64; 2];
        for seed in 0..1_000 {
            world.seed = seed;
            let picked = world.pick(&picker, &[0.0, 2.0, 1.0, 0.0]);
            assert_eq!(picked.len(), 3);
            assert!(picked[..2].contains(&1) && picked[..2].contains(&2), "{picked:?}");
            fillers[usize::from(picked[2] == 3)] += 1;
        }
        assert!(chi_square(&fillers, &[0.5, 0.5]) < 10.83, "{fillers:?}");
    }
}

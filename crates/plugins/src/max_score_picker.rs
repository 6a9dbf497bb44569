//! `max-score-picker`: the endpoints with the highest totals, ties at random.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, Picker, Roles};
use inlane_core::registry::PluginType;

use crate::picking::{Picking, best, comparable, take_best};

/// The type `max-score-picker`.
pub const TYPE: PluginType = PluginType::new("max-score-picker", |build, params| {
    let picking = Picking::build(build, params)?;
    Ok(Roles::default().picker(Arc::new(MaxScorePicker(picking))))
});

/// The `maxNumOfEndpoints` highest totals, best first (llm-d-router `max-score-picker`).
///
/// Equal totals are equally likely in any order; there is no epsilon. The reference shuffles and
/// sorts everything; here one target costs one pass, several a selection, with the same odds.
#[derive(Debug)]
struct MaxScorePicker(Picking);

impl Picker for MaxScorePicker {
    fn pick(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        totals: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        if self.0.count > 1 {
            let draws = self.0.draws(cx);
            let total = |position: EndpointIx| comparable(totals[position as usize]);
            take_best(candidates, self.0.count, targets, |a, b| {
                let by_total = total(b).partial_cmp(&total(a));
                by_total.filter(|o| o.is_ne()).unwrap_or_else(|| draws.bits(a).cmp(&draws.bits(b)))
            });
            return Ok(());
        }
        targets.extend(best(candidates, totals, self.0.rng(cx)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::testing::{World, chi_square, first_picks};

    #[test]
    fn ties_are_uniform() {
        let mut world = World::new(0);
        for parameters in ["", "{maxNumOfEndpoints: 2}"] {
            let picker = world.build("max-score-picker", parameters).unwrap();
            let counts = first_picks(&mut world, &picker, &[1.0, 0.5, 1.0, 1.0, 1.0], 10_000);
            // 99.9 % quantile for 3 degrees of freedom.
            assert!(chi_square(&counts, &[0.25, 0.0, 0.25, 0.25, 0.25]) < 16.27, "{counts:?}");
        }
    }

    #[test]
    fn there_is_no_epsilon() {
        let mut world = World::new(0);
        let picker = world.build("max-score-picker", "").unwrap();
        let counts = first_picks(&mut world, &picker, &[0.3, 0.1 + 0.2, 0.0], 50);
        assert_eq!(counts, [0, 50, 0]);
    }

    #[test]
    fn several_targets_come_best_first() {
        let mut world = World::new(0);
        let picker = world.build("max-score-picker", "{maxNumOfEndpoints: 3}").unwrap();
        assert_eq!(world.pick(&picker, &[0.1, 0.9, -1.0, 0.5]), [1, 3, 0]);
        assert_eq!(world.pick(&picker, &[0.1, 0.9]), [1, 0]);
        assert_eq!(world.pick(&picker, &[f64::NAN, -2.0, 1.0, f64::NAN])[..2], [2, 1]);
    }

    #[test]
    fn nothing_but_nan_still_has_a_target() {
        let mut world = World::new(0);
        let picker = world.build("max-score-picker", "").unwrap();
        assert_eq!(world.pick(&picker, &[f64::NAN]), [0]);
        assert_eq!(world.pick(&picker, &[f64::NAN, 0.0]), [1]);
    }

    #[test]
    fn parameters() {
        let mut world = World::new(0);
        let picker = world.build("max-score-picker", "{maxNumOfEndpoints: 0}").unwrap();
        assert_eq!(picker.warnings.len(), 1);
        assert_eq!(world.pick(&picker, &[1.0, 2.0]), [1]);
        assert!(world.build("max-score-picker", "{count: 1}").is_err());
    }

    proptest! {
        #[test]
        fn chosen_totals_are_the_highest(
            totals in proptest::collection::vec((0..6u8).prop_map(f64::from), 1..40),
            count in 1..8usize,
            seed: u64,
        ) {
            let mut world = World::new(0);
            let picker =
                world.build("max-score-picker", &format!("{{maxNumOfEndpoints: {count}}}")).unwrap();
            world.seed = seed;
            let picked = world.pick(&picker, &totals);
            let mut sorted = totals.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted.truncate(count);
            let chosen: Vec<f64> = picked.iter().map(|&ix| totals[ix as usize]).collect();
            prop_assert_eq!(chosen, sorted);
            let mut distinct = picked.clone();
            distinct.sort_unstable();
            distinct.dedup();
            prop_assert_eq!(distinct.len(), picked.len());
            prop_assert_eq!(world.pick(&picker, &totals), picked, "same seed, same choice");
        }
    }
}

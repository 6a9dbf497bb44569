//! `power-of-d`: keeps a few candidates, drawn at random, so that only these are scored.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `power-of-d`.
pub const TYPE: PluginType = PluginType::new("power-of-d", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// How many candidates to keep.
    d: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { d: 2 }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { d } = params.decode()?;
    let Some(d) = u32::try_from(d).ok().filter(|&d| d >= 1) else {
        return Err(BuildError::field("d", format!("expected a positive integer, found {d}")));
    };
    let salt = u64::from(build.instance());
    Ok(Roles::default().filter(Arc::new(PowerOfD { d, salt })))
}

/// Keeps `d` of the candidates, every choice of `d` equally likely, and all when there are no more.
/// The scorers and the picker that follow choose the best of them: the power of `d` choices
/// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001).
///
/// Selection sampling (Knuth, TAOCP volume 2, 3.4.2, algorithm S): one pass, one random number per
/// candidate, no memory; the order of the candidates stays.
#[derive(Debug)]
struct PowerOfD {
    d: u32,
    salt: u64,
}

impl Filter for PowerOfD {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let mut left = u32::try_from(candidates.as_slice().len()).unwrap_or(u32::MAX);
        if left <= self.d {
            return Ok(());
        }
        let (mut rng, mut wanted) = (cx.rng(self.salt), self.d);
        candidates.retain(|_| {
            let drawn = wanted > 0 && rng.below(left) < wanted;
            left = left.saturating_sub(1);
            wanted -= u32::from(drawn);
            if drawn { Ok(()) } else { Err("not drawn") }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::testing::{World, chi_square};

    #[test]
    fn every_pair_is_equally_likely() {
        let mut world = World::new(5);
        let filter = world.build("power-of-d", "").unwrap();
        let mut counts = BTreeMap::new();
        for seed in 0..10_000 {
            world.seed = seed;
            *counts.entry(world.filter(&filter)).or_insert(0) += 1;
        }
        assert!(counts.keys().all(|pair| pair.len() == 2 && pair[0] < pair[1]));
        // 99.9 % quantile for 9 degrees of freedom.
        let counts: Vec<u64> = counts.into_values().collect();
        assert!(chi_square(&counts, &[0.1; 10]) < 27.88, "{counts:?}");
    }

    #[test]
    fn no_more_than_there_are() {
        let mut world = World::new(3);
        for (parameters, kept) in [("{d: 1}", 1), ("{d: 3}", 3), ("{d: 100}", 3)] {
            let filter = world.build("power-of-d", parameters).unwrap();
            assert_eq!(world.filter(&filter).len(), kept, "{parameters}");
        }
        let mut nobody = World::new(0);
        let filter = nobody.build("power-of-d", "").unwrap();
        assert!(nobody.filter(&filter).is_empty());
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let mut world = World::new(100);
        let filter = world.build("power-of-d", "{d: 5}").unwrap();
        let first = world.filter(&filter);
        assert_eq!((first.len(), &world.filter(&filter)), (5, &first));
        world.seed += 1;
        assert_ne!(world.filter(&filter), first);
    }

    #[test]
    fn parameters_are_checked() {
        let mut world = World::new(0);
        for parameters in ["{d: 0}", "{d: -2}", "{d: 1.5}", "{k: 2}"] {
            assert!(world.build("power-of-d", parameters).is_err(), "{parameters}");
        }
    }
}

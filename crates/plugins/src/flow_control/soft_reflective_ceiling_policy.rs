//! `soft-reflective-ceiling-policy`: lower priorities pass less often the fuller the pool is.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `soft-reflective-ceiling-policy`. Any parameter is an error, as in the reference.
pub const TYPE: PluginType = PluginType::new("soft-reflective-ceiling-policy", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

fn build(
    _build: &mut inlane_core::registry::Build<'_>,
    params: &Params,
) -> Result<Roles, BuildError> {
    let NoParameters {} = params.decode()?;
    Ok(Roles::default().part(Part::UsageLimitPolicy))
}

/// The ceiling of the band at `rank` of `bands` (0 = the highest priority), with saturation `s`;
/// `calls` counts the evaluations while `0.5 <= s < 1`, this one included.
///
/// The highest band and a band alone have 1. Below, with `r = 1 - rank * s / (bands - 1)`: 1 while
/// `s < r`, 0 from `s >= 1` on, else 1 once every `max(1, round(s / (1 - s)))` calls and 0 otherwise
/// (llm-d-router `soft-reflective-ceiling-policy`). A saturation that is no number counts as full.
pub fn ceiling(rank: usize, bands: usize, s: f64, calls: u64) -> f64 {
    if rank == 0 || bands <= 1 {
        return 1.0;
    }
    if s < 1.0 - rank as f64 * s / (bands - 1) as f64 {
        return 1.0;
    }
    if s.is_nan() || s >= 1.0 {
        return 0.0;
    }
    // `s` is at least a half here or far below it in a low band; the quotient is finite.
    let every = (s / (1.0 - s)).round().max(1.0) as u64;
    if calls.is_multiple_of(every) { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    #[test]
    fn any_parameter_is_an_error() {
        let mut world = World::new(0);
        let name = "soft-reflective-ceiling-policy";
        assert!(world.build(name, "").is_ok() && world.build(name, "{}").is_ok());
        assert!(world.build(name, "{threshold: 1}").is_err());
    }

    #[test]
    fn the_low_band_of_two_opens_on_every_fourth_call() {
        let open: Vec<f64> = (1..=8).map(|calls| ceiling(1, 2, 0.8, calls)).collect();
        assert_eq!(open, [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        assert!((1..=8).all(|calls| ceiling(0, 2, 0.8, calls) == 1.0));
    }

    #[test]
    fn the_ends_of_the_scale() {
        assert_eq!(ceiling(1, 2, 0.4, 1), 1.0, "0.4 < 0.6");
        assert_eq!(ceiling(1, 2, 1.0, 4), 0.0);
        assert_eq!(ceiling(1, 2, f64::NAN, 4), 0.0);
        assert_eq!(ceiling(0, 1, 2.0, 1), 1.0);
    }
}

//! Distributions over a seeded generator.

use std::f64::consts::TAU;

use fastrand::Rng;

/// A draw from the normal distribution with mean 0 and deviation 1 (Box–Muller).
pub(crate) fn standard_normal(rng: &mut Rng) -> f64 {
    // 1 − f64() lies in (0, 1]: its logarithm is finite.
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (TAU * rng.f64()).cos()
}

/// Whether an event of `percent` in a hundred happens.
pub(crate) fn chance(percent: u8, rng: &mut Rng) -> bool {
    percent > 0 && rng.u8(1..=100) <= percent
}

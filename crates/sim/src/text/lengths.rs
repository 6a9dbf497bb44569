//! How long a random answer is.
//!
//! With a token limit the length follows a fixed histogram: in 15 % of the cases exactly the limit, otherwise one
//! of five ranges below it. Without a limit it is normal around 40 tokens. `ignore_eos` always reaches the limit.

use fastrand::Rng;

use crate::random::standard_normal;

/// Mean length, in tokens, of an answer without a limit.
const MEAN: f64 = 40.0;
/// Standard deviation, in tokens, of the length of an answer without a limit.
const DEVIATION: f64 = 20.0;
/// Cumulative probability of the five ranges below the limit; the rest is the limit itself.
const CUMULATIVE: [f64; 5] = [0.2, 0.5, 0.7, 0.75, 0.85];
/// Width of every range but [`WIDE`] when the limit is too large for equal ranges.
const NARROW_WIDTH: usize = 20;
/// The range that takes what the narrow ones leave.
const WIDE: usize = 3;

/// Draws a length in `1..=limit` (0 for a limit of 0).
pub fn limited(limit: usize, rng: &mut Rng) -> usize {
    if limit <= 1 {
        return limit;
    }
    if limit <= 6 {
        return rng.usize(1..=limit);
    }
    let roll = rng.f64();
    let Some(bucket) = CUMULATIVE.iter().position(|&bound| roll <= bound) else {
        return limit;
    };
    let (low, high) = range(limit, bucket);
    rng.usize(low..=high)
}

/// Draws a length in `1..=room` for a request that names no limit.
pub fn unlimited(room: usize, rng: &mut Rng) -> usize {
    if room <= 1 {
        return room;
    }
    if (room as f64) < DEVIATION {
        return rng.usize(1..=room);
    }
    // With room ≥ 20 more than one draw in eight is accepted: the loop ends soon.
    loop {
        let length = (MEAN + DEVIATION * standard_normal(rng)).round();
        if length >= 1.0 && length <= room as f64 {
            return length as usize;
        }
    }
}

/// Inclusive bounds of a range; the ranges tile `1..=limit - 1`.
fn range(limit: usize, bucket: usize) -> (usize, usize) {
    let span = limit - 1;
    let edge = |n: usize| {
        if limit <= 101 {
            span * n / CUMULATIVE.len()
        } else if n <= WIDE {
            n * NARROW_WIDTH
        } else {
            span - (CUMULATIVE.len() - n) * NARROW_WIDTH
        }
    };
    (edge(bucket) + 1, edge(bucket + 1))
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_tile_everything_below_the_limit() {
        for limit in [7, 8, 50, 101, 102, 103, 500, 4096] {
            let mut next = 1;
            for bucket in 0..CUMULATIVE.len() {
                let (low, high) = range(limit, bucket);
                assert_eq!(low, next, "limit {limit}, bucket {bucket}");
                assert!(high >= low, "limit {limit}, bucket {bucket}");
                next = high + 1;
            }
            assert_eq!(next, limit);
        }
    }

    #[test]
    fn large_limits_keep_narrow_ranges() {
        assert_eq!(range(1000, 0), (1, 20));
        assert_eq!(range(1000, 3), (61, 979));
        assert_eq!(range(1000, 4), (980, 999));
    }

    #[test]
    fn probabilities_are_those_of_the_histogram() {
        let mut rng = Rng::with_seed(1);
        let draws = 100_000;
        let mut counts = [0_u32; 6];
        for _ in 0..draws {
            let length = limited(1000, &mut rng);
            counts[(0..5).position(|b| length <= range(1000, b).1).unwrap_or(5)] += 1;
        }
        for (count, expected) in counts.iter().zip([0.2, 0.3, 0.2, 0.05, 0.1, 0.15]) {
            let share = f64::from(*count) / f64::from(draws);
            assert!((share - expected).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn unlimited_lengths_are_normal() {
        let mut rng = Rng::with_seed(2);
        let draws = 50_000;
        let mean =
            (0..draws).map(|_| unlimited(100_000, &mut rng) as f64).sum::<f64>() / f64::from(draws);
        // Resampling what falls below 1 lifts the mean a little above 40.
        assert!((mean - 41.3).abs() < 1.0, "{mean}");
    }

    proptest! {
        #[test]
        fn lengths_stay_in_bounds(limit in 1_usize..5000, seed: u64) {
            let mut rng = Rng::with_seed(seed);
            prop_assert!((1..=limit).contains(&limited(limit, &mut rng)));
            prop_assert!((1..=limit).contains(&unlimited(limit, &mut rng)));
        }
    }
}

//! Model A: Bayesian ridge regression that learns from each observation as it comes.
//!
//! With standardised columns X, weights w ~ N(0, 1/λ) and noise N(0, 1/α):
//!
//! ```text
//! S = (λI + αX'X)⁻¹      w = αSX'y      sd(x) = sqrt(1/α + x'Sx)
//! γ = p − λ tr S         λ = (γ + 2λ₁)/(w'w + 2λ₂)         α = (n − γ + 2α₁)/(|y − Xw|² + 2α₂)
//! ```
//!
//! (MacKay, "Bayesian interpolation", 1992; the hyperpriors α₁ α₂ λ₁ λ₂ = 1e-6 and the start
//! α = 1/var(y), λ = 1 are those of scikit-learn's `BayesianRidge`.) What is stored is not the rows
//! but their count, means and centred products, each multiplied by a forgetting factor before a row
//! is added: about 2 kB, and the memory of an old regime fades.
//!
//! An observation costs one rank-one update of 14 columns; a refit, every few observations, one
//! Cholesky factor and its inverse: some microseconds.

use crate::algebra::{Matrix, lower_factor, posterior};
use crate::codec::{Reader, Writer};
use crate::error::{Error, intact};
use crate::features::LINEAR_COLUMNS as D;
use crate::linear::LinearModel;
use crate::sample::Target;

const HYPERPRIOR: f64 = 1e-6;
const ITERATIONS: usize = 300;
const TOLERANCE: f64 = 1e-3;
const REFIT_EVERY: u64 = 8;
const EVIDENCE_EVERY: u64 = 200;

/// A column that varies less than this beside its mean is a constant: no slope can be learned.
const CONSTANT: f64 = 1e-9;

/// The statistics of one target.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ridge {
    target: Target,
    forgetting: f64,
    seen: u64,
    /// Sum of the forgetting weights: the number of observations that still count.
    weight: f64,
    mean: [f64; D],
    y_mean: f64,
    products: Matrix,
    y_products: [f64; D],
    y_square: f64,
    alpha: f64,
    lambda: f64,
}

impl Ridge {
    pub(crate) fn new(target: Target, forgetting: f64) -> Self {
        Self {
            target,
            forgetting,
            seen: 0,
            weight: 0.0,
            mean: [0.0; D],
            y_mean: 0.0,
            products: [[0.0; D]; D],
            y_products: [0.0; D],
            y_square: 0.0,
            alpha: 0.0,
            lambda: 0.0,
        }
    }

    /// Observations since the start or the last reset.
    pub(crate) fn seen(&self) -> u64 {
        self.seen
    }

    /// Adds one row: Welford's update of means and centred products, with forgetting.
    pub(crate) fn observe(&mut self, columns: &[f32; D], y: f64) {
        self.seen += 1;
        self.weight = self.forgetting * self.weight + 1.0;
        let share = 1.0 / self.weight;
        let before: [f64; D] = std::array::from_fn(|i| f64::from(columns[i]) - self.mean[i]);
        let y_before = y - self.y_mean;
        for (mean, before) in self.mean.iter_mut().zip(&before) {
            *mean += share * before;
        }
        self.y_mean += share * y_before;
        let y_after = y - self.y_mean;
        let after: [f64; D] = std::array::from_fn(|i| f64::from(columns[i]) - self.mean[i]);
        for ((row, product), left) in
            self.products.iter_mut().zip(&mut self.y_products).zip(&before)
        {
            for (cell, right) in row.iter_mut().zip(&after) {
                *cell = self.forgetting * *cell + left * right;
            }
            *product = self.forgetting * *product + left * y_after;
        }
        self.y_square = self.forgetting * self.y_square + y_before * y_after;
    }

    /// Whether it is time to fit again.
    pub(crate) fn is_due(&self) -> bool {
        self.seen < 2 * REFIT_EVERY || self.seen.is_multiple_of(REFIT_EVERY)
    }

    /// Fits, with new evidence where enough has changed, and gives the model to serve: its quantile
    /// is the mean plus `z` deviations.
    pub(crate) fn fit(&mut self, z: f64) -> LinearModel {
        let scale: [f64; D] = std::array::from_fn(|i| {
            let deviation = (self.products[i][i] / self.weight.max(1.0)).max(0.0).sqrt();
            let varies = deviation > CONSTANT * (1.0 + self.mean[i].abs());
            if varies && self.target.reads_linear(i) { 1.0 / deviation } else { 0.0 }
        });
        let gram: Matrix = std::array::from_fn(|i| {
            std::array::from_fn(|j| self.products[i][j] * scale[i] * scale[j])
        });
        let moment: [f64; D] = std::array::from_fn(|i| self.y_products[i] * scale[i]);
        let active = scale.iter().filter(|s| **s > 0.0).count() as f64;
        let variance = self.y_square / self.weight.max(1.0);
        if self.alpha == 0.0 {
            self.alpha = 1.0 / variance.max(1e-12);
            self.lambda = 1.0;
        }
        if self.seen < 2 * REFIT_EVERY
            || self.seen.is_power_of_two()
            || self.seen.is_multiple_of(EVIDENCE_EVERY)
        {
            self.weigh_evidence(&gram, &moment, active);
        }
        let (weights, covariance) = posterior(&gram, &moment, self.alpha, self.lambda);
        LinearModel::new(
            &self.mean,
            &scale,
            &weights,
            self.y_mean,
            1.0 / self.alpha,
            &lower_factor(&covariance),
            z,
        )
    }

    fn weigh_evidence(&mut self, gram: &Matrix, moment: &[f64; D], active: f64) {
        let mut last = [0.0; D];
        for _ in 0..ITERATIONS {
            let (weights, covariance) = posterior(gram, moment, self.alpha, self.lambda);
            let trace: f64 = (0..D).map(|i| covariance[i][i]).sum::<f64>();
            // A column that is left out keeps its prior: 1/λ in the trace.
            let gamma = (active - self.lambda * trace + (D as f64 - active)).clamp(0.0, active);
            let norm: f64 = weights.iter().map(|w| w * w).sum();
            let fitted: f64 = weights.iter().zip(moment).map(|(w, m)| w * m).sum();
            let square: f64 = (0..D)
                .map(|i| weights[i] * (0..D).map(|j| gram[i][j] * weights[j]).sum::<f64>())
                .sum();
            let error = (self.y_square - 2.0 * fitted + square).max(0.0);
            let lambda = (gamma + 2.0 * HYPERPRIOR) / (norm + 2.0 * HYPERPRIOR);
            let alpha =
                ((self.weight - gamma).max(0.5) + 2.0 * HYPERPRIOR) / (error + 2.0 * HYPERPRIOR);
            self.lambda = lambda.clamp(1e-12, 1e12);
            self.alpha = alpha.clamp(1e-12, 1e12);
            let change: f64 = weights.iter().zip(&last).map(|(a, b)| (a - b).abs()).sum();
            if change < TOLERANCE {
                break;
            }
            last = weights;
        }
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.u64(self.seen);
        out.f64s(&[self.weight, self.y_mean, self.y_square, self.alpha, self.lambda]);
        out.f64s(&self.mean);
        out.f64s(&self.y_products);
        self.products.iter().for_each(|row| out.f64s(row));
    }

    pub(crate) fn decode(
        target: Target,
        forgetting: f64,
        from: &mut Reader<'_>,
    ) -> Result<Self, Error> {
        let seen = from.u64("ridge seen")?;
        let [weight, y_mean, y_square, alpha, lambda] = from.f64s("ridge moments")?;
        for (field, value) in [
            ("ridge weight", weight),
            ("ridge y square", y_square),
            ("ridge alpha", alpha),
            ("ridge lambda", lambda),
        ] {
            intact(field, value, "0 to 1e30", (0.0..=1e30).contains(&value))?;
        }
        let mean = from.f64s("ridge means")?;
        let y_products = from.f64s("ridge products")?;
        let mut products = [[0.0; D]; D];
        for row in &mut products {
            *row = from.f64s("ridge products")?;
        }
        Ok(Self {
            target,
            forgetting,
            seen,
            weight,
            mean,
            y_mean,
            products,
            y_products,
            y_square,
            alpha,
            lambda,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Row;

    /// Rows in which kv and running alone vary, uncorrelated: (±1, ±1) around (2, 2).
    fn cross() -> Vec<[f32; D]> {
        [(1.0, 1.0), (1.0, 3.0), (3.0, 1.0), (3.0, 3.0)]
            .map(|(kv, running)| {
                Row { kv_cache_percentage: kv, num_request_running: running, ..Row::default() }
                    .linear_columns()
            })
            .to_vec()
    }

    #[test]
    fn posterior_is_the_hand_solved_one() {
        let mut ridge = Ridge::new(Target::FirstToken, 1.0);
        for (columns, y) in cross().iter().zip([2.0, 4.0, 8.0, 10.0]) {
            ridge.observe(columns, y);
        }
        // Standardised: X'X = 4I, X'y = (12, 4); with α = 1, λ = 4: S = I/8, w = (1.5, 0.5).
        ridge.alpha = 1.0;
        ridge.lambda = 4.0;
        ridge.seen = 17;
        let model = ridge.fit(1.0);
        let at = |kv: f32, running: f32| {
            let row =
                Row { kv_cache_percentage: kv, num_request_running: running, ..Row::default() };
            model.one(&row)
        };
        let (mean, upper) = at(2.0, 2.0);
        assert!((mean - 6.0).abs() < 1e-5 && (upper - 7.0).abs() < 1e-5, "{mean} {upper}");
        let (mean, upper) = at(3.0, 3.0);
        // sd = sqrt(1 + (1 + 1)/8)
        assert!((mean - 8.0).abs() < 1e-5, "{mean}");
        assert!((upper - 8.0 - 1.25f32.sqrt()).abs() < 1e-5, "{upper}");
    }

    #[test]
    fn evidence_finds_noise_and_weights() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut ridge = Ridge::new(Target::FirstToken, 1.0);
        for _ in 0..2_000 {
            let row = Row {
                input_token_length: rng.f32() * 4_000.0,
                num_request_running: rng.u32(..30) as f32,
                ..Row::default()
            };
            let noise = (0..12).map(|_| rng.f64()).sum::<f64>() - 6.0;
            let y = 20.0
                + 0.05 * f64::from(row.input_token_length)
                + 2.0 * f64::from(row.num_request_running)
                + 5.0 * noise;
            ridge.observe(&row.linear_columns(), y);
        }
        let model = ridge.fit(1.0);
        let deviation = (1.0 / ridge.alpha).sqrt();
        assert!((deviation - 5.0).abs() < 0.3, "{deviation}");
        let row = Row { input_token_length: 2_000.0, num_request_running: 10.0, ..Row::default() };
        let (mean, upper) = model.one(&row);
        assert!((mean - 140.0).abs() < 1.0, "{mean}");
        assert!((upper - mean - 5.0).abs() < 0.4, "{upper}");
    }

    #[test]
    fn forgetting_follows_a_new_level() {
        let mut ridge = Ridge::new(Target::PerToken, 0.99);
        let columns = Row::default().linear_columns();
        (0..1_000).for_each(|_| ridge.observe(&columns, 10.0));
        (0..1_000).for_each(|_| ridge.observe(&columns, 30.0));
        assert!((ridge.y_mean - 30.0).abs() < 0.01);
        assert!((ridge.weight - 100.0).abs() < 0.1);
    }

    #[test]
    fn it_survives_its_encoding() {
        let mut ridge = Ridge::new(Target::FirstToken, 0.999);
        cross().iter().for_each(|columns| ridge.observe(columns, 1.0));
        ridge.fit(1.0);
        let mut out = Writer::default();
        ridge.encode(&mut out);
        let bytes = out.seal(*b"ridgetst", 1);
        let mut from = Reader::open(&bytes, *b"ridgetst", 1).unwrap();
        assert_eq!(Ridge::decode(Target::FirstToken, 0.999, &mut from), Ok(ridge));
    }
}

//! The served form of model A: a mean and a quantile per row.

use crate::algebra::Matrix;
use crate::block::LANES;
use crate::codec::{Reader, Writer};
use crate::error::{Error, intact};
use crate::features::{LINEAR_COLUMNS as D, Row};

/// Entries of a lower triangle.
const TRIANGLE: usize = D * (D + 1) / 2;
/// Bytes of the model in a document.
pub(crate) const LINEAR_LEN: usize = 4 * (3 + 3 * D + TRIANGLE);

/// A linear fit far outside its data may go below zero; no latency is below this share of the mean.
const FLOOR: f32 = 0.02;
/// Milliseconds: more than any observation may have.
const CEILING: f32 = 1e9;

/// A fitted ridge: weights on standardised columns, and the factor of their covariance.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LinearModel {
    mean: [f32; D],
    /// 1/deviation; 0 leaves a column out.
    scale: [f32; D],
    weight: [f32; D],
    level: f32,
    noise: f32,
    z: f32,
    /// The lower triangle of the covariance's Cholesky factor, row by row.
    factor: [f32; TRIANGLE],
}

impl LinearModel {
    pub(crate) fn new(
        mean: &[f64; D],
        scale: &[f64; D],
        weight: &[f64; D],
        level: f64,
        noise: f64,
        factor: &Matrix,
        z: f64,
    ) -> Self {
        let narrow = |values: &[f64; D]| values.map(|v| v as f32);
        let mut triangle = [0.0; TRIANGLE];
        let entries = factor.iter().enumerate().flat_map(|(i, row)| row.iter().take(i + 1));
        for (to, from) in triangle.iter_mut().zip(entries) {
            *to = *from as f32;
        }
        Self {
            mean: narrow(mean),
            scale: narrow(scale),
            weight: narrow(weight),
            level: level as f32,
            noise: noise as f32,
            z: z as f32,
            factor: triangle,
        }
    }

    /// Mean and quantile of the lanes `from..to`. `columns` is standardised in place.
    #[inline]
    pub(crate) fn lanes(
        &self,
        columns: &mut [[f32; LANES]; D],
        (from, to): (usize, usize),
        mean: &mut [f32; LANES],
        upper: &mut [f32; LANES],
    ) {
        let to = to.min(LANES);
        let from = from.min(to);
        let (mean, upper) = (&mut mean[from..to], &mut upper[from..to]);
        mean.fill(self.level);
        for (((column, center), scale), weight) in
            columns.iter_mut().zip(&self.mean).zip(&self.scale).zip(&self.weight)
        {
            for (value, mean) in column[from..to].iter_mut().zip(mean.iter_mut()) {
                *value = (*value - center) * scale;
                *mean += *value * weight;
            }
        }
        // x'Sx = |L'x|²: column j of L meets the rows j and below.
        let mut variance = [self.noise; LANES];
        for j in 0..D {
            let mut dot = [0.0; LANES];
            for (i, column) in columns.iter().enumerate().skip(j) {
                let entry = self.factor[i * (i + 1) / 2 + j];
                for (dot, value) in dot.iter_mut().zip(&column[from..to]) {
                    *dot += entry * value;
                }
            }
            for (variance, dot) in variance.iter_mut().zip(&dot[..to - from]) {
                *variance += dot * dot;
            }
        }
        let floor = (self.level * FLOOR).max(f32::MIN_POSITIVE);
        for ((mean, upper), variance) in mean.iter_mut().zip(upper).zip(&variance) {
            *upper = (*mean + self.z * variance.sqrt()).max(floor).min(CEILING);
            *mean = mean.max(floor).min(CEILING);
        }
    }

    /// Intercept and weights on the columns as they are, for people to read.
    pub(crate) fn coefficients(&self) -> (f32, [f32; D]) {
        let raw: [f32; D] = std::array::from_fn(|i| self.weight[i] * self.scale[i]);
        let shift: f32 = raw.iter().zip(&self.mean).map(|(w, m)| w * m).sum();
        (self.level - shift, raw)
    }

    #[cfg(test)]
    pub(crate) fn one(&self, row: &Row) -> (f32, f32) {
        let mut columns = row.linear_columns().map(|value| [value; LANES]);
        let (mut mean, mut upper) = ([0.0; LANES], [0.0; LANES]);
        self.lanes(&mut columns, (0, LANES), &mut mean, &mut upper);
        (mean[0], upper[0])
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.f32s(&[self.level, self.noise, self.z]);
        for values in [&self.mean, &self.scale, &self.weight] {
            out.f32s(values);
        }
        out.f32s(&self.factor);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let [level, noise, z] = from.f32s("linear level")?;
        intact("linear noise", noise.into(), "0 or more", noise >= 0.0)?;
        Ok(Self {
            level,
            noise,
            z,
            mean: from.f32s("linear means")?,
            scale: from.f32s("linear scales")?,
            weight: from.f32s("linear weights")?,
            factor: from.f32s("linear factor")?,
        })
    }
}

/// Fills lanes with the linear columns of `rows`.
#[inline]
pub(crate) fn spread<'a>(
    rows: impl Iterator<Item = (usize, &'a Row)>,
    columns: &mut [[f32; LANES]; D],
) {
    for (lane, row) in rows {
        for (column, value) in columns.iter_mut().zip(row.linear_columns()) {
            if let Some(place) = column.get_mut(lane) {
                *place = value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> LinearModel {
        let mut scale = [0.0; D];
        let mut weight = [0.0; D];
        let mut mean = [0.0; D];
        (mean[2], scale[2], weight[2]) = (1_000.0, 0.001, 50.0);
        LinearModel::new(&mean, &scale, &weight, 80.0, 4.0, &[[0.0; D]; D], 1.5)
    }

    #[test]
    fn coefficients_are_on_the_scale_of_the_columns() {
        let (intercept, weights) = model().coefficients();
        assert!((intercept - 30.0).abs() < 1e-4 && (weights[2] - 0.05).abs() < 1e-6);
        let row = Row { input_token_length: 2_000.0, ..Row::default() };
        assert_eq!(model().one(&row), (130.0, 133.0));
    }

    #[test]
    fn a_latency_is_never_negative() {
        let mut scale = [0.0; D];
        let mut weight = [0.0; D];
        (scale[2], weight[2]) = (1.0, -1.0);
        let model = LinearModel::new(&[0.0; D], &scale, &weight, 80.0, 0.0, &[[0.0; D]; D], 1.0);
        let row = Row { input_token_length: 2_000.0, ..Row::default() };
        let (mean, upper) = model.one(&row);
        assert!(mean == upper && (mean - 1.6).abs() < 1e-5, "{mean} {upper}");
    }
}

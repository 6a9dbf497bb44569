//! What a worker asks: the published models, immutable.

use crate::block::{LANES, ROWS};
use crate::codec::{Reader, Writer};
use crate::error::{Error, intact};
use crate::factors::{FACTORS_LEN, FactorTable, Factors};
use crate::features::Row;
use crate::models::{Block, ModelKind, Models};
use crate::sample::Target;

const MAGIC: [u8; 8] = *b"INLLATMD";
const VERSION: u32 = 1;
const MAX_ENDPOINTS: usize = 65_536;
const NEUTRAL: Factors = [1.0; 3];

/// One latency, predicted; NaN where nothing is known, so that no comparison holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The usual value in milliseconds.
    pub expected_ms: f32,
    /// The quantile in milliseconds, never below the usual value.
    pub upper_ms: f32,
}

impl Estimate {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { expected_ms: f32::NAN, upper_ms: f32::NAN };
}

/// The prediction for one candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Time to the first token, or to the end: what was asked for.
    pub first: Estimate,
    /// Time per output token.
    pub per_token: Estimate,
}

impl Prediction {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { first: Estimate::UNKNOWN, per_token: Estimate::UNKNOWN };
}

/// What a call of [`Predictor::predict`] could predict: the same for all rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available {
    /// [`Prediction::first`] is known.
    pub first: bool,
    /// [`Prediction::per_token`] is known.
    pub per_token: bool,
}

/// The published models: immutable, of one piece, shared by all threads.
///
/// About 25 kB and up to 34 kB per forest of 128 trees.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictor {
    quantile: f32,
    models: Models,
    /// By key.
    factors: Vec<(u64, Factors)>,
}

impl Predictor {
    /// Reads a published document. Bytes after its end are ignored.
    ///
    /// # Errors
    /// Anything that [`Trainer::publish`](crate::Trainer::publish) does not write. What is accepted
    /// yields finite predictions, whatever it says.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut from = Reader::open(bytes, MAGIC, VERSION)?;
        let quantile = from.f32("quantile")?;
        intact("quantile", quantile.into(), "0 to 1", (0.0..=1.0).contains(&quantile))?;
        let models = Models::decode(&mut from)?;
        let len = from.count("endpoints", MAX_ENDPOINTS, FACTORS_LEN)?;
        let mut factors = Vec::<(u64, Factors)>::with_capacity(len);
        for _ in 0..len {
            let key = from.u64("endpoint")?;
            let rises = factors.last().is_none_or(|(last, _)| key > *last);
            intact("endpoint", key as f64, "ascending keys", rises)?;
            let found: Factors = from.f32s("factor")?;
            for factor in found {
                let accepted = (0.0..=1e3).contains(&factor);
                intact("factor", factor.into(), "0 to 1000", accepted)?;
            }
            factors.push((key, found));
        }
        from.finish()?;
        Ok(Self { quantile, models, factors })
    }

    pub(crate) fn encode(quantile: f32, models: &Models, factors: &FactorTable) -> Vec<u8> {
        let mut out = Writer::default();
        out.f32(quantile);
        models.encode(&mut out);
        out.count(factors.len());
        for (key, factors) in factors.iter() {
            out.u64(key);
            out.f32s(&factors);
        }
        out.seal(MAGIC, VERSION)
    }

    /// The quantile that `upper_ms` stands for.
    pub fn quantile(&self) -> f32 {
        self.quantile
    }

    /// Which model answers for rows without and with a queue.
    pub fn kinds(&self, target: Target) -> [ModelKind; 2] {
        let served = &self.models.targets[target.index()];
        [served.kind(0), served.kind(1)]
    }

    /// The factors of an endpoint; 1 for one that has not been observed. A binary search: look them
    /// up once per pool, not per request.
    pub fn factors(&self, endpoint: u64) -> Factors {
        self.factors
            .binary_search_by_key(&endpoint, |(key, _)| *key)
            .ok()
            .and_then(|at| self.factors.get(at))
            .map_or(NEUTRAL, |(_, factors)| *factors)
    }

    /// Predicts for every row: `first` is [`Target::FirstToken`] for a streamed response and
    /// [`Target::EndToEnd`] otherwise; `factors` holds those of each row's endpoint, missing ones
    /// count as 1; rows without a place in `out` are not looked at, places without a row stay.
    ///
    /// Does not allocate. About 15 µs for 100 rows with two forests of 128 trees.
    pub fn predict(
        &self,
        first: Target,
        rows: &[Row],
        factors: &[Factors],
        out: &mut [Prediction],
    ) -> Available {
        let available = Available {
            first: self.kinds(first) != [ModelKind::None; 2],
            per_token: self.kinds(Target::PerToken) != [ModelKind::None; 2],
        };
        let mut lanes = ([0.0; LANES], [0.0; LANES]);
        for (at, (rows, out)) in rows.chunks(ROWS).zip(out.chunks_mut(ROWS)).enumerate() {
            let factors = factors.get(at * ROWS..).unwrap_or_default();
            let block = Block::of(rows, &self.models.grid);
            out.iter_mut().zip(rows).for_each(|(place, _)| *place = Prediction::UNKNOWN);
            self.target(first, rows, factors, &block, &mut lanes, out, |p| &mut p.first);
            self.target(Target::PerToken, rows, factors, &block, &mut lanes, out, |p| {
                &mut p.per_token
            });
        }
        available
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the two halves of one loop")]
    fn target(
        &self,
        target: Target,
        rows: &[Row],
        factors: &[Factors],
        block: &Block,
        (center, upper): &mut ([f32; LANES], [f32; LANES]),
        out: &mut [Prediction],
        place: impl Fn(&mut Prediction) -> &mut Estimate,
    ) {
        if !self.models.lanes(target, rows, block, center, upper) {
            return;
        }
        let served = &self.models.targets[target.index()];
        for (i, (row, out)) in rows.iter().zip(out).enumerate() {
            let (lane, gate) = (block.lane(i), row.gate());
            let factor = factors.get(i).unwrap_or(&NEUTRAL)[target.index()];
            *place(out) = estimate(
                center[lane] * (served.center[gate] * factor),
                upper[lane] * (served.upper[gate] * factor),
            );
        }
    }
}

/// An estimate within what can be measured: hostile models must not yield infinities.
#[inline]
pub(crate) fn estimate(expected: f32, upper: f32) -> Estimate {
    // Written so that NaN is 0.
    let bounded = |ms: f32| if ms > 0.0 { ms.min(MAX_MS) } else { 0.0 };
    let expected_ms = bounded(expected);
    Estimate { expected_ms, upper_ms: bounded(upper).max(expected_ms) }
}

const MAX_MS: f32 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_known_is_nothing_predicted() {
        let bytes = Predictor::encode(0.9, &Models::new(), &FactorTable::new(1));
        let predictor = Predictor::decode(&bytes).unwrap();
        let mut out = [Prediction::UNKNOWN; 3];
        out[2].first.expected_ms = 5.0;
        let rows = [Row::default(); 2];
        let available = predictor.predict(Target::FirstToken, &rows, &[], &mut out);
        assert_eq!(available, Available::default());
        assert!(out[0].first.expected_ms.is_nan() && out[1].per_token.upper_ms.is_nan());
        assert_eq!(out[2].first.expected_ms, 5.0, "a place without a row stays");
        assert_eq!(predictor.kinds(Target::EndToEnd), [ModelKind::None; 2]);
        assert_eq!(predictor.factors(1), NEUTRAL);
    }

    #[test]
    fn estimates_are_finite_and_ordered() {
        assert_eq!(estimate(f32::INFINITY, 1.0), Estimate { expected_ms: 1e9, upper_ms: 1e9 });
        assert!(estimate(f32::NAN, f32::NAN).upper_ms.is_finite());
        assert_eq!(estimate(3.0, 2.0), Estimate { expected_ms: 3.0, upper_ms: 3.0 });
    }
}

//! Calibration: what a model says, corrected by how it has done.
//!
//! **Quantile.** One-sided adaptive conformal prediction (Gibbs, Candès, "Adaptive conformal inference
//! under distribution shift", 2021), as in llm-d's latency predictor: the correction is the 1 − α_t
//! quantile of recent scores, and after each observation
//! α_t ← clamp01(α_t + γ((1 − target) − miss)).
//! The score is the ratio observed/predicted, not the difference: latencies spread in proportion to
//! their size, and an additive offset would make short requests pay for long ones.
//!
//! **Usual value.** The exponential of a moving average of ln(observed/predicted), residuals clipped.

use std::collections::VecDeque;

use crate::codec::{Reader, Writer};
use crate::error::{Error, intact};

/// Scores kept.
pub(crate) const BUFFER: usize = 256;
/// Scores needed before they say anything about a quantile.
const ENOUGH: usize = 10;
/// Scores needed before drift is measured against them: with fewer, their own noise looks like it.
const SETTLED: usize = 64;
const CENTER_RATE: f64 = 0.02;
const CLIP: f64 = 1.5;
/// Ratios beyond are no information, and infinities could not be saved.
const MAX_SCORE: f32 = 1e6;
/// A ratio of corrections below which coverage may be off without anything having changed: a model
/// that is exact to a thousandth is not to be thrown away for the thousandth.
const MATERIAL: f32 = 1.1;

/// The calibration of one model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Calibrator {
    target: f64,
    step: f64,
    alpha: f64,
    recent: VecDeque<f32>,
    sorted: Vec<f32>,
    log_center: f64,
    seen: u64,
    /// The correction as it was when the model came into service: what drift is measured against,
    /// because the adaptive one hides it.
    reference: Option<f32>,
}

impl Calibrator {
    pub(crate) fn new(target: f32, step: f32) -> Self {
        Self {
            target: target.into(),
            step: step.into(),
            alpha: 1.0 - f64::from(target),
            recent: VecDeque::with_capacity(BUFFER),
            sorted: Vec::with_capacity(BUFFER),
            log_center: 0.0,
            seen: 0,
            reference: None,
        }
    }

    /// The multiplier of the usual value.
    pub(crate) fn center(&self) -> f32 {
        self.log_center.exp() as f32
    }

    /// The multiplier of the quantile.
    pub(crate) fn upper(&self) -> f32 {
        self.score_at(1.0 - self.alpha).unwrap_or(1.0)
    }

    /// Whether `score` lies within the correction that the model started with; `None` until then.
    pub(crate) fn within_reference(&self, score: f32) -> Option<bool> {
        self.reference.map(|reference| score <= reference)
    }

    /// Whether the correction needed by now is another than the one that the model started with, by
    /// more than [`MATERIAL`].
    pub(crate) fn has_moved(&self) -> bool {
        let now = self.target_score();
        self.reference.zip(now).is_some_and(|(reference, now)| {
            now > reference * MATERIAL || now * MATERIAL < reference
        })
    }

    /// Takes the ratios of an observation to what the model said, uncorrected: of its usual value
    /// and of its quantile.
    pub(crate) fn observe(&mut self, center: f32, upper: f32) {
        let upper = if upper > 0.0 { upper.min(MAX_SCORE) } else { 0.0 };
        let missed = f64::from(u8::from(upper > self.upper()));
        self.alpha = (self.alpha + self.step * ((1.0 - self.target) - missed)).clamp(0.0, 1.0);
        if self.recent.len() == BUFFER
            && let Some(oldest) = self.recent.pop_front()
        {
            let at = self.sorted.partition_point(|score| *score < oldest);
            self.sorted.remove(at.min(self.sorted.len() - 1));
        }
        self.recent.push_back(upper);
        self.sorted.insert(self.sorted.partition_point(|score| *score < upper), upper);
        self.seen += 1;
        let residual = f64::from(center).max(1e-9).ln() - self.log_center;
        let rate = CENTER_RATE.max(1.0 / (self.seen + 1) as f64);
        self.log_center += rate * residual.clamp(-CLIP, CLIP);
        if self.reference.is_none() && self.recent.len() >= BUFFER / 2 {
            self.set_reference();
        }
    }

    /// Whether every score has been replaced since this was last so.
    pub(crate) fn has_turned_over(&self) -> bool {
        self.seen.is_multiple_of(BUFFER as u64)
    }

    /// Declares the present correction the one that drift is measured against.
    pub(crate) fn set_reference(&mut self) {
        if self.sorted.len() >= SETTLED {
            self.reference = self.target_score();
        }
    }

    /// The score that as many recent ones exceed as should.
    fn target_score(&self) -> Option<f32> {
        self.score_at(self.target)
    }

    fn score_at(&self, level: f64) -> Option<f32> {
        if self.sorted.len() < ENOUGH {
            return None;
        }
        let rank = (level * (self.sorted.len() + 1) as f64).ceil() as usize;
        self.sorted.get(rank.clamp(1, self.sorted.len()) - 1).copied()
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.target as f32, self.step as f32);
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.f64s(&[self.alpha, self.log_center]);
        out.u64(self.seen);
        out.u8(u8::from(self.reference.is_some()));
        out.f32(self.reference.unwrap_or(0.0));
        out.count(self.recent.len());
        self.recent.iter().for_each(|score| out.f32(*score));
    }

    pub(crate) fn decode(target: f32, step: f32, from: &mut Reader<'_>) -> Result<Self, Error> {
        let mut calibrator = Self::new(target, step);
        let [alpha, log_center] = from.f64s("calibration")?;
        intact("calibration alpha", alpha, "0 to 1", (0.0..=1.0).contains(&alpha))?;
        intact("calibration center", log_center, "-50 to 50", log_center.abs() <= 50.0)?;
        (calibrator.alpha, calibrator.log_center) = (alpha, log_center);
        calibrator.seen = from.u64("calibration count")?;
        let known = from.flag("calibration reference")?;
        let reference = from.f32("calibration reference")?;
        calibrator.reference = known.then_some(reference);
        for _ in 0..from.count("calibration scores", BUFFER, 4)? {
            calibrator.recent.push_back(from.f32("calibration score")?);
        }
        calibrator.sorted.extend(&calibrator.recent);
        calibrator.sorted.sort_unstable_by(f32::total_cmp);
        Ok(calibrator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coverage(calibrator: &mut Calibrator, scale: f32, n: usize, rng: &mut fastrand::Rng) -> f64 {
        let mut covered = 0;
        for _ in 0..n {
            let score = scale * (0.5 + rng.f32());
            covered += usize::from(score <= calibrator.upper());
            calibrator.observe(score, score);
        }
        covered as f64 / n as f64
    }

    #[test]
    fn coverage_comes_to_the_target_and_back_after_a_shift() {
        let mut rng = fastrand::Rng::with_seed(9);
        let mut calibrator = Calibrator::new(0.9, 0.01);
        coverage(&mut calibrator, 1.0, 500, &mut rng);
        let settled = coverage(&mut calibrator, 1.0, 1_000, &mut rng);
        assert!((settled - 0.9).abs() < 0.02, "{settled}");
        for scale in [2.0, 0.7] {
            coverage(&mut calibrator, scale, 500, &mut rng);
            let back = coverage(&mut calibrator, scale, 500, &mut rng);
            assert!((back - 0.9).abs() < 0.03, "{scale}: {back}");
        }
        assert!((calibrator.center() - 0.67).abs() < 0.05, "{}", calibrator.center());
    }

    #[test]
    fn the_reference_stands_still_while_the_correction_moves() {
        let mut rng = fastrand::Rng::with_seed(9);
        let mut calibrator = Calibrator::new(0.9, 0.01);
        assert_eq!(calibrator.within_reference(0.1), None);
        coverage(&mut calibrator, 1.0, 300, &mut rng);
        assert!(!calibrator.has_moved());
        coverage(&mut calibrator, 3.0, 300, &mut rng);
        assert!(calibrator.upper() > 3.0);
        assert_eq!(calibrator.within_reference(1.6), Some(false));
        assert!(calibrator.has_moved());
    }

    #[test]
    fn it_survives_its_encoding() {
        let mut rng = fastrand::Rng::with_seed(9);
        let mut calibrator = Calibrator::new(0.9, 0.01);
        coverage(&mut calibrator, 1.0, 300, &mut rng);
        let mut out = Writer::default();
        calibrator.encode(&mut out);
        let bytes = out.seal(*b"calibrat", 1);
        let mut from = Reader::open(&bytes, *b"calibrat", 1).unwrap();
        assert_eq!(Calibrator::decode(0.9, 0.01, &mut from), Ok(calibrator));
    }
}

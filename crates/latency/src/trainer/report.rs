//! The trainer's numbers, for metrics and logs.

use super::Trainer;
use crate::features::LINEAR_NAMES;
use crate::models::ModelKind;
use crate::sample::Target;

/// The state of a trainer.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Observations learned from.
    pub observations: u64,
    /// Observations refused.
    pub refused: u64,
    /// Retrains that have come into service.
    pub retrains: u64,
    /// Endpoints whose speed is known.
    pub endpoints: usize,
    /// By [`Target::index`].
    pub targets: [TargetReport; 3],
}

/// The state of one target. Arrays of two are by gate: without a queue, with one.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetReport {
    /// The target.
    pub target: Target,
    /// Which model answers.
    pub models: [ModelKind; 2],
    /// Trees of each forest.
    pub trees: [usize; 2],
    /// Samples kept for training and for testing.
    pub kept: (usize, usize),
    /// Predictions that were scored by an observation.
    pub scored: u64,
    /// Share of observations at or below the quantile served: moving average.
    pub coverage: f64,
    /// Mean absolute percentage error of the usual value, as a share: moving average.
    pub mape: f64,
    /// `coverage` over the last 500 predictions.
    pub window_coverage: f64,
    /// `mape` over the last 500 predictions.
    pub window_mape: f64,
    /// Predictions in that window.
    pub window_len: usize,
    /// Calibrating multiplier of the usual value.
    pub center: [f32; 2],
    /// Calibrating multiplier of the quantile.
    pub upper: [f32; 2],
    /// Times that drift was declared.
    pub drifts: u64,
    /// Intercept of the linear model in milliseconds, 0 without one.
    pub intercept: f32,
    /// Coefficients of the linear model by name, on the features as they are.
    pub coefficients: Vec<(&'static str, f32)>,
}

impl Trainer {
    /// The present state.
    pub fn report(&self) -> Report {
        Report {
            observations: self.now,
            refused: self.refused,
            retrains: self.retrains,
            endpoints: self.factors.len(),
            targets: Target::ALL.map(|target| self.target_report(target)),
        }
    }

    fn target_report(&self, target: Target) -> TargetReport {
        let learner = &self.learners[target.index()];
        let served = &self.models.targets[target.index()];
        let (coverage, mape) = learner.monitor.moving();
        let (window_coverage, window_mape, window_len) = learner.monitor.window();
        let (intercept, coefficients) = match &served.linear {
            Some(linear) => linear.coefficients(),
            None => Default::default(),
        };
        let named = LINEAR_NAMES.into_iter().zip(coefficients).enumerate();
        TargetReport {
            target,
            models: [served.kind(0), served.kind(1)],
            trees: [0, 1].map(|gate| served.forests[gate].as_ref().map_or(0, |f| f.len())),
            kept: (learner.reservoir.iter().count(), learner.held.len()),
            scored: learner.monitor.scored(),
            coverage,
            mape,
            window_coverage,
            window_mape,
            window_len,
            center: served.center,
            upper: served.upper,
            drifts: learner.monitor.drift_count(),
            intercept,
            coefficients: named
                .filter(|(column, _)| target.reads_linear(*column))
                .map(|(_, named)| named)
                .collect(),
        }
    }
}

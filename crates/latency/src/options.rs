//! Settings of the trainer, with the defaults of llm-d's latency predictor where it has the same.

use crate::codec::HEADER;
use crate::error::{Error, require};
use crate::factors::FACTORS_LEN;
use crate::features::TREE_COLUMNS;
use crate::forest::{DEPTH, FOREST_HEAD_LEN, MAX_TREES, TREE_LEN};
use crate::linear::LINEAR_LEN;

/// What a forest is fitted to. The linear model gives a mean and a quantile in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Objective {
    /// Squared error: the usual value. The quantile then is that times a calibrated ratio.
    #[default]
    Mean,
    /// Pinball loss: the quantile itself. The usual value then is that times a calibrated ratio.
    Quantile,
}

/// Gradient boosting.
#[derive(Clone, Debug, PartialEq)]
pub struct BoostOptions {
    /// Trees at most: 128 (the reference: 200). Fewer where more no longer help rows held out.
    pub trees: usize,
    /// Questions per tree, 1 to 6: 6.
    pub depth: usize,
    /// Share of its error that a tree corrects: 0.08 (the reference: 0.05, for 200 trees).
    pub learning_rate: f32,
    /// Share of the rows drawn for a tree: 0.8.
    pub row_share: f32,
    /// Share of the columns drawn for a tree: 0.8.
    pub column_share: f32,
    /// Rows on each side of a cut at least: 5.
    pub min_child_weight: f32,
    /// Gain that a further question must bring, in squared logarithms: 0.2.
    pub gamma: f32,
    /// L1 term of the leaves: 0.01.
    pub l1: f32,
    /// L2 term of the leaves: 0.1.
    pub l2: f32,
    /// Bins per column, 2 to 256: 256.
    pub bins: usize,
    /// Trees without gain on the rows held out before growing ends: 16.
    pub patience: usize,
}

impl Default for BoostOptions {
    fn default() -> Self {
        Self {
            trees: 128,
            depth: DEPTH,
            learning_rate: 0.08,
            row_share: 0.8,
            column_share: 0.8,
            min_child_weight: 5.0,
            gamma: 0.2,
            l1: 0.01,
            l2: 0.1,
            bins: 256,
            patience: 16,
        }
    }
}

/// The trainer.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The quantile served as `upper_ms`: 0.9.
    pub quantile: f32,
    /// What forests are fitted to: the mean.
    pub objective: Objective,
    /// Model B.
    pub boost: BoostOptions,
    /// Factor per observation by which model A forgets: 0.9995, a memory of 2,000.
    pub forgetting: f64,
    /// Observations of a target before anything is predicted: 10.
    pub min_samples: u64,
    /// Observations of a gate before it gets a forest: 200.
    pub min_forest_samples: usize,
    /// Observations after which a retrain is due: 100.
    pub retrain_after: u64,
    /// Samples kept per cell of the reservoir: 500.
    pub cell_capacity: usize,
    /// Samples older than this many observations do not train: 200,000.
    pub max_age: u64,
    /// Rows that a forest is trained on at most, drawn from the reservoir: 20,000. Bounds the time
    /// of a tree.
    pub max_training_rows: usize,
    /// Share of the samples kept from the forests, to stop and calibrate them with: 0.1.
    pub test_share: f32,
    /// Step of the adaptive calibration: 0.01.
    pub calibration_step: f32,
    /// Deviation of the coverage that counts as drift: 0.08.
    pub drift_threshold: f32,
    /// Evaluations in a row beyond the threshold: 3.
    pub drift_evaluations: u32,
    /// Observations per evaluation: 50.
    pub drift_window: u32,
    /// Endpoints whose speed is remembered at most: 16,384.
    pub max_endpoints: usize,
    /// Samples per target that are written to disk at most: 20,000 (64 bytes each).
    pub max_saved_samples: usize,
    /// Start of all randomness: which rows and columns a tree sees, what is held out.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            quantile: 0.9,
            objective: Objective::Mean,
            boost: BoostOptions::default(),
            forgetting: 0.9995,
            min_samples: 10,
            min_forest_samples: 200,
            retrain_after: 100,
            cell_capacity: 500,
            max_age: 200_000,
            max_training_rows: 20_000,
            test_share: 0.1,
            calibration_step: 0.01,
            drift_threshold: 0.08,
            drift_evaluations: 3,
            drift_window: 50,
            max_endpoints: 16_384,
            max_saved_samples: 20_000,
            seed: 0,
        }
    }
}

impl Options {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first setting outside its range, with the range.
    pub fn validate(&self) -> Result<(), Error> {
        let boost = &self.boost;
        for (field, value, low, high, expected) in [
            ("quantile", f64::from(self.quantile), 0.5, 0.999, "0.5 to 0.999"),
            ("boost.trees", boost.trees as f64, 1.0, MAX_TREES as f64, "1 to 512"),
            ("boost.depth", boost.depth as f64, 1.0, DEPTH as f64, "1 to 6"),
            ("boost.learning_rate", boost.learning_rate.into(), 1e-3, 1.0, "0.001 to 1"),
            ("boost.row_share", boost.row_share.into(), 0.1, 1.0, "0.1 to 1"),
            ("boost.column_share", boost.column_share.into(), 0.1, 1.0, "0.1 to 1"),
            ("boost.min_child_weight", boost.min_child_weight.into(), 0.0, 1e6, "0 to 1e6"),
            ("boost.gamma", boost.gamma.into(), 0.0, 1e6, "0 to 1e6"),
            ("boost.l1", boost.l1.into(), 0.0, 1e6, "0 to 1e6"),
            ("boost.l2", boost.l2.into(), 0.0, 1e6, "0 to 1e6"),
            ("boost.bins", boost.bins as f64, 2.0, 256.0, "2 to 256"),
            ("boost.patience", boost.patience as f64, 1.0, 1e6, "1 to 1e6"),
            ("forgetting", self.forgetting, 0.9, 1.0, "0.9 to 1"),
            ("min_samples", self.min_samples as f64, 2.0, 1e6, "2 to 1e6"),
            ("min_forest_samples", self.min_forest_samples as f64, 50.0, 1e6, "50 to 1e6"),
            ("retrain_after", self.retrain_after as f64, 1.0, 1e9, "1 to 1e9"),
            ("cell_capacity", self.cell_capacity as f64, 1.0, 1e5, "1 to 1e5"),
            ("max_age", self.max_age as f64, 1e3, 1e12, "1e3 to 1e12"),
            ("max_training_rows", self.max_training_rows as f64, 200.0, 1e6, "200 to 1e6"),
            ("test_share", self.test_share.into(), 0.02, 0.5, "0.02 to 0.5"),
            ("calibration_step", self.calibration_step.into(), 0.0, 0.5, "0 to 0.5"),
            ("drift_threshold", self.drift_threshold.into(), 0.01, 1.0, "0.01 to 1"),
            ("drift_evaluations", self.drift_evaluations.into(), 1.0, 1e3, "1 to 1e3"),
            ("drift_window", self.drift_window.into(), 10.0, 1e6, "10 to 1e6"),
            ("max_endpoints", self.max_endpoints as f64, 1.0, 65_536.0, "1 to 65,536"),
            ("max_saved_samples", self.max_saved_samples as f64, 0.0, 2e5, "0 to 200,000"),
        ] {
            require(field, value, expected, (low..=high).contains(&value))?;
        }
        Ok(())
    }

    /// Bytes of a published document at most: what its place in shared memory must hold.
    pub fn max_published_len(&self) -> usize {
        let forest = FOREST_HEAD_LEN + self.boost.trees.next_multiple_of(4) * TREE_LEN;
        let served = 1 + LINEAR_LEN + 2 * (1 + forest) + 4 * 4;
        let grid = TREE_COLUMNS * (4 + 2 * 255);
        HEADER + 4 + grid + 3 * served + 4 + self.max_endpoints * FACTORS_LEN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_errors_name_the_setting() {
        assert_eq!(Options::default().validate(), Ok(()));
        let bad = Options { quantile: f32::NAN, ..Options::default() };
        assert_eq!(
            bad.validate().unwrap_err().to_string(),
            "quantile is NaN, expected 0.5 to 0.999"
        );
        let boost = BoostOptions { depth: 7, ..BoostOptions::default() };
        let bad = Options { boost, ..Options::default() };
        assert_eq!(bad.validate().unwrap_err().to_string(), "boost.depth is 7, expected 1 to 6");
    }
}

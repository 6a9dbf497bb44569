//! What is predicted, and what is learned from.

use crate::error::{Error, require};
use crate::features::Row;

/// Columns that say something about prefilling: not read for the time per token, for which the
/// observations carry none of them.
const LINEAR_PREFILL: [usize; 5] = [7, 8, 9, 10, 11];
const TREE_PREFILL: [usize; 4] = [6, 7, 8, 9];

/// What is predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// Time to the first token of a streamed response.
    FirstToken,
    /// Time to the end of a response that is not streamed. Never mixed with the former: the two
    /// differ by the whole decoding time.
    EndToEnd,
    /// Time per output token after the first.
    PerToken,
}

impl Target {
    /// All targets, in the order of [`index`](Self::index).
    pub const ALL: [Self; 3] = [Self::FirstToken, Self::EndToEnd, Self::PerToken];

    /// The place of this target where there is one of something per target.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name for metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FirstToken => "ttft",
            Self::EndToEnd => "e2e",
            Self::PerToken => "tpot",
        }
    }

    pub(crate) fn reads_linear(self, column: usize) -> bool {
        self != Self::PerToken || !LINEAR_PREFILL.contains(&column)
    }

    pub(crate) fn reads_tree(self, column: usize) -> bool {
        self != Self::PerToken || !TREE_PREFILL.contains(&column)
    }
}

/// One request that has been served: what was known when it was sent, and how long it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The features at the time of the decision.
    pub row: Row,
    /// What was measured.
    pub target: Target,
    /// The measurement in milliseconds.
    pub y_ms: f32,
    /// The endpoint, by a key that the caller keeps stable.
    pub endpoint: u64,
}

impl Sample {
    /// Checks the row, and that the measurement lies in (0, 1e8] ms: about a day.
    ///
    /// # Errors
    /// The first number that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        self.row.validate()?;
        let accepted = self.y_ms > 0.0 && self.y_ms <= 1e8;
        require("y_ms", self.y_ms.into(), "above 0 and at most 1e8", accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{LINEAR_COLUMNS, LINEAR_NAMES};

    #[test]
    fn prefill_columns_do_not_enter_the_time_per_token() {
        let reads = |target: Target| {
            (0..LINEAR_COLUMNS).filter(|c| target.reads_linear(*c)).collect::<Vec<_>>()
        };
        assert_eq!(reads(Target::FirstToken).len(), LINEAR_COLUMNS);
        let named: Vec<_> = reads(Target::PerToken).iter().map(|c| LINEAR_NAMES[*c]).collect();
        assert!(!named.contains(&"prefix_cache_score") && named.contains(&"input_token_length"));
    }

    #[test]
    fn a_measurement_has_to_be_positive() {
        for y_ms in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            let row = Row::default();
            let sample = Sample { row, target: Target::EndToEnd, y_ms, endpoint: 0 };
            assert!(sample.validate().is_err(), "{y_ms}");
        }
    }
}

//! What a prediction is made from: one row of numbers per candidate endpoint.

use crate::error::{Error, require};

/// Columns that the trees read.
pub(crate) const TREE_COLUMNS: usize = 11;
/// Columns that the linear model reads, without the intercept.
pub(crate) const LINEAR_COLUMNS: usize = 14;
/// Numbers in the flat form of a row.
pub const ROW_LEN: usize = 11;

const MAX_COUNT: f32 = 1e9;

/// Names of the columns of the linear model, in its order.
pub const LINEAR_NAMES: [&str; LINEAR_COLUMNS] = [
    "is_queued",
    "kv_cache_percentage",
    "input_token_length",
    "num_request_waiting",
    "num_request_running",
    "prefill_tokens_in_flight",
    "decode_tokens_in_flight",
    "prefix_cache_score",
    "effective_input_tokens",
    "waiting_effective_input_tokens",
    "encoder_input_size",
    "encoder_unmatched_size",
    "pod_type_prefill",
    "pod_type_decode",
];

/// The role of an endpoint in disaggregated serving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PodType {
    /// It does both, or nothing is known.
    #[default]
    None,
    /// It computes prompts.
    Prefill,
    /// It generates tokens.
    Decode,
}

/// The features of one candidate, by the names that the latency predictor of llm-d gives them.
///
/// `num_tokens_generated` travels with the row but is read by no model: when a prediction is made it
/// is not known yet, and the trainer of llm-d replaces it by zero for that reason.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the names are the published ones")]
pub struct Row {
    /// Share of the cache in use, 0 to 1.
    pub kv_cache_percentage: f32,
    pub input_token_length: f32,
    pub num_request_waiting: f32,
    pub num_request_running: f32,
    pub num_tokens_generated: f32,
    /// Share of the prompt that the endpoint has cached, 0 to 1.
    pub prefix_cache_score: f32,
    pub prefill_tokens_in_flight: f32,
    pub decode_tokens_in_flight: f32,
    pub encoder_input_size: f32,
    /// At most `encoder_input_size`.
    pub encoder_matched_size: f32,
    pub pod_type: PodType,
}

impl Row {
    /// Checks that every number is in its range.
    ///
    /// # Errors
    /// The first field that is not, with its range: shares lie in 0 to 1, counts in 0 to 1e9, and
    /// what is matched does not exceed what there is.
    pub fn validate(&self) -> Result<(), Error> {
        for (field, share) in [
            ("kv_cache_percentage", self.kv_cache_percentage),
            ("prefix_cache_score", self.prefix_cache_score),
        ] {
            require(field, share.into(), "a share from 0 to 1", (0.0..=1.0).contains(&share))?;
        }
        for (field, count) in [
            ("input_token_length", self.input_token_length),
            ("num_request_waiting", self.num_request_waiting),
            ("num_request_running", self.num_request_running),
            ("num_tokens_generated", self.num_tokens_generated),
            ("prefill_tokens_in_flight", self.prefill_tokens_in_flight),
            ("decode_tokens_in_flight", self.decode_tokens_in_flight),
            ("encoder_input_size", self.encoder_input_size),
            ("encoder_matched_size", self.encoder_matched_size),
        ] {
            let accepted = (0.0..=MAX_COUNT).contains(&count);
            require(field, count.into(), "a count from 0 to 1e9", accepted)?;
        }
        require(
            "encoder_matched_size",
            self.encoder_matched_size.into(),
            "at most encoder_input_size",
            self.encoder_matched_size <= self.encoder_input_size,
        )
    }

    /// The row as numbers in the order of the fields, for a ring in shared memory; the pod type
    /// comes last: 0 none, 1 prefill, 2 decode.
    pub fn to_array(&self) -> [f32; ROW_LEN] {
        [
            self.kv_cache_percentage,
            self.input_token_length,
            self.num_request_waiting,
            self.num_request_running,
            self.num_tokens_generated,
            self.prefix_cache_score,
            self.prefill_tokens_in_flight,
            self.decode_tokens_in_flight,
            self.encoder_input_size,
            self.encoder_matched_size,
            f32::from(self.pod_type as u8),
        ]
    }

    /// Reads what [`to_array`](Self::to_array) wrote.
    ///
    /// # Errors
    /// As [`validate`](Self::validate), and an unknown pod type.
    pub fn from_array(numbers: &[f32; ROW_LEN]) -> Result<Self, Error> {
        let pod_type = match numbers[10] {
            0.0 => PodType::None,
            1.0 => PodType::Prefill,
            2.0 => PodType::Decode,
            other => {
                require("pod_type", other.into(), "0, 1 or 2", false)?;
                PodType::None
            }
        };
        let row = Self {
            kv_cache_percentage: numbers[0],
            input_token_length: numbers[1],
            num_request_waiting: numbers[2],
            num_request_running: numbers[3],
            num_tokens_generated: numbers[4],
            prefix_cache_score: numbers[5],
            prefill_tokens_in_flight: numbers[6],
            decode_tokens_in_flight: numbers[7],
            encoder_input_size: numbers[8],
            encoder_matched_size: numbers[9],
            pod_type,
        };
        row.validate()?;
        Ok(row)
    }

    /// Whether a new request would have to queue.
    pub fn is_queued(&self) -> bool {
        self.num_request_waiting > 0.0
    }

    /// Which of the two gated models is asked: 0 without a queue, 1 with one.
    pub(crate) fn gate(&self) -> usize {
        usize::from(self.is_queued())
    }

    /// Tokens of the prompt that are not cached.
    pub fn effective_input_tokens(&self) -> f32 {
        (1.0 - self.prefix_cache_score) * self.input_token_length
    }

    /// The quarter that the prefix score lies in, 0 to 3.
    ///
    /// It chooses a cell of the reservoir and is no column of the trees, which find the same cuts in
    /// the score itself.
    pub fn prefill_score_bucket(&self) -> u8 {
        (self.prefix_cache_score * 4.0).clamp(0.0, 3.0) as u8
    }

    #[inline]
    pub(crate) fn tree_columns(&self) -> [f32; TREE_COLUMNS] {
        [
            self.kv_cache_percentage,
            self.input_token_length,
            self.num_request_waiting,
            self.num_request_running,
            self.prefill_tokens_in_flight,
            self.decode_tokens_in_flight,
            self.prefix_cache_score,
            self.effective_input_tokens(),
            self.encoder_input_size,
            self.encoder_matched_size,
            f32::from(self.pod_type as u8),
        ]
    }

    /// A linear model needs its interactions spelled out; trees do not.
    #[inline]
    pub(crate) fn linear_columns(&self) -> [f32; LINEAR_COLUMNS] {
        let effective = self.effective_input_tokens();
        [
            f32::from(u8::from(self.is_queued())),
            self.kv_cache_percentage,
            self.input_token_length,
            self.num_request_waiting,
            self.num_request_running,
            self.prefill_tokens_in_flight,
            self.decode_tokens_in_flight,
            self.prefix_cache_score,
            effective,
            self.num_request_waiting * effective,
            self.encoder_input_size,
            self.encoder_input_size - self.encoder_matched_size,
            f32::from(u8::from(self.pod_type == PodType::Prefill)),
            f32::from(u8::from(self.pod_type == PodType::Decode)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            input_token_length: 1_000.0,
            num_request_waiting: 3.0,
            prefix_cache_score: 0.75,
            encoder_input_size: 50.0,
            encoder_matched_size: 20.0,
            pod_type: PodType::Decode,
            ..Row::default()
        }
    }

    #[test]
    fn engineered_features_follow_from_the_row() {
        let linear = row().linear_columns();
        assert_eq!(linear[0], 1.0);
        assert_eq!(linear[8], 250.0);
        assert_eq!(linear[9], 750.0);
        assert_eq!(linear[11], 30.0);
        assert_eq!(linear[12..], [0.0, 1.0]);
        assert_eq!(row().prefill_score_bucket(), 3);
        assert_eq!(Row { prefix_cache_score: 1.0, ..row() }.prefill_score_bucket(), 3);
        assert_eq!((row().gate(), Row::default().gate()), (1, 0));
    }

    #[test]
    fn a_row_survives_its_flat_form() {
        assert_eq!(Row::from_array(&row().to_array()), Ok(row()));
        let mut numbers = row().to_array();
        numbers[10] = 3.0;
        assert!(Row::from_array(&numbers).is_err());
    }

    #[test]
    fn each_field_is_checked() {
        for column in 0..ROW_LEN {
            for bad in [f32::NAN, f32::INFINITY, -1.0] {
                let mut numbers = row().to_array();
                numbers[column] = bad;
                assert!(Row::from_array(&numbers).is_err(), "column {column}: {bad}");
            }
        }
        let matched = Row { encoder_matched_size: 51.0, ..row() }.validate().unwrap_err();
        assert_eq!(
            matched.to_string(),
            "encoder_matched_size is 51, expected at most encoder_input_size"
        );
    }
}

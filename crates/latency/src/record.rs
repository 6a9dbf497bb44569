//! A sample as a few words, on its way from a proxy to the trainer.

use xxhash_rust::xxh64::xxh64;

use crate::error::Error;
use crate::features::{ROW_LEN, Row};
use crate::sample::{Sample, Target};

/// Words of a sample: one cache line.
pub const RECORD_WORDS: usize = 8;

/// Names what the words mean; another meaning gets another number.
pub const RECORD_FORMAT: u32 = 1;

/// The key of an endpoint: xxh64 of its id `namespace/name`. Stable over restarts of either side.
pub fn endpoint_key(id: &str) -> u64 {
    xxh64(id.as_bytes(), 0)
}

impl Sample {
    /// The words: endpoint, target, then the row and the measurement, two numbers to a word.
    pub fn to_words(&self) -> [u64; RECORD_WORDS] {
        let mut numbers = [0.0; ROW_LEN + 1];
        numbers[..ROW_LEN].copy_from_slice(&self.row.to_array());
        numbers[ROW_LEN] = self.y_ms;
        let mut words = [0; RECORD_WORDS];
        words[0] = self.endpoint;
        words[1] = self.target.index() as u64;
        for (word, pair) in words[2..].iter_mut().zip(numbers.chunks_exact(2)) {
            *word = u64::from(pair[0].to_bits()) | u64::from(pair[1].to_bits()) << 32;
        }
        words
    }

    /// Reads what [`to_words`](Self::to_words) wrote.
    ///
    /// # Errors
    /// Another number of words, an unknown target, and as [`validate`](Self::validate).
    pub fn from_words(words: &[u64]) -> Result<Self, Error> {
        let Ok([endpoint, target, pairs @ ..]) = <&[u64; RECORD_WORDS]>::try_from(words) else {
            let (field, found) = ("record length", words.len() as f64);
            return Err(Error::OutOfRange { field, expected: "8 words", found });
        };
        let mut numbers = [0.0; ROW_LEN + 1];
        for (pair, word) in numbers.chunks_exact_mut(2).zip(pairs) {
            pair[0] = f32::from_bits(*word as u32);
            pair[1] = f32::from_bits((*word >> 32) as u32);
        }
        let Some(target) = Target::ALL.into_iter().find(|t| t.index() as u64 == *target) else {
            let (field, found) = ("target", *target as f64);
            return Err(Error::OutOfRange { field, expected: "0, 1 or 2", found });
        };
        let [row @ .., y_ms] = &numbers;
        let sample = Self { row: Row::from_array(row)?, target, y_ms: *y_ms, endpoint: *endpoint };
        sample.validate()?;
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::PodType;

    fn sample() -> Sample {
        let row = Row {
            input_token_length: 900.0,
            prefix_cache_score: 0.25,
            pod_type: PodType::Decode,
            ..Row::default()
        };
        let endpoint = endpoint_key("default/pod-1");
        Sample { row, target: Target::PerToken, y_ms: 12.5, endpoint }
    }

    #[test]
    fn a_sample_survives_its_words() {
        assert_eq!(Sample::from_words(&sample().to_words()), Ok(sample()));
    }

    #[test]
    fn foreign_words_are_refused() {
        let words = sample().to_words();
        assert!(Sample::from_words(&[]).is_err());
        assert!(Sample::from_words(&words[1..]).is_err());
        assert!(Sample::from_words(&[u64::MAX; RECORD_WORDS]).is_err());
        let negative = Sample { y_ms: -1.0, ..sample() };
        assert!(Sample::from_words(&negative.to_words()).is_err());
        let mut target = words;
        target[1] = 3;
        assert_eq!(
            Sample::from_words(&target).unwrap_err().to_string(),
            "target is 3, expected 0, 1 or 2"
        );
    }

    #[test]
    fn pods_of_one_name_have_a_key_per_namespace() {
        assert_ne!(endpoint_key("a/pod-1"), endpoint_key("b/pod-1"));
    }
}

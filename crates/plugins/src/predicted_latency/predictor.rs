//! Whom the producer asks for predictions.

use inlane_core::decision::PluginError;
use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_latency::{Available, Prediction, Row, Target};

/// What is predicted for one endpoint, ms; NaN where nothing is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// Time to the first token, or to the end: what was asked for.
    pub first_ms: f64,
    /// Time per output token.
    pub per_token_ms: f64,
}

impl Forecast {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { first_ms: f64::NAN, per_token_ms: f64::NAN };
}

/// A question: what would these endpoints take?
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The pool.
    pub endpoints: &'a EndpointSet,
    /// The endpoints in question.
    pub candidates: &'a [EndpointIx],
    /// The key of each endpoint of the pool, see [`endpoint_key`](inlane_latency::endpoint_key).
    pub keys: &'a [u64],
    /// Their features, parallel to `candidates`.
    pub rows: &'a [Row],
    /// The first number wanted: [`Target::FirstToken`] or [`Target::EndToEnd`].
    pub first: Target,
    /// Whether the quantile is wanted instead of the usual value.
    pub upper: bool,
}

/// Memory of a predictor between its calls.
#[derive(Debug, Default)]
pub struct Workspace {
    rows: Vec<Row>,
    factors: Vec<inlane_latency::Factors>,
    predictions: Vec<Prediction>,
}

/// Predicts latencies. Called by workers within a decision: it must not wait, and not allocate once
/// it is warm.
pub trait Predictor: Send + Sync {
    /// Writes a forecast for each candidate into `out`, which is parallel and preset to
    /// [`Forecast::UNKNOWN`].
    ///
    /// # Errors
    /// Nothing can be said of any endpoint.
    fn predict(
        &self,
        question: &Question<'_>,
        work: &mut Workspace,
        out: &mut [Forecast],
    ) -> Result<Available, PluginError>;
}

/// The published models. Features that are out of range, a KV-cache use above 1 for instance, count
/// as the nearest that are not.
impl Predictor for inlane_latency::Predictor {
    fn predict(
        &self,
        question: &Question<'_>,
        work: &mut Workspace,
        out: &mut [Forecast],
    ) -> Result<Available, PluginError> {
        let Workspace { rows, factors, predictions } = work;
        rows.clear();
        rows.extend(question.rows.iter().map(within_range));
        factors.clear();
        factors.extend(
            question.candidates.iter().map(|&ix| {
                self.factors(question.keys.get(ix as usize).copied().unwrap_or_default())
            }),
        );
        predictions.clear();
        predictions.resize(rows.len(), Prediction::UNKNOWN);
        let available = Self::predict(self, question.first, rows, factors, predictions);
        for (out, found) in out.iter_mut().zip(&*predictions) {
            let ms = |estimate: inlane_latency::Estimate| {
                f64::from(if question.upper { estimate.upper_ms } else { estimate.expected_ms })
            };
            *out = Forecast { first_ms: ms(found.first), per_token_ms: ms(found.per_token) };
        }
        Ok(available)
    }
}

/// The nearest row that the models accept.
pub(super) fn within_range(row: &Row) -> Row {
    const MOST: f32 = 1e9;
    // Written so that NaN becomes 0.
    let limited = |n: f32, most: f32| if n > 0.0 { n.min(most) } else { 0.0 };
    let count = |n| limited(n, MOST);
    let encoder_input_size = count(row.encoder_input_size);
    Row {
        kv_cache_percentage: limited(row.kv_cache_percentage, 1.0),
        input_token_length: count(row.input_token_length),
        num_request_waiting: count(row.num_request_waiting),
        num_request_running: count(row.num_request_running),
        num_tokens_generated: count(row.num_tokens_generated),
        prefix_cache_score: limited(row.prefix_cache_score, 1.0),
        prefill_tokens_in_flight: count(row.prefill_tokens_in_flight),
        decode_tokens_in_flight: count(row.decode_tokens_in_flight),
        encoder_input_size,
        encoder_matched_size: limited(row.encoder_matched_size, encoder_input_size),
        pod_type: row.pod_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_out_of_range_becomes_the_nearest_in_range() {
        let row = Row {
            kv_cache_percentage: 1.5,
            prefix_cache_score: f32::NAN,
            input_token_length: f32::INFINITY,
            num_request_waiting: -3.0,
            encoder_input_size: 4.0,
            encoder_matched_size: 9.0,
            ..Row::default()
        };
        assert!(row.validate().is_err());
        let near = within_range(&row);
        assert_eq!(near.validate(), Ok(()));
        assert_eq!((near.kv_cache_percentage, near.prefix_cache_score), (1.0, 0.0));
        assert_eq!((near.num_request_waiting, near.encoder_matched_size), (0.0, 4.0));
    }
}

//! The handles of one set of request labels.
//!
//! A worker keeps them behind an `Arc`: recording is a few atomic additions. Only an error looks its
//! series up, by its code.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use super::labels::ModelLabels;
use super::make::Twin;

/// The handles of one set of labels.
#[derive(Debug)]
pub struct ModelSeries {
    pub(super) requests: IntCounter,
    pub(super) requests_deprecated: IntCounter,
    pub(super) errors: IntCounterVec,
    pub(super) errors_deprecated: IntCounterVec,
    pub(super) labels: ModelLabels,
    /// Received → response complete, seconds.
    pub duration: Twin,
    /// Bytes of the forwarded body.
    pub request_size: Twin,
    /// Bytes of the response body.
    pub response_size: Twin,
    /// Prompt tokens as reported by the engine.
    pub input_tokens: Twin,
    /// Completion tokens as reported by the engine.
    pub output_tokens: Twin,
    /// Prompt tokens served from the engine's cache.
    pub cached_tokens: Twin,
    /// Duration over completion tokens, seconds.
    pub ntpot: Twin,
    /// Received → first response body byte, seconds, of streams.
    pub ttft_streaming: Histogram,
    /// The same of answers in one piece.
    pub ttft_buffered: Histogram,
    /// (Duration − TTFT) over (completion tokens − 1), seconds, of streams.
    pub tpot: Histogram,
    /// Gap between chunks of a stream, seconds.
    pub itl: Histogram,
    pub(super) running: IntGauge,
    pub(super) running_deprecated: IntGauge,
}

impl ModelSeries {
    /// A request has been routed.
    pub fn routed(&self) {
        self.requests.inc();
        self.requests_deprecated.inc();
        if !self.labels.model.is_empty() {
            self.running.inc();
            self.running_deprecated.inc();
        }
    }

    /// A routed request has ended.
    pub fn ended(&self) {
        if !self.labels.model.is_empty() {
            self.running.dec();
            self.running_deprecated.dec();
        }
    }

    /// A request has failed with `code`.
    pub fn error(&self, code: &str) {
        let ModelLabels { model, target_model, fairness_id, priority } = &self.labels;
        let priority = priority.to_string();
        self.errors.with_label_values(&[model, target_model, fairness_id, &priority, code]).inc();
        self.errors_deprecated.with_label_values(&[model.as_str(), target_model, code]).inc();
    }
}

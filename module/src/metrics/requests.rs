//! The families that count requests by model and flow.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};

use super::buckets::*;
use super::labels::{FLOW, MODEL, ModelLabels};
use super::make::{Maker, TwinVec, old};
use super::series::ModelSeries;

/// One series of each for every set of labels.
pub(super) struct RequestFamilies {
    requests: IntCounterVec,
    requests_deprecated: IntCounterVec,
    errors: IntCounterVec,
    errors_deprecated: IntCounterVec,
    duration: TwinVec,
    request_size: TwinVec,
    response_size: TwinVec,
    input_tokens: TwinVec,
    output_tokens: TwinVec,
    cached_tokens: TwinVec,
    ntpot: TwinVec,
    ttft: HistogramVec,
    tpot: HistogramVec,
    itl: HistogramVec,
    running: IntGaugeVec,
    running_deprecated: IntGaugeVec,
}

impl RequestFamilies {
    /// Makes and registers the families.
    ///
    /// # Errors
    /// A name or label that Prometheus does not allow.
    pub(super) fn new(m: &Maker) -> prometheus::Result<Self> {
        let error = [FLOW, &["error_code"]].concat();
        let old_error = [MODEL, &["error_code"]].concat();
        let streaming = [FLOW, &["streaming"]].concat();
        Ok(Self {
            requests: m.counters(
                "llm_d_epp_request_total",
                "[ALPHA] Counter of inference requests routed.",
                FLOW,
            )?,
            requests_deprecated: m.counters(
                "inference_objective_request_total",
                &old("request_total", "Counter of inference requests routed."),
                &["model_name", "target_model_name", "priority"],
            )?,
            errors: m.counters(
                "llm_d_epp_request_error_total",
                "[ALPHA] Counter of inference requests that failed.",
                &error,
            )?,
            errors_deprecated: m.counters(
                "inference_objective_request_error_total",
                &old("request_error_total", "Counter of inference requests that failed."),
                &old_error,
            )?,
            duration: m.twin_vec(
                "request_duration_seconds",
                "request_duration_seconds",
                "Inference response latency in seconds.",
                LATENCY,
            )?,
            request_size: m.twin_vec(
                "request_size_bytes",
                "request_sizes",
                "Size of forwarded request bodies in bytes.",
                REQUEST_SIZE,
            )?,
            response_size: m.twin_vec(
                "response_size_bytes",
                "response_sizes",
                "Size of response bodies in bytes.",
                RESPONSE_SIZE,
            )?,
            input_tokens: m.twin_vec(
                "request_input_tokens",
                "input_tokens",
                "Input tokens of requests, as engines report them.",
                INPUT_TOKENS,
            )?,
            output_tokens: m.twin_vec(
                "request_output_tokens",
                "output_tokens",
                "Output tokens of requests, as engines report them.",
                OUTPUT_TOKENS,
            )?,
            cached_tokens: m.twin_vec(
                "request_cached_tokens",
                "prompt_cached_tokens",
                "Prompt tokens served from the engines' caches.",
                INPUT_TOKENS,
            )?,
            ntpot: m.twin_vec(
                "request_ntpot_seconds",
                "normalized_time_per_output_token_seconds",
                "Request duration over output tokens in seconds.",
                NTPOT,
            )?,
            ttft: m.histograms(
                "llm_d_epp_request_ttft_seconds",
                "[ALPHA] Time from receipt to the first response byte in seconds.",
                &streaming,
                TTFT,
            )?,
            tpot: m.histograms(
                "llm_d_epp_request_streaming_tpot_seconds",
                "[ALPHA] Time per output token after the first, of streams, in seconds.",
                FLOW,
                TPOT,
            )?,
            itl: m.histograms(
                "llm_d_epp_request_streaming_itl_seconds",
                "[ALPHA] Time between chunks of a stream in seconds.",
                FLOW,
                ITL,
            )?,
            running: m.gauges(
                "llm_d_epp_request_running",
                "[ALPHA] Requests now running.",
                FLOW,
            )?,
            running_deprecated: m.gauges(
                "inference_objective_running_requests",
                &old("request_running", "Requests now running."),
                &["model_name"],
            )?,
        })
    }

    /// The handles of a set of labels.
    pub(super) fn series(&self, labels: &ModelLabels) -> ModelSeries {
        let priority = labels.priority.to_string();
        let (model, target) = (labels.model.as_str(), labels.target_model.as_str());
        let flow = [model, target, &labels.fairness_id, priority.as_str()];
        let twin = |family: &TwinVec| family.of(labels, &priority);
        let ttft = |streaming: &str| {
            self.ttft.with_label_values(&[flow[0], flow[1], flow[2], flow[3], streaming])
        };
        ModelSeries {
            requests: self.requests.with_label_values(&flow),
            requests_deprecated: self.requests_deprecated.with_label_values(&[
                model,
                target,
                priority.as_str(),
            ]),
            errors: self.errors.clone(),
            errors_deprecated: self.errors_deprecated.clone(),
            duration: twin(&self.duration),
            request_size: twin(&self.request_size),
            response_size: twin(&self.response_size),
            input_tokens: twin(&self.input_tokens),
            output_tokens: twin(&self.output_tokens),
            cached_tokens: twin(&self.cached_tokens),
            ntpot: twin(&self.ntpot),
            ttft_streaming: ttft("true"),
            ttft_buffered: ttft("false"),
            tpot: self.tpot.with_label_values(&flow),
            itl: self.itl.with_label_values(&flow),
            running: self.running.with_label_values(&flow),
            running_deprecated: self.running_deprecated.with_label_values(&[model]),
            labels: labels.clone(),
        }
    }
}

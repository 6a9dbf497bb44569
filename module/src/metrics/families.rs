//! The metric families and the per-model handles.

use std::collections::HashSet;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::buckets;
use crate::scheduler::Step;

/// Distinct model names kept apart; further ones are counted as `other`.
const MAX_MODELS: usize = 1_000;
/// Distinct fairness ids kept apart; further ones are counted as `other`.
const MAX_FAIRNESS_IDS: usize = 1_000;

const MODEL: &[&str] = &["model_name", "target_model_name"];
const FLOW: &[&str] = &["model_name", "target_model_name", "fairness_id", "priority"];

/// The labels of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModelLabels {
    /// The model that the client named.
    pub model: String,
    /// The model after rewriting.
    pub target_model: String,
    /// Fairness id.
    pub fairness_id: String,
    /// Priority.
    pub priority: i32,
}

/// A histogram under its current name, and under the deprecated one where there is one.
#[derive(Debug, Clone)]
pub struct Twin {
    current: Histogram,
    deprecated: Option<Histogram>,
}

impl Twin {
    /// Records a value under both names.
    pub fn observe(&self, value: f64) {
        self.current.observe(value);
        if let Some(deprecated) = &self.deprecated {
            deprecated.observe(value);
        }
    }
}

/// The handles of one set of labels.
#[derive(Debug)]
pub struct ModelSeries {
    requests: IntCounter,
    requests_deprecated: IntCounter,
    errors: IntCounterVec,
    errors_deprecated: IntCounterVec,
    labels: ModelLabels,
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
    running: IntGauge,
    running_deprecated: IntGauge,
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

struct TwinVec {
    current: HistogramVec,
    deprecated: Option<HistogramVec>,
}

/// Every family of the module.
pub struct Families {
    registry: Registry,
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
    /// Receipt of the headers → release or refusal, seconds.
    pub processing: Histogram,
    /// One decision, seconds, in the endpoint picker's buckets.
    pub scheduler: Twin,
    /// One decision, seconds, in buckets of its own scale.
    pub decision: Histogram,
    attempts: IntCounterVec,
    attempts_deprecated: IntCounterVec,
    steps: [IntCounter; 2],
    /// Decisions repeated because a booking conflicted.
    pub conflicts: IntCounter,
    /// Attempts that went to another endpoint after one failed.
    pub retries: IntCounter,
    /// Requests that had no decision, by reason and by what became of them.
    pub undecided: IntCounterVec,
    /// Failures of plugins, by instance.
    pub plugin_failures: IntCounterVec,
    /// Panics caught around a decision.
    pub panics: IntCounter,
    /// Bytes of request bodies held by this process.
    pub held_bytes: IntGauge,
    names: Mutex<Names>,
}

#[derive(Default)]
struct Names {
    models: HashSet<String>,
    fairness_ids: HashSet<String>,
}

impl Names {
    fn bounded(known: &mut HashSet<String>, name: &str, limit: usize) -> String {
        if name.is_empty() || known.contains(name) {
            return name.to_owned();
        }
        if known.len() >= limit {
            return "other".to_owned();
        }
        known.insert(name.to_owned());
        name.to_owned()
    }
}

impl std::fmt::Debug for Families {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Families").finish_non_exhaustive()
    }
}

/// Makes families and registers them; a name that is invalid or taken is a programming error that
/// the unit test of this file finds, and shows up at run time as a family that is not exported.
struct Maker(Registry);

impl Maker {
    fn keep<C: Collector + Clone + 'static>(&self, family: C) -> C {
        let registered = self.0.register(Box::new(family.clone()));
        debug_assert!(registered.is_ok(), "{registered:?}");
        family
    }

    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> prometheus::Result<IntCounterVec> {
        Ok(self.keep(IntCounterVec::new(Opts::new(name, help), labels)?))
    }

    fn counter(&self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        Ok(self.keep(IntCounter::new(name, help)?))
    }

    fn gauge(&self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        Ok(self.keep(IntGauge::new(name, help)?))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        Ok(self.keep(IntGaugeVec::new(Opts::new(name, help), labels)?))
    }

    fn histograms(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        Ok(self.keep(HistogramVec::new(options, labels)?))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        Ok(self.keep(Histogram::with_opts(options)?))
    }

    /// A histogram of requests under `llm_d_epp_<name>` and `inference_objective_<deprecated>`.
    fn twin_vec(
        &self,
        name: &str,
        deprecated: &str,
        help: &str,
        buckets: &[f64],
    ) -> prometheus::Result<TwinVec> {
        let current = format!("llm_d_epp_{name}");
        let old_help = format!("[ALPHA] [Deprecated: Use {current}] {help}");
        Ok(TwinVec {
            deprecated: Some(self.histograms(
                &format!("inference_objective_{deprecated}"),
                &old_help,
                MODEL,
                buckets,
            )?),
            current: self.histograms(&current, &format!("[ALPHA] {help}"), FLOW, buckets)?,
        })
    }

    /// A histogram without labels under `llm_d_epp_<name>` and `inference_extension_<name>`.
    fn twin(&self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Twin> {
        let current = format!("llm_d_epp_{name}");
        let old_help = format!("[ALPHA] [Deprecated: Use {current}] {help}");
        Ok(Twin {
            deprecated: Some(self.histogram(
                &format!("inference_extension_{name}"),
                &old_help,
                buckets,
            )?),
            current: self.histogram(&current, &format!("[ALPHA] {help}"), buckets)?,
        })
    }
}

impl Families {
    /// Makes and registers all families.
    ///
    /// # Errors
    /// A name or label that Prometheus does not allow.
    pub fn new() -> prometheus::Result<Self> {
        use buckets::*;
        let m = Maker(Registry::new());
        let error = [FLOW, &["error_code"]].concat();
        let old_error = [MODEL, &["error_code"]].concat();
        let streaming = [FLOW, &["streaming"]].concat();
        let attempt = ["status", "target_model_name", "endpoint_name", "namespace", "port"];
        let old_attempt = ["status", "target_model_name", "pod_name", "namespace", "port"];
        let old =
            |new: &str, help: &str| format!("[ALPHA] [Deprecated: Use llm_d_epp_{new}] {help}");
        let steps = m.counters(
            "inlane_decision_steps_total",
            "Decisions by the step they were made on: full, or what was left out.",
            &["step"],
        )?;
        let info = m.gauges(
            "llm_d_epp_info",
            "[ALPHA] General information of the current build.",
            &["commit", "build_ref"],
        )?;
        info.with_label_values(&["", env!("CARGO_PKG_VERSION")]).set(1);
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
            processing: m.histogram(
                "llm_d_epp_request_processing_duration_seconds",
                "[ALPHA] Time from receipt of a request to its release or refusal in seconds.",
                REQUEST_PROCESSING,
            )?,
            scheduler: m.twin(
                "scheduler_e2e_duration_seconds",
                "Duration of scheduling decisions in seconds.",
                FAST,
            )?,
            decision: m.histogram(
                "inlane_decision_duration_seconds",
                "Duration of scheduling decisions in seconds, in fine buckets.",
                DECISION,
            )?,
            attempts: m.counters(
                "llm_d_epp_scheduler_attempts_total",
                "[ALPHA] Counter of scheduling attempts.",
                &attempt,
            )?,
            attempts_deprecated: m.counters(
                "inference_extension_scheduler_attempts_total",
                &old("scheduler_attempts_total", "Counter of scheduling attempts."),
                &old_attempt,
            )?,
            steps: [Step::Full, Step::LoadOnly].map(|s| steps.with_label_values(&[s.as_str()])),
            conflicts: m.counter(
                "inlane_booking_conflicts_total",
                "Decisions repeated because another worker had booked the chosen endpoint.",
            )?,
            retries: m.counter(
                "inlane_retries_total",
                "Attempts that went to another endpoint because an earlier one failed.",
            )?,
            undecided: m.counters(
                "inlane_undecided_total",
                "Requests without a decision, by reason and by outcome (answered, any_endpoint).",
                &["reason", "outcome"],
            )?,
            plugin_failures: m.counters(
                "inlane_plugin_failures_total",
                "Failures and panics of plugins; the plugin was neutral in that decision.",
                &["plugin_name"],
            )?,
            panics: m
                .counter("inlane_decision_panics_total", "Panics caught around a decision.")?,
            held_bytes: m.gauge(
                "inlane_held_body_bytes",
                "Bytes of request bodies that this process holds.",
            )?,
            names: Mutex::new(Names::default()),
            registry: m.0,
        })
    }

    /// The handles of a set of labels. Takes a lock: workers keep the result.
    pub fn model(&self, labels: &ModelLabels) -> Arc<ModelSeries> {
        let labels = {
            let mut names = self.names.lock();
            let Names { models, fairness_ids } = &mut *names;
            ModelLabels {
                model: Names::bounded(models, &labels.model, MAX_MODELS),
                target_model: Names::bounded(models, &labels.target_model, MAX_MODELS),
                fairness_id: Names::bounded(fairness_ids, &labels.fairness_id, MAX_FAIRNESS_IDS),
                priority: labels.priority,
            }
        };
        let priority = labels.priority.to_string();
        let (model, target) = (labels.model.as_str(), labels.target_model.as_str());
        let flow = [model, target, labels.fairness_id.as_str(), priority.as_str()];
        let twin = |family: &TwinVec| Twin {
            current: family.current.with_label_values(&flow),
            deprecated: family.deprecated.as_ref().map(|d| d.with_label_values(&[model, target])),
        };
        let ttft = |streaming: &str| {
            self.ttft.with_label_values(&[flow[0], flow[1], flow[2], flow[3], streaming])
        };
        Arc::new(ModelSeries {
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
        })
    }

    /// Decisions made on `step`.
    pub fn step(&self, step: Step) -> &IntCounter {
        match step {
            Step::Full => &self.steps[0],
            Step::LoadOnly => &self.steps[1],
        }
    }

    /// The counter pair of successful attempts for an endpoint. Takes a lock: workers keep it.
    pub fn attempts(
        &self,
        status: &str,
        target_model: &str,
        endpoint: &str,
        namespace: &str,
        port: &str,
    ) -> [IntCounter; 2] {
        let model = {
            let mut names = self.names.lock();
            Names::bounded(&mut names.models, target_model, MAX_MODELS)
        };
        let labels = [status, &model, endpoint, namespace, port];
        [
            self.attempts.with_label_values(&labels),
            self.attempts_deprecated.with_label_values(&labels),
        ]
    }

    /// The Prometheus text of everything registered.
    pub fn render(&self, out: &mut Vec<u8>) {
        // Writing to a vector does not fail, and every family has a valid name.
        let _ = TextEncoder::new().encode(&self.registry.gather(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_endpoint_pickers() {
        let families = Families::new().unwrap();
        let labels = ModelLabels {
            model: "m".into(),
            target_model: "t".into(),
            fairness_id: "default-flow".into(),
            priority: -1,
        };
        let series = families.model(&labels);
        series.routed();
        series.error("BadRequest");
        series.duration.observe(0.3);
        let mut text = Vec::new();
        families.render(&mut text);
        let text = String::from_utf8(text).unwrap();
        for line in [
            "# HELP llm_d_epp_request_total [ALPHA] ",
            "llm_d_epp_request_total{fairness_id=\"default-flow\",model_name=\"m\",priority=\"-1\",target_model_name=\"t\"} 1",
            "inference_objective_request_total{model_name=\"m\",priority=\"-1\",target_model_name=\"t\"} 1",
            "inference_objective_request_error_total{error_code=\"BadRequest\",model_name=\"m\",target_model_name=\"t\"} 1",
            "inference_objective_running_requests{model_name=\"m\"} 1",
            "llm_d_epp_request_duration_seconds_bucket{fairness_id=\"default-flow\",model_name=\"m\",priority=\"-1\",target_model_name=\"t\",le=\"0.4\"} 1",
            "# HELP inference_extension_scheduler_e2e_duration_seconds [ALPHA] [Deprecated: Use llm_d_epp_scheduler_e2e_duration_seconds] ",
        ] {
            assert!(text.contains(line), "missing {line}\n{text}");
        }
        series.ended();
        assert_eq!(series.running.get(), 0);
    }

    #[test]
    fn model_names_are_bounded() {
        let families = Families::new().unwrap();
        let labels = |model: String| ModelLabels {
            target_model: model.clone(),
            model,
            fairness_id: String::new(),
            priority: 0,
        };
        for n in 0..MAX_MODELS {
            families.model(&labels(format!("m{n}")));
        }
        assert_eq!(families.model(&labels("one-more".into())).labels.model, "other");
        assert_eq!(families.model(&labels("m5".into())).labels.model, "m5");
        assert_eq!(families.model(&labels(String::new())).labels.model, "");
    }
}

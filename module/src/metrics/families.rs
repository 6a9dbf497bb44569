//! Every family of the module.

use std::sync::Arc;

use inlane_core::exposition::Exposition;
use parking_lot::Mutex;
use prometheus::{Encoder, Histogram, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use super::buckets::{DECISION, FAST, REQUEST_PROCESSING};
use super::labels::{ModelLabels, Names};
use super::legacy;
use super::make::{Maker, Twin, old};
use super::plugins::PluginTimes;
use super::requests::RequestFamilies;
use super::series::ModelSeries;
use super::shadow::ShadowFamilies;
use super::tokens::TokenFamilies;
use crate::scheduler::Step;

/// Every family of the module.
pub struct Families {
    registry: Registry,
    requests: RequestFamilies,
    /// Receipt of the headers → release or refusal, seconds.
    pub processing: Histogram,
    /// One decision, seconds, in the endpoint picker's buckets.
    pub scheduler: Twin,
    /// One decision, seconds, in buckets of its own scale.
    pub decision: Histogram,
    attempts: IntCounterVec,
    attempts_deprecated: IntCounterVec,
    steps: [IntCounter; 4],
    /// How long plugins take.
    pub plugin_times: PluginTimes,
    /// Decisions for an endpoint that held the start of the prompt; counted and shown only where
    /// the oldest names are wanted.
    pub cache_hits: IntCounter,
    /// The shadow configuration.
    pub shadow: ShadowFamilies,
    /// Tokenizing.
    pub tokens: TokenFamilies,
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

impl std::fmt::Debug for Families {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Families").finish_non_exhaustive()
    }
}

impl Families {
    /// Makes and registers all families.
    ///
    /// # Errors
    /// A name or label that Prometheus does not allow.
    pub fn new() -> prometheus::Result<Self> {
        let m = Maker(Registry::new());
        let attempt = ["status", "target_model_name", "endpoint_name", "namespace", "port"];
        let old_attempt = ["status", "target_model_name", "pod_name", "namespace", "port"];
        let steps = m.counters(
            "inlane_decision_steps_total",
            "Decisions by the step they were made on: full, precise-missed (without the tokens of the prompt), partial (the last data producers left out), load-only.",
            &["step"],
        )?;
        let info = m.gauges(
            "llm_d_epp_info",
            "[ALPHA] General information of the current build.",
            &["commit", "build_ref"],
        )?;
        info.with_label_values(&["", env!("CARGO_PKG_VERSION")]).set(1);
        Ok(Self {
            requests: RequestFamilies::new(&m)?,
            shadow: ShadowFamilies::new(&m)?,
            tokens: TokenFamilies::new(&m)?,
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
            steps: [Step::Full, Step::PreciseMissed, Step::Partial, Step::LoadOnly]
                .map(|s| steps.with_label_values(&[s.as_str()])),
            plugin_times: PluginTimes::default(),
            cache_hits: IntCounter::new("cache_hits", "Shown under its oldest name only.")?,
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
            names: Mutex::default(),
            registry: m.0,
        })
    }

    /// The handles of a set of labels. Takes a lock: workers keep the result.
    pub fn model(&self, labels: &ModelLabels) -> Arc<ModelSeries> {
        let labels = self.names.lock().bounded(labels);
        Arc::new(self.requests.series(&labels))
    }

    /// Decisions made on `step`.
    pub fn step(&self, step: Step) -> &IntCounter {
        match step {
            Step::Full => &self.steps[0],
            Step::PreciseMissed => &self.steps[1],
            Step::Partial => &self.steps[2],
            Step::LoadOnly => &self.steps[3],
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
        let model = self.names.lock().model(target_model);
        let labels = [status, &model, endpoint, namespace, port];
        [
            self.attempts.with_label_values(&labels),
            self.attempts_deprecated.with_label_values(&labels),
        ]
    }

    pub(super) fn successes(&self) -> &IntCounterVec {
        &self.attempts
    }

    /// The Prometheus text of everything, with the names of the first documents if `legacy`.
    pub fn render(&self, legacy: bool, out: &mut Vec<u8>) {
        // Writing to a vector does not fail, and every family has a valid name.
        let _ = TextEncoder::new().encode(&self.registry.gather(), out);
        let mut page = Exposition::default();
        self.plugin_times.collect(&mut page);
        self.plugin_times.collect_lookups(&mut page);
        if legacy {
            legacy::collect(self, &mut page);
        }
        out.extend_from_slice(page.render().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_endpoint_pickers() {
        let families = Families::new().unwrap();
        let labels = ModelLabels::new("m", "t", "default-flow", -1);
        let series = families.model(&labels);
        series.routed();
        series.error("BadRequest");
        series.duration.observe(0.3);
        let mut text = Vec::new();
        families.render(false, &mut text);
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
        assert!(!text.contains("\nepp_"), "{text}");
    }

    #[test]
    fn the_oldest_names_repeat_the_same_numbers() {
        let families = Families::new().unwrap();
        families.scheduler.observe(0.00015);
        families.scheduler.observe(3.0);
        for (model, status) in [("m", "success"), ("n", "success"), ("m", "failure")] {
            families.attempts(status, model, "pod-a", "ns", "8000")[0].inc();
        }
        families.cache_hits.inc();
        let mut text = Vec::new();
        families.render(true, &mut text);
        let text = String::from_utf8(text).unwrap();
        for line in [
            "# TYPE epp_scheduling_duration_seconds histogram",
            "epp_scheduling_duration_seconds_bucket{le=\"0.0001\"} 0",
            "epp_scheduling_duration_seconds_bucket{le=\"0.0002\"} 1",
            "epp_scheduling_duration_seconds_bucket{le=\"+Inf\"} 2",
            "epp_scheduling_duration_seconds_sum 3.00015",
            "epp_routing_decisions_total{endpoint=\"pod-a\"} 2",
            "epp_cache_hits_total 1",
        ] {
            assert!(text.contains(line), "missing {line}\n{text}");
        }
    }
}

//! What the producer counts.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use inlane_core::exposition::{Exposition, Histogram, Label};
use inlane_latency::Target;

use super::samples::Lesson;

/// Upper bounds in seconds of the histograms to the first token or the end.
const FIRST_BOUNDS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
    1200.0, 1800.0, 2700.0, 3600.0,
];
/// Upper bounds in seconds of the histograms per output token.
const PER_TOKEN_BOUNDS: &[f64] = &[
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5,
    0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 4.5, 6.0, 12.0, 18.0, 24.0, 30.0, 36.0, 48.0, 60.0, 90.0, 120.0,
    180.0, 270.0, 360.0,
];
/// Upper bounds of the errors, as shares of what was measured.
const ERROR_BOUNDS: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0];
const CURRENT: &str = "llm_d_epp";
const DEPRECATED: &str = "inference_objective";

/// How an attempt to predict ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    /// Predictions for the candidates.
    Predicted,
    /// There is no model yet.
    Cold,
    /// The predictor failed.
    Failed,
}

/// The numbers of one latency: to the first token (or the end), or per output token.
#[derive(Debug)]
struct Latency {
    name: &'static str,
    title: &'static str,
    actual: Histogram,
    predicted: Histogram,
    error: Histogram,
    violations: AtomicU64,
    last_actual: Last,
    last_predicted: Last,
    last_violated: Last,
}

/// The last value of a gauge, bits of an `f64`; NaN = none yet.
#[derive(Debug)]
struct Last(AtomicU64);

/// Counters of one instance; they survive a reload.
#[derive(Debug)]
pub(super) struct Stats {
    first: Latency,
    per_token: Latency,
    predicted: AtomicU64,
    cold: AtomicU64,
    failed: AtomicU64,
    samples: [AtomicU64; 3],
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            first: Latency::new("ttft", "time to first token", FIRST_BOUNDS),
            per_token: Latency::new("tpot", "time per output token", PER_TOKEN_BOUNDS),
            predicted: AtomicU64::new(0),
            cold: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            samples: Default::default(),
        }
    }
}

impl Stats {
    pub(super) fn attempted(&self, attempt: Attempt) {
        let counter = match attempt {
            Attempt::Predicted => &self.predicted,
            Attempt::Cold => &self.cold,
            Attempt::Failed => &self.failed,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn learned(&self, lesson: &Lesson) {
        let target = lesson.sample.target;
        self.samples[target.index()].fetch_add(1, Relaxed);
        let latency = match target {
            Target::PerToken => &self.per_token,
            Target::FirstToken | Target::EndToEnd => &self.first,
        };
        latency.observe(f64::from(lesson.sample.y_ms), lesson.predicted_ms, lesson.slo_ms);
    }

    pub(super) fn collect(&self, page: &mut Exposition, labels: &[Label<'_>; 2], dropped: u64) {
        self.first.collect(page, labels);
        self.per_token.collect(page, labels);
        let [name, of_type] = *labels;
        let attempts = [("ok", &self.predicted), ("cold", &self.cold), ("error", &self.failed)];
        for (result, counter) in attempts {
            let help = "Requests whose latency was to be predicted, by outcome.";
            let labels = [name, of_type, ("result", result)];
            let value = counter.load(Relaxed) as f64;
            page.counter("inlane_latency_predictions_total", help, &labels, value);
        }
        for (target, counter) in Target::ALL.iter().zip(&self.samples) {
            let help = "Training samples taken, by what was measured.";
            let labels = [name, of_type, ("type", target.name())];
            let value = counter.load(Relaxed) as f64;
            page.counter("inlane_latency_samples_total", help, &labels, value);
        }
        let help = "Training samples that found no room on their way to the control plane.";
        page.counter("inlane_latency_samples_dropped_total", help, labels, dropped as f64);
    }
}

impl Latency {
    fn new(name: &'static str, title: &'static str, bounds: &'static [f64]) -> Self {
        Self {
            name,
            title,
            actual: Histogram::new(bounds, 1e6),
            predicted: Histogram::new(bounds, 1e6),
            error: Histogram::new(ERROR_BOUNDS, 1e6),
            violations: AtomicU64::new(0),
            last_actual: Last::default(),
            last_predicted: Last::default(),
            last_violated: Last::default(),
        }
    }

    fn observe(&self, actual_ms: f64, predicted_ms: f64, slo_ms: f64) {
        self.actual.observe(actual_ms / 1e3);
        self.last_actual.set(actual_ms / 1e3);
        if predicted_ms >= 0.0 {
            self.predicted.observe(predicted_ms / 1e3);
            self.last_predicted.set(predicted_ms / 1e3);
            if actual_ms > 0.0 {
                self.error.observe((predicted_ms - actual_ms).abs() / actual_ms);
            }
        }
        if slo_ms > 0.0 {
            let violated = actual_ms > slo_ms;
            self.violations.fetch_add(u64::from(violated), Relaxed);
            self.last_violated.set(f64::from(u8::from(violated)));
        }
    }

    /// Under today's names with the instance as labels, and under the deprecated ones without. The
    /// measured latencies have a deprecated name only.
    fn collect(&self, page: &mut Exposition, labels: &[Label<'_>; 2]) {
        let Self { name, title, .. } = self;
        let old = |rest: &str| format!("{DEPRECATED}_request_{rest}");
        let gone =
            |rest: &str, help: &str| format!("[ALPHA] [Deprecated: Use {CURRENT}_{rest}] {help}");
        let help = format!("Measured {title} in seconds.");
        let actual = self.actual.snapshot();
        page.histogram(&old(&format!("{name}_seconds")), &format!("[ALPHA] {help}"), &[], actual);

        let (help, rest) =
            (format!("Predicted {title} in seconds."), format!("predicted_{name}_seconds"));
        let predicted = self.predicted.snapshot();
        let current = format!("{CURRENT}_request_{rest}");
        page.histogram(&current, &format!("[ALPHA] {help}"), labels, predicted.clone());
        page.histogram(&old(&rest), &gone(&format!("request_{rest}"), &help), &[], predicted);

        let help = "Error of the prediction that a decision was made with, as a share of what was \
                    measured.";
        let of_kind = [labels[0], labels[1], ("type", *name)];
        let error = self.error.snapshot();
        page.histogram("inlane_latency_prediction_error_ratio", help, &of_kind, error);

        let violations = self.violations.load(Relaxed) as f64;
        let (help, rest) = ("Requests that took longer than their target.", "slo_violation_total");
        let [plugin, of_type] = *labels;
        let kind = ("type", *name);
        let current = format!("{CURRENT}_request_{rest}");
        let with_kind = [plugin, of_type, kind];
        page.counter(&current, &format!("[ALPHA] {help}"), &with_kind, violations);
        page.counter(&old(rest), &gone(&format!("request_{rest}"), help), &[kind], violations);

        for (kind, last) in [
            ((*name).to_owned(), &self.last_actual),
            (format!("predicted_{name}"), &self.last_predicted),
            (format!("{name}_slo_violation"), &self.last_violated),
        ] {
            let Some(value) = last.get() else { continue };
            let (help, rest) = ("Last latencies and violations.", "inference_request_metric");
            let with_kind = [plugin, of_type, ("type", kind.as_str())];
            let current = format!("{CURRENT}_{rest}");
            page.gauge(&current, &format!("[ALPHA] {help}"), &with_kind, value);
        }
    }
}

impl Default for Last {
    fn default() -> Self {
        Self(AtomicU64::new(f64::NAN.to_bits()))
    }
}

impl Last {
    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    fn get(&self) -> Option<f64> {
        Some(f64::from_bits(self.0.load(Relaxed))).filter(|value| !value.is_nan())
    }
}

#[cfg(test)]
mod tests {
    use inlane_latency::{Row, Sample};

    use super::*;

    fn page(stats: &Stats) -> String {
        let mut page = Exposition::default();
        stats.collect(&mut page, &[("plugin_name", "n"), ("plugin_type", "t")], 3);
        page.render()
    }

    #[test]
    fn errors_are_shares_of_what_was_measured() {
        let stats = Stats::default();
        let learn = |y_ms, predicted_ms| {
            let row = Row::default();
            let sample = Sample { row, target: Target::PerToken, y_ms, endpoint: 0 };
            stats.learned(&Lesson { sample, predicted_ms, slo_ms: 0.0 });
        };
        learn(10.0, 11.0);
        learn(10.0, 5.0);
        learn(10.0, f64::NAN);
        let labels = "plugin_name=\"n\",plugin_type=\"t\",type=\"tpot\"";
        let page = page(&stats);
        let series = |suffix: &str, value: &str| {
            format!("inlane_latency_prediction_error_ratio_{suffix}{{{labels}}} {value}\n")
        };
        assert!(page.contains(&series("sum", "0.6")), "{page}");
        assert!(page.contains(&series("count", "2")), "{page}");
    }

    #[test]
    fn a_violation_is_strictly_more_than_a_target() {
        let stats = Stats::default();
        let learn = |y_ms, slo_ms| {
            let row = Row::default();
            let sample = Sample { row, target: Target::FirstToken, y_ms, endpoint: 0 };
            stats.learned(&Lesson { sample, predicted_ms: f64::NAN, slo_ms });
        };
        let name = "llm_d_epp_request_slo_violation_total";
        let line = |n| format!("{name}{{plugin_name=\"n\",plugin_type=\"t\",type=\"ttft\"}} {n}\n");
        learn(100.0, 0.0);
        learn(100.0, 100.0);
        assert!(page(&stats).contains(&line(0)), "{}", page(&stats));
        learn(100.5, 100.0);
        assert!(page(&stats).contains(&line(1)), "{}", page(&stats));
        assert!(page(&stats).contains("inference_objective_request_ttft_seconds_count 3\n"));
        assert!(
            page(&stats).contains("inference_objective_request_predicted_ttft_seconds_count 0\n")
        );
        assert!(!page(&stats).contains("predicted_tpot\""), "nothing was predicted");
        assert!(page(&stats).contains("inlane_latency_samples_dropped_total"));
    }
}

//! The trainer's numbers as metrics: predicted beside observed.

use inlane_latency::{ModelKind, Target, TargetReport};

use super::{Status, Training};
use crate::exposition::{Exposition, Kind};

/// Series of both gates, by what they say of the queue.
const QUEUES: [&str; 2] = ["empty", "waiting"];

/// Writes the families; without training only the one that says so.
pub(crate) fn write(out: &mut Exposition, training: Option<&Training>) {
    let running = training.is_some_and(|training| !training.has_failed());
    out.single(
        "inlane_control_latency_training",
        Kind::Gauge,
        "1 while latency models are trained.",
        f64::from(u8::from(running)),
    );
    if let Some(status) = training.and_then(Training::status) {
        of_pool(out, status);
        of_targets(out, status);
        coefficients(out, status);
    }
}

fn of_pool(out: &mut Exposition, status: &Status) {
    use Kind::{Counter, Gauge};
    let report = &status.report;
    let refused = status.unreadable;
    for (name, kind, help, value) in [
        ("samples_total", Counter, "Observations learned from.", report.observations as f64),
        ("samples_refused_total", Counter, "Observations out of range.", refused as f64),
        (
            "samples_dropped_total",
            Counter,
            "Observations that found a ring full.",
            status.samples.dropped as f64,
        ),
        ("retrains_total", Counter, "Retrains that came into service.", report.retrains as f64),
        ("models_total", Counter, "Model documents made.", status.published as f64),
        ("endpoints", Gauge, "Endpoints whose speed is known.", report.endpoints as f64),
        ("saves_total", Counter, "Times that the state was written.", status.saves as f64),
        (
            "save_errors_total",
            Counter,
            "Times that the state could not be written.",
            status.save_errors as f64,
        ),
    ] {
        out.single(&format!("inlane_control_latency_{name}"), kind, help, value);
    }
}

fn of_targets(out: &mut Exposition, status: &Status) {
    type Value = fn(&TargetReport) -> f64;
    let families: [(&str, Kind, &str, Value); 7] = [
        (
            "coverage",
            Kind::Gauge,
            "Share of the last 500 observations at or below the predicted quantile.",
            |t| t.window_coverage,
        ),
        (
            "mape",
            Kind::Gauge,
            "Mean absolute percentage error of the last 500 predictions, as a share.",
            |t| t.window_mape,
        ),
        ("scored_total", Kind::Counter, "Predictions compared with an observation.", |t| {
            t.scored as f64
        }),
        ("drifts_total", Kind::Counter, "Times that the past was dropped for drift.", |t| {
            t.drifts as f64
        }),
        ("kept_samples", Kind::Gauge, "Samples kept to train with.", |t| t.kept.0 as f64),
        ("held_samples", Kind::Gauge, "Samples kept to test with.", |t| t.kept.1 as f64),
        ("intercept_milliseconds", Kind::Gauge, "Intercept of the linear model.", |t| {
            t.intercept.into()
        }),
    ];
    for (name, kind, help, value) in families {
        out.family(&format!("inlane_control_latency_{name}"), kind, help);
        for target in &status.report.targets {
            out.value(&[("target", target.target.name())], value(target));
        }
    }
    let mut by_gate = |name: &str, help: &str, value: fn(&TargetReport, usize) -> f64| {
        out.family(&format!("inlane_control_latency_{name}"), Kind::Gauge, help);
        for target in &status.report.targets {
            for (gate, queue) in QUEUES.into_iter().enumerate() {
                let labels = [("target", target.target.name()), ("queue", queue)];
                out.value(&labels, value(target, gate));
            }
        }
    };
    by_gate("model", "Which model answers: 0 none, 1 linear, 2 trees.", |t, gate| {
        match t.models[gate] {
            ModelKind::None => 0.0,
            ModelKind::Linear => 1.0,
            ModelKind::Forest => 2.0,
        }
    });
    by_gate("trees", "Trees of the model that answers.", |t, gate| t.trees[gate] as f64);
    by_gate("calibration", "Factor that corrects the usual value.", |t, gate| {
        t.center[gate].into()
    });
    by_gate("quantile_calibration", "Factor that corrects the quantile.", |t, gate| {
        t.upper[gate].into()
    });
}

/// The linear models under the names of the reference's training server.
fn coefficients(out: &mut Exposition, status: &Status) {
    for target in &status.report.targets {
        let name = target.target.name();
        if target.target == Target::EndToEnd || target.coefficients.is_empty() {
            continue;
        }
        let help = "Intercept of the linear model in milliseconds.";
        out.single(&format!("{name}_intercept"), Kind::Gauge, help, target.intercept.into());
        let help = "Coefficient of the linear model, milliseconds per unit of the feature.";
        out.family(&format!("{name}_coef"), Kind::Gauge, help);
        for (feature, coefficient) in &target.coefficients {
            out.value(&[("feature", feature)], (*coefficient).into());
        }
    }
}

#[cfg(test)]
mod tests {
    use inlane_latency::{Options, Row, Sample, Trainer};

    use super::*;

    #[test]
    fn predicted_stands_beside_observed() {
        let mut trainer = Trainer::new(Options::default()).unwrap();
        for n in 1..=50u8 {
            let row = Row { input_token_length: n.into(), ..Row::default() };
            let y_ms = f32::from(n) + 1.0;
            let sample = Sample { row, target: Target::FirstToken, y_ms, endpoint: 1 };
            trainer.observe(&sample).unwrap();
        }
        let status = Status {
            report: trainer.report(),
            samples: Default::default(),
            unreadable: 2,
            published: 3,
            saves: 0,
            save_errors: 0,
        };
        let mut out = Exposition::default();
        of_pool(&mut out, &status);
        of_targets(&mut out, &status);
        coefficients(&mut out, &status);
        let page = out.finish();
        for line in [
            "inlane_control_latency_samples_total 50\n",
            "inlane_control_latency_samples_refused_total 2\n",
            "inlane_control_latency_model{target=\"ttft\",queue=\"empty\"} 1\n",
            "inlane_control_latency_model{target=\"tpot\",queue=\"empty\"} 0\n",
            "inlane_control_latency_scored_total{target=\"tpot\"} 0\n",
            "ttft_coef{feature=\"input_token_length\"} ",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("NaN"), "{page}");
    }

    #[test]
    fn without_training_one_gauge_says_so() {
        let mut out = Exposition::default();
        write(&mut out, None);
        assert!(out.finish().ends_with("inlane_control_latency_training 0\n"));
    }
}

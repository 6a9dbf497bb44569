//! Pool gauges: means and deviations over the endpoints whose numbers are fresh.
//!
//! They are computed every few seconds and keep their values in between; without a fresh endpoint
//! only the count changes, to zero.

use std::time::Duration;

use inlane_core::snapshot::MetricsRow;

use crate::exposition::{Exposition, Kind};

/// The gauges as last computed.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(crate) struct PoolGauges {
    /// Endpoints with fresh numbers; `None` before the first computation.
    ready: Option<usize>,
    statistics: Option<Statistics>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Statistics {
    kv_usage: Summary,
    waiting: Summary,
    running: Summary,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Summary {
    mean: f64,
    deviation: f64,
}

impl PoolGauges {
    /// Computes over rows that are at most `staleness` old at `now_ms`.
    pub(crate) fn refresh<'r>(
        &mut self,
        rows: impl Iterator<Item = &'r MetricsRow>,
        now_ms: u64,
        staleness: Duration,
    ) {
        let fresh: Vec<&MetricsRow> = rows
            .filter(|row| {
                let age = now_ms.saturating_sub(row.scraped_at_ms);
                row.scraped_at_ms != 0 && u128::from(age) <= staleness.as_millis()
            })
            .collect();
        self.ready = Some(fresh.len());
        if fresh.is_empty() {
            return;
        }
        let summary = |value: fn(&MetricsRow) -> f64| {
            Summary::of(&fresh.iter().map(|row| value(row)).collect::<Vec<_>>())
        };
        self.statistics = Some(Statistics {
            kv_usage: summary(|row| row.kv_usage),
            waiting: summary(|row| row.waiting.into()),
            running: summary(|row| row.running.into()),
        });
    }

    /// Writes the gauges of pool `name`, each under its deprecated name too.
    pub(crate) fn write(&self, out: &mut Exposition, name: &str) {
        let labels = [("name", name)];
        if let Some(s) = self.statistics {
            for (metric, help, value) in [
                (
                    "average_kv_cache_utilization",
                    "The average kv cache utilization for an inference server pool.",
                    s.kv_usage.mean,
                ),
                (
                    "average_queue_size",
                    "The average number of requests pending in the model server queue.",
                    s.waiting.mean,
                ),
                (
                    "average_running_requests",
                    "The average number of running requests across model servers.",
                    s.running.mean,
                ),
            ] {
                out.twins(metric, metric, Kind::Gauge, help);
                out.twin_values(&labels, &labels, value);
            }
            for (metric, help, value) in [
                (
                    "std_dev_kv_cache_utilization",
                    "The standard deviation of kv cache utilization across model servers.",
                    s.kv_usage.deviation,
                ),
                (
                    "std_dev_queue_size",
                    "The standard deviation of the queue size across model servers.",
                    s.waiting.deviation,
                ),
                (
                    "std_dev_running_requests",
                    "The standard deviation of running requests across model servers.",
                    s.running.deviation,
                ),
            ] {
                out.family(&format!("llm_d_epp_{metric}"), Kind::Gauge, &format!("[ALPHA] {help}"));
                out.value(&labels, value);
            }
        }
        if let Some(ready) = self.ready {
            let help = "The number of ready endpoints in the inference server pool.";
            out.twins("ready_endpoints", "ready_pods", Kind::Gauge, help);
            out.twin_values(&labels, &labels, ready as f64);
        }
    }
}

impl Summary {
    /// Mean and sample standard deviation of at least one value, rounded to two decimals.
    fn of(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (squares / values.len().saturating_sub(1).max(1) as f64).sqrt();
        let round = |value: f64| (value * 100.0).round() / 100.0;
        Self { mean: round(mean), deviation: round(deviation) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(waiting: u32, kv_usage: f64, scraped_at_ms: u64) -> MetricsRow {
        MetricsRow { waiting, kv_usage, scraped_at_ms, ..MetricsRow::default() }
    }

    fn page(gauges: &PoolGauges) -> String {
        let mut out = Exposition::default();
        gauges.write(&mut out, "p");
        out.finish()
    }

    #[test]
    fn only_fresh_endpoints_count() {
        let rows = [row(1, 0.1, 9_000), row(4, 0.333, 10_000), row(99, 0.9, 7_999), row(9, 0.9, 0)];
        let mut gauges = PoolGauges::default();
        assert_eq!(page(&gauges), "");
        gauges.refresh(rows.iter(), 10_000, Duration::from_secs(2));
        let text = page(&gauges);
        for line in [
            "llm_d_epp_average_queue_size{name=\"p\"} 2.5\n",
            "inference_pool_average_queue_size{name=\"p\"} 2.5\n",
            "llm_d_epp_std_dev_queue_size{name=\"p\"} 2.12\n",
            "llm_d_epp_average_kv_cache_utilization{name=\"p\"} 0.22\n",
            "llm_d_epp_ready_endpoints{name=\"p\"} 2\n",
            "inference_pool_ready_pods{name=\"p\"} 2\n",
            "# HELP llm_d_epp_average_queue_size [ALPHA] The average number",
            "# HELP inference_pool_ready_pods [ALPHA] [Deprecated: Use llm_d_epp_ready_endpoints] The number",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("inference_pool_std_dev"));
    }

    #[test]
    fn without_a_fresh_endpoint_only_the_count_changes() {
        let mut gauges = PoolGauges::default();
        gauges.refresh([row(3, 0.5, 1_000)].iter(), 1_000, Duration::from_secs(2));
        gauges.refresh([row(5, 0.7, 1_000)].iter(), 9_000, Duration::from_secs(2));
        let text = page(&gauges);
        assert!(text.contains("llm_d_epp_average_queue_size{name=\"p\"} 3\n"));
        assert!(text.contains("llm_d_epp_ready_endpoints{name=\"p\"} 0\n"));
    }

    #[test]
    fn one_value_has_no_deviation() {
        assert_eq!(Summary::of(&[0.125]), Summary { mean: 0.13, deviation: 0.0 });
    }
}

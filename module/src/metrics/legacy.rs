//! Names of the first documents of this field, which no endpoint picker ever had.
//!
//! All but the cache hits repeat what is measured anyway, at the moment that somebody looks.

use std::collections::BTreeMap;

use inlane_core::cycle::ExtensionPoint;
use inlane_core::exposition::{Exposition, HistogramSnapshot};
use prometheus::core::{Collector, Metric};
use prometheus::{Histogram, IntCounterVec};

use super::buckets::FAST;
use super::families::Families;

/// Adds the families to a page.
pub(super) fn collect(families: &Families, page: &mut Exposition) {
    page.histogram(
        "epp_scheduling_duration_seconds",
        "Duration of scheduling decisions in seconds.",
        &[],
        snapshot(families.scheduler.current()),
    );
    for (point, label, name, help) in [
        (
            ExtensionPoint::Filter,
            "filter",
            "epp_filter_duration_seconds",
            "Duration of filters in seconds, of one in 64 decisions.",
        ),
        (
            ExtensionPoint::Scorer,
            "scorer",
            "epp_scorer_duration_seconds",
            "Duration of scorers in seconds, of one in 64 decisions.",
        ),
    ] {
        families.plugin_times.collect_types(point, (name, help), label, page);
    }
    for (endpoint, decisions) in by_endpoint(families.successes()) {
        page.counter(
            "epp_routing_decisions_total",
            "Routing decisions.",
            &[("endpoint", &endpoint)],
            decisions,
        );
    }
    page.counter(
        "epp_cache_hits_total",
        "Decisions for an endpoint that held the start of the prompt.",
        &[],
        families.cache_hits.get() as f64,
    );
}

/// A histogram with the bounds [`FAST`].
fn snapshot(histogram: &Histogram) -> HistogramSnapshot {
    let metric = histogram.metric();
    let histogram = metric.get_histogram();
    let mut below = 0;
    let mut counts: Vec<u64> = Vec::with_capacity(FAST.len() + 1);
    for bucket in histogram.get_bucket().iter().take(FAST.len()) {
        let count = bucket.cumulative_count();
        counts.push(count.saturating_sub(below));
        below = count;
    }
    counts.push(histogram.get_sample_count().saturating_sub(below));
    HistogramSnapshot { bounds: FAST, counts, sum: histogram.get_sample_sum() }
}

/// The successful attempts, added up by endpoint.
fn by_endpoint(attempts: &IntCounterVec) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for family in attempts.collect() {
        for metric in family.get_metric() {
            let label = |name: &str| {
                let pair = metric.get_label().iter().find(|pair| pair.name() == name);
                pair.map_or("", |pair| pair.value())
            };
            if label("status") == "success" {
                *sums.entry(label("endpoint_name").to_owned()).or_default() +=
                    metric.get_counter().get_value();
            }
        }
    }
    sums
}

//! `/metrics` and `/healthz`.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use inlane_core::plugin::LoadSource;
use inlane_plugins::prefix::{Histogram, HistogramSnapshot, PrefixStats};

use super::page::Page;
use crate::clock;
use crate::runtime::Runtime;

/// Prometheus text: what was recorded, and gauges that are read when somebody looks.
pub(super) fn render(runtime: &Runtime) -> Vec<u8> {
    runtime.metrics.held_bytes.set(runtime.held_bytes.load(Ordering::Relaxed) as i64);
    let mut out = Vec::with_capacity(64 << 10);
    runtime.metrics.render(&mut out);
    let mut text = String::new();
    gauges(runtime, &mut text);
    out.extend_from_slice(text.as_bytes());
    out
}

fn family(text: &mut String, name: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn gauges(runtime: &Runtime, text: &mut String) {
    prefixes(runtime, text);
    let heartbeat = runtime.heartbeat_ns.load(Ordering::Relaxed);
    if heartbeat > 0 {
        let age = clock::now_ns().saturating_sub(heartbeat) as f64 * 1e-9;
        family(
            text,
            "inlane_snapshot_age_seconds",
            "Time since the control plane's last sign of life.",
        );
        let _ = writeln!(text, "inlane_snapshot_age_seconds {age}");
    }
    let served = runtime.served();
    let Some(serving) = served.serving() else { return };
    family(text, "inlane_topology_generation", "Generation of the topology in use.");
    let _ = writeln!(text, "inlane_topology_generation {}", serving.topology_generation);
    family(text, "inlane_config_generation", "Generation of the configuration in use.");
    let _ = writeln!(text, "inlane_config_generation {}", serving.config_generation);
    let mut plugins = serving.plan.config().plugins.iter();
    let producer = plugins.find(|p| p.type_name == "inflight-load-producer");
    let producer = producer.map_or("", |p| p.name.as_str());
    for (name, help, tokens) in [
        ("llm_d_epp_inflight_requests", "[ALPHA] Requests in flight per endpoint.", false),
        ("llm_d_epp_inflight_tokens", "[ALPHA] Projected tokens in flight per endpoint.", true),
    ] {
        family(text, name, help);
        for endpoint in serving.endpoints().as_slice() {
            let load = serving.in_flight(endpoint.slot);
            let value = if tokens { load.tokens } else { u64::from(load.requests) };
            let (id, namespace) = (escape(&endpoint.name), escape(&endpoint.namespace));
            let _ = writeln!(
                text,
                "{name}{{endpoint_name=\"{id}\",namespace=\"{namespace}\",producer_name=\"{}\"}} {value}",
                escape(producer)
            );
        }
    }
}

/// The prefix indexes: their sizes, and how well they hit.
fn prefixes(runtime: &Runtime, text: &mut String) {
    let indexes = runtime.prefixes();
    if indexes.is_empty() {
        return;
    }
    let current = "llm_d_epp_prefix_indexer";
    let twin = "inference_extension_prefix_indexer";
    let deprecated = |name: &str| format!("[ALPHA] [Deprecated: Use {current}_{name}] ");
    let labels = |key: &str| {
        let (kind, rest) = key.split_once('/').unwrap_or((key, ""));
        let name = rest.split('/').next().unwrap_or_default();
        format!("plugin_name=\"{}\",plugin_type=\"{}\"", escape(name), escape(kind))
    };
    let help = "Entries of the approximate prefix index.";
    family(text, &format!("{current}_size"), &format!("[ALPHA] {help}"));
    for (key, index) in &indexes {
        let _ = writeln!(text, "{current}_size{{{}}} {}", labels(key), index.size());
    }
    family(text, &format!("{twin}_size"), &format!("{}{help}", deprecated("size")));
    let all: u64 = indexes.iter().map(|(_, index)| index.size()).sum();
    let _ = writeln!(text, "{twin}_size {all}");

    type Part = fn(&PrefixStats) -> &Histogram;
    let parts: [(&str, &str, Part); 2] = [
        ("hit_ratio", "Ratio of matched to all blocks at the chosen endpoint.", |s| &s.hit_ratio),
        ("hit_bytes", "Bytes of matched blocks at the chosen endpoint.", |s| &s.hit_bytes),
    ];
    for (name, help, part) in parts {
        let full = format!("{current}_{name}");
        let _ = writeln!(text, "# HELP {full} [ALPHA] {help}\n# TYPE {full} histogram");
        for (key, index) in &indexes {
            histogram(text, &full, &labels(key), &part(index.stats()).snapshot());
        }
        let full = format!("{twin}_{name}");
        let help = format!("{}{help}", deprecated(name));
        let _ = writeln!(text, "# HELP {full} {help}\n# TYPE {full} histogram");
        let mut sum: Option<HistogramSnapshot> = None;
        for (_, index) in &indexes {
            let one = part(index.stats()).snapshot();
            match &mut sum {
                None => sum = Some(one),
                Some(sum) => {
                    sum.counts.iter_mut().zip(&one.counts).for_each(|(sum, one)| *sum += one);
                    sum.sum += one.sum;
                }
            }
        }
        if let Some(sum) = sum {
            histogram(text, &full, "", &sum);
        }
    }
}

fn histogram(text: &mut String, name: &str, labels: &str, snapshot: &HistogramSnapshot) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut total = 0;
    let bounds = snapshot.bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(&snapshot.counts) {
        total += count;
        let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}");
    }
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(text, "{name}_sum{braces} {}\n{name}_count{braces} {total}", snapshot.sum);
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// 200 when decisions can be made.
pub(super) fn health(runtime: &Runtime) -> Page {
    match &runtime.served().state {
        Ok(serving) if serving.endpoints().is_empty() => Page::text(503, "no-endpoints\n"),
        Ok(_) => Page::text(200, "ok\n"),
        Err(why) => Page::text(503, format!("{}\n", why.as_str())),
    }
}

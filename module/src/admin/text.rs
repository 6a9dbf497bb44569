//! `/metrics` and `/healthz`.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use inlane_core::exposition::Exposition;
use inlane_core::plugin::LoadSource;

use super::page::Page;
use crate::clock;
use crate::runtime::Runtime;

/// Prometheus text: what was recorded, and gauges that are read when somebody looks.
pub(super) fn render(runtime: &Runtime) -> Vec<u8> {
    runtime.metrics.held_bytes.set(runtime.held_bytes.load(Ordering::Relaxed) as i64);
    let tokenizers = runtime.tokens.tokenizers();
    let gauge = |count: Option<usize>| count.and_then(|n| i64::try_from(n).ok()).unwrap_or(0);
    let tokens = &runtime.metrics.tokens;
    tokens.queue.set(gauge(tokenizers.as_ref().map(|t| t.queued())));
    tokens.models.set(gauge(tokenizers.as_ref().map(|t| t.models().len())));
    let mut out = Vec::with_capacity(64 << 10);
    runtime.metrics.render(runtime.settings().legacy_metric_names, &mut out);
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
    let mut page = Exposition::default();
    serving.plan.collect(&mut page);
    text.push_str(&page.render());
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

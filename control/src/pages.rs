//! What the HTTP server shows.

use std::collections::BTreeMap;

use inlane_core::snapshot::MetricsRow;
use serde_json::{Value, json};

use crate::exposition::{Exposition, Kind};
use crate::kv;
use crate::latency::write_metrics;
use crate::pool::{PublishedPool, Tracked, now_ms};
use crate::process::{cpu_time, memory};
use crate::scrape::Scrapers;
use crate::shared::{InputStatus, Shared};

/// The metrics page: pool gauges and data-layer counters under the names of the Go scheduler, and
/// the control plane's own.
pub(crate) fn metrics(shared: &Shared, scrapers: &Scrapers) -> String {
    let mut out = Exposition::default();
    let pool = shared.pool.borrow();
    shared.gauges.borrow().write(&mut out, &pool.pool().name);
    per_endpoint(&mut out, &pool);
    data_layer(&mut out, scrapers);
    scraping(&mut out, scrapers);
    publishing(&mut out, shared, &pool);
    inputs(&mut out, shared);
    write_metrics(&mut out, shared.training.borrow().as_ref());
    kv::write_metrics(&mut out, shared.events.borrow().as_ref());
    process(&mut out);
    out.finish()
}

fn per_endpoint(out: &mut Exposition, pool: &PublishedPool) {
    let name = pool.pool().name.as_str();
    let help = "The total number of requests pending in the model server queue for each endpoint.";
    out.twins("per_endpoint_queue_size", "per_pod_queue_size", Kind::Gauge, help);
    for member in pool.members() {
        let endpoint = member.member.name.as_str();
        out.twin_values(
            &[("name", name), ("model_server_endpoint", endpoint)],
            &[("name", name), ("model_server_pod", endpoint)],
            member.row.waiting.into(),
        );
    }
}

fn data_layer(out: &mut Exposition, scrapers: &Scrapers) {
    let mut failures = scrapers.counters().failures();
    // Families that are always there say so with a zero.
    failures.entry(("metrics-data-source", None)).or_default();
    failures.entry(("metrics-data-source", Some("core-metrics-extractor"))).or_default();
    for (name, help, of_extractors) in [
        ("datalayer_poll_errors_total", "Total number of datalayer poll errors.", false),
        ("datalayer_extract_errors_total", "Total number of datalayer extract errors.", true),
    ] {
        let (name, twin) =
            (format!("llm_d_epp_{name}"), format!("llm_d_inference_scheduler_{name}"));
        out.named_twins(&name, &twin, Kind::Counter, help);
        for ((source, extractor), count) in &failures {
            let mut labels = vec![("source_type", *source)];
            labels.extend(extractor.map(|extractor| ("extractor_type", extractor)));
            if extractor.is_some() == of_extractors {
                out.twin_values(&labels, &labels, *count as f64);
            }
        }
    }
}

fn scraping(out: &mut Exposition, scrapers: &Scrapers) {
    use Kind::{Counter, Gauge};
    let counters = scrapers.counters();
    let interval = scrapers.interval().as_secs_f64();
    for (name, kind, help, value) in [
        ("scrapes_total", Counter, "Metrics pages read.", counters.pages.get() as f64),
        ("scrape_bytes_total", Counter, "Bytes received for them.", counters.bytes.get() as f64),
        (
            "scrape_dropped_ticks_total",
            Counter,
            "Ticks dropped because the endpoint's scrape was still running.",
            counters.dropped_ticks.get() as f64,
        ),
        ("scrapes_running", Gauge, "Scrapes running now.", counters.running.get().into()),
        ("scrape_interval_seconds", Gauge, "Interval between scrapes in force.", interval),
        (
            "scrape_backoffs_total",
            Counter,
            "Times that scraping slowed down to spare CPU time.",
            scrapers.backoffs() as f64,
        ),
    ] {
        out.single(&format!("inlane_control_{name}"), kind, help, value);
    }
}

fn publishing(out: &mut Exposition, shared: &Shared, pool: &PublishedPool) {
    use Kind::{Counter, Gauge};
    let counters = pool.counters();
    let proxies = pool.ledgers().iter().count();
    let behind = pool
        .ledgers()
        .iter()
        .filter(|(_, ledger)| ledger.accepted_config() != pool.config_generation())
        .count();
    for (name, kind, help, value) in [
        ("endpoints", Gauge, "Endpoints in the pool.", pool.members().count() as f64),
        (
            "topology_generation",
            Gauge,
            "Generation of the published topology.",
            pool.topology_generation() as f64,
        ),
        (
            "config_generation",
            Gauge,
            "Generation of the published configuration.",
            pool.config_generation() as f64,
        ),
        (
            "retired_slots",
            Gauge,
            "Slots of former endpoints that wait for their last claims.",
            pool.retired_slots() as f64,
        ),
        ("segment_bytes", Gauge, "Size of the segment's data file.", pool.segment_bytes() as f64),
        ("proxies", Gauge, "Live proxies that use the segment.", proxies as f64),
        (
            "proxies_behind",
            Gauge,
            "Live proxies that do not use the published configuration.",
            behind as f64,
        ),
        (
            "publish_errors_total",
            Counter,
            "Writes of the segment that failed.",
            shared.publish_errors.get() as f64,
        ),
        (
            "adapters_left_out_total",
            Counter,
            "LoRA adapter names seen while the adapter table was full.",
            counters.adapters_left_out as f64,
        ),
        (
            "endpoints_left_out_total",
            Counter,
            "Endpoints for which there was no slot.",
            counters.members_left_out as f64,
        ),
        (
            "late_scrapes_total",
            Counter,
            "Scrapes that came back for an endpoint that had gone.",
            counters.late_scrapes as f64,
        ),
    ] {
        out.single(&format!("inlane_control_{name}"), kind, help, value);
    }
}

fn inputs(out: &mut Exposition, shared: &Shared) {
    let inputs = [("config", &shared.config), ("endpoints", &shared.endpoints)];
    let mut family = |name: &str, kind, help: &str, value: fn(&InputStatus) -> f64| {
        out.family(&format!("inlane_control_{name}"), kind, help);
        for (input, status) in inputs {
            out.value(&[("input", input)], value(&status.borrow()));
        }
    };
    family("reloads_total", Kind::Counter, "Contents of an input file taken.", |s| {
        s.accepted as f64
    });
    family("refusals_total", Kind::Counter, "Contents of an input file refused.", |s| {
        s.refused as f64
    });
    family(
        "refused",
        Kind::Gauge,
        "1 while what an input file says is not in force, wholly or in part.",
        |s| f64::from(u8::from(s.error.is_some())),
    );
}

fn process(out: &mut Exposition) {
    let seconds = cpu_time().as_secs_f64();
    let help = "User and system CPU time spent in seconds.";
    out.single("process_cpu_seconds_total", Kind::Counter, help, seconds);
    if let Some(memory) = memory() {
        let help = "Resident memory size in bytes.";
        out.single("process_resident_memory_bytes", Kind::Gauge, help, memory.resident as f64);
        let help = "Resident memory that is this process's own, in bytes.";
        out.single("inlane_control_anonymous_bytes", Kind::Gauge, help, memory.anonymous as f64);
    }
}

/// What is published, and what is not in force although a file says it.
pub(crate) fn readiness(shared: &Shared) -> Value {
    let pool = shared.pool.borrow();
    let input = |status: &InputStatus| json!({"error": status.error, "refused": status.refused});
    let proxies: Vec<Value> = pool
        .ledgers()
        .iter()
        .map(|(name, ledger)| {
            let refusal = ledger
                .refusal()
                .map(|refusal| json!({"generation": refusal.generation, "reason": refusal.reason}));
            json!({
                "ledger": name,
                "accepted_config": ledger.accepted_config(),
                "accepted_topology": ledger.accepted_topology(),
                "refusal": refusal,
            })
        })
        .collect();
    json!({
        "ready": shared.ready.get(),
        "pool": {"name": pool.pool().name, "namespace": pool.pool().namespace},
        "topology_generation": pool.topology_generation(),
        "config_generation": pool.config_generation(),
        "config": input(&shared.config.borrow()),
        "endpoints": input(&shared.endpoints.borrow()),
        "proxies": proxies,
    })
}

/// The state of every stream of KV-cache events.
pub(crate) fn events(shared: &Shared) -> Value {
    kv::page(shared.events.borrow().as_ref())
}

/// Every endpoint with its place and numbers.
pub(crate) fn endpoints(shared: &Shared) -> Value {
    let pool = shared.pool.borrow();
    let now = now_ms();
    let adapters = pool.adapter_names();
    let names = |bits: u64| -> Vec<&String> {
        adapters.iter().enumerate().filter(|(i, _)| bits >> i & 1 != 0).map(|(_, n)| n).collect()
    };
    let scalars = |row: &MetricsRow| -> BTreeMap<String, f64> {
        let named = pool.scalars().iter().zip(row.scalars).filter(|(_, value)| value.is_finite());
        named.map(|(key, value)| (format!("{}/{}", key.name, key.producer), value)).collect()
    };
    let endpoint = |tracked: &Tracked| {
        let (member, row) = (&tracked.member, &tracked.row);
        let claims = pool.ledgers().load(tracked.slot.index, tracked.slot.generation);
        json!({
            "id": member.id(),
            "pod": member.pod_name,
            "address": tracked.address().to_string(),
            "rank": member.rank,
            "labels": member.labels,
            "slot": tracked.slot.index,
            "slot_generation": tracked.slot.generation.number(),
            "waiting": row.waiting,
            "running": row.running,
            "kv_usage": row.kv_usage,
            "cache_block_size": row.cache_block_size,
            "cache_num_blocks": row.cache_num_blocks,
            "max_active_models": row.max_active_models,
            "loaded_models": row.loaded_models,
            "served_models": names(row.served_models),
            "scalars": scalars(row),
            "active_models": names(row.active_models),
            "waiting_models": names(row.waiting_models),
            "scrapes": row.scrapes,
            "age_ms": tracked.age(now).map(|age| age.as_millis() as u64),
            "missing_metrics": tracked.missing,
            "error": tracked.error(),
            "claimed_requests": claims.requests,
            "claimed_tokens": claims.tokens,
        })
    };
    json!({"endpoints": pool.members().map(endpoint).collect::<Vec<_>>()})
}

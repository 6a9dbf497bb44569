//! `/debug/pool`: the pool as the module sees it, with ages and generations.

use std::sync::atomic::Ordering;

use inlane_core::endpoint::Endpoint;
use inlane_core::plugin::LoadSource;
use serde_json::{Value, json};

use crate::clock;
use crate::runtime::{Runtime, Serving};

/// The page.
pub(super) fn page(runtime: &Runtime) -> Value {
    let served = runtime.served();
    let heartbeat = runtime.heartbeat_ns.load(Ordering::Relaxed);
    let age = (heartbeat > 0).then(|| clock::now_ns().saturating_sub(heartbeat) / 1_000_000);
    let mut page = json!({
        "segment_dir": runtime.segment_dir().display().to_string(),
        "snapshot_age_ms": age,
        "latency_model_generation": runtime.model_generation.load(Ordering::Relaxed),
        "held_body_bytes": runtime.held_bytes.load(Ordering::Relaxed),
        "prefix_indexes": runtime.prefixes().iter().map(|(name, index)| json!({
            "name": name, "entries": index.size(), "dropped_picks": index.dropped(),
            "budget_bytes": index.budget_bytes(),
        })).collect::<Value>(),
    });
    if let Some(tokenizers) = runtime.tokens.tokenizers() {
        page["tokenizers"] = json!({
            "models": tokenizers.models(), "queued": tokenizers.queued(),
        });
    }
    match &served.state {
        Err(why) => page["serving"] = why.as_str().into(),
        Ok(serving) => describe(&mut page, serving),
    }
    page
}

fn describe(page: &mut Value, serving: &Serving) {
    let now_ms = clock::now_ms();
    let counters = serving.ledger.counters();
    page["serving"] = "yes".into();
    page["pool"] = json!({
        "name": serving.pool.name,
        "namespace": serving.pool.namespace,
        "failure_mode": serving.pool.failure_mode,
    });
    page["topology_generation"] = serving.topology_generation.into();
    page["config_generation"] = serving.config_generation.into();
    page["profiles"] =
        serving.plan.config().profiles.iter().map(|p| p.name.clone()).collect::<Value>();
    page["ledger"] = json!({
        "file": serving.ledger.file_name(),
        "claims_taken": counters.taken,
        "claims_released": counters.released,
        "conflicts": counters.conflicts,
        "stale_releases": counters.stale_releases,
    });
    let endpoints = serving.endpoints().as_slice().iter();
    page["endpoints"] = endpoints.map(|e| endpoint(serving, e, now_ms)).collect();
}

fn endpoint(serving: &Serving, endpoint: &Endpoint, now_ms: u64) -> Value {
    let row = serving.row(endpoint.slot).unwrap_or_default();
    let load = serving.in_flight(endpoint.slot);
    let age = (row.scraped_at_ms > 0).then(|| now_ms.saturating_sub(row.scraped_at_ms));
    json!({
        "id": endpoint.id,
        "name": endpoint.name,
        "address": endpoint.host_port,
        "labels": endpoint.labels,
        "slot": endpoint.slot.index,
        "slot_generation": endpoint.slot.generation,
        "waiting": row.waiting,
        "running": row.running,
        "kv_usage": row.kv_usage,
        "cache_block_size": row.cache_block_size,
        "cache_num_blocks": row.cache_num_blocks,
        "metrics_age_ms": age,
        "scrapes": row.scrapes,
        "in_flight_requests": load.requests,
        "in_flight_tokens": load.tokens,
    })
}

/// Has the owner thread forget every prefix. Answers which indexes there are.
pub(super) fn reset_prefixes(runtime: &Runtime) -> Value {
    runtime.reset_prefixes.store(true, Ordering::Release);
    let names = runtime.prefixes().into_iter().map(|(name, _)| Value::from(name));
    json!({ "reset": names.collect::<Value>() })
}

//! `/debug/decisions`: the last decisions, newest first, with every score.

use std::cmp::Reverse;

use serde_json::{Value, json};

use crate::record::Entry;
use crate::runtime::Runtime;
use inlane_core::explain::Explanation;

/// Decisions shown unless the query asks for another number.
const LIMIT: usize = 100;

/// The page. `request_id=` shows one request's decisions, `limit=` that many.
pub(super) fn page(runtime: &Runtime, query: &str) -> Value {
    let parameter =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let wanted = parameter("request_id");
    let limit = parameter("limit").and_then(|limit| limit.parse().ok()).unwrap_or(LIMIT);
    let mut sequences = Vec::new();
    let asked_for = |entry: &Entry| wanted.is_none_or(|id| entry.request_id == id);
    runtime.log.read(|entry| {
        if asked_for(entry) {
            sequences.push(entry.sequence);
        }
    });
    sequences.sort_unstable_by(|a, b| b.cmp(a));
    sequences.truncate(limit);
    let oldest = sequences.last().copied().unwrap_or(u64::MAX);
    let mut decisions = Vec::new();
    runtime.log.read(|entry| {
        if asked_for(entry) && entry.sequence >= oldest {
            decisions.push((entry.sequence, decision(entry)));
        }
    });
    decisions.sort_unstable_by_key(|(sequence, _)| Reverse(*sequence));
    let decisions: Vec<Value> = decisions.into_iter().map(|(_, decision)| decision).collect();
    json!({ "decisions": decisions, "not_logged": runtime.log.dropped() })
}

fn decision(entry: &Entry) -> Value {
    let mut page = json!({
        "sequence": entry.sequence,
        "request_id": entry.request_id,
        "time_unix_ms": entry.unix_ms,
        "model": entry.model,
        "prompt_tokens": entry.prompt_tokens,
        "step": entry.step,
        "duration_us": entry.duration_ns as f64 / 1e3,
        "booking_conflicts": entry.conflicts,
    });
    if !entry.error.is_empty() {
        page["error"] = entry.error.clone().into();
    }
    let Some(plan) = &entry.plan else { return page };
    page["config_generation"] = entry.config_generation.into();
    page["topology_generation"] = entry.topology_generation.into();
    // Strings and numbers always have a JSON form.
    let explained = serde_json::to_value(Explanation::of(plan, &entry.decision, &entry.error));
    if let (Some(page), Ok(Value::Object(fields))) = (page.as_object_mut(), explained) {
        page.extend(fields);
    }
    page
}

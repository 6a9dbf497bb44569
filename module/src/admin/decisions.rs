//! `/debug/decisions`: the last decisions, newest first, with every score.

use std::cmp::Reverse;

use serde_json::{Map, Value, json};

use crate::record::Entry;
use crate::runtime::Runtime;
use inlane_core::decision::{ProfileIx, ProfileRun};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plan::Plan;

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
    if let Some(target) = entry.decision.target().and_then(|ix| plan.endpoints().get(ix)) {
        page["endpoint"] = target.id.clone().into();
        page["destination"] = target.host_port.clone().into();
    }
    let profiles = entry.decision.profiles.iter().zip(0..).filter(|(run, _)| run.ran);
    page["profiles"] = profiles.map(|(run, ix)| profile(plan, ix, run)).collect();
    if let Some(primary) = entry.decision.primary_run() {
        page["primary_profile"] = primary.name.clone().into();
    }
    page
}

fn profile(plan: &Plan, ix: ProfileIx, run: &ProfileRun) -> Value {
    let config = plan.config();
    let id = |ix: EndpointIx| plan.endpoints().get(ix).map_or("", |e| e.id.as_str());
    let ids = |list: &[EndpointIx]| list.iter().map(|ix| id(*ix)).collect::<Vec<_>>();
    let Some(profile) = config.profiles.get(usize::from(ix)) else { return Value::Null };
    let scorers: Vec<_> = profile
        .scorers
        .iter()
        .map(|scorer| (plan.plugin_name(scorer.plugin), scorer.weight))
        .collect();
    let endpoints = run.candidates.iter().zip(&run.totals).enumerate().map(|(row, (ix, total))| {
        let scores: Map<String, Value> = scorers
            .iter()
            .zip(&run.scores)
            .map(|((name, _), scores)| {
                let score = scores.get(row).copied().filter(|score| !score.is_nan());
                ((*name).to_owned(), score.map_or(Value::Null, Value::from))
            })
            .collect();
        json!({ "endpoint": id(*ix), "scores": scores, "total": total })
    });
    let statics = plan.static_rejections(ix).iter();
    let rejected = statics.chain(&run.rejections).map(|rejection| {
        let filter = profile.filters.get(usize::from(rejection.filter));
        json!({
            "endpoint": id(rejection.endpoint),
            "filter": filter.map_or("", |plugin| plan.plugin_name(*plugin)),
            "reason": rejection.reason,
        })
    });
    json!({
        "name": run.name,
        "failed": run.failed,
        "scorers": scorers.iter().map(|(n, w)| json!({"name": n, "weight": w})).collect::<Value>(),
        "picker": plan.plugin_name(profile.picker),
        "endpoints": endpoints.collect::<Value>(),
        "rejected": rejected.collect::<Value>(),
        "picked": ids(&run.targets),
        "ranking": ids(&run.ranking),
        "plugin_errors": run.errors.iter().map(|(plugin, error)| {
            json!({"plugin": plan.plugin_name(*plugin), "error": error.to_string()})
        }).collect::<Value>(),
    })
}

//! The case runner: acceptance cases in JSON, run against the production code.
//!
//! A file holds cases of several kinds (see `schema`): single plugins, whole configurations,
//! decisions, and sequences of calls on shared plugin state. Everything goes through the code that
//! a proxy runs: the plugin registry, configuration loading, plans, producers, decisions, effects.
//! Only the ledger is a small one in memory, what the owner thread of a prefix index would do is
//! done at once, and time is counted, not measured. `reference` says where plans are switched to
//! what the reference does.
//!
//! A case is skipped when its kind or one of its plugin types does not exist here yet, and for no
//! other reason.

mod answer;
mod attributes;
mod bench;
mod check;
mod director;
mod effects;
mod hashing;
mod latency;
mod ledger;
mod pool;
mod precise;
mod reference;
mod request;
mod schedule;
mod schema;
mod sequence;
mod single;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use inlane_core::registry::Registry;
use serde::Deserialize;
use serde_json::Value;

use check::Checks;
use schema::Case;

/// Every plugin type of the reference. A case that names one of these waits for it to be
/// registered; any other unknown name is meant to be unknown.
const REFERENCE_TYPES: &[&str] = &[
    "active-request-scorer",
    "agent-identity",
    "always-disagg-multimodal-decider",
    "always-disagg-pd-decider",
    "anthropic-parser",
    "approx-prefix-cache-producer",
    "burst-prefix-cache-producer",
    "by-label",
    "by-label-selector",
    "concurrency-detector",
    "context-length-aware",
    "core-metrics-extractor",
    "data-parallel-profile-handler",
    "dcgm-data-source",
    "dcgm-extractor",
    "decode-filter",
    "destination-endpoint-served-verifier",
    "disagg-headers-handler",
    "disagg-profile-handler",
    "disaggregatedset-rollout-screener",
    "edf-ordering-policy",
    "encode-filter",
    "endpoint-attribute-filter",
    "endpoint-attribute-scorer",
    "endpoint-notification-source",
    "fcfs-ordering-policy",
    "file-discovery",
    "global-strict-fairness-policy",
    "header-based-testing-filter",
    "header-label-affinity-scorer",
    "header-profile-handler",
    "inflight-load-producer",
    "k8s-notification-source",
    "kv-cache-utilization-scorer",
    "label-selector-filter",
    "latency-scorer",
    "latency-slo-admitter",
    "load-aware-scorer",
    "lora-affinity-scorer",
    "max-score-picker",
    "metrics-data-source",
    "mm-embeddings-cache-producer",
    "mm-embeddings-cache-scorer",
    "models-data-extractor",
    "models-data-source",
    "multicluster-approx-prefix-cache-producer",
    "multicluster-file-discovery",
    "multicluster-kv-cache-utilization-scorer",
    "multicluster-metrics-data-source",
    "multicluster-metrics-extractor",
    "multicluster-prefix-cache-scorer",
    "multicluster-queue-scorer",
    "multicluster-session-affinity-filter",
    "no-hit-lru-scorer",
    "openai-parser",
    "p2p-source-producer",
    "passthrough-parser",
    "pd-profile-handler",
    "precise-prefix-cache-producer",
    "precise-prefix-cache-scorer",
    "predicted-latency-producer",
    "prefill-filter",
    "prefill-header-handler",
    "prefix-based-pd-decider",
    "prefix-cache-affinity-filter",
    "prefix-cache-scorer",
    "priority-holdback-policy",
    "priority-then-time-eviction-order-policy",
    "probabilistic-admitter",
    "program-aware-fairness",
    "queue-scorer",
    "random-picker",
    "request-attribute-reporter",
    "round-robin-fairness-policy",
    "running-requests-size-scorer",
    "session-affinity-filter",
    "session-affinity-scorer",
    "session-id-producer",
    "sglanghttp-parser",
    "sheddable-eviction-filter",
    "single-profile-handler",
    "slo-deadline-ordering-policy",
    "slo-headroom-tier-filter",
    "soft-reflective-ceiling-policy",
    "static-usage-limit-policy",
    "token-load-scorer",
    "token-producer",
    "tokenizer",
    "topology-affinity-filter",
    "topology-affinity-scorer",
    "topology-extractor",
    "utilization-detector",
    "utilization-filter",
    "vertexai-parser",
    "vllmgrpc-parser",
    "vllmhttp-parser",
    "weighted-random-picker",
];

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Not as expected: what differs, one line each.
    Failed(Vec<String>),
    /// What does not exist here yet.
    Skipped(String),
}

/// The outcomes of a file, in its order.
#[derive(Debug, Default)]
pub struct Report {
    /// Case id and outcome.
    pub outcomes: Vec<(String, Outcome)>,
}

impl Report {
    /// Adds the outcomes of another report.
    pub fn extend(&mut self, other: Self) {
        self.outcomes.extend(other.outcomes);
    }

    /// Number of cases that passed, failed, were skipped.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |is: fn(&Outcome) -> bool| self.outcomes.iter().filter(|(_, o)| is(o)).count();
        (
            count(|o| matches!(o, Outcome::Passed)),
            count(|o| matches!(o, Outcome::Failed(_))),
            count(|o| matches!(o, Outcome::Skipped(_))),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (id, outcome) in &self.outcomes {
            if let Outcome::Failed(problems) = outcome {
                for problem in problems {
                    writeln!(f, "FAILED {id}: {problem}")?;
                }
            }
        }
        let (passed, failed, skipped) = self.counts();
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[derive(Deserialize)]
struct File {
    cases: Vec<Value>,
}

/// Runs all cases of a file.
///
/// # Errors
/// Why the text is no case file. A single case that cannot be read fails by itself.
pub fn run(text: &str, registry: &Registry) -> Result<Report, String> {
    let file: File = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let outcomes = file.cases.iter().map(|case| {
        let id = case["id"].as_str().unwrap_or("(no id)").to_owned();
        let outcome = catch_unwind(AssertUnwindSafe(|| run_case(case, registry)));
        (id, outcome.unwrap_or_else(|_| Outcome::Failed(vec!["panicked".into()])))
    });
    Ok(Report { outcomes: outcomes.collect() })
}

/// Where a case describes requests and endpoints, `null` is the same as absence. Bodies are left as
/// they are, and so are parameters and expectations.
fn forget_nulls(case: &mut Value) {
    fn forget(given: &mut Value) {
        match given {
            Value::Object(fields) => {
                fields.retain(|_, value| !value.is_null());
                let fields = fields.iter_mut();
                let described = fields.filter(|(name, _)| *name != "chat" && *name != "completion");
                described.for_each(|(_, value)| forget(value));
            }
            Value::Array(items) => items.iter_mut().for_each(forget),
            _ => {}
        }
    }
    fn forget_in(holder: &mut Value) {
        if let Some(fields) = holder.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        for name in ["request", "requests", "endpoints"] {
            holder.get_mut(name).into_iter().for_each(forget);
        }
    }
    forget_in(case);
    let steps = case.get_mut("steps").and_then(Value::as_array_mut);
    steps.into_iter().flatten().for_each(forget_in);
}

/// Runs one case.
pub fn run_case(case: &Value, registry: &Registry) -> Outcome {
    let kind = case["kind"].as_str().unwrap_or_default();
    type Runner = fn(&Case, &Registry, &mut Checks) -> Result<(), String>;
    let runner: Runner = match kind {
        "filter" => single::filter,
        "scorer" => single::scorer,
        "picker" => single::picker,
        "config" => single::config,
        "epp_config" => schedule::epp_config,
        "schedule" => schedule::schedule,
        "sequence" => sequence::sequence,
        "block_hashes" => hashing::block_hashes,
        "tokenize" => hashing::tokenize,
        "precise_score" => precise::precise_score,
        "director" => director::director,
        "admit" => single::admit,
        "predicted_latency" => latency::predicted_latency,
        _ => return Outcome::Skipped(format!("kind '{kind}'")),
    };
    let mut case = case.clone();
    forget_nulls(&mut case);
    let case = match serde_path_to_error::deserialize::<_, Case>(case) {
        Ok(case) => case,
        Err(error) => return Outcome::Failed(vec![format!("unreadable: {error}")]),
    };
    let missing = case
        .plugin_types()
        .into_iter()
        .find(|name| registry.get(name).is_none() && REFERENCE_TYPES.contains(&name.as_str()));
    if let Some(missing) = missing {
        return Outcome::Skipped(format!("plugin type '{missing}'"));
    }
    let mut checks = Checks::default();
    match runner(&case, registry, &mut checks) {
        Err(error) => Outcome::Failed(vec![error]),
        Ok(()) => match checks.into_problems() {
            problems if problems.is_empty() => Outcome::Passed,
            problems => Outcome::Failed(problems),
        },
    }
}

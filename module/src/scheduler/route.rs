//! From a complete body to a decision, or the answer in its place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use envoy_proxy_dynamic_modules_rust_sdk::EnvoyHttpFilterExt;
use inlane_core::decision::ScheduleError;
use inlane_core::request::{Headers, Prompt, Request};
use prometheus::IntCounter;

use super::answer::Answer;
use super::body::BodyReader;
use super::decide::{Asked, Ground, NoRoute, Routed, decide};
use super::headers::{EnvoyHeaders, copy};
use super::response::{Hooks, Response};
use crate::runtime::{Runtime, Served};
use crate::settings::Settings;
use crate::stream::Token;
use crate::worker::{self, Labels};

/// Fairness id of requests that name none.
pub(super) const DEFAULT_FLOW: &str = "default-flow";

/// Why a request has no decision.
pub(super) enum Undecided {
    /// It is the request's own fault, or a plugin's verdict: answer it.
    Answer(Answer),
    /// The scheduler could not decide: the failure mode applies.
    Failure(Answer),
}

/// What is known of the stream when its body is complete.
pub(super) struct Complete<'a> {
    pub(super) settings: &'a Settings,
    pub(super) runtime: &'a Arc<Runtime>,
    pub(super) served: &'a Arc<Served>,
    pub(super) body: &'a BodyReader,
    /// When the request's headers arrived.
    pub(super) received_ns: u64,
    /// When the worker took the complete request up.
    pub(super) started_ns: u64,
}

/// Makes the decision. What is booked is in `token` at once: whatever happens after that, the stream
/// that owns the token releases it.
pub(super) fn route<EHF: EnvoyHttpFilterExt>(
    envoy: &EHF,
    stream: &Complete<'_>,
    token: &mut Option<Token>,
) -> Result<(Routed, Response), Undecided> {
    let &Complete { settings, runtime, served, body, received_ns, started_ns } = stream;
    let Some(scanner) = body.scanner() else {
        return Err(Undecided::Failure(Answer::panicked()));
    };
    let summary = scanner.summary();
    let headers = EnvoyHeaders(envoy);
    let rewrite = ["x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"];
    let rewritten = rewrite.iter().find_map(|name| headers.get(name)).unwrap_or_default();
    if summary.model.is_empty() && rewritten.is_empty() {
        let missing = Answer::bad_request("model not found in request body");
        return Err(Undecided::Answer(missing));
    }
    let Some(serving) = served.serving() else {
        return Err(Undecided::Failure(Answer::no_snapshot()));
    };
    if is_stale(runtime, settings, started_ns) {
        return Err(Undecided::Failure(Answer::stale_snapshot()));
    }
    let fault = settings.fault_injection_header.as_str();
    if !fault.is_empty() && headers.get(fault) == Some("panic") {
        panic!("asked for by the header {fault}");
    }
    let fairness = ["x-llm-d-inference-fairness-id", "x-gateway-inference-fairness-id"];
    let fairness_id = copy(envoy, &fairness).filter(|id| !id.is_empty());
    let fairness_id = fairness_id.unwrap_or_else(|| DEFAULT_FLOW.into());
    let id = copy(envoy, &["x-request-id"]).unwrap_or_default();
    let prompts = body.prompts();
    let request = Request {
        id: &id,
        model: summary.model,
        target_model: summary.model,
        headers: &headers,
        priority: 0,
        fairness_id: &fairness_id,
        prompts: &prompts,
        media: &[],
        prompt_bytes: prompt_bytes(&prompts),
        cache_salt: summary.cache_salt,
        max_output_tokens: summary.max_tokens,
        body_bytes: summary.bytes,
        streaming: summary.stream,
    };
    let ground = Ground { runtime, settings, served, serving };
    let decided = worker::with(runtime, |worker| {
        let routed = decide(ground, worker, &Asked { request, started_ns })?;
        *token = Some(routed.token);
        let labels = Labels {
            model: request.model,
            target_model: request.target_model,
            fairness_id: request.fairness_id,
            priority: request.priority,
        };
        Ok((routed, worker.series(runtime, labels)))
    });
    match decided {
        Some(Ok((mut routed, series))) => {
            series.routed();
            series.request_size.observe(summary.bytes as f64);
            let hooks = Hooks::new(runtime, served, &mut routed, &id);
            let response = Response::new(series, received_ns, summary.stream);
            Ok((routed, response.with_hooks(hooks)))
        }
        Some(Err(reason)) => Err(undecided(runtime, &request, reason)),
        None => Err(Undecided::Failure(Answer::panicked())),
    }
}

/// Bytes of the prompts, to a token: four bytes make an estimated one.
fn prompt_bytes(prompts: &[Prompt<'_>]) -> u64 {
    prompts.iter().map(|prompt| 4 * prompt.token_count()).sum()
}

/// The answer to a request that `decide` has no destination for.
fn undecided(runtime: &Runtime, request: &Request<'_>, reason: NoRoute) -> Undecided {
    let error = match reason {
        NoRoute::Refused(refusal) => return Undecided::Answer(Answer::refused(&refusal)),
        NoRoute::Schedule(error) => error,
    };
    let failures = runtime.metrics.attempts("failure", request.target_model, "", "", "");
    failures.iter().for_each(IntCounter::inc);
    let answer = Answer::from(&error);
    match error {
        ScheduleError::NoEndpoints | ScheduleError::Filtered { .. } => Undecided::Failure(answer),
        _ => Undecided::Answer(answer),
    }
}

/// Whether the control plane has been silent for too long.
fn is_stale(runtime: &Runtime, settings: &Settings, now_ns: u64) -> bool {
    let heartbeat = runtime.heartbeat_ns.load(Ordering::Relaxed);
    u128::from(now_ns.saturating_sub(heartbeat)) > settings.snapshot_stale_after.as_nanos()
}

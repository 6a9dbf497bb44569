//! One stream: the hooks of the filter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use envoy_proxy_dynamic_modules_rust_sdk::{
    EnvoyBuffer, EnvoyHttpFilterExt, HttpFilter, abi, envoy_log_error, envoy_log_warn,
};
use inlane_core::decision::ScheduleError;
use inlane_core::request::{Headers, Request};
use inlane_core::snapshot::FailureMode;
use inlane_text::ScanError;
use prometheus::IntCounter;

use super::answer::Answer;
use super::body::BodyReader;
use super::control_headers::{CONTROL, DESTINATION, DROP_REASON, STEERING, STREAM_TOKEN};
use super::decide::{Asked, Ground, NoRoute, Routed, decide};
use super::headers::{EnvoyHeaders, copy, remove};
use super::path;
use super::response::{Hooks, Response};
use crate::clock;
use crate::runtime::{Runtime, Served};
use crate::settings::{Destination, OtherPaths, Settings};
use crate::stream::Token;
use crate::worker::{self, Labels};

use abi::envoy_dynamic_module_type_on_http_filter_request_body_status as BodyStatus;
use abi::envoy_dynamic_module_type_on_http_filter_request_headers_status as HeadersStatus;
use abi::envoy_dynamic_module_type_on_http_filter_request_trailers_status as TrailersStatus;
use abi::envoy_dynamic_module_type_on_http_filter_response_body_status as ResponseBodyStatus;
use abi::envoy_dynamic_module_type_on_http_filter_response_headers_status as ResponseHeadersStatus;

/// Fairness id of requests that name none.
const DEFAULT_FLOW: &str = "default-flow";
/// Key of the filter state that carries the token to the cluster.
pub const TOKEN_STATE: &[u8] = b"inlane.stream";
/// What the body costs beside its own bytes, so that our own 413 comes before Envoy's.
const LIMIT_SLACK: u64 = 64 << 10;

/// How the request phase went on.
enum Verdict {
    /// The request may go on.
    Go,
    /// It has been answered.
    Answered,
}

/// One stream.
pub(super) struct Filter {
    settings: Arc<Settings>,
    runtime: Arc<Runtime>,
    received_ns: u64,
    body: Option<BodyReader>,
    token: Option<Token>,
    response: Option<Response>,
}

impl Filter {
    /// A filter of a new stream.
    pub(super) fn new(settings: Arc<Settings>, runtime: Arc<Runtime>) -> Self {
        Self { settings, runtime, received_ns: 0, body: None, token: None, response: None }
    }

    fn answer<EHF: EnvoyHttpFilterExt>(&mut self, envoy: &mut EHF, answer: &Answer) -> Verdict {
        if let Some(body) = &mut self.body {
            body.let_go();
        }
        let scanner = self.body.as_ref().and_then(BodyReader::scanner);
        let labels = Labels {
            model: scanner.map_or("", |scanner| scanner.summary().model),
            target_model: "",
            fairness_id: DEFAULT_FLOW,
            priority: 0,
        };
        let runtime = &self.runtime;
        if let Some(series) = worker::with(runtime, |w| w.series(runtime, labels)) {
            series.error(answer.code);
        }
        self.observe_processing();
        let reason: &[(&str, &[u8])] = match answer.reason {
            Some(reason) => &[(DROP_REASON, reason.as_bytes())],
            None => &[],
        };
        let headers = [&[("content-type", &b"text/plain"[..])], reason].concat();
        let body = answer.body();
        envoy.send_response(answer.status, &headers, Some(body.as_bytes()), Some("inlane"));
        Verdict::Answered
    }

    fn observe_processing(&self) {
        let taken = clock::now_ns().saturating_sub(self.received_ns);
        self.runtime.metrics.processing.observe(taken as f64 * 1e-9);
    }

    /// The body is complete: decides, books and prepares the request for its pod.
    fn complete<EHF: EnvoyHttpFilterExt>(&mut self, envoy: &mut EHF) -> Verdict {
        let started_ns = clock::now_ns();
        let Some(body) = &mut self.body else { return Verdict::Go };
        if let Err(error) = body.finish(envoy) {
            return self.answer(envoy, &scan_answer(&error));
        }
        let served = self.runtime.served();
        let guarded = catch_unwind(AssertUnwindSafe(|| self.route(envoy, &served, started_ns)));
        match guarded {
            Ok(Ok(routed)) => {
                self.observe_processing();
                self.forward(envoy, &routed);
                Verdict::Go
            }
            Ok(Err(Undecided::Answer(answer))) => self.answer(envoy, &answer),
            Ok(Err(Undecided::Failure(answer))) => self.failed(envoy, &served, &answer),
            Err(payload) => {
                self.runtime.metrics.panics.inc();
                let what = payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| payload.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "no message".into());
                envoy_log_error!("inlane: a decision panicked: {what}");
                self.failed(envoy, &served, &Answer::panicked())
            }
        }
    }

    /// Makes the decision and files what the response needs.
    fn route<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &EHF,
        served: &Arc<Served>,
        started_ns: u64,
    ) -> Result<Routed, Undecided> {
        let Some(body) = &self.body else { return Err(Undecided::Failure(Answer::no_snapshot())) };
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
        if self.is_stale(started_ns) {
            return Err(Undecided::Failure(Answer::stale_snapshot()));
        }
        let fault = self.settings.fault_injection_header.as_str();
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
            cache_salt: summary.cache_salt,
            max_output_tokens: summary.max_tokens,
            body_bytes: summary.bytes,
            streaming: summary.stream,
        };
        let (runtime, settings) = (&self.runtime, &self.settings);
        let ground = Ground { runtime, settings, served, serving };
        let decided = worker::with(runtime, |worker| {
            let routed = decide(ground, worker, &Asked { request, started_ns })?;
            let labels = Labels {
                model: request.model,
                target_model: request.target_model,
                fairness_id: request.fairness_id,
                priority: request.priority,
            };
            Ok((routed, worker.series(runtime, labels)))
        });
        match decided {
            Some(Ok((routed, series))) => {
                self.token = Some(routed.token);
                series.routed();
                series.request_size.observe(summary.bytes as f64);
                let hooks = Hooks::new(runtime, served, routed.endpoint, &id);
                let response = Response::new(series, self.received_ns, summary.stream);
                self.response = Some(response.with_hooks(hooks));
                Ok(routed)
            }
            Some(Err(NoRoute::Refused(refusal))) => {
                Err(Undecided::Answer(Answer::refused(&refusal)))
            }
            Some(Err(NoRoute::Schedule(error))) => {
                let target_model = request.target_model;
                runtime
                    .metrics
                    .attempts("failure", target_model, "", "", "")
                    .iter()
                    .for_each(IntCounter::inc);
                let answer = Answer::from(&error);
                Err(match error {
                    ScheduleError::NoEndpoints | ScheduleError::Filtered { .. } => {
                        Undecided::Failure(answer)
                    }
                    _ => Undecided::Answer(answer),
                })
            }
            None => Err(Undecided::Failure(Answer::panicked())),
        }
    }

    fn is_stale(&self, now_ns: u64) -> bool {
        let heartbeat = self.runtime.heartbeat_ns.load(std::sync::atomic::Ordering::Relaxed);
        let age = u128::from(now_ns.saturating_sub(heartbeat));
        age > self.settings.snapshot_stale_after.as_nanos()
    }

    /// No decision could be made: the failure mode says what becomes of the request.
    fn failed<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        served: &Served,
        answer: &Answer,
    ) -> Verdict {
        let pool_mode = served.serving().map(|serving| serving.pool.failure_mode);
        let mode = self.settings.failure_mode.or(pool_mode).unwrap_or_default();
        let reason = answer.reason.unwrap_or(answer.code);
        let outcome = match mode {
            FailureMode::FailClose => "answered",
            FailureMode::FailOpen => "any_endpoint",
        };
        self.runtime.metrics.undecided.with_label_values(&[reason, outcome]).inc();
        if self.runtime.warn_undecided(clock::now_ms()) {
            envoy_log_warn!(
                "inlane: requests go without a decision ({reason}); they are {}",
                match mode {
                    FailureMode::FailClose => "refused (FailClose)",
                    FailureMode::FailOpen => "sent to any healthy endpoint (FailOpen)",
                }
            );
        }
        match mode {
            FailureMode::FailClose => self.answer(envoy, answer),
            FailureMode::FailOpen => {
                self.observe_processing();
                self.forget_control_headers(envoy);
                Verdict::Go
            }
        }
    }

    fn forget_control_headers<EHF: EnvoyHttpFilterExt>(&self, envoy: &mut EHF) {
        if self.settings.strip_control_headers {
            remove(envoy, CONTROL);
        }
    }

    /// Tells Envoy where the request goes.
    fn forward<EHF: EnvoyHttpFilterExt>(&self, envoy: &mut EHF, routed: &Routed) {
        self.forget_control_headers(envoy);
        for (name, value) in &routed.headers {
            match value {
                Some(value) => envoy.set_request_header(name, value.as_bytes()),
                None => envoy.remove_request_header(name),
            };
        }
        // With the `override_host` policy a retry takes the next address of the list.
        let destination = match self.settings.destination {
            Destination::Header => &routed.ranking,
            Destination::Cluster | Destination::OverrideHost => &routed.destination,
        };
        envoy.set_request_header(DESTINATION, destination.as_bytes());
        envoy.set_dynamic_metadata_string("envoy.lb", DESTINATION, destination);
        match self.settings.destination {
            Destination::Cluster => {
                let token = routed.token.encode();
                if !envoy.set_filter_state_bytes(TOKEN_STATE, &token) || needs_token_header() {
                    envoy.set_request_header(STREAM_TOKEN, &token);
                }
            }
            Destination::OverrideHost => {
                let first = routed.destination.split(',').next().unwrap_or_default();
                let strict = self.settings.failure_mode != Some(FailureMode::FailOpen);
                if !envoy.set_upstream_override_host(first, strict) {
                    envoy_log_warn!("inlane: Envoy does not take {first} as a destination");
                }
            }
            Destination::Header => {}
        }
    }

    /// The request without a body, or for another path: goes on without a decision.
    fn pass<EHF: EnvoyHttpFilterExt>(&mut self, envoy: &mut EHF) -> Verdict {
        self.forget_control_headers(envoy);
        match self.settings.other_paths {
            OtherPaths::Pass => Verdict::Go,
            OtherPaths::Refuse => self.answer(envoy, &Answer::unknown_path()),
        }
    }
}

/// Why a request has no decision.
enum Undecided {
    /// It is the request's own fault, or a plugin's verdict: answer it.
    Answer(Answer),
    /// The scheduler could not decide: the failure mode applies.
    Failure(Answer),
}

/// Envoy 1.38 does not show filter state to a cluster.
fn needs_token_header() -> bool {
    use envoy_proxy_dynamic_modules_rust_sdk::EnvoyVersion;
    envoy_proxy_dynamic_modules_rust_sdk::envoy_version() < Some(EnvoyVersion::V1_39)
}

fn scan_answer(error: &ScanError) -> Answer {
    Answer::bad_request(error.to_string())
}

impl<EHF: EnvoyHttpFilterExt> HttpFilter<EHF> for Filter {
    fn on_request_headers(&mut self, envoy: &mut EHF, end_of_stream: bool) -> HeadersStatus {
        self.received_ns = clock::now_ns();
        remove(envoy, STEERING);
        let path = envoy.get_request_header_value(":path");
        let api = path.and_then(|path| path::api(std::str::from_utf8(path.as_slice()).ok()?));
        let Some(api) = api.filter(|_| !end_of_stream) else {
            return match self.pass(envoy) {
                Verdict::Go => HeadersStatus::Continue,
                Verdict::Answered => HeadersStatus::StopIteration,
            };
        };
        let length = envoy.get_request_header_value("content-length");
        let length = length.and_then(|l| std::str::from_utf8(l.as_slice()).ok()?.parse().ok());
        let limit = self.settings.max_body_bytes;
        if length.is_some_and(|length: u64| length > limit) {
            self.answer(envoy, &Answer::too_large(limit));
            return HeadersStatus::StopIteration;
        }
        if envoy.get_buffer_limit() < limit + LIMIT_SLACK {
            envoy.set_buffer_limit(limit + LIMIT_SLACK);
        }
        self.body = Some(BodyReader::new(&self.runtime, api, &self.runtime.served()));
        HeadersStatus::StopIteration
    }

    fn on_request_body(&mut self, envoy: &mut EHF, end_of_stream: bool) -> BodyStatus {
        let Some(body) = &mut self.body else { return BodyStatus::Continue };
        if self.token.is_some() {
            return BodyStatus::Continue;
        }
        let size = BodyReader::size(envoy);
        let limit = self.settings.max_body_bytes;
        if size > limit {
            self.answer(envoy, &Answer::too_large(limit));
            return BodyStatus::StopIterationNoBuffer;
        }
        if !body.hold(size, self.settings.max_held_bytes) {
            self.answer(envoy, &Answer::too_much_held());
            return BodyStatus::StopIterationNoBuffer;
        }
        if !end_of_stream {
            if let Err(error) = body.scan(envoy) {
                self.answer(envoy, &scan_answer(&error));
                return BodyStatus::StopIterationNoBuffer;
            }
            return BodyStatus::StopIterationAndBuffer;
        }
        match self.complete(envoy) {
            Verdict::Go => BodyStatus::Continue,
            Verdict::Answered => BodyStatus::StopIterationNoBuffer,
        }
    }

    fn on_request_trailers(&mut self, envoy: &mut EHF) -> TrailersStatus {
        if self.body.is_none() || self.token.is_some() {
            return TrailersStatus::Continue;
        }
        match self.complete(envoy) {
            Verdict::Go => TrailersStatus::Continue,
            Verdict::Answered => TrailersStatus::StopIteration,
        }
    }

    fn on_response_headers(
        &mut self,
        envoy: &mut EHF,
        end_of_stream: bool,
    ) -> ResponseHeadersStatus {
        if let Some(body) = &mut self.body {
            body.let_go();
        }
        if let Some(response) = &mut self.response {
            if response.has_hooks()
                && let Some(token) = self.token
                && let Some(endpoint) = worker::with(&self.runtime, |w| w.current(token)).flatten()
            {
                response.served_by(endpoint);
            }
            response.headers(envoy, end_of_stream);
        }
        ResponseHeadersStatus::Continue
    }

    fn on_response_body(&mut self, envoy: &mut EHF, end_of_stream: bool) -> ResponseBodyStatus {
        if let Some(response) = &mut self.response {
            let first = response.body(envoy, end_of_stream);
            if first && let Some(token) = self.token {
                worker::with(&self.runtime, |worker| worker.first_byte(token));
            }
        }
        ResponseBodyStatus::Continue
    }

    fn on_local_reply(
        &mut self,
        _envoy: &mut EHF,
        code: u32,
        _details: EnvoyBuffer<'_>,
        _reset_imminent: bool,
    ) -> abi::envoy_dynamic_module_type_on_http_filter_local_reply_status {
        if let Some(response) = &mut self.response {
            response.local_reply(code);
        }
        abi::envoy_dynamic_module_type_on_http_filter_local_reply_status::Continue
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            let released = worker::with(&self.runtime, |worker| worker.end(token));
            debug_assert!(released.is_some(), "a stream ended inside another hook");
        }
        if let Some(response) = self.response.take() {
            response.end();
        }
    }
}

//! One stream: the hooks of the filter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use envoy_proxy_dynamic_modules_rust_sdk::{
    EnvoyBuffer, EnvoyHttpFilterExt, HttpFilter, abi, envoy_log_error, envoy_log_warn,
};
use inlane_core::effect::PluginIx;
use inlane_core::plugin::Ticket;
use inlane_core::snapshot::FailureMode;
use inlane_text::{Api, ScanError};

use super::answer::Answer;
use super::body::BodyReader;
use super::control_headers::DROP_REASON;
use super::forward::{forget_control_headers, forward};
use super::headers::{EnvoyHeaders, Noted};
use super::path::{Claim, Parser, Parsers, trimmed};
use super::response::Response;
use super::route::{Complete, DEFAULT_FLOW, Held, Undecided, enroll, route};
use super::tokens::{self, CONVERTED, TOKENS, Tokens};
use crate::clock;
use crate::runtime::{Alarm, Runtime, Served};
use crate::settings::{OtherPaths, Settings};
use crate::stream::Token;
use crate::worker::{self, Labels};

use abi::envoy_dynamic_module_type_on_http_filter_request_body_status as BodyStatus;
use abi::envoy_dynamic_module_type_on_http_filter_request_headers_status as HeadersStatus;
use abi::envoy_dynamic_module_type_on_http_filter_request_trailers_status as TrailersStatus;
use abi::envoy_dynamic_module_type_on_http_filter_response_body_status as ResponseBodyStatus;
use abi::envoy_dynamic_module_type_on_http_filter_response_headers_status as ResponseHeadersStatus;

/// What the body costs beside its own bytes, so that our own 413 comes before Envoy's.
const LIMIT_SLACK: u64 = 64 << 10;

/// How the request phase went on.
enum Verdict {
    /// The request may go on.
    Go,
    /// It has been answered.
    Answered,
    /// It waits and will be taken up again.
    Held,
}

/// What the timer tells a stream whose window has closed.
const RESUME: u64 = 1;

/// What a request waits for.
enum Wait {
    Tokens(tokens::Waiting),
    Window(Held),
}

/// One stream.
pub(super) struct Filter {
    settings: Arc<Settings>,
    runtime: Arc<Runtime>,
    received_ns: u64,
    noted: Noted,
    body: Option<BodyReader>,
    /// What the request waits for, while it does.
    wait: Option<Wait>,
    tokens: Tokens,
    token: Option<Token>,
    response: Option<Response>,
}

impl Filter {
    /// A filter of a new stream.
    pub(super) fn new(settings: Arc<Settings>, runtime: Arc<Runtime>) -> Self {
        let (received_ns, noted, body, wait, tokens, token, response) = Default::default();
        Self { settings, runtime, received_ns, noted, body, wait, tokens, token, response }
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

    /// The body is complete: waits for its tokens first where the configuration wants them.
    fn complete<EHF: EnvoyHttpFilterExt>(&mut self, envoy: &mut EHF) -> Verdict {
        let started_ns = clock::now_ns();
        let Some(body) = &mut self.body else { return Verdict::Go };
        if let Err(error) = body.finish(envoy) {
            return self.answer(envoy, &scan_answer(&error));
        }
        let Some(body) = &self.body else { return Verdict::Go };
        let served = self.runtime.served();
        // A panic here means that there are no tokens; the decision is made without.
        let stream = self.stream(body, &served, started_ns);
        let asked = catch_unwind(AssertUnwindSafe(|| tokens::ask(envoy, &stream)));
        match asked.unwrap_or(Err(Tokens::Missed)) {
            Ok(waiting) => {
                self.wait = Some(Wait::Tokens(waiting));
                Verdict::Held
            }
            Err(tokens) => {
                self.tokens = tokens;
                self.enroll(envoy, &served, started_ns)
            }
        }
    }

    /// What there is to know of the request's tokens is known: waits for others where the
    /// configuration says so.
    fn enroll<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        served: &Arc<Served>,
        started_ns: u64,
    ) -> Verdict {
        let Some(body) = &self.body else { return Verdict::Go };
        // A panic here means that there is nothing to wait for; the decision will meet it again.
        let stream = self.stream(body, served, started_ns);
        let held = catch_unwind(AssertUnwindSafe(|| enroll(envoy, &stream))).unwrap_or_default();
        if let Some(held) = held {
            let (at_ms, stream) = (held.ready_at_ms(), Box::new(envoy.new_scheduler()));
            if self.runtime.timer.set(Alarm { at_ms, stream, event: RESUME }) {
                self.wait = Some(Wait::Window(held));
                return Verdict::Held;
            }
        }
        self.decide(envoy, served, &[], started_ns)
    }

    /// The wait for tokens is over: goes on with what came of it.
    fn go_on<EHF: EnvoyHttpFilterExt>(&mut self, envoy: &mut EHF, waiting: tokens::Waiting) {
        let (served, started_ns) = (self.runtime.served(), clock::now_ns());
        self.tokens = waiting.settle(&self.runtime, &self.noted);
        if let Verdict::Go = self.enroll(envoy, &served, started_ns) {
            envoy.continue_decoding();
        }
    }

    /// Decides, books and prepares the request for its pod.
    fn decide<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        served: &Arc<Served>,
        tickets: &[(PluginIx, Ticket)],
        started_ns: u64,
    ) -> Verdict {
        let Some(body) = &self.body else { return Verdict::Go };
        let stream = self.stream(body, served, started_ns);
        let mut token = None;
        let routed = {
            let route = AssertUnwindSafe(|| route(envoy, &stream, tickets, &mut token));
            catch_unwind(route)
        };
        self.token = token;
        // The answer may take minutes, in which nobody needs the ids.
        self.tokens = Tokens::Unasked;
        match routed {
            Ok(Ok((routed, response))) => {
                self.response = Some(response);
                self.observe_processing();
                forward(&self.settings, self.failure_mode(served), envoy, &routed);
                Verdict::Go
            }
            Ok(Err(Undecided::Answer(answer))) => self.answer(envoy, &answer),
            Ok(Err(Undecided::Failure(answer))) => self.failed(envoy, served, &answer),
            Err(payload) => {
                self.runtime.metrics.panics.inc();
                let what = payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| payload.downcast_ref::<String>().cloned())
                    .unwrap_or_else(|| "no message".into());
                envoy_log_error!("inlane: a decision panicked: {what}");
                self.failed(envoy, served, &Answer::panicked())
            }
        }
    }

    fn stream<'a>(
        &'a self,
        body: &'a BodyReader,
        served: &'a Arc<Served>,
        started_ns: u64,
    ) -> Complete<'a> {
        let Self { settings, runtime, received_ns, noted, tokens, .. } = self;
        let received_ns = *received_ns;
        Complete { settings, runtime, served, noted, body, received_ns, started_ns, tokens }
    }

    /// The settings' failure mode, or else the pool's.
    fn failure_mode(&self, served: &Served) -> FailureMode {
        let pool_mode = served.serving().map(|serving| serving.pool.failure_mode);
        self.settings.failure_mode.or(pool_mode).unwrap_or_default()
    }

    /// No decision could be made: the failure mode says what becomes of the request.
    fn failed<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        served: &Served,
        answer: &Answer,
    ) -> Verdict {
        let mode = self.failure_mode(served);
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
                forget_control_headers(&self.settings, envoy);
                Verdict::Go
            }
        }
    }

    /// The request is decided on with what its headers say: its body is not for the scheduler.
    fn decide_unread<EHF: EnvoyHttpFilterExt>(&mut self, envoy: &mut EHF) -> Verdict {
        self.body = Some(BodyReader::raw(&self.runtime, self.noted.length.unwrap_or(0)));
        let verdict = self.complete(envoy);
        if let Verdict::Go | Verdict::Answered = verdict {
            // What comes of the body is not ours to hold.
            self.body = None;
        }
        verdict
    }

    /// A request with a body that no parser of the configuration claims.
    fn unclaimed<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        parsers: Option<Parsers>,
    ) -> Verdict {
        match (self.settings.other_paths, parsers) {
            (OtherPaths::Schedule, Some(parsers)) if parsers.has(Parser::Passthrough) => {
                self.decide_unread(envoy)
            }
            (OtherPaths::Schedule, Some(_)) => {
                let answer = Answer::unclaimed(&path(envoy));
                self.answer(envoy, &answer)
            }
            // Without a configuration there is nothing that such a request could be held against.
            (OtherPaths::Schedule, None) | (OtherPaths::Pass | OtherPaths::Refuse, _) => {
                self.pass(envoy)
            }
        }
    }

    /// Holds the request until its body, which is one to `api`, is complete.
    fn hold<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        api: Api,
        served: &Served,
    ) -> HeadersStatus {
        let limit = self.settings.max_body_bytes;
        if self.noted.length.is_some_and(|length| length > limit) {
            self.answer(envoy, &Answer::too_large(limit));
            return HeadersStatus::StopIteration;
        }
        if envoy.get_buffer_limit() < limit + LIMIT_SLACK {
            envoy.set_buffer_limit(limit + LIMIT_SLACK);
        }
        let body = BodyReader::new(&self.runtime, api, &EnvoyHeaders(envoy), served);
        self.body = Some(body);
        HeadersStatus::StopIteration
    }

    /// The request without a body, or for another path: goes on without a decision.
    fn pass<EHF: EnvoyHttpFilterExt>(&mut self, envoy: &mut EHF) -> Verdict {
        forget_control_headers(&self.settings, envoy);
        match self.settings.other_paths {
            OtherPaths::Pass | OtherPaths::Schedule => Verdict::Go,
            OtherPaths::Refuse => self.answer(envoy, &Answer::unknown_path()),
        }
    }
}

/// The path as parsers see it.
fn path<EHF: EnvoyHttpFilterExt>(envoy: &EHF) -> String {
    let path = envoy.get_request_header_value(":path");
    let path = path.map(|path| String::from_utf8_lossy(path.as_slice()).into_owned());
    trimmed(&path.unwrap_or_default()).to_owned()
}

fn scan_answer(error: &ScanError) -> Answer {
    Answer::bad_request(error.to_string())
}

impl<EHF: EnvoyHttpFilterExt> HttpFilter<EHF> for Filter {
    fn on_request_headers(&mut self, envoy: &mut EHF, end_of_stream: bool) -> HeadersStatus {
        self.received_ns = clock::now_ns();
        self.noted = Noted::of(envoy);
        let served = self.runtime.served();
        let parsers = served.serving().map(|serving| serving.parsers);
        let wanted = |parser: Parser| parsers.is_none_or(|parsers| parsers.has(parser));
        let claim = self.noted.claim.filter(|(parser, _)| wanted(*parser)).map(|(_, claim)| claim);
        let verdict = match claim {
            _ if end_of_stream => self.pass(envoy),
            Some(Claim::Body(api)) => return self.hold(envoy, api, &served),
            Some(Claim::Raw) => self.decide_unread(envoy),
            Some(Claim::Unsupported) => {
                let answer = Answer::unsupported(&path(envoy));
                self.answer(envoy, &answer)
            }
            None => self.unclaimed(envoy, parsers),
        };
        match verdict {
            Verdict::Go => HeadersStatus::Continue,
            Verdict::Answered | Verdict::Held => HeadersStatus::StopIteration,
        }
    }

    fn on_request_body(&mut self, envoy: &mut EHF, end_of_stream: bool) -> BodyStatus {
        let Some(body) = &mut self.body else { return BodyStatus::Continue };
        if self.token.is_some() {
            return BodyStatus::Continue;
        }
        if self.wait.is_some() {
            return BodyStatus::StopIterationAndBuffer;
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
            Verdict::Held => BodyStatus::StopIterationAndBuffer,
        }
    }

    fn on_request_trailers(&mut self, envoy: &mut EHF) -> TrailersStatus {
        if self.body.is_none() || self.token.is_some() {
            return TrailersStatus::Continue;
        }
        if self.wait.is_some() {
            return TrailersStatus::StopIteration;
        }
        match self.complete(envoy) {
            Verdict::Go => TrailersStatus::Continue,
            Verdict::Answered | Verdict::Held => TrailersStatus::StopIteration,
        }
    }

    fn on_scheduled(&mut self, envoy: &mut EHF, event_id: u64) {
        match (self.wait.take(), event_id) {
            (Some(Wait::Tokens(waiting)), TOKENS) => self.go_on(envoy, waiting),
            (Some(Wait::Tokens(mut waiting)), CONVERTED) => {
                if waiting.converted(envoy, &self.noted) {
                    self.go_on(envoy, waiting);
                } else {
                    self.wait = Some(Wait::Tokens(waiting));
                }
            }
            (Some(Wait::Window(held)), RESUME) => {
                let (served, started_ns) = (self.runtime.served(), clock::now_ns());
                let tickets = held.into_tickets(&served);
                if let Verdict::Go = self.decide(envoy, &served, &tickets, started_ns) {
                    envoy.continue_decoding();
                }
            }
            (wait, _) => self.wait = wait,
        }
    }

    fn on_http_callout_done(
        &mut self,
        envoy: &mut EHF,
        callout_id: u64,
        result: abi::envoy_dynamic_module_type_http_callout_result,
        response_headers: Option<&[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)]>,
        response_body: Option<&[EnvoyBuffer<'_>]>,
    ) {
        let over = match &mut self.wait {
            Some(Wait::Tokens(waiting)) => {
                waiting.answered(callout_id, result, response_headers, response_body)
            }
            _ => false,
        };
        if over && let Some(Wait::Tokens(waiting)) = self.wait.take() {
            self.go_on(envoy, waiting);
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

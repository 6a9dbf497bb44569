//! From a complete body to a decision, or the answer in its place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use envoy_proxy_dynamic_modules_rust_sdk::EnvoyHttpFilterExt;
use inlane_core::config::LoadedConfig;
use inlane_core::cycle::Ask;
use inlane_core::decision::ScheduleError;
use inlane_core::effect::PluginIx;
use inlane_core::plugin::{Ticket, Tickets};
use inlane_core::request::{Headers, Media, Prompt, Request};
use inlane_text::{Feature, MediaRange, Summary};
use prometheus::IntCounter;

use super::answer::Answer;
use super::body::BodyReader;
use super::decide::{Asked, Ground, NoRoute, Routed, decide};
use super::headers::{EnvoyHeaders, Noted};
use super::path::Claim;
use super::response::{Hooks, Response};
use super::tokens::Tokens;
use super::trace::Stages;
use crate::clock;
use crate::runtime::{Runtime, Served};
use crate::settings::Settings;
use crate::stream::Token;
use crate::worker;

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
    pub(super) noted: &'a Noted,
    pub(super) body: &'a BodyReader,
    /// When the request's headers arrived.
    pub(super) received_ns: u64,
    /// When the worker took the complete request up.
    pub(super) started_ns: u64,
    /// The prompts as tokens, as far as they are wanted and there.
    pub(super) tokens: &'a Tokens,
}

/// Makes the decision. What is booked is in `token` at once: whatever happens after that, the stream
/// that owns the token releases it.
pub(super) fn route<EHF: EnvoyHttpFilterExt>(
    envoy: &EHF,
    stream: &Complete<'_>,
    tickets: &[(PluginIx, Ticket)],
    token: &mut Option<Token>,
) -> Result<(Routed, Response), Undecided> {
    let &Complete { settings, runtime, served, received_ns, started_ns, .. } = stream;
    let &Complete { noted, body, tokens, .. } = stream;
    let Some(summary) = body.summary() else {
        return Err(Undecided::Failure(Answer::panicked()));
    };
    let headers = EnvoyHeaders(envoy);
    if !body.is_raw() && !names_model(summary.model, &headers) {
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
    let read = Read::of(noted, body, tokens);
    let media = read.media();
    let request = read.request(&summary, &headers, &media);
    let ground = Ground { runtime, settings, served, serving };
    let missed_tokens = tokens.are_missed();
    let stages = Stages::begin(envoy, &request);
    let stages = stages.as_ref();
    let asked = Asked { request, started_ns, tickets, missed_tokens, stages };
    let decided = worker::with(runtime, |worker| {
        let routed = decide(ground, worker, &asked)?;
        *token = Some(routed.token);
        Ok(routed)
    });
    match decided {
        Some(Ok(mut routed)) => {
            let series = Arc::clone(&routed.series);
            series.routed();
            series.request_size.observe(summary.bytes as f64);
            if let Some((_, Claim::Raw)) = noted.claim {
                return Ok((routed, Response::ignored(series)));
            }
            let hooks = Hooks::new(runtime, served, &mut routed, noted);
            let response = Response::new(series, received_ns, summary.stream);
            Ok((routed, response.with_hooks(hooks)))
        }
        Some(Err(reason)) => {
            let undecided = undecided(runtime, &request, reason);
            if let (Some(stages), Undecided::Answer(answer) | Undecided::Failure(answer)) =
                (stages, &undecided)
            {
                stages.tag("error", true);
                stages.tag("inlane.error", answer.body());
            }
            Err(undecided)
        }
        None => Err(Undecided::Failure(Answer::panicked())),
    }
}

/// Whether the body names a model, or a header does in its place.
fn names_model(model: &str, headers: &dyn Headers) -> bool {
    let rewrite = ["x-llm-d-model-name-rewrite", "x-gateway-model-name-rewrite"];
    let rewritten = || rewrite.iter().find_map(|name| headers.get(name)).unwrap_or_default();
    !model.is_empty() || !rewritten().is_empty()
}

/// Asks for places in the windows that the configuration collects requests in; `None` when there is
/// nothing to wait for, be it because no decision can be made anyway.
pub(super) fn enroll<EHF: EnvoyHttpFilterExt>(envoy: &EHF, stream: &Complete<'_>) -> Option<Held> {
    let &Complete { settings, runtime, served, noted, body, started_ns, tokens, .. } = stream;
    let serving = served.serving()?;
    let plan = &serving.plan;
    if plan.config().windows.is_empty() || is_stale(runtime, settings, started_ns) {
        return None;
    }
    let (summary, headers) = (body.scanner()?.summary(), EnvoyHeaders(envoy));
    if !names_model(summary.model, &headers) {
        return None;
    }
    let read = Read::of(noted, body, tokens);
    let media = read.media();
    let request = read.request(&summary, &headers, &media);
    let tickets = worker::with(runtime, |worker| {
        let mut scratch = worker.take_scratch(served, serving);
        plan.begin(&mut scratch);
        let ask = Ask { seed: worker.seed(), ..Ask::new(&request, serving, clock::now_ms()) };
        let tickets = plan.enroll(&ask, &mut scratch);
        worker.put_scratch(scratch);
        tickets
    });
    let tickets = tickets.filter(|tickets| !tickets.is_empty())?;
    Some(Held { tickets, config: Arc::clone(plan.config()) })
}

/// A request that waits for the last of its windows to close.
pub(super) struct Held {
    tickets: Tickets,
    config: Arc<LoadedConfig>,
}

impl Held {
    /// When the wait is over, boot-time clock in ms.
    pub(super) fn ready_at_ms(&self) -> u64 {
        self.tickets.iter().map(|(_, ticket)| ticket.ready_at_ms).max().unwrap_or(0)
    }

    /// The places, for a decision on `served`; none when the configuration has changed meanwhile.
    pub(super) fn into_tickets(self, served: &Served) -> Tickets {
        let config = served.serving().map(|serving| serving.plan.config());
        let same = config.is_some_and(|config| Arc::ptr_eq(config, &self.config));
        if same { self.tickets } else { Tickets::new() }
    }
}

/// What is read of a request beside the scanner's summary.
struct Read<'a> {
    noted: &'a Noted,
    prompts: Vec<Prompt<'a>>,
    /// The same as blocks, where `prompts` are ids.
    packed: Vec<Prompt<'a>>,
    prompt_bytes: u64,
    media: Found<'a>,
}

/// Media parts: as the engine has them, as a body names them in the engine's terms, or as the scanner
/// found them.
enum Found<'a> {
    Engine(&'a [MediaRange]),
    Body(Vec<MediaRange>),
    Scanner(Vec<(u32, Feature, String)>),
}

impl<'a> Read<'a> {
    fn of(noted: &'a Noted, body: &'a BodyReader, tokens: &'a Tokens) -> Self {
        let (prompts, packed) = match (tokens.ready(), body.ids()) {
            (Some(tokens), _) => {
                (tokens.prompts.iter().map(|ids| Prompt::Tokens(ids)).collect(), body.packed())
            }
            (None, Some(ids)) => (ids.map(Prompt::Tokens).collect(), body.packed()),
            (None, None) => (body.packed(), Vec::new()),
        };
        let media = match tokens.ready() {
            Some(tokens) if !tokens.media.is_empty() => Found::Engine(&tokens.media),
            _ => match body.features() {
                features if features.is_empty() => Found::Scanner(body.media()),
                features => Found::Body(features),
            },
        };
        Self { noted, prompts, packed, prompt_bytes: body.prompt_bytes(), media }
    }

    fn media(&self) -> Vec<Media<'_>> {
        fn named(part: &MediaRange) -> Media<'_> {
            Media {
                modality: &part.modality,
                hash: &part.hash,
                prompt: part.prompt,
                offset: part.offset,
                length: part.length,
            }
        }
        match &self.media {
            Found::Engine(parts) => parts.iter().map(named).collect(),
            Found::Body(parts) => parts.iter().map(named).collect(),
            Found::Scanner(parts) => {
                let parts = parts.iter().map(|(prompt, part, hash)| Media {
                    modality: part.modality.name(),
                    hash,
                    prompt: *prompt,
                    offset: part.offset,
                    length: part.length.into(),
                });
                parts.collect()
            }
        }
    }

    fn request<'r>(
        &'r self,
        summary: &Summary<'r>,
        headers: &'r dyn Headers,
        media: &'r [Media<'r>],
    ) -> Request<'r> {
        Request {
            id: &self.noted.id,
            model: summary.model,
            target_model: summary.model,
            headers,
            priority: 0,
            fairness_id: self.noted.fairness_id().unwrap_or(DEFAULT_FLOW),
            prompts: &self.prompts,
            packed: &self.packed,
            media,
            prompt_bytes: self.prompt_bytes,
            cache_salt: summary.cache_salt,
            max_output_tokens: summary.max_tokens,
            body_bytes: summary.bytes,
            streaming: summary.stream,
        }
    }
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
pub(super) fn is_stale(runtime: &Runtime, settings: &Settings, now_ns: u64) -> bool {
    let heartbeat = runtime.heartbeat_ns.load(Ordering::Relaxed);
    u128::from(now_ns.saturating_sub(heartbeat)) > settings.snapshot_stale_after.as_nanos()
}

//! Completions: from the request's bytes to its answer.

use std::sync::Arc;

use fastrand::Rng;
use hyper::{HeaderMap, Response, StatusCode, header::HeaderValue};

use super::{
    answer::{self, Answer, Api, Usage},
    body::Payload,
    error::ApiError,
    prompt,
    request::{Body, Prompt},
    respond,
    stream::{self, EventStream},
};
use crate::{
    config::{Mode, tunables::FailureType},
    engine::{
        events::Origin,
        hash::Chain,
        job::{End, Finish, Job, Rejection},
    },
    pod::{Pod, Running, Served, Ticket, unix_time},
    server::Connection,
    text::{lengths, reply::Reply},
};

/// The answer of `--lean`: 130 bytes, the size of a small real one.
const LEAN: &str = r#"{"id":"cmpl-0","model":"random","object":"text_completion","created":0,"choices":[{"index":0,"finish_reason":"stop","text":"ok"}]}"#;

/// Answers a request; the second value is its id, empty if it got none.
pub(super) async fn generate(
    pod: &Arc<Pod>,
    connection: &Connection,
    api: Api,
    headers: &HeaderMap,
    bytes: &[u8],
) -> (Response<Payload>, String) {
    if pod.config.lean {
        return (with_identity(pod, respond::json(StatusCode::OK, LEAN)), String::new());
    }
    let generation = match Generation::prepare(pod, api, headers, bytes) {
        Ok(generation) => generation,
        Err(error) => return (error.into_response(), String::new()),
    };
    let id = generation.answer.id.clone();
    let mut response = match generation.run(pod, connection).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    response = with_identity(pod, response);
    if pod.config.enable_request_id_headers
        && let Ok(value) = HeaderValue::from_str(&id)
    {
        response.headers_mut().insert("x-request-id", value);
    }
    (response, id)
}

fn with_identity(pod: &Pod, mut response: Response<Payload>) -> Response<Payload> {
    for (name, value) in respond::IDENTITY.into_iter().zip(&pod.identity) {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

/// A valid request, ready to run.
struct Generation {
    answer: Answer,
    /// One per choice.
    jobs: Vec<(Job<Arc<Ticket>>, Arc<Ticket>)>,
    /// Choices per prompt.
    copies: usize,
    /// Tokens of all prompts, each counted once.
    prompt_tokens: usize,
    stream: bool,
    include_usage: bool,
}

impl Generation {
    fn prepare(
        pod: &Arc<Pod>,
        api: Api,
        headers: &HeaderMap,
        bytes: &[u8],
    ) -> Result<Self, ApiError> {
        let mut body: Body<'_> = serde_json::from_slice(bytes).map_err(|error| {
            ApiError::bad_request(format!("Failed to read and parse request body, {error}"))
        })?;
        let settled = body.settle(api);
        let model = match (api, &body.model) {
            (Api::Generate, None) => pod.models.display(),
            (_, model) => model.as_deref().unwrap_or_default(),
        };
        requested_error(headers)?;
        injected_failure(pod, model)?;
        let served = pod.models.find(model).ok_or_else(|| ApiError::unknown_model(model))?;
        settled.map_err(ApiError::bad_request)?;
        let max_tokens = validate(api, &body)?;

        let (uuid, mut rng) = pod.next_request();
        let given = headers.get("x-request-id").and_then(|id| id.to_str().ok());
        let id = given.filter(|_| pod.config.enable_request_id_headers);
        let answer = Answer {
            api,
            id: id.map_or_else(|| uuid.to_string(), str::to_owned),
            model: Arc::clone(&served.name),
            created: unix_time().as_secs(),
        };
        let force_threshold = headers
            .get("x-cache-threshold-finish-reason")
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        let plan =
            Plan { pod, api, bytes, body: &body, served: &served, max_tokens, force_threshold };
        let copies = usize::try_from(body.n.unwrap_or(1)).unwrap_or(1);
        let (jobs, prompt_tokens) = plan.jobs(copies, &mut rng)?;
        Ok(Self {
            answer,
            jobs,
            copies,
            prompt_tokens,
            stream: body.stream.unwrap_or_default(),
            include_usage: body.stream_options.is_some_and(|o| o.include_usage == Some(true)),
        })
    }

    async fn run(
        self,
        pod: &Arc<Pod>,
        connection: &Connection,
    ) -> Result<Response<Payload>, ApiError> {
        let replies: Vec<_> = self.jobs.iter().map(|(job, _)| Arc::clone(&job.reply)).collect();
        let running = pod.submit(self.jobs)?;
        let counts = |index: usize| index.is_multiple_of(self.copies);
        let cached = pod.config.enable_prompt_tokens_details.then_some(0);
        let mut usage = Usage { prompt: self.prompt_tokens, completion: 0, cached };
        if self.stream {
            let limit = pod.tunables().fault_reset_after_tokens as usize;
            let fault = (limit > 0).then(|| stream::Fault::new(limit, connection.clone()));
            let choices = running.into_iter().zip(replies).enumerate();
            let choices =
                choices.map(|(at, (job, reply))| stream::Choice::new(job, reply, counts(at)));
            let events =
                EventStream::new(self.answer, choices.collect(), usage, self.include_usage, fault);
            let mut response = Response::new(Payload::Events(Box::new(events)));
            response.headers_mut().insert(hyper::header::CONTENT_TYPE, respond::EVENTS);
            return Ok(response);
        }
        let ends = ends(&running).await;
        let mut transfer = None;
        let mut choices = Vec::with_capacity(ends.len());
        for (index, (end, reply)) in ends.iter().zip(&replies).enumerate() {
            if end.finish == Finish::CacheThreshold {
                usage.cached = None;
            } else {
                usage.completion += reply.len();
                let cached = if counts(index) { end.cached } else { 0 };
                usage.cached = usage.cached.map(|sum| sum + cached);
            }
            if end.finish == Finish::RemoteDecode {
                transfer = Some(answer::transfer_params(pod, end));
            }
            choices.push(answer::Choice { reply, finish: end.finish });
        }
        let body = self.answer.full(usage, transfer.as_deref(), &choices);
        Ok(respond::json(StatusCode::OK, body))
    }
}

async fn ends(running: &[Running]) -> Vec<End> {
    let mut ends = Vec::with_capacity(running.len());
    for job in running {
        ends.push(job.ended().await);
    }
    ends
}

/// How the jobs of one request are made.
struct Plan<'a> {
    pod: &'a Arc<Pod>,
    api: Api,
    bytes: &'a [u8],
    body: &'a Body<'a>,
    served: &'a Served,
    max_tokens: Option<usize>,
    force_threshold: bool,
}

impl Plan<'_> {
    /// The jobs, `copies` per prompt, and the number of tokens in all prompts.
    #[expect(clippy::type_complexity, reason = "a pair of local meaning")]
    fn jobs(
        &self,
        copies: usize,
        rng: &mut Rng,
    ) -> Result<(Vec<(Job<Arc<Ticket>>, Arc<Ticket>)>, usize), ApiError> {
        let prompts = self.body.prompt.as_ref().map_or(1, |prompts| prompts.0.len());
        let limits = self.pod.config.limits();
        if prompts * copies > limits.running + limits.waiting {
            // Not even an idle pod could take them all.
            return Err(Rejection::QueueFull.into());
        }
        let mut jobs = Vec::with_capacity(prompts * copies);
        let mut prompt_tokens = 0;
        let origin = Arc::new(self.origin());
        let tokens = prompt::tokens(self.pod, self.api, self.body, self.bytes)?;
        for (index, tokens) in tokens.into_iter().enumerate() {
            prompt_tokens += tokens.len();
            let chain = self.chain(&tokens);
            let echo = || self.said(index);
            // The last copy is not a copy.
            for (tokens, chain) in std::iter::repeat_n((tokens, chain), copies) {
                jobs.push(self.job(tokens, chain, &origin, &echo, rng)?);
            }
        }
        Ok((jobs, prompt_tokens))
    }

    /// What an echo repeats.
    fn said(&self, prompt: usize) -> String {
        if let Some(messages) = &self.body.messages {
            return messages.last().map(|m| m.content.0.to_string()).unwrap_or_default();
        }
        match self.body.prompt.as_ref().and_then(|prompts| prompts.0.get(prompt)) {
            Some(Prompt::Text(text)) => text.to_string(),
            Some(Prompt::Tokens(tokens)) => decimal(tokens),
            None => String::new(),
        }
    }

    /// Keys of the full blocks of a prompt.
    fn chain(&self, prompt: &[u32]) -> Chain {
        let mut chain = Chain::new(self.served.root.clone(), self.body.cache_salt.as_deref());
        if self.pod.config.enable_kvcache {
            let size = self.pod.config.block_size as usize;
            chain.extend(prompt.len() / size, size, |at| prompt[at]);
        }
        chain
    }

    fn origin(&self) -> Origin {
        let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(str::to_owned);
        Origin {
            adapter: self.served.adapter.clone(),
            salt: text(self.body.cache_salt.as_deref()),
            session: text(self.body.session_id.as_deref()),
        }
    }

    fn job(
        &self,
        prompt: Vec<u32>,
        chain: Chain,
        origin: &Arc<Origin>,
        echo: &dyn Fn() -> String,
        rng: &mut Rng,
    ) -> Result<(Job<Arc<Ticket>>, Arc<Ticket>), ApiError> {
        let limit = self.pod.config.max_model_len as usize;
        let wanted = self.max_tokens.unwrap_or(1);
        if prompt.len() + wanted > limit {
            return Err(ApiError::too_long(limit, prompt.len(), wanted));
        }
        let (reply, finish) = self.reply(limit - prompt.len(), echo, rng)?;
        let transfer = self.body.kv_transfer_params.as_ref();
        let finish = match transfer {
            Some(params) if params.do_remote_decode == Some(true) => Finish::RemoteDecode,
            _ => finish,
        };
        let own = self.body.cache_hit_threshold.filter(|share| (0.0..=1.0).contains(share));
        let global = self.pod.config.global_cache_hit_threshold;
        let cache_threshold = if self.force_threshold {
            // No share reaches this.
            Some(f64::INFINITY)
        } else if self.pod.config.enable_kvcache {
            own.or(Some(global).filter(|share| *share > 0.0))
        } else {
            None
        };
        let mode = self.body.vllm_xargs.as_ref().and_then(|x| x.kv_cache_report_mode.as_deref());
        let report_reused = mode == Some("full");
        let ticket = Arc::new(Ticket::default());
        let job = Job {
            prompt,
            reply: Arc::new(reply),
            finish,
            adapter: self.served.adapter.as_ref().map(|adapter| Arc::clone(&adapter.name)),
            chain,
            origin: Arc::clone(origin),
            report_reused,
            max_tokens: self.max_tokens,
            choices: usize::try_from(self.body.n.unwrap_or(1)).unwrap_or(1),
            remote_prefill: transfer.is_some_and(|p| p.do_remote_prefill == Some(true)),
            cache_threshold,
            stepwise: self.body.stream.unwrap_or_default(),
            listener: Arc::clone(&ticket),
        };
        Ok((job, ticket))
    }

    /// An answer of at most `room` tokens (except an echo, which is never cut), and how it ends.
    fn reply(
        &self,
        room: usize,
        echo: &dyn Fn() -> String,
        rng: &mut Rng,
    ) -> Result<(Reply, Finish), ApiError> {
        let vocabulary = self.pod.vocabulary.as_deref();
        let random = |length: usize, rng: &mut Rng| match vocabulary {
            Some(vocabulary) => vocabulary.random(length, rng),
            None => Reply::random(length, rng),
        };
        Ok(match (self.pod.config.mode, self.max_tokens) {
            (Mode::Echo, limit) => {
                let reply = match vocabulary {
                    Some(vocabulary) => vocabulary
                        .echo(&echo())
                        .map_err(|error| ApiError::bad_request(error.to_string()))?,
                    None => Reply::echo(echo()),
                };
                let cut = limit.is_some_and(|limit| limit <= reply.len());
                (reply, if cut { Finish::Length } else { Finish::Stop })
            }
            (Mode::Random, None) => {
                let length = lengths::unlimited(room, rng);
                (random(length, rng), Finish::Stop)
            }
            (Mode::Random, Some(limit)) => {
                let whole = self.body.ignore_eos == Some(true);
                let length = if whole { limit } else { lengths::limited(limit, rng) };
                let finish = if length == limit { Finish::Length } else { Finish::Stop };
                (random(length, rng), finish)
            }
        })
    }
}

/// Token ids as text.
fn decimal(tokens: &[u32]) -> String {
    let texts: Vec<_> = tokens.iter().map(u32::to_string).collect();
    texts.join(",")
}

/// The error that the header `X-Return-Error` asks for.
fn requested_error(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get("x-return-error") else { return Ok(()) };
    let text = String::from_utf8_lossy(value.as_bytes());
    let Ok(code) = text.trim().parse::<u16>() else {
        return Err(ApiError::bad_request(format!(
            "Invalid X-Return-Error header value \"{text}\": must be an integer"
        )));
    };
    let message = format!("Simulated error triggered by X-Return-Error header (code {code})");
    Err(ApiError::new(code, message))
}

/// The error that failure injection wants for this request.
fn injected_failure(pod: &Pod, model: &str) -> Result<(), ApiError> {
    let tunables = pod.tunables();
    if !pod.chance(tunables.failure_injection_rate) {
        return Ok(());
    }
    let types = match tunables.failure_types.as_slice() {
        [] => &FailureType::ALL,
        types => types,
    };
    Err(ApiError::injected(types[pod.roll(types.len())], model))
}

/// Checks the body; returns the token limit.
fn validate(api: Api, body: &Body<'_>) -> Result<Option<usize>, ApiError> {
    match api {
        Api::Chat | Api::Messages | Api::Responses
            if body.messages.as_ref().is_none_or(Vec::is_empty) =>
        {
            return Err(ApiError::bad_request("messages must not be empty"));
        }
        Api::Text | Api::Generate if body.prompt.is_none() => {
            return Err(ApiError::bad_request("prompt is missing"));
        }
        _ => {}
    }
    match body.n.unwrap_or(1) {
        ..1 => return Err(ApiError::bad_request("n must be at least 1")),
        1..=MAX_CHOICES => {}
        _ => return Err(ApiError::bad_request(format!("n must be at most {MAX_CHOICES}"))),
    }
    let limit = match api {
        Api::Chat => body.max_completion_tokens.or(body.max_tokens),
        _ => body.max_tokens,
    };
    if limit.is_some_and(|limit| limit <= 0) {
        return Err(ApiError::bad_request(
            "Max completion tokens and max tokens should be positive",
        ));
    }
    let prefill =
        body.kv_transfer_params.as_ref().is_some_and(|p| p.do_remote_decode == Some(true));
    if prefill && body.stream == Some(true) {
        return Err(ApiError::bad_request("Prefill does not support streaming"));
    }
    if body.ignore_eos == Some(true) && limit.is_none() {
        return Err(ApiError::bad_request("ignore_eos needs max_tokens or max_completion_tokens"));
    }
    // A limit beyond the address space is beyond every model length too, which is checked next.
    Ok(limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX / 2)))
}

/// Choices per prompt; each one is a job.
const MAX_CHOICES: i64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lean_answer_has_its_size() {
        assert_eq!(LEAN.len(), 130);
        assert!(serde_json::from_str::<serde_json::Value>(LEAN).is_ok());
    }

    #[test]
    fn validation_messages() {
        let error = |api, json: &str| {
            let body = serde_json::from_str(json).unwrap();
            validate(api, &body).map_err(|error| error.message)
        };
        assert_eq!(error(Api::Text, r#"{"prompt":"a","max_tokens":5}"#), Ok(Some(5)));
        assert_eq!(error(Api::Text, r#"{"prompt":"a","max_completion_tokens":5}"#), Ok(None));
        let chat = r#"{"messages":[{"role":"user","content":"a"}],"max_tokens":5,"max_completion_tokens":3}"#;
        assert_eq!(error(Api::Chat, chat), Ok(Some(3)));
        let refused = |json: &str| error(Api::Text, json).unwrap_err();
        assert_eq!(refused(r#"{"prompt":"a","n":0}"#), "n must be at least 1");
        assert_eq!(
            refused(r#"{"prompt":"a","max_tokens":0}"#),
            "Max completion tokens and max tokens should be positive"
        );
        assert_eq!(
            refused(
                r#"{"prompt":"a","stream":true,"kv_transfer_params":{"do_remote_decode":true}}"#
            ),
            "Prefill does not support streaming"
        );
        assert!(error(Api::Text, r#"{"prompt":"a","ignore_eos":true}"#).is_err());
        assert!(error(Api::Chat, r#"{"prompt":"a"}"#).is_err());
    }
}

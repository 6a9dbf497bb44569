//! Waiting for the tokens of a prompt.
//!
//! Where the configuration wants the tokens that engines see, a complete body is handed to the
//! module's tokenizer threads, or to a server that renders prompts, and its stream is held. It comes
//! back through Envoy's scheduler with the tokens, or without them: too late, failed, or nowhere to
//! be had. A request without tokens is decided on all the same, one named step down.

use std::borrow::Cow;
use std::sync::Arc;

use envoy_proxy_dynamic_modules_rust_sdk::{EnvoyBuffer, EnvoyHttpFilterExt, abi, envoy_log_warn};
use inlane_core::config::GoDuration;
use inlane_text::tokens::{PromptApi, Tokenized};
use inlane_text::{Api, Edit};

use super::body::BodyReader;
use super::headers::Noted;
use super::route::{Complete, is_stale};
use super::trace::Span;
use crate::clock;
use crate::runtime::Runtime;
use crate::runtime::tokens::{Delivery, Missed, Tokenizers};

use abi::envoy_dynamic_module_type_http_callout_init_result as CalloutInit;
use abi::envoy_dynamic_module_type_http_callout_result as CalloutResult;

/// What a stream is told when the wait for its tokens is over.
pub(super) const TOKENS: u64 = 2;
/// What it is told when its body has the form that a server renders.
pub(super) const CONVERTED: u64 = 3;

/// Bytes of a server's error that are logged.
const ERROR_BYTES: usize = 1_024;

/// What is known of a request's tokens when it is decided on.
#[derive(Debug, Default)]
pub(super) enum Tokens {
    /// Nobody wants them, or the body has them.
    #[default]
    Unasked,
    /// They are wanted and not there.
    Missed,
    /// They are there.
    Ready(Arc<Delivery>),
}

impl Tokens {
    /// The prompts as tokens.
    pub(super) fn ready(&self) -> Option<&Tokenized> {
        match self {
            Self::Ready(delivery) => delivery.tokens(),
            Self::Unasked | Self::Missed => None,
        }
    }

    /// Whether the request goes without tokens that are wanted.
    pub(super) fn are_missed(&self) -> bool {
        matches!(self, Self::Missed)
    }
}

/// A request that waits for its tokens. Dropped with its stream, it leaves nobody to be woken.
#[derive(Debug)]
pub(super) struct Waiting {
    delivery: Arc<Delivery>,
    tokenizers: Arc<Tokenizers>,
    /// The call to a server that renders prompts, while it is under way.
    callout: Option<u64>,
    /// What is left to do before that call.
    converting: Option<Converting>,
    /// Lasts as long as the wait, if the stream is traced.
    span: Option<Span>,
}

/// A body on its way into the form that a server renders, and what it will be asked with.
#[derive(Debug)]
struct Converting {
    chat: Arc<Delivery<Vec<u8>>>,
    url: String,
    timeout: GoDuration,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.delivery.settle();
        if let Some(converting) = &self.converting {
            converting.chat.settle();
        }
    }
}

/// Asks for the tokens of a complete body, if they are wanted.
///
/// # Errors
/// There is nothing to wait for: what is known already.
pub(super) fn ask<EHF: EnvoyHttpFilterExt>(
    envoy: &mut EHF,
    stream: &Complete<'_>,
) -> Result<Waiting, Tokens> {
    let &Complete { settings, runtime, served, noted, body, started_ns, .. } = stream;
    let wish = served.serving().and_then(|serving| serving.tokens.as_ref());
    let (Some(wish), Some(scanner)) = (wish, body.scanner()) else { return Err(Tokens::Unasked) };
    if body.ids().is_some() || is_stale(runtime, settings, started_ns) {
        return Err(Tokens::Unasked);
    }
    let Some(tokenizers) = runtime.tokens.tokenizers() else {
        return Err(missed(runtime, noted, &Missed::NoModel));
    };
    let summary = scanner.summary();
    let model = wish.model.as_deref().unwrap_or(summary.model);
    let Some(api) = prompt_api(noted) else { return Err(Tokens::Unasked) };
    let server = wish.vllm.as_ref().filter(|_| !tokenizers.render_cluster().is_empty());
    // A server knows images of every kind, and of every model.
    let local = tokenizers.model(model).filter(|_| server.is_none() || !body.has_media());
    let delivery = Arc::new(Delivery::new(Box::new(envoy.new_scheduler()), TOKENS));
    let span = Span::child(envoy, "tokenize");
    let mut waiting = Waiting { delivery, tokenizers, callout: None, converting: None, span };
    let asked = match (local, server) {
        (Some(model), _) => {
            let body = copy(envoy, body, None);
            waiting.tokenizers.tokenize(model, api, body, &waiting.delivery)
        }
        (None, Some(server)) => {
            let edit = (summary.model != model).then(|| summary.rename_model(model));
            let copied = copy(envoy, body, edit);
            let timeout = if body.has_media() { server.mm_timeout } else { server.timeout };
            waiting.render(envoy, (&server.url, timeout), noted, (api, copied))
        }
        (None, None) => Err(Missed::NoModel),
    };
    match asked {
        Ok(()) => Ok(waiting),
        Err(why) => {
            waiting.note(Err(&why));
            Err(missed(runtime, noted, &why))
        }
    }
}

impl Waiting {
    /// Has a server render the prompt; bodies that it does not read are converted first.
    fn render<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        (url, timeout): (&str, GoDuration),
        noted: &Noted,
        (api, body): (PromptApi, Vec<u8>),
    ) -> Result<(), Missed> {
        let path = match api {
            PromptApi::Chat => "chat/completions",
            PromptApi::Completions => "completions",
            PromptApi::Messages | PromptApi::Responses => {
                let chat = Arc::new(Delivery::new(Box::new(envoy.new_scheduler()), CONVERTED));
                self.tokenizers.convert(api, body, &chat)?;
                self.converting = Some(Converting { chat, url: url.to_owned(), timeout });
                return Ok(());
            }
            _ => return Err(Missed::NoModel),
        };
        let cluster = self.tokenizers.render_cluster();
        self.callout = Some(call(envoy, cluster, (url, timeout), noted, path, &body)?);
        Ok(())
    }

    /// The body has been converted: asks the server. Answers whether the wait is over instead.
    pub(super) fn converted<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        noted: &Noted,
    ) -> bool {
        let Some(Converting { chat, url, timeout }) = self.converting.take() else { return false };
        let called = match chat.settle() {
            Some(Ok(body)) => {
                let cluster = self.tokenizers.render_cluster();
                call(envoy, cluster, (&url, timeout), noted, "chat/completions", body)
            }
            Some(Err(why)) => Err(why.clone()),
            None => Err(Missed::Late),
        };
        match called {
            Ok(id) => {
                self.callout = Some(id);
                false
            }
            Err(why) => {
                self.fail(why);
                true
            }
        }
    }

    fn fail(&self, why: Missed) {
        self.delivery.settle();
        self.delivery.deliver(Err(why));
    }

    /// Notes in the span what came of the wait.
    fn note(&self, settled: Result<&Tokenized, &Missed>) {
        let Some(span) = &self.span else { return };
        match settled {
            Ok(tokens) => {
                let ids: usize = tokens.prompts.iter().map(Vec::len).sum();
                span.tag("inlane.prompts", tokens.prompts.len());
                span.tag("inlane.prompt_tokens", ids);
            }
            Err(why) => span.tag("inlane.missed", why.reason()),
        }
    }

    /// Ends the wait: what came of it.
    pub(super) fn settle(self, runtime: &Runtime, noted: &Noted) -> Tokens {
        let metrics = &runtime.metrics.tokens;
        metrics.seconds.observe(self.delivery.taken_ns() as f64 * 1e-9);
        let settled = self.delivery.settle();
        self.note(settled.map_or(Err(&Missed::Late), |settled| settled.as_ref()));
        match settled {
            Some(Ok(tokens)) => {
                metrics.tokenized(tokens);
                Tokens::Ready(Arc::clone(&self.delivery))
            }
            Some(Err(why)) => missed(runtime, noted, why),
            None => missed(runtime, noted, &Missed::Late),
        }
    }

    /// The end of a callout. Answers whether the wait is over with it; the answer of a server is
    /// read by another thread first.
    pub(super) fn answered(
        &mut self,
        id: u64,
        result: CalloutResult,
        headers: Option<&[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)]>,
        body: Option<&[EnvoyBuffer<'_>]>,
    ) -> bool {
        if self.callout.take_if(|callout| *callout == id).is_none() {
            return false;
        }
        let status = headers.into_iter().flatten().find(|(key, _)| key.as_slice() == b":status");
        let status = status.map(|(_, value)| value.as_slice()).unwrap_or_default();
        let body = body.unwrap_or_default();
        let failed = match (result, status) {
            (CalloutResult::Success, [b'2', _, _]) => {
                self.tokenizers.read_answer(gather(body, usize::MAX), &self.delivery).err()
            }
            (CalloutResult::Success, _) => {
                let (status, text) = (String::from_utf8_lossy(status), gather(body, ERROR_BYTES));
                let text = String::from_utf8_lossy(&text).into_owned();
                Some(Missed::Render(format!("status {status}: {text}")))
            }
            (CalloutResult::Reset, _) => Some(Missed::Render("no answer".into())),
            (CalloutResult::ExceedResponseBufferLimit, _) => {
                Some(Missed::Render("the answer is too large".into()))
            }
        };
        match failed {
            Some(why) => {
                self.fail(why);
                true
            }
            None => false,
        }
    }
}

/// Counts and logs that a request goes without its tokens.
fn missed(runtime: &Runtime, noted: &Noted, why: &Missed) -> Tokens {
    runtime.metrics.tokens.failed(why.reason());
    if let Some(dropped) = runtime.tokens.complaints.may(clock::now_ns()) {
        let more = match dropped {
            0 => Cow::Borrowed(""),
            more => Cow::Owned(format!(" ({more} more before)")),
        };
        envoy_log_warn!("inlane: request {} goes without tokens: {why}{more}", noted.id);
    }
    Tokens::Missed
}

/// How the body becomes tokens; `None` if it does not.
fn prompt_api(noted: &Noted) -> Option<PromptApi> {
    Some(match noted.api()? {
        Api::ChatCompletions => PromptApi::Chat,
        Api::Completions => PromptApi::Completions,
        Api::Embeddings => PromptApi::Embeddings,
        Api::Generate => PromptApi::Generate,
        Api::Messages => PromptApi::Messages,
        Api::Responses => PromptApi::Responses,
        // No engine makes tokens of these in a way that is known.
        Api::Conversations | Api::ImagesGenerations => return None,
    })
}

/// A copy of the body for somebody else, with one edit.
fn copy<EHF: EnvoyHttpFilterExt>(
    envoy: &mut EHF,
    reader: &BodyReader,
    edit: Option<Edit>,
) -> Vec<u8> {
    let size = usize::try_from(reader.bytes()).unwrap_or(0);
    let more = edit.as_ref().map_or(0, |edit| edit.text.len());
    let mut copied = Vec::with_capacity(size.saturating_add(more));
    BodyReader::copy_to(envoy, &mut copied);
    if let Some(Edit { span, text }) = edit {
        let end = copied.len();
        let place = |at: u64| usize::try_from(at).unwrap_or(end).min(end);
        copied.splice(place(span.start)..place(span.end), text.into_bytes());
    }
    copied
}

/// Calls the server at `url`, which is in Envoy's cluster of that name, to render the prompts of a
/// request to `api`.
fn call<EHF: EnvoyHttpFilterExt>(
    envoy: &mut EHF,
    cluster: &str,
    (url, timeout): (&str, GoDuration),
    noted: &Noted,
    api: &str,
    body: &[u8],
) -> Result<u64, Missed> {
    let (host, prefix) = split_url(url);
    let path = format!("{prefix}/v1/{api}/render");
    let headers: [(&str, &[u8]); 5] = [
        (":method", b"POST"),
        (":path", path.as_bytes()),
        ("host", host.as_bytes()),
        ("content-type", b"application/json"),
        ("x-request-id", noted.id.as_bytes()),
    ];
    let timeout = if timeout.negative { 0 } else { timeout.length.as_millis() };
    // 0 would be no limit.
    let timeout = u64::try_from(timeout).unwrap_or(u64::MAX).max(1);
    match envoy.send_http_callout(cluster, &headers, Some(body), timeout) {
        (CalloutInit::Success, id) => Ok(id),
        (failed, _) => Err(Missed::Render(format!("the call to {cluster} failed: {failed:?}"))),
    }
}

/// Host and path prefix of a URL.
fn split_url(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (host, path.trim_end_matches('/'))
}

/// The first `most` bytes of what Envoy shows in pieces.
fn gather(pieces: &[EnvoyBuffer<'_>], most: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for piece in pieces {
        let piece = piece.as_slice();
        all.extend_from_slice(&piece[..piece.len().min(most - all.len())]);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_host_and_prefix() {
        for (url, host, prefix) in [
            ("http://localhost:8000", "localhost:8000", ""),
            ("http://render:80/", "render:80", ""),
            ("https://gw.example/team/a/", "gw.example", "/team/a"),
            ("render:8000/x", "render:8000", "/x"),
        ] {
            assert_eq!(split_url(url), (host, prefix), "{url}");
        }
    }

    #[test]
    fn pieces_are_put_together_up_to_a_limit() {
        let pieces = [&b"abc"[..], b"", b"defg"].map(EnvoyBuffer::new_from_slice);
        assert_eq!(gather(&pieces, usize::MAX), b"abcdefg");
        assert_eq!(gather(&pieces, 4), b"abcd");
        assert_eq!(gather(&pieces, 3), b"abc");
    }
}

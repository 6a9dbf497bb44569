//! The response, as far as the scheduler looks at it: status, first byte, usage, end.

use std::sync::Arc;

use envoy_proxy_dynamic_modules_rust_sdk::EnvoyHttpFilterExt;

use inlane_core::cycle::Failures;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plan::Plan;
use inlane_core::plugin::{Metadata, Responding};
use inlane_text::Api;

use super::decide::{Hindsight, Routed};
use super::headers::Noted;
use super::usage::UsageTracker;
use crate::clock;
use crate::metrics::ModelSeries;
use crate::runtime::{Runtime, Served};

/// What the hooks of plugins need to know of a response.
pub(super) struct Hooks {
    runtime: Arc<Runtime>,
    served: Arc<Served>,
    endpoint: EndpointIx,
    hindsight: Hindsight,
    request_id: String,
    tells_cached: bool,
}

impl Hooks {
    /// Hooks of a decided stream; `None` when no plugin has any.
    pub(super) fn new(
        runtime: &Arc<Runtime>,
        served: &Arc<Served>,
        routed: &mut Routed,
        noted: &Noted,
    ) -> Option<Self> {
        let config = served.serving()?.plan.config();
        (!config.after_response.is_empty()).then(|| Self {
            runtime: Arc::clone(runtime),
            served: Arc::clone(served),
            endpoint: routed.endpoint,
            hindsight: std::mem::take(&mut routed.hindsight),
            request_id: noted.id.clone(),
            // Engines leave the number out of messages as they like.
            tells_cached: noted.api() != Some(Api::Messages),
        })
    }

    /// Calls `run` with the plan and what is known of the response; counts plugins that fail.
    fn call(&self, response: &Response, run: impl FnOnce(&Plan, &Responding<'_>, &mut Failures)) {
        let Some(serving) = self.served.serving() else { return };
        let usage = response.usage.usage().unwrap_or_default();
        let since = |ns: u64| ns.saturating_sub(response.received_ns) as f64 * 1e-6;
        let end_ns = if response.ended_ns > 0 { response.ended_ns } else { clock::now_ns() };
        let facts = Responding {
            endpoints: serving.endpoints(),
            profiles: &serving.plan.config().profiles,
            targets: &self.hindsight.targets,
            kept: &self.hindsight.kept,
            request_id: &self.request_id,
            endpoint: serving.endpoints().get(self.endpoint),
            streaming: response.streaming,
            status: u16::try_from(response.status).unwrap_or(0),
            first_byte_ms: (response.bytes > 0).then(|| since(response.first_byte_ns)),
            total_ms: since(end_ns),
            complete: response.ended_ns > 0,
            prompt_tokens: usage.whole_prompt(),
            completion_tokens: usage.completion,
            cached_tokens: usage.cached,
            tells_cached: self.tells_cached,
        };
        let mut failures = Failures::default();
        run(&serving.plan, &facts, &mut failures);
        for (plugin, _) in failures.recent() {
            let name = serving.plan.plugin_name(*plugin);
            self.runtime.metrics.plugin_failures.with_label_values(&[name]).inc();
        }
    }
}

/// Watches one response. Chunks pass through untouched.
pub(super) struct Response {
    series: Arc<ModelSeries>,
    received_ns: u64,
    streaming: bool,
    status: u32,
    bytes: u64,
    first_byte_ns: u64,
    last_chunk_ns: u64,
    ended_ns: u64,
    usage: UsageTracker,
    hooks: Option<Hooks>,
    /// Nothing is to be made of the response but that it ended.
    ignored: bool,
}

impl Response {
    /// A response to a request that was received at `received_ns`.
    pub(super) fn new(series: Arc<ModelSeries>, received_ns: u64, streaming: bool) -> Self {
        Self {
            series,
            received_ns,
            streaming,
            status: 0,
            bytes: 0,
            first_byte_ns: 0,
            last_chunk_ns: 0,
            ended_ns: 0,
            usage: UsageTracker::default(),
            hooks: None,
            ignored: false,
        }
    }

    /// A response that nobody wants to know of.
    pub(super) fn ignored(series: Arc<ModelSeries>) -> Self {
        Self { ignored: true, ..Self::new(series, 0, false) }
    }

    /// The same, with the hooks of plugins.
    pub(super) fn with_hooks(self, hooks: Option<Hooks>) -> Self {
        Self { hooks, ..self }
    }

    /// Whether plugins have hooks here, which want to know the endpoint that served.
    pub(super) fn has_hooks(&self) -> bool {
        self.hooks.is_some()
    }

    /// A retry was served by another endpoint than the first.
    pub(super) fn served_by(&mut self, endpoint: EndpointIx) {
        if let Some(hooks) = &mut self.hooks {
            hooks.endpoint = endpoint;
        }
    }

    /// The response's headers have arrived.
    pub(super) fn headers<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        end_of_stream: bool,
    ) {
        if self.ignored {
            return;
        }
        let status = envoy.get_response_header_value(":status");
        let status = status.and_then(|s| std::str::from_utf8(s.as_slice()).ok()?.parse().ok());
        self.status = status.unwrap_or(0);
        let kind = envoy.get_response_header_value("content-type");
        self.streaming |=
            kind.is_some_and(|kind| kind.as_slice().starts_with(b"text/event-stream"));
        if end_of_stream {
            self.ended_ns = clock::now_ns();
        }
        if let Some(hooks) = &self.hooks {
            let mut headers = Vec::new();
            hooks.call(self, |plan, facts, failures| {
                plan.response_headers(facts, &mut headers, failures);
            });
            for (name, value) in headers {
                envoy.set_response_header(&name, value.as_bytes());
            }
        }
    }

    /// A piece of the response's body. Answers whether it is the first.
    pub(super) fn body<EHF: EnvoyHttpFilterExt>(
        &mut self,
        envoy: &mut EHF,
        end_of_stream: bool,
    ) -> bool {
        if self.ignored {
            let first = self.bytes == 0;
            self.bytes = 1;
            return first;
        }
        let now = clock::now_ns();
        let size = envoy.get_received_response_body_size() as u64;
        let first = self.bytes == 0 && size > 0;
        if size > 0 {
            if first {
                self.first_byte_ns = now;
            } else if self.streaming {
                self.series.itl.observe(seconds(self.last_chunk_ns, now));
            }
            self.last_chunk_ns = now;
            self.bytes += size;
            let usage = &mut self.usage;
            envoy.for_each_received_response_body_chunk(&mut |chunk| usage.chunk(chunk));
        }
        if end_of_stream {
            self.ended_ns = now;
            self.report(envoy);
        }
        first
    }

    /// The response is complete: says what plugins want to say of it.
    fn report<EHF: EnvoyHttpFilterExt>(&self, envoy: &mut EHF) {
        let Some(hooks) = &self.hooks else { return };
        let mut metadata = Vec::new();
        hooks.call(self, |plan, facts, failures| plan.report(facts, &mut metadata, failures));
        for Metadata { namespace, key, value } in metadata {
            envoy.set_dynamic_metadata_number(&namespace, &key, value);
        }
    }

    /// Envoy answers itself, in place of a pod or of the rest of its answer.
    pub(super) fn local_reply(&mut self, code: u32) {
        self.status = code;
    }

    /// The stream is over.
    pub(super) fn end(self) {
        self.series.ended();
        if self.ignored {
            return;
        }
        if let Some(hooks) = &self.hooks {
            hooks.call(&self, |plan, facts, failures| plan.complete(facts, failures));
        }
        // No status at all: the client left before there was one, which is nobody's error.
        if ![0, 200].contains(&self.status) {
            self.series.error("ModelServerError");
        }
        if self.bytes > 0 {
            let ttft = seconds(self.received_ns, self.first_byte_ns);
            let family = if self.streaming {
                &self.series.ttft_streaming
            } else {
                &self.series.ttft_buffered
            };
            family.observe(ttft);
        }
        if let Some(usage) = self.usage.usage() {
            self.count_tokens(usage.prompt, usage.completion, usage.cached);
        }
        if self.ended_ns > 0 {
            self.series.duration.observe(seconds(self.received_ns, self.ended_ns));
            self.series.response_size.observe(self.bytes as f64);
        }
    }

    fn count_tokens(&self, prompt: Option<u64>, completion: Option<u64>, cached: Option<u64>) {
        if let Some(prompt) = prompt.filter(|tokens| *tokens > 0) {
            self.series.input_tokens.observe(prompt as f64);
        }
        if let Some(cached) = cached {
            self.series.cached_tokens.observe(cached as f64);
        }
        let Some(completion) = completion.filter(|tokens| *tokens > 0) else { return };
        self.series.output_tokens.observe(completion as f64);
        if self.ended_ns > 0 {
            let duration = seconds(self.received_ns, self.ended_ns);
            self.series.ntpot.observe(duration / completion as f64);
            if self.streaming && completion > 1 {
                let after_first = seconds(self.first_byte_ns, self.ended_ns);
                self.series.tpot.observe(after_first / (completion - 1) as f64);
            }
        }
    }
}

fn seconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 * 1e-9
}

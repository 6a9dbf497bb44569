//! Spans of the stages of a decision, for streams that Envoy traces.
//!
//! ```text
//! Envoy's span of the request                       gen_ai.request.model, gen_ai.request.id
//! ├ tokenize                                        while the stream waits for the prompt's tokens
//! └ gateway.request_orchestration                   from the complete body to the destination
//!   ├ index_lookup                                  data producers: what each endpoint holds of the prompt
//!   └ run_scheduler_profile                         filters, scorers and picker of all profiles
//! ```
//!
//! Where nothing is traced this costs one call that answers null. A span takes a few allocations; a
//! tracer's sampling decides how many of them there are.

use std::cell::RefCell;
use std::fmt::{self, Write as _};

use envoy_proxy_dynamic_modules_rust_sdk::{EnvoyChildSpan, EnvoyHttpFilterExt};
use inlane_core::columns::PrefixMatch;
use inlane_core::cycle::Scratch;
use inlane_core::endpoint::EndpointIx;
use inlane_core::request::Request;

use crate::runtime::Serving;

/// Endpoints that a span names at most.
const NAMED: usize = 8;

/// A span that ends when this is dropped.
pub(super) struct Span(Box<dyn EnvoyChildSpan>);

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Span")
    }
}

impl Span {
    /// A child of the stream's span, if that is traced.
    pub(super) fn child<EHF: EnvoyHttpFilterExt>(envoy: &EHF, operation: &str) -> Option<Self> {
        envoy.spawn_child_span(operation).map(Self)
    }

    /// Notes something about the stage.
    pub(super) fn tag(&self, key: &str, value: impl fmt::Display) {
        self.0.set_tag(key, &value.to_string());
    }
}

/// The spans of a decision: one for all of it, and one for the stage that it is in.
pub(super) struct Stages {
    whole: Span,
    stage: RefCell<Option<Span>>,
}

impl Stages {
    /// The decision on `request` begins; `None` where nothing is traced.
    pub(super) fn begin<EHF: EnvoyHttpFilterExt>(
        envoy: &EHF,
        request: &Request<'_>,
    ) -> Option<Self> {
        let stream = envoy.get_active_span()?;
        stream.set_tag("gen_ai.request.model", request.model);
        stream.set_tag("gen_ai.request.id", request.id);
        let whole = Span(stream.spawn_child("gateway.request_orchestration")?);
        whole.tag("target_model", request.target_model);
        whole.tag("inlane.prompt_tokens", request.token_count());
        Some(Self { whole, stage: RefCell::default() })
    }

    /// The next stage begins, and the one before ends.
    pub(super) fn enter(&self, operation: &str) {
        let mut stage = self.stage.borrow_mut();
        *stage = None;
        *stage = self.whole.0.spawn_child(operation).map(Span);
    }

    /// The stage ends.
    pub(super) fn leave(&self) {
        *self.stage.borrow_mut() = None;
    }

    /// Notes something about the whole decision.
    pub(super) fn tag(&self, key: &str, value: impl fmt::Display) {
        self.whole.tag(key, value);
    }

    /// Notes how many blocks of the prompt each producer found at the endpoint that has most of them.
    pub(super) fn looked_up(&self, serving: &Serving, scratch: &Scratch) {
        let stage = self.stage.borrow();
        let Some(stage) = stage.as_ref() else { return };
        stage.tag("llm_d.kv_cache.candidate_endpoints", serving.endpoints().len());
        for (producer, column) in serving.plan.config().schema.columns::<PrefixMatch>() {
            let found = scratch.columns.get(column).iter().flatten();
            let Some(most) = found.max_by_key(|found| found.match_blocks) else { continue };
            stage.tag(&format!("llm_d.kv_cache.{producer}.most_blocks"), most.match_blocks);
            stage.tag(&format!("llm_d.kv_cache.{producer}.total_blocks"), most.total_blocks);
        }
    }

    /// Notes what the profiles made of the candidates.
    pub(super) fn scored(&self, serving: &Serving, scratch: &Scratch) {
        let stage = self.stage.borrow();
        let Some(stage) = stage.as_ref() else { return };
        let mut names = String::new();
        let runs = scratch.decision.profiles.iter().filter(|run| run.ran);
        for run in runs.clone() {
            let _ = write!(names, "{}{}", if names.is_empty() { "" } else { "," }, run.name);
        }
        stage.tag("llm_d.epp.scheduling.profile.name", names);
        let Some(primary) = scratch.decision.primary_run().or_else(|| runs.clone().next()) else {
            return;
        };
        stage.tag("llm_d.epp.filter.candidate_endpoints", serving.endpoints().len());
        stage.tag("llm_d.epp.filter.filtered_endpoints", primary.candidates.len());
        stage.tag("llm_d.epp.scorer.count", primary.scores.len());
        let mut top = String::new();
        for target in primary.targets.iter().take(NAMED) {
            let Some(endpoint) = serving.endpoints().get(*target) else { continue };
            let _ = write!(top, "{}{}", if top.is_empty() { "" } else { "," }, endpoint.name);
        }
        stage.tag("llm_d.epp.picker.top_endpoints", top);
    }

    /// Notes where the request goes.
    pub(super) fn routed(&self, serving: &Serving, scratch: &Scratch, target: EndpointIx) {
        if let Some(endpoint) = serving.endpoints().get(target) {
            self.tag("inlane.endpoint", &endpoint.host_port);
            self.tag("inlane.endpoint_name", &endpoint.name);
        }
        for (producer, column) in serving.plan.config().schema.columns::<PrefixMatch>() {
            let found = scratch.columns.get(column).get(target as usize).copied().flatten();
            let blocks = found.map_or(0, |found| found.match_blocks);
            self.tag(&format!("inlane.matched_blocks.{producer}"), blocks);
        }
    }
}

//! What hooks on the response see.

use inlane_core::config::Profile;
use inlane_core::decision::Decision;
use inlane_core::effect::{Effect, Kept};
use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_core::plugin::Responding;

/// What is remembered of a decision until its response comes.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// When it was sent, ms.
    sent_ms: u64,
    profiles: Vec<Profile>,
    /// First target of each profile.
    targets: Vec<Option<EndpointIx>>,
    kept: Vec<Kept>,
    /// When the first byte came.
    first_byte_ms: Option<u64>,
    /// Chunks so far. They stand for the completion tokens that an engine would report.
    chunks: u64,
}

impl Sent {
    pub(super) fn new(decision: &Decision, effects: &[Effect], now_ms: u64) -> Self {
        let profile = |name: &String| Profile {
            name: name.clone(),
            filters: Vec::new(),
            scorers: Vec::new(),
            picker: 0,
        };
        let kept = effects.iter().filter_map(|effect| match effect {
            Effect::Keep(kept) => Some(*kept),
            _ => None,
        });
        Self {
            sent_ms: now_ms,
            profiles: decision.profiles.iter().map(|run| profile(&run.name)).collect(),
            targets: decision.profiles.iter().map(|run| run.targets.first().copied()).collect(),
            kept: kept.collect(),
            first_byte_ms: None,
            chunks: 0,
        }
    }

    /// A chunk has come; `last` when it is the last one.
    pub(super) fn chunk(&mut self, now_ms: u64) {
        self.first_byte_ms.get_or_insert(now_ms);
        self.chunks += 1;
    }

    /// Shows what is known at `now_ms`, of a response that has come to its end or, with `complete`
    /// unset, is still under way.
    pub(super) fn with<R>(
        &self,
        endpoints: &EndpointSet,
        request_id: &str,
        target: Option<EndpointIx>,
        now_ms: u64,
        complete: bool,
        call: impl FnOnce(&Responding<'_>) -> R,
    ) -> R {
        let since = |ms: u64| ms.saturating_sub(self.sent_ms) as f64;
        call(&Responding {
            endpoints,
            profiles: &self.profiles,
            targets: &self.targets,
            kept: &self.kept,
            request_id,
            endpoint: target.and_then(|ix| endpoints.get(ix)),
            streaming: true,
            status: 200,
            first_byte_ms: self.first_byte_ms.map(since),
            total_ms: since(now_ms),
            complete,
            prompt_tokens: None,
            completion_tokens: (self.chunks > 0).then_some(self.chunks),
            cached_tokens: None,
            tells_cached: true,
        })
    }
}

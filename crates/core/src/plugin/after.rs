//! Roles that are played once the choice is made.

use crate::config::Profile;
use crate::decision::Decision;
use crate::effect::{Effect, Effects, Kept, PluginIx};
use crate::endpoint::{Endpoint, EndpointIx, EndpointSet};
use crate::exposition::Exposition;

use super::view::Cycle;

/// Hook after the choice, before the request leaves.
pub trait PostChoice: Send + Sync {
    /// Appends what the choice should cause. Changes nothing itself.
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects);

    /// Carries out an [`Effect::Record`] that this plugin asked for.
    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        let _ = (cx, effect);
    }
}

/// What is known of a response.
#[derive(Clone, Copy)]
pub struct Responding<'a> {
    /// The pool that was decided on.
    pub endpoints: &'a EndpointSet,
    /// The profiles of the configuration.
    pub profiles: &'a [Profile],
    /// First target of each profile, in the order of the configuration.
    pub targets: &'a [Option<EndpointIx>],
    /// What plugins kept with the stream.
    pub kept: &'a [Kept],
    /// Request id.
    pub request_id: &'a str,
    /// The endpoint that served.
    pub endpoint: Option<&'a Endpoint>,
    /// Whether the response is a stream of events.
    pub streaming: bool,
    /// HTTP status, 0 when none arrived.
    pub status: u16,
    /// Milliseconds from decision to first response byte, when there was one.
    pub first_byte_ms: Option<f64>,
    /// Milliseconds from decision to the end of the stream.
    pub total_ms: f64,
    /// Whether the response came to its regular end.
    pub complete: bool,
    /// Prompt tokens, when the engine reported them.
    pub prompt_tokens: Option<u64>,
    /// Completion tokens, when the engine reported them.
    pub completion_tokens: Option<u64>,
    /// Prompt tokens served from the cache, when the engine reported them.
    pub cached_tokens: Option<u64>,
    /// Whether an engine that reports such tokens at all does so in a response of this kind: where not,
    /// none reported says nothing.
    pub tells_cached: bool,
}

impl<'a> Responding<'a> {
    /// The first target of the profile called `name`; `None` when it did not run or found nobody.
    pub fn target_of(&self, name: &str) -> Option<&'a Endpoint> {
        let at = self.profiles.iter().position(|p| p.name == name)?;
        self.endpoints.get(self.targets.get(at).copied()??)
    }

    /// What the instance `plugin` kept with the stream.
    pub fn kept_by(&self, plugin: PluginIx) -> impl Iterator<Item = &'a Kept> + use<'a> {
        self.kept.iter().filter(move |kept| kept.plugin == plugin)
    }
}

/// A value for Envoy's dynamic metadata, in access logs for instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    /// Namespace.
    pub namespace: String,
    /// Key.
    pub key: String,
    /// Value.
    pub value: f64,
}

/// Hook on the response.
pub trait AfterResponse: Send + Sync {
    /// Appends response headers to set, as (lower-case name, value).
    fn response_headers(&self, cx: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        let _ = (cx, headers);
    }

    /// The response has come to its end: appends what should be said of it.
    fn report(&self, cx: &Responding<'_>, metadata: &mut Vec<Metadata>) {
        let _ = (cx, metadata);
    }

    /// The stream has ended, however that happened.
    fn complete(&self, cx: &Responding<'_>) {
        let _ = cx;
    }
}

/// Shows a plugin's own numbers to whoever reads the metrics page.
pub trait Collector: Send + Sync {
    /// Adds the plugin's families. `plugin_name` and `plugin_type` of the instance are labels that
    /// the families should carry.
    fn collect(&self, page: &mut Exposition);
}

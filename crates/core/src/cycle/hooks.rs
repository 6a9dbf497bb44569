//! The hooks around a decision. A hook that panics is counted and has no effect.

use crate::decision::{Decision, PluginError};
use crate::effect::{Effect, Effects, PluginIx};
use crate::plan::Plan;
use crate::plugin::{Cycle, Refusal, RequestFacts, Responding, Roles};
use crate::request::Request;

use super::guard::isolate;
use super::scratch::{Failures, Scratch};

impl Plan {
    /// The instances of `plugins` with one of their roles.
    fn playing<'a, R: ?Sized + 'static>(
        &'a self,
        plugins: &'a [PluginIx],
        role: fn(&Roles) -> Option<&R>,
    ) -> impl Iterator<Item = (PluginIx, &'a R)> {
        plugins.iter().filter_map(move |&plugin| Some((plugin, role(self.roles(plugin)?)?)))
    }

    /// Runs the hooks before the decision, in the order of the configuration.
    ///
    /// # Errors
    /// The first refusal.
    pub fn pre_call(
        &self,
        request: &Request<'_>,
        facts: &mut RequestFacts,
        failures: &mut Failures,
    ) -> Result<(), Refusal> {
        for (plugin, hook) in self.playing(&self.config.pre_call, |r| r.pre_call.as_deref()) {
            match isolate(|| Ok(hook.pre_call(request, facts))) {
                Ok(verdict) => verdict?,
                Err(error) => failures.add(plugin, error),
            }
        }
        Ok(())
    }

    /// Collects the effects of a decision.
    pub(super) fn post_choice(
        &self,
        cx: &Cycle<'_>,
        decision: &Decision,
        effects: &mut Effects,
        failures: &mut Failures,
    ) {
        for (plugin, hook) in self.playing(&self.config.post_choice, |r| r.post_choice.as_deref()) {
            let before = effects.len();
            if let Err(error) = run(|| hook.post_choice(cx, decision, effects)) {
                effects.truncate(before);
                failures.add(plugin, error);
            }
        }
    }

    /// Carries out the [`Effect::Record`] effects of the last decision. Bookings and headers are
    /// the caller's.
    pub fn apply_records(
        &self,
        request: &Request<'_>,
        now_ms: u64,
        seed: u64,
        scratch: &mut Scratch,
    ) {
        let Scratch { columns, state, effects, failures, .. } = scratch;
        let endpoints = &*self.endpoints;
        let cx = Cycle { request, endpoints, columns, state, now_ms, seed };
        for effect in effects.iter() {
            let &Effect::Record { plugin, .. } = effect else { continue };
            let hook = self.roles(plugin).and_then(|r| r.post_choice.as_deref());
            if let Some(Err(error)) = hook.map(|hook| run(|| hook.apply(&cx, effect))) {
                failures.add(plugin, error);
            }
        }
    }

    /// Collects the response headers that plugins want to set.
    pub fn response_headers(
        &self,
        response: &Responding<'_>,
        headers: &mut Vec<(String, String)>,
        failures: &mut Failures,
    ) {
        let hooks = &self.config.after_response;
        for (plugin, hook) in self.playing(hooks, |r| r.after_response.as_deref()) {
            let before = headers.len();
            if let Err(error) = run(|| hook.response_headers(response, headers)) {
                headers.truncate(before);
                failures.add(plugin, error);
            }
        }
    }

    /// Tells plugins that a stream has ended.
    pub fn complete(&self, response: &Responding<'_>, failures: &mut Failures) {
        let hooks = &self.config.after_response;
        for (plugin, hook) in self.playing(hooks, |r| r.after_response.as_deref()) {
            if let Err(error) = run(|| hook.complete(response)) {
                failures.add(plugin, error);
            }
        }
    }
}

/// Runs a hook that cannot fail but by panic.
fn run(hook: impl FnOnce()) -> Result<(), PluginError> {
    isolate(|| {
        hook();
        Ok(())
    })
}

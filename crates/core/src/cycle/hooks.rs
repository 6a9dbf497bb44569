//! The hooks around a decision.

use crate::decision::Decision;
use crate::effect::{Effect, Effects};
use crate::plan::Plan;
use crate::plugin::{Cycle, Refusal, RequestFacts, Responding};
use crate::request::Request;

use super::guard::isolate;
use super::scratch::{Failures, Scratch};

impl Plan {
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
        for &plugin in &self.config.pre_call {
            let Some(hook) = self.roles(plugin).and_then(|r| r.pre_call.as_deref()) else {
                continue;
            };
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
        for &plugin in &self.config.post_choice {
            let Some(hook) = self.roles(plugin).and_then(|r| r.post_choice.as_deref()) else {
                continue;
            };
            let before = effects.len();
            let call = || {
                hook.post_choice(cx, decision, effects);
                Ok(())
            };
            if let Err(error) = isolate(call) {
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
            let Some(hook) = self.roles(plugin).and_then(|r| r.post_choice.as_deref()) else {
                continue;
            };
            let call = || {
                hook.apply(&cx, effect);
                Ok(())
            };
            if let Err(error) = isolate(call) {
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
        for &plugin in &self.config.after_response {
            let Some(hook) = self.roles(plugin).and_then(|r| r.after_response.as_deref()) else {
                continue;
            };
            let before = headers.len();
            let call = || {
                hook.response_headers(response, headers);
                Ok(())
            };
            if let Err(error) = isolate(call) {
                headers.truncate(before);
                failures.add(plugin, error);
            }
        }
    }

    /// Tells plugins that a stream has ended.
    pub fn complete(&self, response: &Responding<'_>, failures: &mut Failures) {
        for &plugin in &self.config.after_response {
            let Some(hook) = self.roles(plugin).and_then(|r| r.after_response.as_deref()) else {
                continue;
            };
            let call = || {
                hook.complete(response);
                Ok(())
            };
            if let Err(error) = isolate(call) {
                failures.add(plugin, error);
            }
        }
    }
}

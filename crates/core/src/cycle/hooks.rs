//! The hooks around a decision. A hook that panics is counted and has no effect.

use crate::decision::{Decision, PluginError};
use crate::effect::{Effect, Effects, PluginIx};
use crate::endpoint::EndpointIx;
use crate::exposition::Exposition;
use crate::plan::Plan;
use crate::plugin::{Cycle, Metadata, Refusal, RequestFacts, Responding, Roles};
use crate::request::Request;

use super::guard::isolate;
use super::laps::{ExtensionPoint, Laps};
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

    /// Runs the hooks before the decision, in the order of the configuration, after
    /// [`begin`](Self::begin). The texts that they publish are then in `scratch`.
    ///
    /// # Errors
    /// The first refusal.
    pub fn pre_call(
        &self,
        request: &Request<'_>,
        facts: &mut RequestFacts,
        scratch: &mut Scratch,
    ) -> Result<(), Refusal> {
        for (plugin, hook) in self.playing(&self.config.pre_call, |r| r.pre_call.as_deref()) {
            let verdict = scratch.laps.time(ExtensionPoint::RequestHeader, plugin, || {
                isolate(|| Ok(hook.pre_call(request, facts)))
            });
            match verdict {
                Ok(verdict) => verdict?,
                Err(error) => scratch.failures.add(plugin, error),
            }
        }
        for attribute in facts.attributes.drain(..) {
            scratch.state.set_attribute(attribute);
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
        laps: &mut Laps,
    ) {
        for (plugin, hook) in self.playing(&self.config.post_choice, |r| r.post_choice.as_deref()) {
            let before = effects.len();
            let done = laps.time(ExtensionPoint::PreRequest, plugin, || {
                run(|| hook.post_choice(cx, decision, effects))
            });
            if let Err(error) = done {
                effects.truncate(before);
                failures.add(plugin, error);
            }
        }
    }

    /// Lets the plugins of a configuration that moves no request learn what became of it: the
    /// effects are then those of a choice of `target` by the primary profile.
    pub fn follow(
        &self,
        request: &Request<'_>,
        target: EndpointIx,
        now_ms: u64,
        seed: u64,
        scratch: &mut Scratch,
    ) {
        let Scratch { columns, state, decision, effects, failures, laps, .. } = scratch;
        let primary = usize::from(decision.primary);
        let Some(run) = decision.profiles.get_mut(primary) else { return };
        run.targets.clear();
        run.targets.push(target);
        effects.clear();
        let cx = self.cycle(request, columns, state, decision.peer, now_ms, seed);
        self.post_choice(&cx, decision, effects, failures, laps);
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
        let Scratch { columns, state, decision, effects, failures, .. } = scratch;
        let cx = self.cycle(request, columns, state, decision.peer, now_ms, seed);
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

    /// Collects what plugins want to say of a response in dynamic metadata.
    pub fn report(
        &self,
        response: &Responding<'_>,
        metadata: &mut Vec<Metadata>,
        failures: &mut Failures,
    ) {
        let hooks = &self.config.after_response;
        for (plugin, hook) in self.playing(hooks, |r| r.after_response.as_deref()) {
            let before = metadata.len();
            if let Err(error) = run(|| hook.report(response, metadata)) {
                metadata.truncate(before);
                failures.add(plugin, error);
            }
        }
    }

    /// The plugins' own numbers.
    pub fn collect(&self, page: &mut Exposition) {
        for instance in &self.config.plugins {
            if let Some(collector) = instance.roles.collector.as_deref() {
                // A collector that panics leaves its numbers out.
                let _ = run(|| collector.collect(page));
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

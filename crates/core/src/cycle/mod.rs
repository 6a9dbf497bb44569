//! The cycle: from a request and columns to a decision and its effects.
//!
//! ```text
//! begin -> (caller fills metrics) -> produce -> decide -> (caller books) -> apply
//!                                                 ^             |
//!                                                 +-- conflict -+
//! ```
//!
//! [`Plan::decide`] changes nothing but the scratch and reads no clock and no randomness but its
//! arguments: the same columns, request, time and seed give the same decision. It may be repeated
//! with other columns, for instance when booking found the chosen endpoint changed.
//!
//! Every plugin call is isolated: a plugin that fails or panics is counted and takes
//! no part; a failing filter keeps everything, a failing scorer adds 0, a failing picker is
//! replaced by the best total. Only the profile handler can end a decision.
//!
//! Cost: one indirect call per plugin, never per endpoint; linear in endpoints times scorers.

pub(crate) mod gate;
pub(crate) mod guard;
mod hooks;
mod profile;
mod rank;
mod score;
mod scratch;

pub use scratch::{Failures, Scratch};

use crate::columns::Metrics;
use crate::decision::{Decision, PluginError, ProfileIx, ScheduleError};
use crate::effect::PluginIx;
use crate::endpoint::EndpointIx;
use crate::plan::Plan;
use crate::plugin::{Cycle, LoadSource, Producing, Roles};
use crate::request::{BlockUnit, Request};

use guard::isolate;
use profile::{Setting, run_profile};

impl Plan {
    pub(crate) fn roles(&self, plugin: PluginIx) -> Option<&Roles> {
        self.config.plugin(plugin).map(|p| &p.roles)
    }

    /// The block unit in which a request's prompts should be hashed while the body is read: that
    /// of the first producer that has a wish. `metrics` must hold the numbers of endpoint `first`.
    pub fn block_unit(&self, metrics: &Metrics, first: EndpointIx) -> Option<BlockUnit> {
        self.config.producers.iter().find_map(|&plugin| {
            let producer = self.roles(plugin)?.producer.as_deref()?;
            isolate(|| Ok(producer.block_unit(metrics, first))).ok().flatten()
        })
    }

    /// How many blocks of a prompt are looked at: nothing beyond needs to be hashed.
    pub fn block_limit(&self, unit: BlockUnit) -> usize {
        let producers = self.config.producers.iter();
        let roles = producers.filter_map(|&plugin| self.roles(plugin)?.producer.as_deref());
        let limits = roles.map(|producer| isolate(|| Ok(producer.block_limit(unit))).unwrap_or(0));
        limits.max().unwrap_or(0)
    }

    /// Runs the data producers in order. A subset, when given, first narrows the candidates to
    /// the endpoints it names. The first producer that fails ends the pass: its data and those of
    /// the producers after it may be missing, which scorers take as absent.
    pub fn produce(
        &self,
        request: &Request<'_>,
        subset: Option<&[EndpointIx]>,
        load: &dyn LoadSource,
        now_ms: u64,
        scratch: &mut Scratch,
    ) {
        if !scratch.fits(self) {
            self.begin(scratch);
        }
        if let Some(subset) = subset {
            self.restrict(subset, scratch);
        }
        let Scratch { columns, state, candidates, failures, .. } = scratch;
        let cx = Producing { request, endpoints: &self.endpoints, candidates, load, now_ms };
        for &plugin in &self.config.producers {
            let Some(producer) = self.roles(plugin).and_then(|r| r.producer.as_deref()) else {
                continue;
            };
            if let Err(error) = isolate(|| producer.produce(&cx, columns, state)) {
                failures.add(plugin, error);
                return;
            }
        }
    }

    /// Decides where `request` goes. The outcome is in `scratch.decision` and `scratch.effects`,
    /// which replace those of an earlier call; the destination is also the answer.
    ///
    /// A scratch that was begun for another plan is begun anew, with nothing known of any
    /// endpoint.
    ///
    /// # Errors
    /// Why there is no destination; [`ScheduleError::http`] says how to answer.
    pub fn decide(
        &self,
        request: &Request<'_>,
        now_ms: u64,
        seed: u64,
        scratch: &mut Scratch,
    ) -> Result<EndpointIx, ScheduleError> {
        if !scratch.fits(self) {
            self.begin(scratch);
        }
        scratch.reset_outcome();
        if scratch.candidates.is_empty() {
            return Err(ScheduleError::NoEndpoints);
        }
        self.run_profiles(request, now_ms, seed, scratch)?;
        let Scratch { columns, state, decision, effects, failures, .. } = scratch;
        let endpoints = &*self.endpoints;
        let cx = Cycle { request, endpoints, columns, state, now_ms, seed };
        let target = self.name_primary(&cx, decision)?;
        if gate::is_conditional(request.headers)
            && !gate::is_cached(&self.config.schema, columns, target)
        {
            return Err(ScheduleError::NotCached);
        }
        self.post_choice(&cx, decision, effects, failures);
        Ok(target)
    }

    /// The handler's loop.
    fn run_profiles(
        &self,
        request: &Request<'_>,
        now_ms: u64,
        seed: u64,
        scratch: &mut Scratch,
    ) -> Result<(), ScheduleError> {
        let Scratch { columns, state, decision, failures, candidates, work, .. } = scratch;
        let endpoints = &*self.endpoints;
        let cx = Cycle { request, endpoints, columns, state, now_ms, seed };
        // A handler that never stops is a bug of the handler, not a reason to hold a worker.
        let rounds = self.profiles.len() * 2 + 1;
        for _ in 0..=rounds {
            let mut run = std::mem::take(&mut work.run);
            run.clear();
            let asked = self.next_profiles(&cx, decision, &mut run);
            for &ix in &run {
                let at = usize::from(ix);
                let profile = self.config.profiles.get(at).zip(self.profiles.get(at));
                if let Some(((profile, settled), out)) = profile.zip(decision.profiles.get_mut(at))
                {
                    let at = Setting { plan: self, profile, settled, allowed: candidates };
                    run_profile(&at, &cx, out, work, failures);
                }
            }
            let done = run.is_empty();
            work.run = run;
            asked?;
            if done {
                if decision.profiles.iter().any(|p| p.ran) {
                    return Ok(());
                }
                let id = request.id;
                let text = format!("failed to run any scheduler profile for request {id}");
                return Err(ScheduleError::Handler(text));
            }
        }
        Err(ScheduleError::Handler("the profile handler does not come to an end".into()))
    }

    fn next_profiles(
        &self,
        cx: &Cycle<'_>,
        decision: &Decision,
        run: &mut Vec<ProfileIx>,
    ) -> Result<(), ScheduleError> {
        let Some(handler) = self.roles(self.config.handler).and_then(|r| r.handler.as_deref())
        else {
            return Err(ScheduleError::Handler("no profile handler configured".into()));
        };
        let outcome =
            isolate(|| Ok(handler.next(cx, decision, run))).unwrap_or_else(handler_panicked);
        if outcome.is_err() {
            run.clear();
        }
        outcome
    }

    /// Lets the handler name the primary profile and checks that it has a target. When there is
    /// none, the reason of a profile that found nobody (of several the first by name) says more
    /// than that of the handler.
    fn name_primary(
        &self,
        cx: &Cycle<'_>,
        decision: &mut Decision,
    ) -> Result<EndpointIx, ScheduleError> {
        let handler = self.roles(self.config.handler).and_then(|r| r.handler.as_deref());
        let named = match handler {
            Some(handler) => {
                isolate(|| Ok(handler.primary(cx, decision))).unwrap_or_else(handler_panicked)
            }
            None => Err(ScheduleError::EmptyResult),
        };
        let target = named.and_then(|primary| {
            decision.primary = primary;
            decision.target().ok_or(ScheduleError::EmptyResult)
        });
        target.map_err(|error| {
            let profiles = self.config.profiles.iter().zip(&decision.profiles);
            let filtered = profiles.filter(|(_, run)| run.failed).map(|(p, _)| &p.name).min();
            match filtered {
                Some(profile) => ScheduleError::Filtered { profile: profile.clone() },
                None => error,
            }
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the form that unwrap_or_else calls")]
fn handler_panicked<T>(error: PluginError) -> Result<T, ScheduleError> {
    Err(ScheduleError::Handler(error.to_string()))
}

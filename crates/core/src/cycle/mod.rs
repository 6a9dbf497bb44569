//! The cycle: from a request and columns to a decision and its effects.
//!
//! ```text
//! begin -> (caller fills metrics) -> screen, produce -> decide -> (caller books) -> apply
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
mod laps;
mod prepare;
mod profile;
mod rank;
mod score;
mod scratch;

pub use guard::isolate;
pub use laps::{ExtensionPoint, Lap, Laps};
pub use prepare::{Ask, Produced};
pub use scratch::{Failures, Scratch};

use crate::columns::{Columns, Metrics};
use crate::decision::{Decision, PluginError, ScheduleError};
use crate::effect::PluginIx;
use crate::endpoint::EndpointIx;
use crate::plan::Plan;
use crate::plugin::{Cycle, Roles, Round};
use crate::request::{BlockUnit, Request};
use crate::state::CycleState;

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
        self.admit(request, now_ms, seed, scratch)?;
        self.run_profiles(request, now_ms, seed, scratch)?;
        let Scratch { columns, state, decision, effects, failures, laps, .. } = scratch;
        let cx = self.cycle(request, columns, state, decision.peer, now_ms, seed);
        let target = self.name_primary(&cx, decision, laps)?;
        if gate::is_conditional(request.headers)
            && !gate::is_cached(&self.config.schema, columns, target)
        {
            return Err(ScheduleError::NotCached);
        }
        self.post_choice(&cx, decision, effects, failures, laps);
        Ok(target)
    }

    /// Whether a data producer found blocks of the request's prompt on `endpoint`.
    pub fn is_cached(&self, scratch: &Scratch, endpoint: EndpointIx) -> bool {
        gate::is_cached(&self.config.schema, &scratch.columns, endpoint)
    }

    /// What plugins see of a running decision.
    fn cycle<'a>(
        &'a self,
        request: &'a Request<'a>,
        columns: &'a Columns,
        state: &'a CycleState,
        peer: Option<EndpointIx>,
        now_ms: u64,
        seed: u64,
    ) -> Cycle<'a> {
        let (endpoints, settled) = (&*self.endpoints, &self.settled);
        Cycle { request, endpoints, columns, state, settled, peer, now_ms, seed }
    }

    /// The handler's loop.
    fn run_profiles(
        &self,
        request: &Request<'_>,
        now_ms: u64,
        seed: u64,
        scratch: &mut Scratch,
    ) -> Result<(), ScheduleError> {
        let Scratch { columns, state, decision, failures, laps, candidates, work, .. } = scratch;
        let mut cx = self.cycle(request, columns, state, None, now_ms, seed);
        // A handler that never stops is a bug of the handler, not a reason to hold a worker.
        let rounds = self.profiles.len() * 2 + 1;
        for _ in 0..=rounds {
            let mut round = std::mem::take(&mut work.round);
            round.run.clear();
            round.skip.clear();
            round.peer = None;
            let asked = self.next_profiles(&cx, decision, &mut round, laps);
            for &ix in &round.skip {
                if let Some(out) = decision.profiles.get_mut(usize::from(ix)) {
                    out.skipped = true;
                }
            }
            decision.peer = round.peer.or(decision.peer);
            cx.peer = decision.peer;
            for &ix in &round.run {
                let at = usize::from(ix);
                let profile = self.config.profiles.get(at).zip(self.profiles.get(at));
                if let Some(((profile, settled), out)) = profile.zip(decision.profiles.get_mut(at))
                {
                    let at = Setting { plan: self, profile, settled, allowed: candidates };
                    run_profile(&at, &cx, out, work, failures, laps);
                }
            }
            let done = round.run.is_empty();
            work.round = round;
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
        round: &mut Round,
        laps: &mut Laps,
    ) -> Result<(), ScheduleError> {
        let Some(handler) = self.roles(self.config.handler).and_then(|r| r.handler.as_deref())
        else {
            return Err(ScheduleError::Handler("no profile handler configured".into()));
        };
        let outcome = laps.time(ExtensionPoint::ProfilePicker, self.config.handler, || {
            isolate(|| Ok(handler.next(cx, decision, round)))
        });
        let outcome = outcome.unwrap_or_else(handler_panicked);
        if outcome.is_err() {
            round.run.clear();
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
        laps: &mut Laps,
    ) -> Result<EndpointIx, ScheduleError> {
        let handler = self.roles(self.config.handler).and_then(|r| r.handler.as_deref());
        let named = match handler {
            Some(handler) => laps
                .time(ExtensionPoint::ProcessProfilesResults, self.config.handler, || {
                    isolate(|| Ok(handler.primary(cx, decision)))
                })
                .unwrap_or_else(handler_panicked),
            None => Err(ScheduleError::EmptyResult),
        };
        let target = named.and_then(|primary| {
            decision.primary = primary.profile;
            decision.port = primary.port;
            decision.target().ok_or(ScheduleError::EmptyResult)
        });
        target.map_err(|error| {
            let profiles = self.config.profiles.iter().zip(&decision.profiles);
            let filtered = profiles.filter(|(_, run)| run.failed).map(|(p, _)| &p.name).min();
            match filtered {
                Some(profile) => ScheduleError::Filtered {
                    profile: profile.clone(),
                    said: match error {
                        ScheduleError::Handler(said) => said,
                        other => other.to_string(),
                    },
                },
                None => error,
            }
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "the form that unwrap_or_else calls")]
fn handler_panicked<T>(error: PluginError) -> Result<T, ScheduleError> {
    Err(ScheduleError::Handler(error.to_string()))
}

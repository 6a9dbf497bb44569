//! Running stages one after another.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inlane_core::cycle::isolate;
use inlane_core::decision::{Decision, ProfileIx, ProfileRun, ScheduleError};
use inlane_core::effect::{Effect, Effects};
use inlane_core::endpoint::EndpointIx;
use inlane_core::exposition::Exposition;
use inlane_core::plugin::{Cycle, Decider, Primary, Round};

use super::{DATA_PARALLEL, ENCODERS, PREFILLER};

/// The decode profile of a handler and the deciders that it asks, with what they failed at.
pub(crate) struct Stages {
    /// Name of the decode profile.
    pub(crate) decode: String,
    failures: AtomicU64,
}

impl Stages {
    pub(crate) fn new(decode: String) -> Self {
        Self { decode, failures: AtomicU64::new(0) }
    }

    /// Shows how often deciders failed.
    pub(crate) fn collect(&self, page: &mut Exposition, (name, type_name): (&str, &str)) {
        let failures = self.failures.load(Ordering::Relaxed);
        let labels = [("plugin_name", name), ("plugin_type", type_name)];
        let help = "Deciders that failed, which counts as no.";
        page.counter("inlane_decider_failures_total", help, &labels, failures as f64);
    }

    /// Asks a decider; none says no, and so does one that fails.
    pub(crate) fn ask(
        &self,
        decider: Option<&Arc<dyn Decider>>,
        cx: &Cycle<'_>,
        decode: Option<EndpointIx>,
    ) -> bool {
        let Some(decider) = decider else { return false };
        isolate(|| decider.decide(cx, decode)).unwrap_or_else(|_| {
            self.failures.fetch_add(1, Ordering::Relaxed);
            false
        })
    }

    /// The decode profile as the primary one.
    pub(crate) fn primary(&self, decision: &Decision) -> Result<Primary, ScheduleError> {
        match position(decision, &self.decode) {
            Some((ix, run)) if !run.targets.is_empty() => Ok(Primary::from(ix)),
            _ => Err(ScheduleError::Handler("failed to find available decode workers".into())),
        }
    }

    /// Evaluates a stage that may be left out: runs the profile called `name` when `wanted` says
    /// so, else marks it as skipped. `true` when it has to run first, before anything else.
    pub(crate) fn run_or_skip(
        decision: &Decision,
        name: &str,
        round: &mut Round,
        wanted: impl FnOnce() -> bool,
    ) -> bool {
        let Some((ix, run)) = position(decision, name) else { return false };
        if run.ran || run.skipped {
            return false;
        }
        let wanted = wanted();
        if wanted { &mut round.run } else { &mut round.skip }.push(ix);
        wanted
    }
}

/// The profile called `name` and its place.
fn position<'a>(decision: &'a Decision, name: &str) -> Option<(ProfileIx, &'a ProfileRun)> {
    (0..).zip(&decision.profiles).find(|(_, run)| run.name == name)
}

/// The first target of the profile called `name`.
fn first_target(decision: &Decision, name: &str) -> Option<EndpointIx> {
    decision.profile(name)?.targets.first().copied()
}

impl Stages {
    /// The decode target. [`Stop`] when there is none: decode runs first, has found nobody, or
    /// does not exist.
    pub(crate) fn decoded(
        &self,
        decision: &Decision,
        round: &mut Round,
    ) -> Result<EndpointIx, Stop> {
        let Some((ix, run)) = position(decision, &self.decode) else { return Err(Stop) };
        if !run.ran {
            round.run.push(ix);
            return Err(Stop);
        }
        run.targets.first().copied().ok_or(Stop)
    }

    /// Runs decode close to the target of the profile `near`, unless it has run.
    pub(crate) fn decode_last(&self, decision: &Decision, near: &str, round: &mut Round) {
        if let Some((ix, run)) = position(decision, &self.decode)
            && !run.ran
        {
            round.peer = first_target(decision, near);
            round.run.push(ix);
        }
    }
}

/// Nothing more is to be done in this round.
pub(crate) struct Stop;

/// Tells the orchestrator where prefill and encode run. What a client said of it is removed, so
/// that nobody can aim the orchestrator at a host of their own.
pub(crate) fn stage_headers(
    cx: &Cycle<'_>,
    decision: &Decision,
    prefill: &str,
    encode: &str,
    effects: &mut Effects,
) {
    let host_port = |ix: EndpointIx| cx.endpoints.get(ix).map(|e| e.host_port.as_str());
    let prefiller = first_target(decision, prefill).and_then(host_port);
    let encoders = decision.profile(encode).filter(|run| !run.targets.is_empty()).map(|run| {
        let hosts: Vec<&str> = run.targets.iter().filter_map(|&ix| host_port(ix)).collect();
        hosts.join(",")
    });
    let header = |name: &'static str, value| Effect::RequestHeader { name: name.into(), value };
    effects.push(header(PREFILLER, prefiller.map(str::to_owned)));
    effects.push(header(ENCODERS, encoders));
}

/// Names the rank that was picked, for the sidecar that takes the request on the primary port.
pub(crate) fn destination_headers(cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
    let target = decision.target().and_then(|ix| cx.endpoints.get(ix));
    let value = target.map(|endpoint| endpoint.host_port.clone());
    effects.push(Effect::RequestHeader { name: DATA_PARALLEL.into(), value });
}

//! The test plugins themselves.

use inlane_core::columns::{Col, Columns, InFlight, PrefixMatch, UncachedTokens};
use inlane_core::decision::{Decision, PluginError, ProfileIx, ScheduleError};
use inlane_core::effect::{Effect, Effects, PluginIx, TokenRelease};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{
    AfterResponse, Candidates, Category, Cycle, DataProducer, Filter, Picker, PostChoice, PreCall,
    Primary, Producing, ProfileHandler, Refusal, RequestFacts, Responding, Round, Scorer,
};
use inlane_core::request::Request;
use inlane_core::state::CycleState;

/// `max - x` over `max - min` of a metric, 1 when all are equal.
pub(super) struct Lowest {
    pub(super) read: fn(&Columns, EndpointIx) -> f64,
    pub(super) metrics: bool,
}

impl Scorer for Lowest {
    fn category(&self) -> Category {
        Category::Distribution
    }
    fn reads_metrics(&self) -> bool {
        self.metrics
    }
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for (&ix, out) in candidates.iter().zip(&mut *out) {
            *out = (self.read)(cx.columns, ix);
            min = min.min(*out);
            max = max.max(*out);
        }
        for out in out {
            *out = if max == min { 1.0 } else { (max - *out) / (max - min) };
        }
        Ok(())
    }
}

/// `1 - kv`, raw.
pub(super) struct FreeCache;

impl Scorer for FreeCache {
    fn category(&self) -> Category {
        Category::Distribution
    }
    fn reads_metrics(&self) -> bool {
        true
    }
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        for (&ix, out) in candidates.iter().zip(out) {
            *out = 1.0 - cx.columns.metrics.kv_usage[ix as usize];
        }
        Ok(())
    }
}

pub(super) struct MatchRatio(pub(super) Col<PrefixMatch>);

impl Scorer for MatchRatio {
    fn category(&self) -> Category {
        Category::Affinity
    }
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let found = cx.columns.get(self.0);
        for (&ix, out) in candidates.iter().zip(out) {
            let m = found.get(ix as usize).copied().flatten().unwrap_or_default();
            *out = f64::from(m.match_blocks) / f64::from(m.total_blocks.max(1));
        }
        Ok(())
    }
}

/// Requests in flight, as booked.
pub(super) struct Bookings(pub(super) Col<InFlight>);

impl Scorer for Bookings {
    fn category(&self) -> Category {
        Category::Distribution
    }
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let load = cx.columns.get(self.0);
        for (&ix, out) in candidates.iter().zip(out) {
            let requests = load.get(ix as usize).copied().flatten().unwrap_or_default().requests;
            *out = 1.0 / (1.0 + f64::from(requests));
        }
        Ok(())
    }
}

/// Keeps endpoints whose label `role` is this, or absent.
pub(super) struct RoleFilter {
    pub(super) role: &'static str,
    pub(super) dynamic: bool,
}

impl Filter for RoleFilter {
    fn is_static(&self) -> bool {
        !self.dynamic
    }
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        candidates.retain(|ix| match cx.endpoints[ix].label("role") {
            Some(role) if role != self.role => Err("other role"),
            _ => Ok(()),
        });
        Ok(())
    }
}

/// Drops endpoints with a queue.
pub(super) struct Unqueued;

impl Filter for Unqueued {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let waiting = &cx.columns.metrics.waiting;
        candidates.retain(|ix| if waiting[ix as usize] > 0 { Err("queue") } else { Ok(()) });
        Ok(())
    }
}

/// Takes the best total, the first of equals.
pub(super) struct Best;

impl Picker for Best {
    fn pick(
        &self,
        _: &Cycle<'_>,
        candidates: &[EndpointIx],
        totals: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        let mut best = 0;
        for (i, total) in totals.iter().enumerate() {
            if *total > totals[best] {
                best = i;
            }
        }
        targets.push(candidates[best]);
        Ok(())
    }
}

pub(super) struct AnyOne(pub(super) PluginIx);

impl Picker for AnyOne {
    fn pick(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        _: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        let at = cx.rng(self.0.into()).below(candidates.len() as u32);
        targets.push(candidates[at as usize]);
        Ok(())
    }
}

/// Picks what it was told to, sound or not.
pub(super) struct Stubborn(pub(super) Vec<EndpointIx>);

impl Picker for Stubborn {
    fn pick(
        &self,
        _: &Cycle<'_>,
        _: &[EndpointIx],
        _: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        targets.extend(&self.0);
        Ok(())
    }
}

pub(super) struct Single;

impl ProfileHandler for Single {
    fn validate(&self, profiles: &[String]) -> Result<(), String> {
        match profiles.len() {
            1 => Ok(()),
            _ => Err("SingleProfileHandler cannot support multiple scheduling profiles".into()),
        }
    }
    fn next(
        &self,
        _: &Cycle<'_>,
        decision: &Decision,
        round: &mut Round,
    ) -> Result<(), ScheduleError> {
        if !decision.profiles[0].ran {
            round.run.push(0);
        }
        Ok(())
    }
    fn primary(&self, _: &Cycle<'_>, decision: &Decision) -> Result<Primary, ScheduleError> {
        match decision.profiles[0].failed {
            true => Err(ScheduleError::Handler("the only profile failed".into())),
            false => Ok(Primary::from(0)),
        }
    }
}

/// Runs every profile once; the last one is the primary. Or does what `mode` says.
pub(super) struct Every(pub(super) String);

impl ProfileHandler for Every {
    fn next(
        &self,
        _: &Cycle<'_>,
        decision: &Decision,
        round: &mut Round,
    ) -> Result<(), ScheduleError> {
        match self.0.as_str() {
            "endless" => round.run.push(0),
            "unknown" if decision.profiles.iter().all(|p| !p.ran) => round.run.push(99),
            "nothing" => {}
            "panic" => panic!("handler bug"),
            _ => round
                .run
                .extend((0..).zip(&decision.profiles).filter(|(_, p)| !p.ran).map(|(i, _)| i)),
        }
        Ok(())
    }
    fn primary(&self, _: &Cycle<'_>, decision: &Decision) -> Result<Primary, ScheduleError> {
        match self.0.as_str() {
            "lost" => Ok(Primary::from(99)),
            _ => Ok(Primary::from(decision.profiles.len() as ProfileIx - 1)),
        }
    }
}

pub(super) struct Tokens;

impl DataProducer for Tokens {
    fn produce(
        &self,
        _: &Producing<'_>,
        _: &mut Columns,
        _: &mut CycleState,
    ) -> Result<(), PluginError> {
        Ok(())
    }
}

/// Says that the endpoint named like the model holds half of every prompt.
pub(super) struct Prefixes(pub(super) Col<PrefixMatch>);

impl DataProducer for Prefixes {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        _: &mut CycleState,
    ) -> Result<(), PluginError> {
        let total_blocks = (cx.request.token_count() / 64) as u32;
        let out = columns.get_mut(self.0);
        for &ix in cx.candidates {
            let holds = cx.endpoints[ix].name == cx.request.target_model;
            let match_blocks = if holds { total_blocks / 2 } else { 0 };
            out[ix as usize] = Some(PrefixMatch {
                match_blocks,
                total_blocks,
                block_size_tokens: 64,
                cached_blocks: match_blocks,
            });
        }
        Ok(())
    }
}

impl PostChoice for Prefixes {
    fn post_choice(&self, _: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        effects.extend(decision.target().map(|endpoint| Effect::record(0, endpoint)));
    }
}

pub(super) struct Load {
    pub(super) load: Col<InFlight>,
    pub(super) cost: Col<UncachedTokens>,
}

impl DataProducer for Load {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        _: &mut CycleState,
    ) -> Result<(), PluginError> {
        for &ix in cx.candidates {
            let now = cx.load.in_flight(cx.endpoints[ix].slot);
            columns.get_mut(self.load)[ix as usize] = Some(now);
            let cost = UncachedTokens(cx.request.token_count() as i64);
            columns.get_mut(self.cost)[ix as usize] = Some(cost);
        }
        Ok(())
    }
}

impl PostChoice for Load {
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        let Some(endpoint) = decision.target() else { return };
        let cost = cx.columns.get(self.cost)[endpoint as usize].unwrap_or_default();
        effects.push(Effect::Claim {
            endpoint,
            tokens: cost.0 as u64,
            release: TokenRelease::FirstByte,
            until_first_byte: false,
        });
    }
}

/// Fails in every role, by panic or by error, after having done half its work.
pub(super) struct Broken {
    pub(super) panics: bool,
}

impl Broken {
    fn fail(&self) -> Result<(), PluginError> {
        if self.panics {
            panic!("broken on purpose");
        }
        Err(PluginError::new("broken on purpose"))
    }
}

impl Filter for Broken {
    fn filter(&self, _: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        candidates.retain(|ix| if ix == 0 { Err("half done") } else { Ok(()) });
        self.fail()
    }
}

impl Scorer for Broken {
    fn category(&self) -> Category {
        Category::Balance
    }
    fn score(&self, _: &Cycle<'_>, _: &[EndpointIx], out: &mut [f64]) -> Result<(), PluginError> {
        out[0] = 1.0;
        self.fail()
    }
}

impl Picker for Broken {
    fn pick(
        &self,
        _: &Cycle<'_>,
        candidates: &[EndpointIx],
        _: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError> {
        targets.push(candidates[0]);
        self.fail()
    }
}

impl DataProducer for Broken {
    fn produce(
        &self,
        _: &Producing<'_>,
        _: &mut Columns,
        _: &mut CycleState,
    ) -> Result<(), PluginError> {
        self.fail()
    }
}

impl PostChoice for Broken {
    fn post_choice(&self, _: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        effects.extend(decision.target().map(|endpoint| Effect::record(0, endpoint)));
        let _ = self.fail();
    }
    fn apply(&self, _: &Cycle<'_>, _: &Effect) {
        let _ = self.fail();
    }
}

impl PreCall for Broken {
    fn pre_call(&self, _: &Request<'_>, _: &mut RequestFacts) -> Result<(), Refusal> {
        let _ = self.fail();
        Ok(())
    }
}

impl AfterResponse for Broken {
    fn response_headers(&self, _: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        headers.push(("half".into(), "done".into()));
        let _ = self.fail();
    }
    fn complete(&self, _: &Responding<'_>) {
        let _ = self.fail();
    }
}

/// Names the tenant in the facts and in a response header; refuses requests without a model.
pub(super) struct Tenant;

impl PreCall for Tenant {
    fn pre_call(&self, request: &Request<'_>, facts: &mut RequestFacts) -> Result<(), Refusal> {
        if request.model.is_empty() {
            return Err(Refusal { status: 400, message: "no model".into() });
        }
        facts.fairness_id = Some(format!("tenant of {}", request.model));
        Ok(())
    }
}

impl AfterResponse for Tenant {
    fn response_headers(&self, cx: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        headers.push(("x-served".into(), cx.request_id.into()));
    }
}

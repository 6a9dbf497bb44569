//! Session affinity: which endpoint a request's session belongs to. Shared by
//! [`session_affinity_scorer`](super::session_affinity_scorer) and the filters.
//!
//! Two strategies (llm-d-router `session-affinity-scorer`, `session-affinity-filter`). Either the
//! client carries the endpoint's name itself, in a header that the response set before: no state.
//! Or sessions have ids, and [`Table`] remembers the endpoint of each. Then the producer half looks
//! the session up and marks its endpoint in a column, so that decisions replay; the choice is
//! recorded afterwards.

mod settings;
mod table;
mod token;

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use inlane_core::columns::{Col, Columns, Scalar};
use inlane_core::decision::{Decision, PluginError, ProfileRun};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet};
use inlane_core::plugin::{
    AfterResponse, Candidates, Category, Cycle, DataProducer, Filter, PerTopology, PostChoice,
    Producing, Responding, Roles, Scorer,
};
use inlane_core::registry::{Build, BuildError, Params};
use inlane_core::request::Request;
use inlane_core::state::{CycleData, CycleState, StateSlot};
use xxhash_rust::xxh64::xxh64;

use self::settings::{Settings, Source, Strategy};
use self::table::{Idle, Table};

/// The column that marks the endpoint of the request's session, by instance.
const BOUND: &str = "SessionBindingDataKey";

/// Builds an instance that filters.
///
/// # Errors
/// A parameter that does not fit.
pub(crate) fn filter(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let plugin = Arc::new(SessionAffinity::build(build, params)?);
    Ok(Roles::default().filter(plugin.clone()).join(plugin))
}

/// Builds an instance that scores.
///
/// # Errors
/// A parameter that does not fit.
pub(crate) fn scorer(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let plugin = Arc::new(SessionAffinity::build(build, params)?);
    Ok(Roles::default().scorer(plugin.clone()).join(plugin))
}

/// The roles that filters and scorers have in common.
trait Join {
    fn join(self, plugin: Arc<SessionAffinity>) -> Self;
}

impl Join for Roles {
    fn join(self, plugin: Arc<SessionAffinity>) -> Self {
        let roles = self.per_topology(plugin.clone());
        match plugin.binding {
            Binding::Token { .. } => roles.after_response(plugin),
            Binding::Table { .. } => roles.producer(plugin.clone()).post_choice(plugin),
        }
    }
}

#[derive(Debug)]
struct SessionAffinity {
    instance: PluginIx,
    /// Profile whose first target a session is bound to; empty = the primary one.
    profile: String,
    binding: Binding,
}

/// What ties a session to its endpoint.
#[derive(Debug)]
enum Binding {
    /// A header that names the endpoint.
    Token { header: String },
    /// A table of sessions.
    Table {
        sources: Vec<Source>,
        idle: Idle,
        refresh_outscored: bool,
        table: Arc<Table>,
        bound: Col<Scalar>,
        looked_up: StateSlot<LookedUp>,
    },
}

/// Digest of the endpoint that the session was bound to when the request was looked up; 0 = none.
#[derive(Debug, Default)]
struct LookedUp(u64);

impl CycleData for LookedUp {
    fn clear(&mut self) {
        self.0 = 0;
    }
}

/// The pool's endpoints by token and by digest.
struct Names {
    by_token: HashMap<String, EndpointIx>,
    by_digest: HashMap<u64, EndpointIx>,
}

/// Digest of an endpoint's id, never 0.
fn digest(endpoint: &Endpoint) -> u64 {
    xxh64(endpoint.id.as_bytes(), 0).max(1)
}

impl SessionAffinity {
    fn build(build: &mut Build<'_>, params: &Params) -> Result<Self, BuildError> {
        let Settings { strategy, profile } = Settings::read(params)?;
        let binding = match strategy {
            Strategy::EndpointHeader { header } => Binding::Token { header },
            Strategy::SessionId { sources, idle, refresh_outscored } => {
                for source in &sources {
                    source.declare(build);
                }
                let name = build.name().to_owned();
                build.produce_key(BOUND);
                let bound = build.scalar(BOUND, &name);
                let (table, looked_up) =
                    (build.kept_state("", Table::default), build.cycle_state());
                Binding::Table { sources, idle, refresh_outscored, table, bound, looked_up }
            }
        };
        Ok(Self { instance: build.instance(), profile, binding })
    }

    /// A test for the endpoint that the request's session is bound to.
    fn bound<'a>(&'a self, cx: &Cycle<'a>) -> impl Fn(EndpointIx) -> bool + use<'a> {
        let (mut named, mut marks): (Option<EndpointIx>, &[Option<Scalar>]) = (None, &[]);
        match &self.binding {
            Binding::Token { header } => {
                let names = cx.settled.get::<Names>(self.instance);
                let token = cx.request.headers.get(header);
                named = names.zip(token).and_then(|(n, token)| n.by_token.get(token).copied());
            }
            Binding::Table { bound, .. } => marks = cx.columns.get(*bound),
        }
        move |ix| named == Some(ix) || marks.get(ix as usize).is_some_and(Option::is_some)
    }

    /// What the session is bound by: the first target of the profile that counts.
    fn target<'a>(&self, decision: &'a Decision) -> Option<(&'a ProfileRun, EndpointIx)> {
        let run = match self.profile.as_str() {
            "" => decision.profiles.get(usize::from(decision.primary)),
            name => decision.profiles.iter().find(|run| run.name == name),
        }?;
        Some((run, run.targets.first().copied().filter(|_| run.ran)?))
    }
}

/// Digest of the request's session: the first source with a text that is not blank.
fn session(sources: &[Source], request: &Request<'_>, state: &CycleState) -> Option<u64> {
    let texts = sources.iter().filter_map(|source| match source {
        Source::Header(name) => request.headers.get(name),
        Source::Attribute { name, producer } => state.attribute(name, producer),
    });
    let id = texts.map(str::trim).find(|text| !text.is_empty())?;
    Some(xxh64(id.as_bytes(), 0))
}

impl PerTopology for SessionAffinity {
    fn settle(&self, endpoints: &EndpointSet) -> Box<dyn Any + Send + Sync> {
        let all = || endpoints.as_slice().iter().zip(0..);
        Box::new(Names {
            by_token: all().map(|(e, ix)| (token::encode(&e.id), ix)).collect(),
            by_digest: all().map(|(e, ix)| (digest(e), ix)).collect(),
        })
    }
}

impl DataProducer for SessionAffinity {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let Binding::Table { sources, idle, table, bound, looked_up, .. } = &self.binding else {
            return Ok(());
        };
        let session = session(sources, cx.request, state);
        let endpoint = session.and_then(|session| table.find(session, *idle, cx.now_ms));
        let Some(endpoint) = endpoint else { return Ok(()) };
        if let Some(LookedUp(known)) = state.get_mut(*looked_up) {
            *known = endpoint;
        }
        let names = cx.settled.get::<Names>(self.instance);
        let ix = names.and_then(|names| names.by_digest.get(&endpoint));
        if let Some(mark) = ix.and_then(|&ix| columns.get_mut(*bound).get_mut(ix as usize)) {
            *mark = Some(Scalar(1.0));
        }
        Ok(())
    }
}

/// Keeps the endpoint of the session alone when it is a candidate, else everything.
impl Filter for SessionAffinity {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let is_bound = self.bound(cx);
        if candidates.as_slice().iter().any(|&ix| is_bound(ix)) {
            candidates.retain(|ix| match is_bound(ix) {
                true => Ok(()),
                false => Err("the session is bound to another endpoint"),
            });
        }
        Ok(())
    }
}

/// 1 for the endpoint of the session, 0 for all others.
impl Scorer for SessionAffinity {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let is_bound = self.bound(cx);
        for (&ix, out) in candidates.iter().zip(out) {
            *out = if is_bound(ix) { 1.0 } else { 0.0 };
        }
        Ok(())
    }
}

/// Binds sessions. A session that was bound when the request was looked up, to an endpoint that
/// was then no candidate, is bound anew; one whose endpoint was a candidate and lost stays.
impl PostChoice for SessionAffinity {
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        let Binding::Table { sources, looked_up, .. } = &self.binding else { return };
        if session(sources, cx.request, cx.state).is_none() {
            return;
        }
        let Some((run, endpoint)) = self.target(decision) else { return };
        let is_bound = self.bound(cx);
        let is_there = run.candidates.iter().any(|&ix| is_bound(ix));
        let bound_to = cx.state.get(*looked_up).map_or(0, |LookedUp(bound_to)| *bound_to);
        let note = if is_there { 0 } else { bound_to };
        effects.push(Effect::Record { plugin: self.instance, endpoint, note });
    }

    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        let Binding::Table { sources, idle, refresh_outscored, table, .. } = &self.binding else {
            return;
        };
        let &Effect::Record { endpoint, note: gone, .. } = effect else { return };
        let session = session(sources, cx.request, cx.state);
        if let Some((session, endpoint)) = session.zip(cx.endpoints.get(endpoint)) {
            let choice = table::Choice {
                endpoint: digest(endpoint),
                gone,
                refresh_outscored: *refresh_outscored,
            };
            table.choose(session, choice, *idle, cx.now_ms);
        }
    }
}

impl AfterResponse for SessionAffinity {
    fn response_headers(&self, cx: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        let Binding::Token { header } = &self.binding else { return };
        let endpoint = match self.profile.as_str() {
            "" => cx.endpoint,
            name => cx.target_of(name),
        };
        if let Some(endpoint) = endpoint {
            headers.push((header.clone(), token::encode(&endpoint.id)));
        }
    }
}

#[cfg(test)]
mod tests;

//! Pick and book: from a read request to a filed stream record.
//!
//! The claim is a compare-and-swap against the load that was scored. When another worker was
//! faster the columns are refreshed and the decision is made again; after [`CONFLICTS`] of these
//! the endpoint is booked whatever its load. So a burst sees its own picks.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use inlane_core::cycle::{Ask, Produced, Scratch};
use inlane_core::decision::ScheduleError;
use inlane_core::effect::{Effect, Kept, PluginIx};
use inlane_core::endpoint::{Endpoint, EndpointIx, EndpointSet};
use inlane_core::plugin::{Refusal, RequestFacts, Ticket};
use inlane_core::record::Noting;
use inlane_core::request::Request;

use super::book::{Booking, Conflict, book, fill_load, refresh_load};
use super::shadow::{self, Moment};
use super::trace::Stages;
use crate::clock;
use crate::metrics::ModelSeries;
use crate::runtime::{Runtime, Served, Serving};
use crate::settings::{Destination, Settings};
use crate::stream::{Record, Token};
use crate::worker::{Labels, Worker};

/// Decisions repeated for one request because of booking conflicts.
const CONFLICTS: u32 = 8;

/// What a decision was made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Everything that is configured.
    Full,
    /// The prompt's tokens were not there in time, or not to be had: prefixes were compared by the
    /// blocks of its text only.
    PreciseMissed,
    /// The budget was used up while the data producers ran: the last ones were left out.
    Partial,
    /// The budget was used up before the data producers' turn: load only.
    LoadOnly,
}

impl Step {
    /// Name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::PreciseMissed => "precise-missed",
            Self::Partial => "partial",
            Self::LoadOnly => "load-only",
        }
    }
}

/// A request as the filter has read it.
pub(super) struct Asked<'a> {
    /// The request.
    pub request: Request<'a>,
    /// When the worker took the request up, ns.
    pub started_ns: u64,
    /// Places in windows that it has waited for.
    pub tickets: &'a [(PluginIx, Ticket)],
    /// Whether it goes without tokens that the configuration wants.
    pub missed_tokens: bool,
    /// The spans of its stages, if it is traced.
    pub stages: Option<&'a Stages>,
}

/// A decided and booked request.
pub(super) struct Routed {
    /// Where the first attempt goes.
    pub(super) endpoint: EndpointIx,
    /// Names the stream record.
    pub token: Token,
    /// `ip:port`, comma separated, in the picker's order.
    pub destination: String,
    /// `ip:port` in the order of attempts, where the route's cluster goes by such a list.
    pub ranking: String,
    /// Headers to set or remove.
    pub headers: Vec<(Cow<'static, str>, Option<String>)>,
    /// Where the request is counted.
    pub(super) series: Arc<ModelSeries>,
    /// What the response hooks of plugins will want to know.
    pub(super) hindsight: Hindsight,
}

/// What plugins may ask about a decision when its response comes. Empty without such plugins.
#[derive(Debug, Default)]
pub(super) struct Hindsight {
    /// First target of each profile.
    pub(super) targets: Vec<Option<EndpointIx>>,
    /// Numbers that plugins kept.
    pub(super) kept: Vec<Kept>,
}

impl Hindsight {
    fn of(serving: &Serving, scratch: &Scratch) -> Self {
        if serving.plan.config().after_response.is_empty() {
            return Self::default();
        }
        let targets = scratch.decision.profiles.iter().map(|run| run.targets.first().copied());
        let kept = scratch.effects.iter().filter_map(|effect| match effect {
            Effect::Keep(kept) => Some(*kept),
            _ => None,
        });
        Self { targets: targets.collect(), kept: kept.collect() }
    }
}

/// Why a request has no destination.
pub(crate) enum NoRoute {
    /// The schedule has none for it.
    Schedule(ScheduleError),
    /// A plugin refused it.
    Refused(Refusal),
}

impl From<ScheduleError> for NoRoute {
    fn from(error: ScheduleError) -> Self {
        Self::Schedule(error)
    }
}

/// What decisions are made with.
#[derive(Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) settings: &'a Settings,
    pub(super) served: &'a Arc<Served>,
    pub(super) serving: &'a Serving,
}

/// Decides and books.
///
/// # Errors
/// Why there is no destination. Nothing is booked then.
pub(super) fn decide(
    ground: Ground<'_>,
    worker: &mut Worker,
    asked: &Asked<'_>,
) -> Result<Routed, NoRoute> {
    let mut scratch = worker.take_scratch(ground.served, ground.serving);
    let outcome = run(ground, worker, asked, &mut scratch);
    worker.observe_laps(ground.runtime, &ground.serving.plan, &scratch.laps);
    worker.put_scratch(scratch);
    outcome
}

fn run(
    ground: Ground<'_>,
    worker: &mut Worker,
    asked: &Asked<'_>,
    scratch: &mut Scratch,
) -> Result<Routed, NoRoute> {
    let Ground { runtime, settings, served, serving } = ground;
    let plan = &serving.plan;
    let start_ns = clock::now_ns();
    let now_ms = start_ns / 1_000_000;

    plan.begin(scratch);
    if worker.is_timed() {
        scratch.laps.start(clock::now_ns);
    }
    let mut facts = RequestFacts::default();
    if let Err(refusal) = plan.pre_call(&asked.request, &mut facts, scratch) {
        log(ground, worker, scratch, &asked.request, None, |entry| {
            entry.duration_ns = clock::now_ns().saturating_sub(start_ns);
            entry.step = "refused";
            entry.conflicts = 0;
            entry.error.clone_from(&refusal.message);
        });
        return Err(NoRoute::Refused(refusal));
    }
    let request = Request {
        priority: facts.priority.unwrap_or(asked.request.priority),
        fairness_id: facts.fairness_id.as_deref().unwrap_or(asked.request.fairness_id),
        ..asked.request
    };
    let stale_ms = settings.metrics_stale_after.as_millis() as u64;
    let seed = worker.seed();
    let noting = Noting::new(asked.request.headers);
    let request = match settings.record_inputs {
        true => Request { headers: &noting, ..request },
        false => request,
    };
    if let Some(stages) = asked.stages {
        stages.tag("request_prio", request.priority);
        stages.enter("index_lookup");
    }
    serving.fill_metrics(&mut scratch.columns, now_ms, stale_ms);
    let overdue = || over_budget(asked.started_ns, clock::now_ns(), settings.decision_budget);
    let step = if over_budget(asked.started_ns, start_ns, settings.decision_budget) {
        Step::LoadOnly
    } else {
        let (tickets, overdue) = (asked.tickets, Some(&overdue as _));
        let ask = Ask { seed, tickets, overdue, ..Ask::new(&request, serving, now_ms) };
        match plan.produce(&ask, scratch) {
            Produced::All if asked.missed_tokens => Step::PreciseMissed,
            Produced::All => Step::Full,
            Produced::Cut => Step::Partial,
        }
    };
    if matches!(step, Step::Partial | Step::LoadOnly) {
        fill_load(serving, scratch);
    }
    if let Some(stages) = asked.stages {
        stages.looked_up(serving, scratch);
        stages.enter("run_scheduler_profile");
    }

    let mut conflicts = 0;
    let outcome = loop {
        let target = match plan.decide(&request, now_ms, seed, scratch) {
            Ok(target) => target,
            Err(error) => break Err(error),
        };
        match book(serving, scratch, target, conflicts < CONFLICTS) {
            Ok(booking) => break Ok((target, booking)),
            Err(Conflict) => {
                conflicts += 1;
                refresh_load(serving, scratch);
            }
        }
    };
    let duration_ns = clock::now_ns().saturating_sub(start_ns);
    if let Some(stages) = asked.stages {
        stages.scored(serving, scratch);
        stages.leave();
        stages.tag("inlane.step", step.as_str());
        stages.tag("inlane.conflicts", conflicts);
        stages.tag("inlane.duration_us", duration_ns / 1_000);
        if let Ok((target, _)) = &outcome {
            stages.routed(serving, scratch, *target);
        }
    }
    count(runtime, serving, scratch, conflicts, duration_ns);
    let routed = outcome.map(|(target, booking)| {
        runtime.metrics.step(step).inc();
        plan.apply_records(&request, now_ms, seed, scratch);
        worker.count_attempt(runtime, request.target_model, serving.endpoints(), target);
        if settings.legacy_metric_names && plan.is_cached(scratch, target) {
            runtime.metrics.cache_hits.inc();
        }
        (target, booking, Outcome::of(ground, scratch, target))
    });
    if let Ok((target, ..)) = &routed {
        let moment = Moment { now_ms, seed };
        shadow::run(ground, worker, &request, (scratch, *target), moment);
    }
    let recorded = settings.record_inputs.then_some((&noting, now_ms, seed));
    log(ground, worker, scratch, &request, recorded, |entry| {
        entry.duration_ns = duration_ns;
        entry.step = step.as_str();
        entry.conflicts = conflicts;
        entry.error.clear();
        if let Err(error) = &routed {
            use std::fmt::Write;
            let _ = write!(entry.error, "{error}");
        }
    });
    let (target, booking, outcome) = routed?;
    let series = worker.series(runtime, Labels::of(&request));
    Ok(file(worker, served, target, booking, (outcome, series)))
}

/// Counts a decision that was made, well or not.
fn count(
    runtime: &Runtime,
    serving: &Serving,
    scratch: &Scratch,
    conflicts: u32,
    duration_ns: u64,
) {
    let metrics = &runtime.metrics;
    metrics.conflicts.inc_by(u64::from(conflicts));
    metrics.scheduler.observe(duration_ns as f64 * 1e-9);
    metrics.decision.observe(duration_ns as f64 * 1e-9);
    for (plugin, _) in scratch.failures.recent() {
        let name = serving.plan.plugin_name(*plugin);
        metrics.plugin_failures.with_label_values(&[name]).inc();
    }
}

fn over_budget(started_ns: u64, now_ns: u64, budget: Duration) -> bool {
    u128::from(now_ns.saturating_sub(started_ns)) > budget.as_nanos()
}

/// Where a decision sends its request, as text and by rank.
struct Outcome {
    ranking: Vec<EndpointIx>,
    destination: String,
    ranking_text: String,
    headers: Vec<(Cow<'static, str>, Option<String>)>,
    hindsight: Hindsight,
}

impl Outcome {
    /// Reads it from the decision before the log takes that.
    fn of(ground: Ground<'_>, scratch: &Scratch, target: EndpointIx) -> Self {
        let serving = ground.serving;
        let (endpoints, port) = (serving.endpoints(), scratch.decision.port);
        let run = scratch.decision.primary_run();
        let ranking = run.map(|run| run.ranking.clone()).unwrap_or_default();
        let join = |list: &[EndpointIx]| {
            let mut text = String::with_capacity(list.len() * 22);
            for endpoint in list {
                if !text.is_empty() {
                    text.push(',');
                }
                let endpoint = &endpoints[*endpoint];
                match port {
                    Some(port) => text.push_str(&Endpoint::join_host_port(&endpoint.address, port)),
                    None => text.push_str(&endpoint.host_port),
                }
            }
            text
        };
        let headers = scratch.effects.iter().filter_map(|effect| match effect {
            Effect::RequestHeader { name, value } => Some((name.clone(), value.clone())),
            _ => None,
        });
        Self {
            destination: run.map_or_else(|| join(&[target]), |run| join(&run.targets)),
            ranking_text: match ground.settings.destination {
                Destination::Header => join(&ranking),
                Destination::Cluster | Destination::OverrideHost => String::new(),
            },
            headers: headers.collect(),
            hindsight: Hindsight::of(serving, scratch),
            ranking: ranking.into_iter().map(|ix| at_port(endpoints, ix, port)).collect(),
        }
    }
}

/// The endpoint that serves `port` at the address of `ix`; `ix` itself when there is none, or no
/// other port is asked for.
fn at_port(endpoints: &EndpointSet, ix: EndpointIx, port: Option<u16>) -> EndpointIx {
    let other = port.and_then(|port| endpoints.at_address(&endpoints[ix].address, port));
    other.unwrap_or(ix)
}

/// Files the stream record, which owns the bookings from here on.
fn file(
    worker: &mut Worker,
    served: &Arc<Served>,
    target: EndpointIx,
    booking: Booking<'_>,
    (outcome, series): (Outcome, Arc<ModelSeries>),
) -> Routed {
    let Outcome { ranking, destination, ranking_text, headers, hindsight } = outcome;
    let (tokens, release) = (booking.tokens, booking.release);
    let (claim, more_claims) = booking.take();
    let token = worker.records.insert(Record {
        served: Arc::clone(served),
        tried: 0,
        attempts: 0,
        tokens,
        claim,
        release,
        more_claims,
        current: Some(target),
        ranking,
    });
    let ranking = ranking_text;
    Routed { endpoint: target, token, destination, ranking, headers, series, hindsight }
}

/// Files the decision in the log, by swapping it with the log's oldest.
fn log(
    ground: Ground<'_>,
    worker: &Worker,
    scratch: &mut Scratch,
    request: &Request<'_>,
    recorded: Option<(&Noting<'_>, u64, u64)>,
    fill: impl FnOnce(&mut crate::record::Entry),
) {
    let Ground { runtime, served, serving, .. } = ground;
    let scorers: usize = scratch.decision.profiles.iter().map(|run| run.scores.len() + 3).sum();
    let limit = runtime.log.limit(serving.endpoints().len() * scorers * size_of::<f64>());
    worker.ring.file(limit, |entry| {
        entry.sequence = runtime.log.next_sequence();
        entry.request_id.clear();
        entry.request_id.push_str(request.id);
        entry.model.clear();
        entry.model.push_str(request.model);
        entry.unix_ms = clock::unix_ms();
        entry.prompt_tokens = request.token_count();
        // The entry's old decision may be of another configuration: then it has no use as memory.
        let same = entry.epoch == served.epoch && entry.plan.is_some();
        if !same {
            entry.epoch = served.epoch;
            entry.config_generation = serving.config_generation;
            entry.topology_generation = serving.topology_generation;
            entry.plan = Some(Arc::clone(&serving.plan));
        }
        entry.inputs = recorded.map(|(noting, now_ms, seed)| {
            let mut inputs = entry.inputs.take().unwrap_or_default();
            inputs.take_down(&serving.plan, scratch, request, noting, now_ms, seed);
            inputs
        });
        if same {
            std::mem::swap(&mut entry.decision, &mut scratch.decision);
        } else {
            entry.decision.clone_from(&scratch.decision);
        }
        fill(entry);
    });
}

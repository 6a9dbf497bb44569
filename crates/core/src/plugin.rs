//! The plugin traits.
//!
//! A plugin instance plays one or several roles ([`Roles`]); a profile that names it uses every
//! role that fits there. The order of one request is
//!
//! ```text
//! PreCall -> DataProducer* -> [ Filter* -> Scorer* -> Picker ] per profile -> PostChoice -> AfterResponse
//! ```
//!
//! Between `DataProducer` and `PostChoice` nothing may change state: filters, scorers, pickers and
//! handlers read [`Columns`] and the request, and draw randomness from the seed only. State that a
//! plugin keeps between requests is read by its producer half, which fills columns, and written
//! by its effect half, [`PostChoice::apply`].
//!
//! A plugin that fails or panics is isolated: its part of the decision is neutral and the failure
//! is counted. A failing data producer makes the rest of the producers be skipped.

use std::sync::Arc;
use std::time::Duration;

use crate::columns::{Columns, InFlight, Metrics};
use crate::decision::{Decision, PluginError, ProfileIx, Rejection, ScheduleError};
use crate::effect::{Effect, Effects, PluginIx};
use crate::endpoint::{Endpoint, EndpointIx, EndpointSet, Slot};
use crate::request::{BlockUnit, Request};
use crate::rng::Rng;
use crate::snapshot::MetricsRow;
use crate::state::CycleState;

/// What every role sees of the running decision.
#[derive(Clone, Copy)]
pub struct Cycle<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// The pool.
    pub endpoints: &'a EndpointSet,
    /// The numbers.
    pub columns: &'a Columns,
    /// Per-cycle state of the plugins.
    pub state: &'a CycleState,
    /// The time of the decision, boot-time clock in ms.
    pub now_ms: u64,
    /// The seed of the decision.
    pub seed: u64,
}

impl Cycle<'_> {
    /// A generator for this decision. Plugins pass something of their own as `salt`, usually their
    /// instance's index, so that they do not see each other's numbers.
    pub fn rng(&self, salt: u64) -> Rng {
        Rng::new(self.seed ^ salt.wrapping_mul(0xd134_2543_de82_ef95))
    }
}

/// The endpoints that are still in the race, and why the others are not.
#[derive(Debug)]
pub struct Candidates<'a> {
    kept: &'a mut Vec<EndpointIx>,
    rejections: &'a mut Vec<Rejection>,
    filter: u16,
}

impl<'a> Candidates<'a> {
    /// Wraps the candidate list for the filter at position `filter`.
    pub fn new(
        kept: &'a mut Vec<EndpointIx>,
        rejections: &'a mut Vec<Rejection>,
        filter: u16,
    ) -> Self {
        Self { kept, rejections, filter }
    }

    /// The remaining endpoints, in order.
    pub fn as_slice(&self) -> &[EndpointIx] {
        self.kept
    }

    /// Keeps the endpoints for which `verdict` is `Ok`, drops the others with a reason.
    pub fn retain(&mut self, mut verdict: impl FnMut(EndpointIx) -> Result<(), &'static str>) {
        let (rejections, filter) = (&mut *self.rejections, self.filter);
        self.kept.retain(|&endpoint| match verdict(endpoint) {
            Ok(()) => true,
            Err(reason) => {
                rejections.push(Rejection { endpoint, filter, reason });
                false
            }
        });
    }
}

/// Drops endpoints that must not serve the request.
pub trait Filter: Send + Sync {
    /// Whether the verdict depends on the endpoint's metadata alone. Such a filter is run once per
    /// topology, not once per request.
    fn is_static(&self) -> bool {
        false
    }

    /// Drops endpoints from `candidates`.
    ///
    /// # Errors
    /// A filter that fails is skipped: everything it was given stays.
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError>;
}

/// What a scorer is after, informational.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Wants requests together that share something.
    Affinity,
    /// Weighs both.
    Balance,
    /// Wants load spread.
    Distribution,
}

/// Rates endpoints.
pub trait Scorer: Send + Sync {
    /// What the scorer is after.
    fn category(&self) -> Category;

    /// Whether the scores come from the engine's metrics. Such a scorer is given only endpoints
    /// whose metrics are fresh; the others get the mean of its scores.
    fn reads_metrics(&self) -> bool {
        false
    }

    /// Writes a score for each candidate into `out` (parallel, preset to NaN = not scored).
    /// Nominally 0 to 1; the cycle clamps, weighs and adds. NaN contributes 0.
    ///
    /// # Errors
    /// A scorer that fails contributes 0 for every endpoint.
    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError>;
}

/// A scorer that rates one endpoint at a time with an integer, or declines with an error.
///
/// The form in which many people write their first scorer. [`Normalized`] turns it into a
/// [`Scorer`].
pub trait IntegerScorer: Send + Sync {
    /// What the scorer is after.
    fn category(&self) -> Category;

    /// The score of one endpoint, on any scale, higher is better.
    ///
    /// # Errors
    /// An endpoint for which the scorer fails is not scored.
    fn score(&self, cx: &Cycle<'_>, endpoint: EndpointIx) -> Result<i64, PluginError>;
}

/// Normalises an [`IntegerScorer`] to `[0, 1]`: `(s - min) / (max - min)` over the candidates that
/// have a score, 1 for all when they are equal.
#[derive(Debug)]
pub struct Normalized<S>(
    /// The integer scorer.
    pub S,
);

impl<S: IntegerScorer> Scorer for Normalized<S> {
    fn category(&self) -> Category {
        self.0.category()
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        let mut last_error = None;
        for (&endpoint, out) in candidates.iter().zip(&mut *out) {
            match self.0.score(cx, endpoint) {
                Ok(score) => {
                    *out = score as f64;
                    min = min.min(*out);
                    max = max.max(*out);
                }
                Err(error) => last_error = Some(error),
            }
        }
        for out in out.iter_mut().filter(|out| !out.is_nan()) {
            *out = if max == min { 1.0 } else { (*out - min) / (max - min) };
        }
        match last_error {
            Some(error) if min > max => Err(error),
            _ => Ok(()),
        }
    }
}

/// Chooses among scored endpoints.
pub trait Picker: Send + Sync {
    /// Appends the chosen endpoints to `targets`, best first. `totals` is parallel to
    /// `candidates`, which is not empty.
    ///
    /// # Errors
    /// A picker that fails is replaced by the endpoint with the highest total.
    fn pick(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        totals: &[f64],
        targets: &mut Vec<EndpointIx>,
    ) -> Result<(), PluginError>;
}

/// Decides which profiles run, and what their results mean.
pub trait ProfileHandler: Send + Sync {
    /// Called with the number of configured profiles while the configuration is loaded.
    ///
    /// # Errors
    /// What is wrong with the combination.
    fn validate(&self, profiles: &[String]) -> Result<(), String> {
        let _ = profiles;
        Ok(())
    }

    /// Appends the profiles to run next to `run`; none = done. Called again after every round with
    /// the results so far.
    ///
    /// # Errors
    /// Ends the decision.
    fn next(
        &self,
        cx: &Cycle<'_>,
        decision: &Decision,
        run: &mut Vec<ProfileIx>,
    ) -> Result<(), ScheduleError>;

    /// Names the primary profile among the results.
    ///
    /// # Errors
    /// Ends the decision.
    fn primary(&self, cx: &Cycle<'_>, decision: &Decision) -> Result<ProfileIx, ScheduleError>;
}

/// Reads the bookings of an endpoint.
pub trait LoadSource {
    /// Requests and tokens in flight on the endpoint of `slot`.
    fn in_flight(&self, slot: Slot) -> InFlight;
}

/// What a data producer sees.
#[derive(Clone, Copy)]
pub struct Producing<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// The pool.
    pub endpoints: &'a EndpointSet,
    /// The endpoints that may serve the request.
    pub candidates: &'a [EndpointIx],
    /// Live bookings.
    pub load: &'a dyn LoadSource,
    /// Boot-time clock in ms.
    pub now_ms: u64,
}

/// Fills attribute columns before the profiles run.
pub trait DataProducer: Send + Sync {
    /// Reads the plugin's state and writes its columns.
    ///
    /// # Errors
    /// The producers that come after are skipped; the request is scheduled all the same.
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError>;

    /// The block size that prompts should be packed into while the body is read, for a producer
    /// that matches prefixes; `None` = the producer does not care. `first` is the first endpoint
    /// that may serve the request.
    fn block_unit(&self, metrics: &Metrics, first: EndpointIx) -> Option<BlockUnit> {
        let _ = (metrics, first);
        None
    }

    /// How many blocks of a prompt, from the front, the producer looks at.
    fn block_limit(&self, unit: BlockUnit) -> usize {
        let _ = unit;
        0
    }
}

/// Hook before anything is decided: may change what the decision sees of the request.
pub trait PreCall: Send + Sync {
    /// Changes request facts or refuses the request.
    ///
    /// # Errors
    /// The HTTP status and text with which the request is refused.
    fn pre_call(&self, request: &Request<'_>, facts: &mut RequestFacts) -> Result<(), Refusal>;
}

/// Facts that a [`PreCall`] hook may set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// Fairness id, when the client named none.
    pub fairness_id: Option<String>,
    /// Priority, when no objective set one.
    pub priority: Option<i32>,
}

/// A request refused by a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Text of the answer.
    pub message: String,
}

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
#[derive(Debug, Clone, Copy)]
pub struct Responding<'a> {
    /// Request id.
    pub request_id: &'a str,
    /// The endpoint that served.
    pub endpoint: Option<&'a Endpoint>,
    /// HTTP status, 0 when none arrived.
    pub status: u16,
    /// Milliseconds from decision to first response byte, when there was one.
    pub first_byte_ms: Option<u64>,
    /// Milliseconds from decision to the end of the stream.
    pub total_ms: u64,
    /// Prompt tokens, when the engine reported them.
    pub prompt_tokens: Option<u64>,
    /// Completion tokens, when the engine reported them.
    pub completion_tokens: Option<u64>,
    /// Prompt tokens served from the cache, when the engine reported them.
    pub cached_tokens: Option<u64>,
}

/// Hook on the response.
pub trait AfterResponse: Send + Sync {
    /// Appends response headers to set, as (lower-case name, value).
    fn response_headers(&self, cx: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        let _ = (cx, headers);
    }

    /// The stream has ended, however that happened.
    fn complete(&self, cx: &Responding<'_>) {
        let _ = cx;
    }
}

/// Reads an engine's state over HTTP, in the control plane.
pub trait Scraper: Send + Sync {
    /// Path to GET on each endpoint.
    fn path(&self) -> &str;

    /// Port to ask instead of the serving port.
    fn port(&self) -> Option<u16> {
        None
    }

    /// How often; `None` = every tick.
    fn interval(&self) -> Option<Duration> {
        None
    }

    /// Starts reading one answer of one endpoint.
    fn begin(&self, endpoint: &Endpoint) -> Box<dyn Extraction>;
}

/// One answer of one endpoint, as it arrives.
pub trait Extraction: Send {
    /// The next piece of the body.
    fn chunk(&mut self, bytes: &[u8]);

    /// The body is complete: writes what was found into `row`, leaves the rest as it was.
    ///
    /// # Errors
    /// What was missing or malformed. Values found all the same are written.
    fn finish(self: Box<Self>, row: &mut MetricsRow) -> Result<(), PluginError>;
}

/// What a plugin is for outside the cycle. The cycle never calls such a part; configuration
/// loading checks that a reference names a plugin that plays it, and whoever carries it out finds
/// the instance and its parameters in the loaded configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// Source of endpoint data (`dataLayer.sources`).
    DataSource,
    /// Takes facts out of what a source delivers (`dataLayer.sources[].extractors`).
    Extractor,
    /// Finds endpoints (`dataLayer.discovery`).
    Discovery,
    /// Reads request bodies (`requestHandler.parsers`).
    Parser,
    /// Says how full the pool is (`flowControl.saturationDetector`).
    SaturationDetector,
    /// Orders flows of one priority (`fairnessPolicyRef`).
    FairnessPolicy,
    /// Orders the requests of one flow (`orderingPolicyRef`).
    OrderingPolicy,
    /// Limits how much of the pool a priority may use (`usageLimitPolicyPluginRef`).
    UsageLimitPolicy,
    /// Shares state between replicas (`dataLayer.crossReplicaSyncerPluginRef`).
    CrossReplicaSyncer,
}

/// The roles that one plugin instance plays.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Roles {
    /// What the plugin is for outside the cycle.
    pub parts: Vec<Part>,
    /// As filter.
    pub filter: Option<Arc<dyn Filter>>,
    /// As scorer.
    pub scorer: Option<Arc<dyn Scorer>>,
    /// As picker.
    pub picker: Option<Arc<dyn Picker>>,
    /// As profile handler.
    pub handler: Option<Arc<dyn ProfileHandler>>,
    /// As data producer.
    pub producer: Option<Arc<dyn DataProducer>>,
    /// As hook before the decision.
    pub pre_call: Option<Arc<dyn PreCall>>,
    /// As hook after the choice.
    pub post_choice: Option<Arc<dyn PostChoice>>,
    /// As hook on the response.
    pub after_response: Option<Arc<dyn AfterResponse>>,
    /// As scraper.
    pub scraper: Option<Arc<dyn Scraper>>,
}

impl Roles {
    /// Adds a part outside the cycle.
    #[must_use]
    pub fn part(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// Whether the plugin plays `part`.
    pub fn plays(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

macro_rules! role_constructors {
    ($($role:ident: $kind:ident),+ $(,)?) => {
        impl Roles {
            $(
                #[doc = concat!("Adds the role of [`", stringify!($kind), "`].")]
                #[must_use]
                pub fn $role(mut self, plugin: Arc<dyn $kind>) -> Self {
                    self.$role = Some(plugin);
                    self
                }
            )+
        }
    };
}

role_constructors! {
    filter: Filter,
    scorer: Scorer,
    picker: Picker,
    handler: ProfileHandler,
    producer: DataProducer,
    pre_call: PreCall,
    post_choice: PostChoice,
    after_response: AfterResponse,
    scraper: Scraper,
}

/// Names the plugin instance in effects and random streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance(
    /// Index in the loaded configuration.
    pub PluginIx,
);

//! The plugin traits.
//!
//! A plugin instance plays one or several roles ([`Roles`]); a profile that names it uses every
//! role that fits there. The order of one request is
//!
//! ```text
//! PreCall* -> Screener* -> DataProducer* -> Admitter*
//!         -> [ Filter* -> Scorer* -> Picker ] per profile -> PostChoice* -> AfterResponse*
//! ```
//!
//! Between `DataProducer` and `PostChoice` nothing may change state: filters, scorers, pickers and
//! handlers read [`Columns`](crate::columns::Columns) and the request, and draw randomness from the seed only. State that a
//! plugin keeps between requests is read by its producer half, which fills columns, and written
//! by its effect half, [`PostChoice::apply`].
//!
//! A plugin that fails or panics is isolated: its part of the decision is neutral and the failure
//! is counted. A failing data producer makes the rest of the producers be skipped.

mod after;
mod before;
mod choice;
mod scrape;
mod view;

pub use after::{AfterResponse, Collector, Metadata, PostChoice, Responding};
pub use before::{Admitter, DataProducer, PerTopology, PreCall, Refusal, RequestFacts, Screener};
pub use choice::{
    Category, Decider, Filter, IntegerScorer, Normalized, Picker, Primary, ProfileHandler, Round,
    Scorer,
};
pub use scrape::{Extraction, Extractor, Findings, Scheme, Scraper};
pub use view::{Candidates, Cycle, LoadSource, Producing, Settled, Ticket, Tickets};

use std::sync::Arc;

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
    /// Says which requests may be evicted, or in which order.
    EvictionPolicy,
    /// Shares state between replicas (`dataLayer.crossReplicaSyncerPluginRef`).
    CrossReplicaSyncer,
}

/// The roles that one plugin instance plays.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Roles {
    /// What the plugin is for outside the cycle.
    pub parts: Vec<Part>,
    /// As screener.
    pub screener: Option<Arc<dyn Screener>>,
    /// As admitter.
    pub admitter: Option<Arc<dyn Admitter>>,
    /// As decider.
    pub decider: Option<Arc<dyn Decider>>,
    /// Works something out per topology.
    pub per_topology: Option<Arc<dyn PerTopology>>,
    /// Shows numbers of its own.
    pub collector: Option<Arc<dyn Collector>>,
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
    /// As extractor of what a scraper fetches.
    pub extractor: Option<Arc<dyn Extractor>>,
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
    screener: Screener,
    admitter: Admitter,
    decider: Decider,
    per_topology: PerTopology,
    collector: Collector,
    filter: Filter,
    scorer: Scorer,
    picker: Picker,
    handler: ProfileHandler,
    producer: DataProducer,
    pre_call: PreCall,
    post_choice: PostChoice,
    after_response: AfterResponse,
    scraper: Scraper,
    extractor: Extractor,
}

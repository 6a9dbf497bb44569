//! What is scraped: sources of the configuration, and the pages that they mean for an endpoint.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use inlane_core::endpoint::{Endpoint, Slot};
use inlane_core::plugin::Extractor;
use inlane_core::snapshot::ScalarKey;
use inlane_engine::{EngineTable, Plan};
use serde_yaml::Value;

/// A source of the data layer that pages are fetched from.
pub(crate) struct Source {
    /// Its plugin type, for metrics.
    pub(crate) source_type: &'static str,
    /// Path of the page, with a leading slash.
    pub(crate) path: String,
    /// Port of the page where it is not the serving port.
    pub(crate) port: Option<u16>,
    /// The source's own interval.
    pub(crate) interval: Option<Duration>,
    /// Reads load numbers, by engine.
    pub(crate) engines: Option<Engines>,
    /// Plugins that read every page, in order.
    pub(crate) extractors: Vec<Reader>,
    /// What the configuration says of all this: equal ones do the same.
    pub(crate) identity: Vec<Identity>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.identity).finish()
    }
}

/// Name, type and parameters of an instance.
pub(crate) type Identity = (String, &'static str, Option<Value>);

/// The engines that pages may be of.
pub(crate) struct Engines {
    /// The instance, which is the producer of its custom metrics.
    pub(crate) producer: String,
    /// Its plugin type, for metrics.
    pub(crate) extractor_type: &'static str,
    pub(crate) table: EngineTable,
}

/// A plugin that reads pages.
pub(crate) struct Reader {
    /// The instance, which is the producer of its custom metrics.
    pub(crate) producer: String,
    /// Its plugin type, for metrics.
    pub(crate) extractor_type: &'static str,
    pub(crate) extractor: Arc<dyn Extractor>,
    /// Custom metrics in the order of their declaration.
    pub(crate) reports: Vec<String>,
}

/// Where in a row the custom metrics of one extractor are, in the order of their declaration.
pub(crate) type Places = Rc<[Option<u8>]>;

/// Where `keys` have the metrics called `names` of `producer`.
pub(crate) fn places<'n>(
    keys: &[ScalarKey],
    producer: &str,
    names: impl Iterator<Item = &'n str>,
) -> Places {
    let place = |name: &str| {
        let at = keys.iter().position(|key| key.name == name && key.producer == producer)?;
        u8::try_from(at).ok()
    };
    names.map(place).collect()
}

/// What to scrape. Two that are equal need no new task.
#[derive(Clone)]
pub(crate) struct Target {
    /// Where its numbers go.
    pub(crate) slot: Slot,
    /// The server of the page.
    pub(crate) address: SocketAddr,
    /// The endpoint, for plugins and for logs.
    pub(crate) endpoint: Rc<Endpoint>,
    /// Position of the source in the configuration.
    pub(crate) position: u16,
    pub(crate) source: Rc<Source>,
    /// The source's interval in intervals of the pace.
    pub(crate) stretch: f64,
    /// How to read load numbers, and where custom ones go.
    pub(crate) engine: Option<(Arc<Plan>, Places)>,
    /// Where custom metrics go, by extractor of the source.
    pub(crate) places: Vec<Places>,
}

impl Target {
    /// The page of `source` for an endpoint; custom metrics go where `keys` say.
    pub(crate) fn new(
        endpoint: Rc<Endpoint>,
        serving: SocketAddr,
        (position, source): (u16, &Rc<Source>),
        stretch: f64,
        keys: &[ScalarKey],
    ) -> Self {
        let mut address = serving;
        address.set_port(source.port.unwrap_or(address.port()));
        let engine = source.engines.as_ref().map(|engines| {
            let plan = Arc::clone(engines.table.select(&endpoint.labels));
            let names = plan.engine().custom.iter().map(|(name, _)| name.as_str());
            let places = places(keys, &engines.producer, names);
            (plan, places)
        });
        let of = |r: &Reader| places(keys, &r.producer, r.reports.iter().map(String::as_str));
        Self {
            slot: endpoint.slot,
            address,
            position,
            stretch,
            engine,
            places: source.extractors.iter().map(of).collect(),
            source: Rc::clone(source),
            endpoint,
        }
    }

    /// What tells the tasks apart.
    pub(crate) fn key(&self) -> (Slot, u16) {
        (self.slot, self.position)
    }
}

impl PartialEq for Target {
    fn eq(&self, other: &Self) -> bool {
        let same_engine = match (&self.engine, &other.engine) {
            (Some((plan, places)), Some((other, theirs))) => {
                Arc::ptr_eq(plan, other) && places == theirs
            }
            (None, None) => true,
            _ => false,
        };
        same_engine
            && Rc::ptr_eq(&self.source, &other.source)
            && self.key() == other.key()
            && self.address == other.address
            && self.stretch == other.stretch
            && self.places == other.places
            && self.endpoint == other.endpoint
    }
}

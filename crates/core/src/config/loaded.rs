//! A configuration after loading: plugin instances and how they are wired.
//!
//! Immutable and shared. Everything is addressed by index: a [`PluginIx`] into
//! [`LoadedConfig::plugins`], a [`crate::decision::ProfileIx`] into [`LoadedConfig::profiles`].
//! Loading guarantees that every index in here is valid and that an instance has the role for
//! which it is listed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::documents::LegacyPool;
use crate::config::flow_control::FlowControl;
use crate::config::gates::FeatureGates;
use crate::effect::PluginIx;
use crate::plugin::Roles;
use crate::registry::{DataUse, Params, Schema, Stability};
use crate::snapshot::ConfigDocument;
use crate::state::StateLayout;

/// Where an instance came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The configuration lists it.
    Declared,
    /// A default that the configuration left out.
    Injected,
    /// Made because another instance requires its data.
    AutoCreated,
}

/// One plugin instance.
pub struct PluginInstance {
    /// Name, unique in the configuration.
    pub name: String,
    /// Type as the configuration names it, an alias perhaps.
    pub type_name: &'static str,
    /// How settled the type is.
    pub stability: Stability,
    /// Where the instance came from.
    pub origin: Origin,
    /// What it does.
    pub roles: Roles,
    /// Data it produces and consumes.
    pub data: DataUse,
    /// Its parameters, for parts that are carried out elsewhere.
    pub params: Params,
}

impl fmt::Debug for PluginInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginInstance")
            .field("name", &self.name)
            .field("type_name", &self.type_name)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// A scorer in a profile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightedScorer {
    /// The instance.
    pub plugin: PluginIx,
    /// What its score is multiplied with; any finite number.
    pub weight: f64,
}

/// A scheduling profile: what runs, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Name, unique in the configuration.
    pub name: String,
    /// Filters, in order.
    pub filters: Vec<PluginIx>,
    /// Scorers, in order.
    pub scorers: Vec<WeightedScorer>,
    /// The picker.
    pub picker: PluginIx,
}

/// A source of endpoint data with its extractors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSource {
    /// The source.
    pub plugin: PluginIx,
    /// What takes facts out of it, in order.
    pub extractors: Vec<PluginIx>,
}

/// Where knowledge of endpoints comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DataLayer {
    /// Sources, in order.
    pub sources: Vec<DataSource>,
    /// Endpoint discovery without Kubernetes; `None` = Kubernetes.
    pub discovery: Option<PluginIx>,
    /// Name of the peer discovery plugin.
    pub peer_discovery: Option<String>,
    /// Cadence of state sharing between replicas.
    pub cross_replica_sync_interval: Option<Duration>,
}

/// A second configuration, run beside the first to see what it would do.
#[derive(Debug, Clone)]
pub struct Shadow {
    /// Share of the requests that it sees, 0 to 1.
    pub fraction: f64,
    /// The configuration.
    pub config: Arc<LoadedConfig>,
}

/// A configuration, loaded.
#[derive(Debug)]
pub struct LoadedConfig {
    /// Instances: declared ones in the order of the file, except that one which refers to others
    /// comes after these; then injected and auto-created ones.
    pub plugins: Vec<PluginInstance>,
    /// Profiles, in order.
    pub profiles: Vec<Profile>,
    /// The profile handler.
    pub handler: PluginIx,
    /// Data producers, each after those whose data it needs.
    pub producers: Vec<PluginIx>,
    /// Screeners, in order of instances.
    pub screeners: Vec<PluginIx>,
    /// Admitters, in order of instances.
    pub admitters: Vec<PluginIx>,
    /// Data producers that collect requests in windows, in the order of `producers`.
    pub windows: Vec<PluginIx>,
    /// Whether anything reads adapters, see [`crate::columns::Metrics::with_adapters`].
    pub reads_adapters: bool,
    /// Hooks before the decision, in order of instances.
    pub pre_call: Vec<PluginIx>,
    /// Hooks after the choice, in order of instances.
    pub post_choice: Vec<PluginIx>,
    /// Hooks on the response, in order of instances.
    pub after_response: Vec<PluginIx>,
    /// Request parsers, in the order in which they are asked; empty = the built-in ones.
    pub parsers: Vec<PluginIx>,
    /// Sources of endpoint data.
    pub data_layer: DataLayer,
    /// The pool that stood beside the configuration in the same text.
    pub pool: Option<LegacyPool>,
    /// Feature gates.
    pub gates: FeatureGates,
    /// Flow control, with the `flowControl` gate on.
    pub flow_control: Option<FlowControl>,
    /// A second configuration that sees the same requests and moves none of them.
    pub shadow: Option<Shadow>,
    /// What the configuration was loaded from.
    pub document: ConfigDocument,
    /// Columns handed out, by data key.
    pub schema: Schema,
    /// What the user should know: deprecated spellings, ignored settings. Each once.
    pub warnings: Vec<String>,
    /// What may be of interest: defaults chosen, optional data that nobody produces.
    pub notes: Vec<String>,
}

impl LoadedConfig {
    /// The instance at `plugin`, if there is one.
    pub fn plugin(&self, plugin: PluginIx) -> Option<&PluginInstance> {
        self.plugins.get(usize::from(plugin))
    }

    /// The instance of that name.
    pub fn find(&self, name: &str) -> Option<(PluginIx, &PluginInstance)> {
        (0..).zip(&self.plugins).find(|(_, plugin)| plugin.name == name)
    }

    /// The per-cycle states of all instances.
    pub fn states(&self) -> &StateLayout {
        &self.schema.states
    }
}

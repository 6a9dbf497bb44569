//! What a loaded configuration amounts to, in names.

use std::time::Duration;

use inlane_core::config::{self, LoadedConfig, Origin, PluginInstance};
use inlane_core::effect::PluginIx;
use inlane_core::registry::{DataKey, Stability};
use serde::Serialize;

/// A resolved pipeline. Two configurations with equal reports schedule alike.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Profiles, in order.
    pub profiles: Vec<Profile>,
    /// Name of the profile handler.
    pub handler: String,
    /// Whom the handler may ask whether a profile is worth while.
    pub deciders: Vec<String>,
    /// What runs around the profiles.
    pub hooks: Hooks,
    /// Data producers, in the order in which they run.
    pub producers: Vec<String>,
    /// Request parsers; empty = the built-in ones.
    pub parsers: Vec<String>,
    /// Where knowledge of endpoints comes from.
    pub data_layer: DataLayer,
    /// Feature gates.
    pub feature_gates: FeatureGates,
    /// Flow control, with its gate on.
    pub flow_control: Option<FlowControl>,
    /// Every instance.
    pub plugins: Vec<Plugin>,
    /// A second pipeline that decides beside this one and moves no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

/// A second pipeline on the same traffic.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shadow {
    /// Share of the requests that it sees, from 0 to 1.
    pub fraction: f64,
    /// What it amounts to.
    pub pipeline: Box<Report>,
}

/// A scheduling profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    /// Name.
    pub name: String,
    /// Filters, in order.
    pub filters: Vec<String>,
    /// Scorers, in order.
    pub scorers: Vec<Scorer>,
    /// The picker.
    pub picker: String,
}

/// A scorer in a profile.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Scorer {
    /// Name of the instance.
    pub name: String,
    /// What its score is multiplied with.
    pub weight: f64,
}

/// Instances that run at the hooks, in order.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Hooks {
    /// May narrow the candidates down before profiles run.
    pub screeners: Vec<String>,
    /// May refuse the request.
    pub admitters: Vec<String>,
    /// Before the decision.
    pub pre_call: Vec<String>,
    /// After the choice.
    pub post_choice: Vec<String>,
    /// On the response.
    pub after_response: Vec<String>,
}

/// Sources of endpoint data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataLayer {
    /// Sources with their extractors.
    pub sources: Vec<Source>,
    /// Endpoint discovery without Kubernetes.
    pub discovery: Option<String>,
}

/// A source of endpoint data.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    /// Name of the instance.
    pub name: String,
    /// Names of its extractors, in order.
    pub extractors: Vec<String>,
}

/// Feature gates.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FeatureGates {
    /// Queues for admission.
    pub flow_control: bool,
    /// Endpoint state on replicas that do not lead.
    pub ha_populate_non_leader_datastore: bool,
}

/// Limits and policies of the admission queues.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowControl {
    /// Bytes of queued requests; `None` = unlimited.
    pub max_bytes: Option<u64>,
    /// Queued requests; `None` = unlimited.
    pub max_requests: Option<u64>,
    /// Seconds that a request may wait while the pool has endpoints; `None` = forever.
    pub default_request_ttl: Option<f64>,
    /// Seconds that a request may wait while the pool is empty; `None` = forever.
    pub no_endpoint_request_ttl: Option<f64>,
    /// Listed bands.
    pub bands: Vec<Band>,
    /// Template of other bands.
    pub default_band: Band,
    /// Template of other bands of negative priority.
    pub default_negative_band: Band,
    /// Name of the saturation detector.
    pub saturation_detector: String,
    /// Name of the usage-limit policy.
    pub usage_limit_policy: String,
    /// Whether running requests of negative priority may be ended.
    pub enable_eviction: bool,
}

/// A priority band.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Band {
    /// Priority; without meaning in a template.
    pub priority: i32,
    /// Bytes of queued requests.
    pub max_bytes: u64,
    /// Queued requests.
    pub max_requests: u64,
    /// Name of the fairness policy.
    pub fairness_policy: String,
    /// Name of the ordering policy.
    pub ordering_policy: String,
}

impl FlowControl {
    fn new(flow: &config::FlowControl) -> Self {
        let seconds = |ttl: Option<Duration>| ttl.map(|ttl| ttl.as_secs_f64());
        Self {
            max_bytes: flow.max_bytes,
            max_requests: flow.max_requests,
            default_request_ttl: seconds(flow.default_request_ttl),
            no_endpoint_request_ttl: seconds(flow.no_endpoint_request_ttl),
            bands: flow.bands.iter().map(Band::new).collect(),
            default_band: Band::new(&flow.default_band),
            default_negative_band: Band::new(&flow.default_negative_band),
            saturation_detector: flow.saturation_detector.clone(),
            usage_limit_policy: flow.usage_limit_policy.clone(),
            enable_eviction: flow.enable_eviction,
        }
    }
}

impl Band {
    fn new(band: &config::Band) -> Self {
        Self {
            priority: band.priority,
            max_bytes: band.max_bytes,
            max_requests: band.max_requests,
            fairness_policy: band.fairness_policy.clone(),
            ordering_policy: band.ordering_policy.clone(),
        }
    }
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Plugin {
    /// Name.
    pub name: String,
    /// Type, under its current name.
    #[serde(rename = "type")]
    pub type_name: String,
    /// `declared`, `injected` (a default that was left out) or `auto-created` (another instance
    /// needs its data).
    pub origin: &'static str,
    /// Whether the type is experimental.
    pub experimental: bool,
    /// Data it cannot work without: key and the instance that produces it.
    pub requires: Vec<Data>,
    /// Data it uses when it is there.
    pub uses: Vec<Data>,
    /// Keys of the data it produces.
    pub produces: Vec<String>,
}

/// Data that an instance reads.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Data {
    /// Type name of the data.
    pub key: String,
    /// Name of the producing instance; empty when nobody produces it.
    pub producer: String,
}

impl Report {
    /// The report of a configuration. `current_type` answers the current name of a type.
    pub fn new(config: &LoadedConfig, current_type: &dyn Fn(&str) -> String) -> Self {
        let name = |ix: PluginIx| config.plugin(ix).map(|p| p.name.clone()).unwrap_or_default();
        let names = |list: &[PluginIx]| list.iter().map(|&ix| name(ix)).collect::<Vec<_>>();
        let profiles = config.profiles.iter().map(|profile| Profile {
            name: profile.name.clone(),
            filters: names(&profile.filters),
            scorers: profile
                .scorers
                .iter()
                .map(|s| Scorer { name: name(s.plugin), weight: s.weight })
                .collect(),
            picker: name(profile.picker),
        });
        let sources = config.data_layer.sources.iter().map(|source| Source {
            name: name(source.plugin),
            extractors: names(&source.extractors),
        });
        Self {
            profiles: profiles.collect(),
            handler: name(config.handler),
            deciders: config
                .plugins
                .iter()
                .filter(|plugin| plugin.roles.decider.is_some())
                .map(|plugin| plugin.name.clone())
                .collect(),
            hooks: Hooks {
                screeners: names(&config.screeners),
                admitters: names(&config.admitters),
                pre_call: names(&config.pre_call),
                post_choice: names(&config.post_choice),
                after_response: names(&config.after_response),
            },
            producers: names(&config.producers),
            parsers: names(&config.parsers),
            data_layer: DataLayer {
                sources: sources.collect(),
                discovery: config.data_layer.discovery.map(name),
            },
            feature_gates: FeatureGates {
                flow_control: config.gates.flow_control,
                ha_populate_non_leader_datastore: config.gates.ha_populate_non_leader_datastore,
            },
            flow_control: config.flow_control.as_ref().map(FlowControl::new),
            plugins: config.plugins.iter().map(|p| plugin(p, config, current_type)).collect(),
            shadow: config.shadow.as_ref().map(|shadow| Shadow {
                fraction: shadow.fraction,
                pipeline: Box::new(Self::new(&shadow.config, current_type)),
            }),
        }
    }

    /// The instance of that name.
    pub fn plugin(&self, name: &str) -> Option<&Plugin> {
        self.plugins.iter().find(|plugin| plugin.name == name)
    }
}

fn plugin(
    plugin: &PluginInstance,
    config: &LoadedConfig,
    current_type: &dyn Fn(&str) -> String,
) -> Plugin {
    let data = |keys: &[DataKey]| {
        let mut data: Vec<Data> = Vec::new();
        for key in keys {
            let read = Data { key: key.name.to_string(), producer: producer_of(key, config) };
            if !data.contains(&read) {
                data.push(read);
            }
        }
        data
    };
    Plugin {
        name: plugin.name.clone(),
        type_name: current_type(plugin.type_name),
        origin: match plugin.origin {
            Origin::Declared => "declared",
            Origin::Injected => "injected",
            Origin::AutoCreated => "auto-created",
        },
        experimental: plugin.stability == Stability::Alpha,
        requires: data(&plugin.data.requires),
        uses: data(&plugin.data.uses),
        produces: plugin.data.produces.iter().map(|key| key.name.to_string()).collect(),
    }
}

/// The instance that produces a key. A key without a producer's name is anybody's.
fn producer_of(key: &DataKey, config: &LoadedConfig) -> String {
    let fits =
        |k: &DataKey| k.name == key.name && (key.producer.is_empty() || k.producer == key.producer);
    let producer = config.plugins.iter().find(|p| p.data.produces.iter().any(fits));
    producer.map(|p| p.name.clone()).unwrap_or_default()
}

//! The configuration file's schema, decoded strictly: no unknown field, no wrong type.
//!
//! `null` stands for an absent value everywhere. What the fields mean is decided elsewhere.

use serde::{Deserialize, Deserializer};

use super::quantity::{GoDuration, Quantity};

/// An absent field and `null` are the default.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Document {
    #[serde(deserialize_with = "or_default")]
    pub(crate) api_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) kind: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) feature_gates: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) plugins: Vec<PluginSpec>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) scheduling_profiles: Vec<ProfileSpec>,
    pub(crate) data_layer: Option<DataLayerSpec>,
    pub(crate) flow_control: Option<FlowControlSpec>,
    pub(crate) request_handler: Option<RequestHandlerSpec>,
    pub(crate) saturation_detector: Option<PluginRef>,
    pub(crate) parser: Option<PluginRef>,
    pub(crate) shadow: Option<ShadowSpec>,
}

/// A second configuration, an addition of ours.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ShadowSpec {
    pub(crate) fraction: Option<f64>,
    pub(crate) config: serde_yaml::Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PluginSpec {
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub(crate) type_name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    pub(crate) parameters: Option<serde_yaml::Mapping>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ProfileSpec {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) plugins: Vec<WeightedRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct WeightedRef {
    #[serde(deserialize_with = "or_default")]
    pub(crate) plugin_ref: String,
    pub(crate) weight: Option<f64>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct PluginRef {
    #[serde(deserialize_with = "or_default")]
    pub(crate) plugin_ref: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct DataLayerSpec {
    pub(crate) inject_defaults: Option<bool>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) sources: Vec<SourceSpec>,
    pub(crate) discovery: Option<PluginRef>,
    pub(crate) peer_discovery: Option<PluginRef>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) cross_replica_syncer_plugin_ref: String,
    pub(crate) cross_replica_sync_interval: Option<GoDuration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct SourceSpec {
    #[serde(deserialize_with = "or_default")]
    pub(crate) plugin_ref: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) extractors: Vec<PluginRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct RequestHandlerSpec {
    #[serde(deserialize_with = "or_default")]
    pub(crate) parsers: Vec<PluginRef>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct FlowControlSpec {
    pub(crate) max_bytes: Option<Quantity>,
    pub(crate) max_requests: Option<Quantity>,
    #[serde(rename = "defaultRequestTTL")]
    pub(crate) default_request_ttl: Option<GoDuration>,
    #[serde(rename = "noEndpointRequestTTL")]
    pub(crate) no_endpoint_request_ttl: Option<GoDuration>,
    pub(crate) default_priority_band: Option<BandSpec>,
    pub(crate) default_negative_priority_band: Option<BandSpec>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) priority_bands: Vec<BandSpec>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) usage_limit_policy_plugin_ref: String,
    pub(crate) saturation_detector: Option<PluginRef>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) enable_eviction: bool,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct BandSpec {
    #[serde(deserialize_with = "or_default")]
    pub(crate) priority: i32,
    pub(crate) max_bytes: Option<Quantity>,
    pub(crate) max_requests: Option<Quantity>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) fairness_policy_ref: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) ordering_policy_ref: String,
}

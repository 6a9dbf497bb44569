//! The JSON of a case. Fields that a kind does not use are absent; unknown ones are ignored.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// One case, of any kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Case {
    pub(super) plugin: Option<PluginSpec>,
    pub(super) plugins: Vec<PluginSpec>,
    pub(super) config: Option<Value>,
    pub(super) request: RequestSpec,
    pub(super) endpoints: Vec<EndpointSpec>,
    pub(super) run_producers: bool,
    pub(super) steps: Vec<Step>,
    pub(super) scored: BTreeMap<String, f64>,
    pub(super) trials: u64,
    pub(super) block_size_tokens: usize,
    pub(super) max_blocks: usize,
    /// What the stubbed predictor says, by endpoint.
    pub(super) predictor: BTreeMap<String, PredictionSpec>,
    /// Whether the stubbed predictor fails.
    #[serde(deserialize_with = "truth")]
    pub(super) predictor_error: bool,
    /// Block keys and who holds them, in which tier.
    pub(super) index: Value,
    /// Block keys of a prompt, in order.
    pub(super) keys: Vec<Value>,
    /// Weights of tiers.
    #[serde(alias = "tier_weights", alias = "tierWeights")]
    pub(super) weights: Value,
    /// The same, under the name that the configuration has for them.
    #[serde(
        rename = "kvCacheBackendConfigs",
        alias = "backends",
        alias = "backend_configs",
        alias = "kv_cache_backend_configs"
    )]
    pub(super) backends: Value,
    pub(super) expect: Value,
}

/// Anything but `false`, `null` and the empty text is true: an error may be given as its message.
fn truth<'de, D: serde::Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(!matches!(value, Value::Null | Value::Bool(false)) && value != "")
}

/// A prediction.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub(super) struct PredictionSpec {
    pub(super) ttft_ms: f64,
    pub(super) tpot_ms: f64,
}

impl Case {
    /// Types of all plugins that the case names.
    pub(super) fn plugin_types(&self) -> Vec<String> {
        let specs = self.plugin.iter().chain(&self.plugins).map(|p| p.type_name.clone());
        let config = self.config.as_ref().and_then(|c| c["plugins"].as_array());
        let declared = config.into_iter().flatten().filter_map(|p| p["type"].as_str());
        specs.chain(declared.map(str::to_owned)).collect()
    }

    /// The plugin under test.
    pub(super) fn plugin(&self) -> Result<&PluginSpec, String> {
        self.plugin.as_ref().ok_or_else(|| "the case names no plugin".into())
    }
}

/// A plugin instance.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PluginSpec {
    #[serde(rename = "type")]
    pub(super) type_name: String,
    pub(super) name: String,
    pub(super) parameters: Option<Value>,
    pub(super) weight: Option<f64>,
}

impl PluginSpec {
    /// The instance's name: by default its type.
    pub(super) fn name(&self) -> &str {
        if self.name.is_empty() { &self.type_name } else { &self.name }
    }
}

/// A request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct RequestSpec {
    pub(super) request_id: String,
    pub(super) target_model: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) priority: i32,
    pub(super) fairness_id: String,
    pub(super) prompts: Vec<PromptSpec>,
    pub(super) cache_salt: String,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) chat: Option<Value>,
    pub(super) completion: Option<Value>,
    /// Id of the endpoint published as peer.
    pub(super) peer_endpoint: Option<String>,
}

/// A tokenized prompt.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PromptSpec {
    /// (first id, number of consecutive ids)
    pub(super) segments: Vec<(u32, u32)>,
    pub(super) ids: Vec<u32>,
    pub(super) mm_features: Vec<MediaFeature>,
}

/// A media item of a prompt.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct MediaFeature {
    pub(super) modality: String,
    pub(super) hash: String,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl PromptSpec {
    pub(super) fn ids(&self) -> Vec<u32> {
        let runs = self.segments.iter().flat_map(|&(start, count)| (start..).take(count as usize));
        runs.chain(self.ids.iter().copied()).collect()
    }
}

/// An endpoint.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct EndpointSpec {
    pub(super) id: String,
    pub(super) address: String,
    /// A string, or a number.
    pub(super) port: Option<Value>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) metrics: MetricsSpec,
    pub(super) attributes: AttributesSpec,
}

/// Engine metrics; absent = 0.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct MetricsSpec {
    pub(super) waiting: u32,
    pub(super) running: u32,
    pub(super) kv: f64,
    pub(super) cache_block_size: u32,
    pub(super) cache_num_blocks: u32,
    pub(super) active_models: Vec<String>,
    pub(super) waiting_models: Vec<String>,
    pub(super) max_active_models: u32,
}

/// Attributes as producers would have left them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct AttributesSpec {
    pub(super) prefix: Vec<PrefixSpec>,
    pub(super) inflight: Option<InFlightSpec>,
    pub(super) uncached_request_tokens: Option<i64>,
    pub(super) latency: Option<LatencySpec>,
    pub(super) topology: Option<TopologySpec>,
    pub(super) scalars: Vec<ScalarSpec>,
    pub(super) mm: Option<MediaSpec>,
}

/// A latency prediction.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct LatencySpec {
    pub(super) ttft_valid: bool,
    pub(super) tpot_valid: bool,
    pub(super) ttft_headroom: f64,
    pub(super) tpot_headroom: f64,
    pub(super) ttft: f64,
    pub(super) tpot: f64,
    pub(super) dispatched_requests: u32,
}

/// Where an endpoint stands.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct TopologySpec {
    pub(super) hostname: String,
    pub(super) rack: String,
    pub(super) zone: String,
    pub(super) region: String,
}

/// A custom metric.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ScalarSpec {
    pub(super) name: String,
    pub(super) value: f64,
    /// Absent = `core-metrics-extractor`, empty = whoever.
    pub(super) producer: Option<String>,
}

/// Media items that an endpoint has, and those of the request.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct MediaSpec {
    pub(super) matched: Vec<MediaItem>,
    pub(super) request: Vec<MediaItem>,
}

/// One media item.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct MediaItem {
    pub(super) size: u64,
}

/// A prefix match.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PrefixSpec {
    pub(super) match_blocks: u32,
    pub(super) total_blocks: u32,
    pub(super) block_size_tokens: u32,
    pub(super) cached_blocks: Option<u32>,
    pub(super) cached_blocks_by_tier: Option<BTreeMap<String, u32>>,
    pub(super) producer: Option<String>,
}

/// Load in flight.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct InFlightSpec {
    pub(super) tokens: i64,
    pub(super) requests: i64,
}

/// One step of a sequence, or one request of a schedule.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Step {
    pub(super) op: String,
    /// Name of the instance.
    pub(super) plugin: String,
    pub(super) request: RequestSpec,
    /// Requests of a burst, in the order in which they arrive.
    pub(super) requests: Vec<RequestSpec>,
    /// The candidates; absent = all.
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) result: ResultSpec,
    pub(super) target: Option<String>,
    pub(super) start_of_stream: bool,
    pub(super) end_of_stream: bool,
    pub(super) wait_ms: u64,
    pub(super) expect: Value,
}

/// A scheduling result that a step takes as given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResultSpec {
    pub(super) primary: String,
    /// Targets per profile; null = the profile failed.
    pub(super) targets: BTreeMap<String, Option<Vec<String>>>,
}

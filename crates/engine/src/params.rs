//! The parameters of the `core-metrics-extractor` plugin, as users write them.

use serde::Deserialize;

/// All parameters.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtractorParams {
    /// Pod label that names the engine; empty = the standard one.
    pub engine_label_key: String,
    /// Engine of endpoints that name none or an unknown one; empty = `vllm`.
    pub default_engine: String,
    /// Engines of the user's own; each replaces the built-in of its name entirely.
    pub engine_configs: Vec<EngineParams>,
}

/// One engine. Absent and empty specs are not read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EngineParams {
    /// The engine's name.
    pub name: String,
    /// Requests waiting.
    pub queued_requests_spec: String,
    /// Requests running.
    pub running_requests_spec: String,
    /// KV-cache use.
    pub kv_usage_spec: String,
    /// LoRA adapters.
    pub lora_spec: String,
    /// Cache geometry in labels.
    pub cache_info_spec: String,
    /// Label with the tokens per block.
    pub cache_block_size_label_name: String,
    /// Label with the number of blocks.
    pub cache_num_blocks_label_name: String,
    /// Tokens per block as a value.
    pub cache_block_size_spec: String,
    /// Number of blocks as a value.
    pub cache_num_blocks_spec: String,
    /// Further metrics.
    pub custom_metrics: Vec<CustomMetricParams>,
}

/// A metric of the user's own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CustomMetricParams {
    /// Under which key plugins find the value.
    pub attribute_key: String,
    /// Where it comes from.
    pub metric_spec: String,
}

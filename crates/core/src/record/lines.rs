//! The recorded form, as JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::columns::Adapters;
use crate::explain::Explanation;
use crate::plan::StaleMetrics;
use crate::snapshot::{ConfigDocument, Topology};
use crate::state::RequestAttribute;

use super::exact;

/// One line of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "camelCase")]
pub enum Line {
    /// A configuration and a topology.
    Setting(Setting),
    /// A decision.
    Decision(Box<RecordedDecision>),
}

/// What decisions were made on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// Number by which decisions refer to it.
    pub epoch: u64,
    /// The configuration.
    pub config: ConfigDocument,
    /// The pool.
    pub topology: Topology,
    /// How stale metrics were scored.
    pub stale_metrics: StaleMetrics,
    /// Status with which admitters turned requests away.
    pub denial_status: u16,
}

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedDecision {
    /// Grows with time.
    pub sequence: u64,
    /// The setting it was made on.
    pub epoch: u64,
    /// Wall-clock time, ms since 1970.
    pub unix_ms: u64,
    /// The decision's own clock, boot-time ms.
    pub now_ms: u64,
    /// The seed.
    pub seed: u64,
    /// The request.
    pub request: RecordedRequest,
    /// Endpoints that might serve it, by position in the topology ordered by id.
    pub candidates: Vec<u32>,
    /// The engines' metrics, parallel to `candidates`.
    pub metrics: RecordedMetrics,
    /// What data producers had filled.
    pub columns: Vec<RecordedColumn>,
    /// What plugins carried over from their producers.
    pub state: Vec<RecordedState>,
    /// Texts that plugins had published.
    pub attributes: Vec<RequestAttribute>,
    /// What came of it.
    pub outcome: Explanation,
}

/// A request's features.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedRequest {
    /// Request id.
    pub id: String,
    /// The model that the client named.
    pub model: String,
    /// The model after rewriting.
    pub target_model: String,
    /// Headers that a plugin asked for, with what it got.
    pub headers: Vec<(String, Option<String>)>,
    /// Priority.
    pub priority: i32,
    /// Fairness id.
    pub fairness_id: String,
    /// Tokens of each prompt.
    pub prompts: Vec<u64>,
    /// Images, videos and sounds.
    pub media: Vec<RecordedMedia>,
    /// Bytes of prompt text.
    pub prompt_bytes: u64,
    /// The client's own cap on output tokens.
    pub max_output_tokens: Option<u64>,
    /// Size of the body in bytes.
    pub body_bytes: u64,
    /// Whether the client asked for a stream.
    pub streaming: bool,
}

/// One media item.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedMedia {
    /// Its modality.
    pub modality: String,
    /// Its digest.
    pub hash: String,
    /// Index of its prompt.
    pub prompt: u32,
    /// First placeholder token.
    pub offset: u64,
    /// Placeholder tokens.
    pub length: u64,
}

/// The engines' metrics of the candidates.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedMetrics {
    /// Requests waiting.
    pub waiting: Vec<u32>,
    /// Requests running.
    pub running: Vec<u32>,
    /// KV-cache use.
    #[serde(with = "exact::list")]
    pub kv_usage: Vec<f64>,
    /// Tokens per engine cache block.
    pub cache_block_size: Vec<u32>,
    /// Engine cache blocks.
    pub cache_num_blocks: Vec<u32>,
    /// Whether the numbers may be used.
    pub fresh: Vec<bool>,
    /// How old they were in milliseconds; empty in older records.
    #[serde(default)]
    pub age_ms: Vec<u32>,
    /// LoRA adapters; empty where nothing reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<Adapters>,
}

/// One attribute column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedColumn {
    /// Kind of the attribute.
    pub kind: String,
    /// Name of the data key: the kind, or of a custom metric its own.
    pub name: String,
    /// Instance that filled it.
    pub producer: String,
    /// Values, parallel to the candidates; null = absent.
    pub values: Vec<Value>,
}

/// A plugin's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedState {
    /// Type and name of the instance.
    pub owner: String,
    /// Which of the instance's states.
    pub nth: usize,
    /// What it wrote down.
    pub words: Vec<u64>,
}

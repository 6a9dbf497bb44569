//! Plugins for pools whose members are whole clusters: each endpoint is the gateway of a cluster
//! that reports averages over its own pods.

pub mod approx_prefix_cache_producer;
pub mod file_discovery;
pub mod kv_cache_utilization_scorer;
pub mod metrics_data_source;
pub mod metrics_extractor;
pub mod prefix_cache_scorer;
pub mod queue_scorer;
pub mod session_affinity_filter;

use inlane_core::columns::{Col, Columns, Scalar};
use inlane_core::endpoint::EndpointIx;

/// The scalar with a cluster's average queue length.
pub const QUEUE_SIZE: &str = "llm-d.ai/multicluster-queue-size";
/// The scalar with a cluster's average KV-cache use, 0 to 1.
pub const KV_CACHE_UTILIZATION: &str = "llm-d.ai/multicluster-kv-cache-utilization";

/// What a cluster reported. What is no finite number was not reported.
fn reported(columns: &Columns, col: Col<Scalar>, ix: EndpointIx) -> Option<f64> {
    let value = columns.get(col).get(ix as usize).copied().flatten();
    value.map(|Scalar(value)| value).filter(|value| value.is_finite())
}

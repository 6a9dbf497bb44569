//! The plugins of llm-d's own inference scheduler, as opposed to those that came with the gateway
//! API's endpoint picker.

pub mod active_request_scorer;
pub mod agent_identity;
pub mod always_disagg_multimodal_decider;
pub mod always_disagg_pd_decider;
pub mod burst_prefix_cache_producer;
pub mod by_label;
pub mod context_length_aware;
pub mod data_parallel_profile_handler;
pub mod disagg;
pub mod disagg_headers_handler;
pub mod disagg_profile_handler;
pub mod disaggregatedset_rollout_screener;
pub mod endpoint_attribute_filter;
pub mod endpoint_attribute_scorer;
pub mod header_label_affinity_scorer;
pub mod header_profile_handler;
pub mod label_selector_filter;
pub mod load_aware_scorer;
pub mod mm_embeddings_cache_producer;
pub mod mm_embeddings_cache_scorer;
pub mod no_hit_lru_scorer;
pub mod p2p_source_producer;
pub mod pd_profile_handler;
pub mod prefix_based_pd_decider;
pub mod role_filters;
pub mod session_affinity_filter;
pub mod session_affinity_scorer;
pub mod session_id_producer;
pub mod token_load_scorer;
pub mod topology_affinity_filter;
pub mod topology_affinity_scorer;
pub mod topology_extractor;
pub mod utilization_filter;

mod attribute;
mod burst;
mod cold_order;
pub(crate) mod session;
mod topology;

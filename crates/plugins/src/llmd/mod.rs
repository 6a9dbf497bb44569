//! The plugins of llm-d's own inference scheduler, as opposed to those that came with the gateway
//! API's endpoint picker.

pub mod active_request_scorer;
pub mod always_disagg_multimodal_decider;
pub mod always_disagg_pd_decider;
pub mod burst_prefix_cache_producer;
pub mod by_label;
pub mod data_parallel_profile_handler;
pub mod disagg;
pub mod disagg_headers_handler;
pub mod disagg_profile_handler;
pub mod disaggregatedset_rollout_screener;
pub mod header_profile_handler;
pub mod label_selector_filter;
pub mod load_aware_scorer;
pub mod p2p_source_producer;
pub mod pd_profile_handler;
pub mod prefix_based_pd_decider;
pub mod role_filters;
pub mod token_load_scorer;

mod burst;

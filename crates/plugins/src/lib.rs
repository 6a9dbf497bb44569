//! The scheduling plugins, one file each.
//!
//! A plugin file exports a [`PluginType`](inlane_core::registry::PluginType): its name in the
//! configuration and how an instance is built. [`registry`] lists them all, one line each; a crate
//! with plugins of its own starts from that registry and adds its lines.
//!
//! Every plugin keeps to the rules of [`inlane_core::plugin`]: filters, scorers and pickers only
//! read columns and draw randomness from the decision's seed, so a decision replays bit for bit.
//! Scorers work on slices and allocate nothing. Parameters are decoded strictly; names, defaults
//! and formulas are those of the Go scheduler that these configurations were written for, and each
//! plugin's page under `docs/plugins` says where we decided otherwise.
//!
//! * [`llmd`] has the plugins of llm-d's own scheduler; the others came with the gateway API's
//!   endpoint picker.
//! * [`multicluster`] has those for pools of clusters.
//! * [`precise`] reads what the engines say they hold.
//! * [`prefix`] is the index behind the prefix plugins, shared by all workers of a proxy.
//! * `metrics_data_source`, `core_metrics_extractor` and `file_discovery` are the control plane's:
//!   their typed parameters are public for it.
#![forbid(unsafe_code)]

pub mod approx_prefix_cache_producer;
pub mod bounded_load_hash_picker;
pub mod cel_filter;
pub mod cel_scorer;
pub mod core_metrics_extractor;
pub mod destination_endpoint_served_verifier;
pub mod endpoint_notification_source;
pub mod file_discovery;
pub mod flow_control;
pub mod header_based_testing_filter;
pub mod inflight_load_producer;
pub mod kv_cache_utilization_scorer;
pub mod latency_scorer;
pub mod latency_slo_admitter;
pub mod llmd;
pub mod lmetric_scorer;
pub mod lora_affinity_scorer;
pub mod max_score_picker;
pub mod metrics_data_source;
pub mod model_filter;
pub mod multicluster;
pub mod parsers;
pub mod power_of_d;
pub mod precise;
pub mod predicted_latency;
pub mod prefix;
pub mod prefix_cache_affinity_filter;
pub mod prefix_cache_scorer;
pub mod prefix_load_scorer;
pub mod probabilistic_admitter;
pub mod queue_scorer;
pub mod random_picker;
pub mod request_attribute_reporter;
pub mod running_requests_size_scorer;
pub mod single_profile_handler;
pub mod slo_headroom_tier_filter;
pub mod sources;
pub mod token_producer;
pub mod weighted_random_picker;

mod cel;
mod ignored;
mod labels;
mod lowest;
mod picking;
mod selector;
mod slo;
#[cfg(test)]
mod testing;

use inlane_core::registry::Registry;

/// Name of the profile whose target computes the prompt in disaggregated serving. Plugins that
/// treat it apart know it by this name alone, as in the reference.
pub const PREFILL_PROFILE: &str = "prefill";

/// All plugins of this crate.
pub fn registry() -> Registry {
    let mut registry = Registry::new();
    registry
        .register(approx_prefix_cache_producer::TYPE)
        .register(bounded_load_hash_picker::TYPE)
        .register(cel_filter::TYPE)
        .register(cel_scorer::TYPE)
        .register(core_metrics_extractor::TYPE)
        .register(destination_endpoint_served_verifier::TYPE)
        .register(endpoint_notification_source::TYPE)
        .register(file_discovery::TYPE)
        .register(flow_control::concurrency_detector::TYPE)
        .register(flow_control::edf_ordering_policy::TYPE)
        .register(flow_control::fcfs_ordering_policy::TYPE)
        .register(flow_control::global_strict_fairness_policy::TYPE)
        .register(flow_control::priority_holdback_policy::TYPE)
        .register(flow_control::priority_then_time_eviction_order_policy::TYPE)
        .register(flow_control::program_aware_fairness::TYPE)
        .register(flow_control::round_robin_fairness_policy::TYPE)
        .register(flow_control::sheddable_eviction_filter::TYPE)
        .register(flow_control::slo_deadline_ordering_policy::TYPE)
        .register(flow_control::soft_reflective_ceiling_policy::TYPE)
        .register(flow_control::static_usage_limit_policy::TYPE)
        .register(flow_control::utilization_detector::TYPE)
        .register(header_based_testing_filter::TYPE)
        .register(inflight_load_producer::TYPE)
        .register(kv_cache_utilization_scorer::TYPE)
        .register(latency_scorer::TYPE)
        .register(latency_slo_admitter::TYPE)
        .register(llmd::active_request_scorer::TYPE)
        .register(llmd::agent_identity::TYPE)
        .register(llmd::always_disagg_multimodal_decider::TYPE)
        .register(llmd::always_disagg_pd_decider::TYPE)
        .register(llmd::burst_prefix_cache_producer::TYPE)
        .register(llmd::by_label::TYPE)
        .register(llmd::context_length_aware::TYPE)
        .register(llmd::data_parallel_profile_handler::TYPE)
        .register(llmd::disagg_headers_handler::TYPE)
        .register(llmd::disagg_profile_handler::TYPE)
        .register(llmd::disaggregatedset_rollout_screener::TYPE)
        .register(llmd::endpoint_attribute_filter::TYPE)
        .register(llmd::endpoint_attribute_scorer::TYPE)
        .register(llmd::header_label_affinity_scorer::TYPE)
        .register(llmd::header_profile_handler::TYPE)
        .register(llmd::label_selector_filter::TYPE)
        .register(llmd::load_aware_scorer::TYPE)
        .register(llmd::mm_embeddings_cache_producer::TYPE)
        .register(llmd::mm_embeddings_cache_scorer::TYPE)
        .register(llmd::no_hit_lru_scorer::TYPE)
        .register(llmd::p2p_source_producer::TYPE)
        .register(llmd::pd_profile_handler::TYPE)
        .register(llmd::prefix_based_pd_decider::TYPE)
        .register(llmd::role_filters::DECODE)
        .register(llmd::role_filters::ENCODE)
        .register(llmd::role_filters::PREFILL)
        .register(llmd::session_affinity_filter::TYPE)
        .register(llmd::session_affinity_scorer::TYPE)
        .register(llmd::session_id_producer::TYPE)
        .register(llmd::token_load_scorer::TYPE)
        .register(llmd::topology_affinity_filter::TYPE)
        .register(llmd::topology_affinity_scorer::TYPE)
        .register(llmd::topology_extractor::TYPE)
        .register(llmd::utilization_filter::TYPE)
        .register(lmetric_scorer::TYPE)
        .register(lora_affinity_scorer::TYPE)
        .register(max_score_picker::TYPE)
        .register(metrics_data_source::TYPE)
        .register(model_filter::TYPE)
        .register(multicluster::file_discovery::TYPE)
        .register(multicluster::metrics_data_source::TYPE)
        .register(multicluster::metrics_extractor::TYPE)
        .register(multicluster::approx_prefix_cache_producer::TYPE)
        .register(multicluster::kv_cache_utilization_scorer::TYPE)
        .register(multicluster::prefix_cache_scorer::TYPE)
        .register(multicluster::queue_scorer::TYPE)
        .register(multicluster::session_affinity_filter::TYPE)
        .register(parsers::anthropic_parser::TYPE)
        .register(parsers::openai_parser::TYPE)
        .register(parsers::passthrough_parser::TYPE)
        .register(parsers::sglanghttp_parser::TYPE)
        .register(parsers::vertexai_parser::TYPE)
        .register(parsers::vllmgrpc_parser::TYPE)
        .register(parsers::vllmhttp_parser::TYPE)
        .register(power_of_d::TYPE)
        .register(predicted_latency::TYPE)
        .register(prefix_cache_affinity_filter::TYPE)
        .register(precise::producer::TYPE)
        .register(precise::scorer::TYPE)
        .register(prefix_cache_scorer::TYPE)
        .register(prefix_load_scorer::TYPE)
        .register(probabilistic_admitter::TYPE)
        .register(queue_scorer::TYPE)
        .register(random_picker::TYPE)
        .register(request_attribute_reporter::TYPE)
        .register(running_requests_size_scorer::TYPE)
        .register(single_profile_handler::TYPE)
        .register(slo_headroom_tier_filter::TYPE)
        .register(sources::dcgm_data_source::TYPE)
        .register(sources::dcgm_extractor::TYPE)
        .register(sources::k8s_notification_source::TYPE)
        .register(sources::models_data_extractor::TYPE)
        .register(sources::models_data_source::TYPE)
        .register(token_producer::TYPE)
        .register(weighted_random_picker::TYPE);
    registry
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn every_type_has_a_page_that_index_and_readme_link() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
        let docs = root.join("docs/plugins");
        let index = std::fs::read_to_string(docs.join("README.md")).unwrap();
        for (_, plugin) in registry().iter() {
            let page = format!("{}.md", plugin.name);
            let text = std::fs::read_to_string(docs.join(&page)).expect(&page);
            assert!(text.starts_with(&format!("# {}\n", plugin.name)), "{page}");
            for section in ["**Example", "**Metrics", "**Oddities"] {
                assert!(text.contains(section), "{page}: {section}");
            }
            for alias in plugin.deprecated_names {
                assert!(text.contains(&format!("`{alias}`")), "{page}: {alias}");
            }
            assert!(index.contains(&format!("]({page})")), "{page} is not in the index");
            let link = format!("](docs/plugins/{page})");
            assert!(readme.contains(&link), "{page} is not in the README");
        }
    }
}

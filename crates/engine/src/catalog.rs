//! The engines known without configuration.

use crate::plan::EngineSpec;
use crate::spec::MetricSpec;

/// The engine assumed for an endpoint that names none, or an unknown one.
pub const DEFAULT_ENGINE: &str = "vllm";

/// Pod label that names the engine.
pub const ENGINE_LABEL: &str = "llm-d.ai/engine-type";

/// Older pod label of the same meaning, always read as a fallback.
pub const LEGACY_ENGINE_LABEL: &str = "inference.networking.k8s.io/engine-type";

/// Specs of all built-in engines.
pub fn built_in() -> Vec<EngineSpec> {
    vec![vllm(), sglang(), trtllm_serve(), triton_tensorrt_llm(), triton()]
}

fn vllm() -> EngineSpec {
    EngineSpec {
        queued: metric("vllm:num_requests_waiting"),
        running: metric("vllm:num_requests_running"),
        kv_usage: metric("vllm:kv_cache_usage_perc"),
        lora: metric("vllm:lora_requests_info"),
        cache_info: metric("vllm:cache_config_info"),
        cache_block_size_label: "block_size".into(),
        cache_num_blocks_label: "num_gpu_blocks".into(),
        // The names with `gpu` are those of 2025, at first in blocks: who compares them with tokens
        // finds that they do not count what was sent. Blocks from another server or tier are
        // counted apart.
        cache_queries: metrics([
            "vllm:prefix_cache_queries_total",
            "vllm:gpu_prefix_cache_queries_total",
        ]),
        cache_hits: metrics([
            "vllm:prefix_cache_hits_total",
            "vllm:external_prefix_cache_hits_total",
            "vllm:gpu_prefix_cache_hits_total",
        ]),
        ..EngineSpec::named("vllm")
    }
}

fn sglang() -> EngineSpec {
    EngineSpec {
        queued: metric("sglang:num_queue_reqs"),
        running: metric("sglang:num_running_reqs"),
        kv_usage: metric("sglang:token_usage"),
        cache_info: metric("sglang:cache_config_info"),
        cache_block_size_label: "page_size".into(),
        cache_num_blocks_label: "num_pages".into(),
        // Counted when a request ends. The gauge of its hit rate is about the last batch.
        cache_queries: metrics(["sglang:prompt_tokens_total"]),
        cache_hits: metrics(["sglang:cached_tokens_total"]),
        ..EngineSpec::named("sglang")
    }
}

fn trtllm_serve() -> EngineSpec {
    EngineSpec {
        queued: metric("trtllm_num_requests_waiting"),
        running: metric("trtllm_num_requests_running"),
        kv_usage: metric("trtllm_kv_cache_utilization"),
        cache_block_size: metric("trtllm_kv_cache_tokens_per_block"),
        cache_num_blocks: metric("trtllm_kv_cache_max_blocks"),
        ..EngineSpec::named("trtllm-serve")
    }
}

fn triton_tensorrt_llm() -> EngineSpec {
    EngineSpec {
        queued: metric("nv_trt_llm_request_metrics{request_type=waiting}"),
        running: metric("nv_trt_llm_request_metrics{request_type=scheduled}"),
        kv_usage: metric("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"),
        cache_block_size: metric(
            "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=tokens_per}",
        ),
        cache_num_blocks: metric("nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"),
        ..EngineSpec::named("triton-tensorrt-llm")
    }
}

fn triton() -> EngineSpec {
    EngineSpec {
        queued: metric("nv_inference_pending_request_count"),
        running: metric("nv_inference_exec_count"),
        ..EngineSpec::named("triton")
    }
}

/// Parses constants of this file, as [`metric`].
fn metrics<const N: usize>(texts: [&str; N]) -> Vec<MetricSpec> {
    texts.iter().filter_map(|text| metric(text)).collect()
}

/// Parses a constant of this file; a test proves that every one of them is well formed.
fn metric(text: &str) -> Option<MetricSpec> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_constant_parses() {
        let counts: Vec<_> =
            built_in().iter().map(|e| (e.name.clone(), e.specs().count())).collect();
        let expected = [
            ("vllm", 5),
            ("sglang", 4),
            ("trtllm-serve", 5),
            ("triton-tensorrt-llm", 5),
            ("triton", 2),
        ];
        assert_eq!(counts, expected.map(|(n, c)| (n.to_owned(), c)));
        let counters: Vec<_> = built_in().iter().map(|e| e.counters().count()).collect();
        assert_eq!(counters, [5, 2, 0, 0, 0]);
    }
}

//! Recorded and hand-made pages, read by the scanner and by simpler means.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_engine::{
    EngineSample, EngineTable, ExtractorParams, Field, MAX_LINE, Plan, Scanner, scan,
};

const RECORDED: [(&str, &str); 5] = [
    ("after-basic", include_str!("../fixtures/vllm-0.32.0-sha256_cbor-10-after-basic.txt")),
    ("during-load", include_str!("../fixtures/vllm-0.32.0-sha256_cbor-20-during-load.txt")),
    ("after-reset", include_str!("../fixtures/vllm-0.32.0-sha256_cbor-40-after-reset.txt")),
    ("start", include_str!("../fixtures/vllm-0.32.0-sha256-00-start.txt")),
    ("hybrid", include_str!("../fixtures/vllm-0.32.0-hybrid-99-end.txt")),
];

fn plan(engine: &str) -> Arc<Plan> {
    Arc::clone(EngineTable::default().get(engine).unwrap())
}

fn custom_plan(yaml: &str) -> Arc<Plan> {
    let params: ExtractorParams = serde_yaml::from_str(yaml).unwrap();
    Arc::clone(EngineTable::new(&params).unwrap().select(&BTreeMap::new()))
}

/// The value of the only line that starts with `name{`, by string splitting.
fn value_of(page: &str, name: &str) -> f64 {
    let mut lines = page.lines().filter(|l| l.starts_with(&format!("{name}{{")));
    let value = lines.next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert_eq!(lines.next(), None, "{name} is not unique");
    value
}

/// The text between `label="` and the next quote, in one line.
fn label_of<'a>(line: &'a str, label: &str) -> &'a str {
    let after =
        line.split([',', '{']).find_map(|p| p.strip_prefix(&format!("{label}=\""))).unwrap();
    after.split('"').next().unwrap()
}

#[test]
fn recorded_pages_read_as_a_reader_would() {
    for (name, page) in RECORDED {
        let sample = scan(&plan("vllm"), page.as_bytes());
        assert_eq!(
            sample.waiting,
            Some(value_of(page, "vllm:num_requests_waiting") as u32),
            "{name}"
        );
        assert_eq!(
            sample.running,
            Some(value_of(page, "vllm:num_requests_running") as u32),
            "{name}"
        );
        assert_eq!(sample.kv_usage, Some(value_of(page, "vllm:kv_cache_usage_perc")), "{name}");
        let counted = |name| value_of(page, name) as u64;
        let hits = counted("vllm:prefix_cache_hits_total")
            + counted("vllm:external_prefix_cache_hits_total");
        let queries = counted("vllm:prefix_cache_queries_total");
        assert_eq!(
            (sample.cache_queries, sample.cache_hits),
            (Some(queries), Some(hits)),
            "{name}"
        );
        let info = page.lines().find(|l| l.starts_with("vllm:cache_config_info{")).unwrap();
        assert_eq!(sample.cache_block_size, label_of(info, "block_size").parse().ok(), "{name}");
        assert_eq!(
            sample.cache_num_blocks,
            label_of(info, "num_gpu_blocks").parse().ok(),
            "{name}"
        );
        let newest =
            page.lines().filter(|l| l.starts_with("vllm:lora_requests_info{")).max_by(|a, b| {
                let value = |l: &str| l.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
                value(a).total_cmp(&value(b))
            });
        let lora = sample.lora.as_ref();
        assert_eq!(lora.is_some(), newest.is_some(), "{name}");
        if let (Some(lora), Some(line)) = (lora, newest) {
            let max = line.split("max_lora=\"").nth(1).unwrap().split('"').next().unwrap();
            assert_eq!(lora.max_adapters, max.parse().ok(), "{name}");
            let running = line.split("running_lora_adapters=\"").nth(1).unwrap();
            assert_eq!(lora.active, running.split('"').next().unwrap(), "{name}");
        }
        assert!(sample.missing.is_empty(), "{name}");
        assert_eq!(sample.malformed_lines, 0, "{name}");
    }
}

#[test]
fn some_recorded_page_is_busy() {
    let busy = |sample: &EngineSample| sample.running > Some(0) && sample.kv_usage > Some(0.0);
    assert!(RECORDED.iter().any(|(_, page)| busy(&scan(&plan("vllm"), page.as_bytes()))));
}

#[test]
fn cutting_a_page_changes_nothing() {
    let page = RECORDED[1].1.as_bytes();
    let whole = scan(&plan("vllm"), page);
    let mut scanner = Scanner::new(plan("vllm"));
    for size in [1, 2, 7, 64, 1_000, 16_384] {
        page.chunks(size).for_each(|piece| scanner.feed(piece));
        assert_eq!(scanner.finish(), &whole, "pieces of {size}");
    }
}

#[test]
fn a_scanner_forgets_the_page_before() {
    let mut scanner = Scanner::new(plan("vllm"));
    scanner.feed(RECORDED[1].1.as_bytes());
    scanner.finish();
    scanner.feed(b"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 4\n");
    let sample = scanner.finish();
    assert_eq!((sample.waiting, sample.running), (Some(4), None));
    assert_eq!((sample.found.len(), sample.missing.len()), (1, 3));
    assert!(sample.missing.contains(Field::Running));
    scanner.reset();
    assert!(!scanner.finish().is_useful());
}

#[test]
fn the_greatest_timestamp_wins_and_the_first_among_equals() {
    let page = "# TYPE vllm:num_requests_waiting gauge\n\
        vllm:num_requests_waiting{engine=\"0\"} 1\n\
        vllm:num_requests_waiting{engine=\"1\"} 2\n\
        # TYPE vllm:num_requests_running counter\n\
        vllm:num_requests_running{engine=\"0\"} 3 100\n\
        vllm:num_requests_running{engine=\"1\"} 4.9 200\n\
        vllm:num_requests_running{engine=\"2\"} 5 200\n";
    let sample = scan(&plan("vllm"), page.as_bytes());
    assert_eq!((sample.waiting, sample.running), (Some(1), Some(4)));
}

#[test]
fn labels_select_within_a_family() {
    let page = "# TYPE nv_trt_llm_request_metrics gauge\n\
        nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 7\n\
        nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 2\n\
        # TYPE nv_trt_llm_kv_cache_block_metrics gauge\n\
        nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"tokens_per\"} 64\n\
        nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\"} 0.25\n";
    let sample = scan(&plan("triton-tensorrt-llm"), page.as_bytes());
    assert_eq!((sample.waiting, sample.running, sample.kv_usage), (Some(2), Some(7), Some(0.25)));
    assert_eq!((sample.cache_block_size, sample.cache_num_blocks), (Some(64), None));
    assert!(sample.missing.contains(Field::CacheNumBlocks));
}

#[test]
fn only_gauges_and_counters_have_a_value() {
    let page = "vllm:num_requests_waiting 9\n# TYPE vllm:num_requests_running summary\n\
        vllm:num_requests_running{quantile=\"0.5\"} 9\n";
    let sample = scan(&plan("vllm"), page.as_bytes());
    assert_eq!((sample.waiting, sample.running), (Some(0), Some(0)));
}

#[test]
fn an_unusable_value_is_missing_and_the_rest_is_applied() {
    let page = "# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting NaN\n\
        # TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc +Inf\n\
        # TYPE vllm:num_requests_running gauge\nvllm:num_requests_running -3\n";
    let sample = scan(&plan("vllm"), page.as_bytes());
    assert_eq!((sample.waiting, sample.kv_usage, sample.running), (None, None, Some(0)));
    assert!(sample.missing.contains(Field::Waiting) && sample.missing.contains(Field::KvUsage));
    assert!(sample.is_useful());
}

#[test]
fn cache_labels_that_are_no_numbers_reset_the_size_and_count_as_missing() {
    let page = b"vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"None\"} 1\n";
    let sample = scan(&plan("vllm"), page);
    assert_eq!((sample.cache_block_size, sample.cache_num_blocks), (Some(16), None));
    assert!(sample.missing.contains(Field::CacheInfo));
    let page = b"vllm:cache_config_info{block_size=\"x\",num_gpu_blocks=\"5\"} 1\n";
    let sample = scan(&plan("vllm"), page);
    assert_eq!((sample.cache_block_size, sample.cache_num_blocks), (Some(0), Some(5)));
}

#[test]
fn an_html_page_is_useless_but_harmless() {
    let sample = scan(&plan("vllm"), b"<html><body>404 page not found</body></html>");
    assert!(!sample.is_useful());
    assert_eq!(sample.missing.len(), 4);
}

#[test]
fn overlong_lines_are_skipped_wherever_they_are_cut() {
    let mut page =
        b"# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{x=\"".to_vec();
    page.resize(page.len() + MAX_LINE, b'y');
    page.extend_from_slice(b"\"} 8\nvllm:num_requests_waiting 3\n");
    let whole = scan(&plan("vllm"), &page);
    assert_eq!((whole.waiting, whole.malformed_lines), (Some(3), 1));
    for size in [1, 1_000, MAX_LINE] {
        let mut scanner = Scanner::new(plan("vllm"));
        page.chunks(size).for_each(|piece| scanner.feed(piece));
        assert_eq!(scanner.finish(), &whole, "pieces of {size}");
    }
}

#[test]
fn custom_metrics_keep_their_order() {
    let plan = custom_plan(
        "engineConfigs: [{name: vllm, customMetrics: [
            {attributeKey: a, metricSpec: 'm{k=1}'}, {attributeKey: b, metricSpec: 'm{k=2}'},
            {attributeKey: c, metricSpec: absent}]}]",
    );
    let sample = scan(&plan, b"# TYPE m gauge\nm{k=\"2\"} 2.5\nm{k=\"1\"} 1.5\n");
    assert_eq!(sample.custom, [Some(1.5), Some(2.5), None]);
    assert!(sample.found.contains(Field::Custom(1)) && sample.missing.contains(Field::Custom(2)));
}

#[test]
fn counters_of_the_prefix_cache_are_added_up() {
    let scan = |engine: &str, page: &str| {
        let sample = scan(&plan(engine), page.as_bytes());
        assert!(!sample.is_useful() && !sample.missing.is_empty(), "they are extra");
        (sample.cache_queries, sample.cache_hits)
    };
    let ranks = "# TYPE vllm:prefix_cache_queries_total counter\n\
        vllm:prefix_cache_queries_total{engine=\"0\"} 100.0\n\
        vllm:prefix_cache_queries_total{engine=\"1\"} 50.0\n\
        vllm:prefix_cache_queries_total{engine=\"2\"} NaN\n\
        # TYPE vllm:prefix_cache_hits_total counter\n\
        vllm:prefix_cache_hits_total{engine=\"0\"} 32.0\n\
        vllm:prefix_cache_hits_total{engine=\"1\"} 16.0\n\
        # TYPE vllm:external_prefix_cache_hits_total counter\n\
        vllm:external_prefix_cache_hits_total{engine=\"1\"} 8.0\n";
    assert_eq!(scan("vllm", ranks), (Some(150), Some(56)));
    let older = "# TYPE vllm:gpu_prefix_cache_queries_total counter\n\
        vllm:gpu_prefix_cache_queries_total{model_name=\"m\"} 7.0\n";
    assert_eq!(scan("vllm", older), (Some(7), None));
    let sglang = "# TYPE sglang:prompt_tokens_total counter\n\
        sglang:prompt_tokens_total{is_streaming=\"true\"} 90.0\n\
        sglang:prompt_tokens_total{is_streaming=\"false\"} 10.0\n\
        # TYPE sglang:cached_tokens_total counter\n\
        sglang:cached_tokens_total{cache_source=\"device\"} 20.0\n\
        sglang:cached_tokens_total{cache_source=\"host\"} 5.0\n";
    assert_eq!(scan("sglang", sglang), (Some(100), Some(25)));
    assert_eq!(scan("triton", ranks), (None, None));
}

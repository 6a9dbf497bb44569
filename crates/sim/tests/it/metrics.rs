//! The metrics page against one recorded from vLLM 0.32.

use crate::support::{config, eventually, exactly, get, one, post, slow};
use inlane_sim::{Config, config::lora::LoraModule};

const RECORDED: &str = include_str!("../../fixtures/vllm-0.32-metrics.txt");

/// HELP and TYPE lines in order.
fn heads(page: &str) -> Vec<&str> {
    page.lines().filter(|line| line.starts_with('#')).collect()
}

/// Samples of `vllm:` families without their values; label values that name a model are made equal.
fn series(page: &str) -> Vec<String> {
    let dynamic = ["vllm:lora_requests_info{", "vllm:cache_config_info{"];
    page.lines()
        .filter(|line| line.starts_with("vllm:") && !dynamic.iter().any(|d| line.starts_with(d)))
        .map(|line| line.rsplit_once(' ').unwrap().0.replace("tiny-a", "random"))
        .collect()
}

/// Names of the labels of the only sample of a family.
fn label_names<'a>(page: &'a str, family: &str) -> Vec<&'a str> {
    let line = page.lines().find(|line| line.starts_with(&format!("{family}{{"))).unwrap();
    let labels = &line[family.len() + 1..line.rfind('}').unwrap()];
    labels.split("\",").map(|label| label.split_once('=').unwrap().0).collect()
}

fn like_the_recorded() -> Config {
    let adapter = LoraModule { name: "a".to_owned(), path: String::new(), base_model_name: None };
    Config { max_model_len: 1024, max_loras: 2, lora_modules: vec![adapter], ..config() }
}

#[test]
fn families_come_in_order_with_help_and_type() {
    let (_cluster, address) = one(like_the_recorded());
    post(address, "/v1/completions", &exactly("a", 1));
    let page = get(address, "/metrics");
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(heads(&page.body), heads(RECORDED));
}

#[test]
fn series_labels_and_buckets_are_the_same() {
    let (_cluster, address) = one(like_the_recorded());
    let page = get(address, "/metrics").body;
    assert_eq!(series(&page), series(RECORDED));
    for family in ["vllm:cache_config_info", "vllm:lora_requests_info"] {
        assert_eq!(label_names(&page, family), label_names(RECORDED, family));
    }
}

#[test]
fn http_buckets_are_the_same() {
    let (_cluster, address) = one(config());
    post(address, "/v1/completions", &exactly("a", 1));
    let page = get(address, "/metrics").body;
    let names = |page: &str| -> Vec<String> {
        page.lines()
            .filter(|line| {
                line.starts_with("http_request_duration_highr")
                    || line.starts_with(
                        "http_request_duration_seconds_bucket{handler=\"/v1/completions\"",
                    )
            })
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect()
    };
    assert_eq!(names(&page), names(RECORDED));
}

#[test]
fn counters_follow_requests() {
    let (cluster, address) = one(config());
    let pod = &cluster.pods[0];
    let prompt = "word ".repeat(40);
    for _ in 0..2 {
        post(address, "/v1/completions", &exactly(prompt.trim(), 10));
    }
    let value = |name: &str| {
        pod.metric(&format!("vllm:{name}{{engine=\"0\",model_name=\"random\"}}")).unwrap()
    };
    assert_eq!(value("prompt_tokens_total"), 80.0);
    assert_eq!(value("prefix_cache_queries_total"), 80.0);
    assert_eq!(value("prefix_cache_hits_total"), 32.0);
    assert_eq!(value("generation_tokens_total"), 20.0);
    assert_eq!(value("request_generation_tokens_sum"), 20.0);
    assert_eq!(value("request_prefill_kv_computed_tokens_sum"), 48.0);
    assert_eq!(value("time_to_first_token_seconds_count"), 2.0);
    assert_eq!(value("inter_token_latency_seconds_count"), 18.0);
    let finished = pod.metric(
        "vllm:request_success_total{engine=\"0\",finished_reason=\"length\",model_name=\"random\"}",
    );
    assert_eq!(finished, Some(2.0));
    let ok = pod
        .metric("http_requests_total{handler=\"/v1/completions\",method=\"POST\",status=\"2xx\"}");
    assert_eq!(ok, Some(2.0));
}

#[test]
fn buckets_are_cumulative() {
    let (cluster, address) = one(config());
    for tokens in [1, 5, 30] {
        post(address, "/v1/completions", &exactly("a", tokens));
    }
    let upto = |le: &str| {
        let name = "vllm:request_generation_tokens_bucket";
        cluster.pods[0].metric(&format!("{name}{{engine=\"0\",le=\"{le}\",model_name=\"random\"}}"))
    };
    let counts = ["1.0", "2.0", "5.0", "20.0", "50.0", "+Inf"].map(|le| upto(le).unwrap());
    assert_eq!(counts, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]);
}

#[test]
fn gauges_are_live() {
    let config = Config { max_num_seqs: 1, kv_cache_size: 10, ..slow("300ms", "0") };
    let (cluster, address) = one(config);
    let pod = cluster.pods[0].clone();
    let value = |name: &str| {
        pod.metric(&format!("vllm:{name}{{engine=\"0\",model_name=\"random\"}}")).unwrap()
    };
    let prompt = "word ".repeat(40);
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let body = exactly(prompt.trim(), 1);
            std::thread::spawn(move || post(address, "/v1/completions", &body).status)
        })
        .collect();
    eventually("one runs, one waits", || {
        (value("num_requests_running"), value("num_requests_waiting")) == (1.0, 1.0)
    });
    assert_eq!(value("kv_cache_usage_perc"), 0.3);
    let waiting = "vllm:num_requests_waiting_by_reason{engine=\"0\",model_name=\"random\",reason=\"capacity\"}";
    assert_eq!(pod.metric(waiting), Some(1.0));
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    assert_eq!(value("num_requests_running"), 0.0);
    assert_eq!(value("kv_cache_usage_perc"), 0.0);
}

#[test]
fn adapters_show_while_they_run() {
    let adapter =
        LoraModule { name: "tuned".to_owned(), path: String::new(), base_model_name: None };
    let config = Config { lora_modules: vec![adapter], ..slow("200ms", "0") };
    let (cluster, address) = one(config);
    let body = r#"{"model":"tuned","prompt":"a","max_tokens":1}"#;
    let client = std::thread::spawn(move || post(address, "/v1/completions", body).status);
    let info = |running: &str| {
        cluster.pods[0].metric(&format!(
            "vllm:lora_requests_info{{max_lora=\"1\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"\"}}"
        ))
    };
    eventually("it runs", || info("tuned").is_some());
    assert!(info("tuned") >= info(""), "the newest value is the present one");
    assert_eq!(client.join().unwrap(), 200);
    assert!(info("") >= info("tuned"));
}

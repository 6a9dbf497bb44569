//! Inlane's own pages, as Envoy serves them.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::time::Duration;

use inlane_cli::lab::Plan;
use inlane_integration::scenario::{Scenario, config, exposition, patient, pods};

fn start() -> Scenario {
    Scenario::start(Plan {
        config: config::profile(&[
            ("active-request-scorer", 1),
            ("prefix-cache-scorer", 5),
            ("max-score-picker", 0),
        ]),
        bootstrap: patient(),
        ..Plan::default()
    })
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

#[test]
fn every_page_has_its_status_kind_and_content() {
    let lab = start();
    for n in 0..5 {
        assert_eq!(lab.client().complete(&format!("p{n}"), "hi", 1).unwrap().status, 200);
        lab.decision(&format!("p{n}")).unwrap();
    }
    let admin = lab.admin();
    let page = |path: &str, kind: &str| {
        let answer = admin.get(path).unwrap();
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
        answer
    };
    let index = page("/", TEXT).text();
    for path in ["/metrics", "/healthz", "/debug/decisions", "/debug/pool", "/debug/prefix/reset"] {
        assert!(index.contains(path), "{path} is not in the index:\n{index}");
    }
    assert_eq!(page("/healthz", TEXT).text(), "ok\n");
    assert_eq!(page("/healthz?verbose", TEXT).text(), "ok\n");

    let pool = page("/debug/pool", JSON).json().unwrap();
    assert_eq!((&pool["serving"], &pool["pool"]["name"]), (&"yes".into(), &"lab".into()));
    assert_eq!(pool["ledger"]["claims_taken"], 5);
    let endpoints = pool["endpoints"].as_array().unwrap();
    for (endpoint, pod) in endpoints.iter().zip(&lab.pods) {
        assert_eq!(endpoint["name"], pod.name.as_str());
        assert_eq!(endpoint["address"], format!("127.0.0.1:{}", pod.port));
        assert!(endpoint["metrics_age_ms"].as_u64().unwrap() < 2_000, "{endpoint}");
    }

    let list = |query: &str| {
        let page = page(&format!("/debug/decisions{query}"), JSON).json().unwrap();
        let ids = page["decisions"].as_array().unwrap().iter();
        ids.map(|d| d["request_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(""), ["p4", "p3", "p2", "p1", "p0"]);
    assert_eq!(list("?limit=2"), ["p4", "p3"]);
    assert_eq!(list("?request_id=p1"), ["p1"]);
    assert_eq!(list("?request_id=none"), [""; 0]);
    lab.end();
}

#[test]
fn other_pages_are_404_and_other_methods_405_with_allow() {
    let lab = start();
    let admin = lab.admin();
    for path in ["/nowhere", "/metrics/", "/debug", "/debug/decisions/1"] {
        assert_eq!(admin.get(path).unwrap().status, 404, "{path}");
    }
    assert_eq!(admin.post("/nowhere", &[], b"").unwrap().status, 404);
    for path in ["/", "/metrics", "/healthz", "/debug/decisions", "/debug/pool"] {
        let answer = admin.post(path, &[], b"{}").unwrap();
        assert_eq!((answer.status, answer.header("allow")), (405, "GET"), "{path}");
    }
    let answer = admin.get("/debug/prefix/reset").unwrap();
    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    // The inference listener has none of these pages.
    assert_ne!(lab.client().get("/debug/pool").unwrap().status, 200);
    lab.end();
}

/// Families that a scrape of a proxy with traffic has, by the endpoint picker's names.
const FAMILIES: &[(&str, &str)] = &[
    ("llm_d_epp_request_total", "counter"),
    ("inference_objective_request_total", "counter"),
    ("llm_d_epp_request_error_total", "counter"),
    ("inference_objective_request_error_total", "counter"),
    ("llm_d_epp_request_duration_seconds", "histogram"),
    ("inference_objective_request_duration_seconds", "histogram"),
    ("llm_d_epp_request_size_bytes", "histogram"),
    ("inference_objective_request_sizes", "histogram"),
    ("llm_d_epp_response_size_bytes", "histogram"),
    ("inference_objective_response_sizes", "histogram"),
    ("llm_d_epp_request_input_tokens", "histogram"),
    ("inference_objective_input_tokens", "histogram"),
    ("llm_d_epp_request_output_tokens", "histogram"),
    ("inference_objective_output_tokens", "histogram"),
    ("llm_d_epp_request_cached_tokens", "histogram"),
    ("inference_objective_prompt_cached_tokens", "histogram"),
    ("llm_d_epp_request_ntpot_seconds", "histogram"),
    ("inference_objective_normalized_time_per_output_token_seconds", "histogram"),
    ("llm_d_epp_request_ttft_seconds", "histogram"),
    ("llm_d_epp_request_streaming_tpot_seconds", "histogram"),
    ("llm_d_epp_request_streaming_itl_seconds", "histogram"),
    ("llm_d_epp_request_running", "gauge"),
    ("inference_objective_running_requests", "gauge"),
    ("llm_d_epp_request_processing_duration_seconds", "histogram"),
    ("llm_d_epp_scheduler_e2e_duration_seconds", "histogram"),
    ("inference_extension_scheduler_e2e_duration_seconds", "histogram"),
    ("llm_d_epp_scheduler_attempts_total", "counter"),
    ("inference_extension_scheduler_attempts_total", "counter"),
    ("llm_d_epp_info", "gauge"),
    ("llm_d_epp_prefix_indexer_size", "gauge"),
    ("inference_extension_prefix_indexer_size", "gauge"),
    ("llm_d_epp_prefix_indexer_hit_ratio", "histogram"),
    ("llm_d_epp_prefix_indexer_hit_bytes", "histogram"),
    ("llm_d_epp_inflight_requests", "gauge"),
    ("llm_d_epp_inflight_tokens", "gauge"),
    ("inlane_decision_duration_seconds", "histogram"),
    ("inlane_snapshot_age_seconds", "gauge"),
    ("inlane_config_generation", "gauge"),
];

#[test]
fn metrics_are_prometheus_text_under_the_endpoint_pickers_names() {
    let lab = start();
    let page = || {
        let answer = lab.admin().get("/metrics").unwrap();
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4");
        exposition::parse(&answer.text()).unwrap()
    };
    // Before any traffic the page is well formed as well.
    assert!(page().contains_key("llm_d_epp_info"));

    let stream = format!(
        r#"{{"model":"odd \"name\" \\ {}","prompt":"hi there","max_tokens":8,"stream":true}}"#,
        "\\n"
    );
    // The pod does not know that model; its refusal is counted under the name.
    assert_eq!(lab.client().post("/v1/completions", &[], stream.as_bytes()).unwrap().status, 404);
    assert_eq!(lab.client().post("/v1/completions", &[], b"{").unwrap().status, 400);
    for n in 0..3 {
        assert_eq!(lab.client().complete(&n.to_string(), "hi there", 4).unwrap().status, 200);
    }
    lab.assert_balanced();

    let families = page();
    for (name, kind) in FAMILIES {
        let family = families.get(*name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(family.kind, *kind, "{name}");
    }
    let requests = &families["llm_d_epp_request_total"].samples;
    let of = |model: &str| {
        let mut found = requests.iter().filter(|((_, labels), _)| labels["model_name"] == model);
        found.next().map(|((_, labels), count)| (labels.clone(), *count)).unwrap()
    };
    let (labels, count) = of("random");
    assert_eq!(count, 3.0);
    let names: Vec<&str> = labels.keys().map(String::as_str).collect();
    assert_eq!(names, ["fairness_id", "model_name", "priority", "target_model_name"]);
    assert_eq!(of("odd \"name\" \\ \n").1, 1.0);
    let durations = &families["llm_d_epp_request_duration_seconds"].samples;
    let count = ("llm_d_epp_request_duration_seconds_count".to_owned(), labels);
    assert_eq!(durations[&count], 3.0);
    lab.end();
}

#[test]
fn a_reset_makes_a_warm_prompt_cold() {
    let lab = start();
    let prompt = "a prefix that is long enough to be remembered ".repeat(100);
    let warmth = |id: &str| {
        assert_eq!(lab.client().complete(id, &prompt, 1).unwrap().status, 200);
        let decision = lab.decision(id).unwrap();
        let scores = lab
            .pods
            .iter()
            .map(|pod| pods::score(&decision, "prefix-cache-scorer", &pod.name).unwrap_or(0.0));
        scores.fold(0.0, f64::max)
    };
    let size = || lab.metric("llm_d_epp_prefix_indexer_size", "");
    assert_eq!(warmth("cold"), 0.0);
    // The index follows the decision at once, but not in the same moment.
    let limit = Duration::from_secs(5);
    lab.wait_until("a warm prompt", limit, || warmth("warm") > 0.9).unwrap();
    let answer = lab.admin().post("/debug/prefix/reset", &[], b"").unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, JSON));
    assert_eq!(answer.json().unwrap()["reset"].as_array().map(Vec::len), Some(1));
    lab.wait_until("the prefix to be forgotten", limit, || size() == 0.0).unwrap();
    assert_eq!(warmth("cold again"), 0.0);
    lab.end();
}

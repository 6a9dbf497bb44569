//! Requests go where the scores say, in a real Envoy.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::time::Duration;

use inlane_cli::lab::Plan;
use inlane_integration::scenario::{Scenario, config, load, patient};

#[test]
fn routing_follows_the_queue() {
    let mut lab = Scenario::start(Plan {
        pods: 3,
        config: config::profile(&[("queue-scorer", 1), ("max-score-picker", 0)]),
        pod_args: ["--max-num-seqs", "1", "--inter-token-latency", "20ms"].map(String::from).into(),
        ..Plan::default()
    });
    // Two pods get a queue behind the scheduler's back.
    let busy = [lab.pods[0].port, lab.pods[2].port];
    let requests = std::thread::scope(|scope| {
        for port in busy {
            for _ in 0..4 {
                scope.spawn(move || {
                    let client = inlane_cli::lab::Client::new(port);
                    client.complete("direct", "a long story", 100).unwrap()
                });
            }
        }
        lab.wait_until("both queues", Duration::from_secs(5), || {
            lab.pool().is_ok_and(|pool| {
                let waiting = |n: usize| pool["endpoints"][n]["waiting"].as_u64() > Some(0);
                waiting(0) && waiting(2)
            })
        })
        .unwrap();
        (0..5)
            .map(|n| lab.client().complete(&format!("q{n}"), "hi", 1).unwrap())
            .collect::<Vec<_>>()
    });
    for answer in &requests {
        assert_eq!((answer.status, answer.pod()), (200, "sim-1"), "{}", answer.text());
    }
    let decision = lab.decision("q0").unwrap();
    let endpoints = decision["profiles"][0]["endpoints"].as_array().unwrap();
    assert_eq!(endpoints[1]["scores"]["queue-scorer"], 1.0);
    assert!(endpoints[0]["scores"]["queue-scorer"].as_f64().unwrap() < 1.0);
    lab.pods.truncate(3);
    lab.end();
}

#[test]
fn a_herd_is_spread() {
    let lab = Scenario::start(Plan {
        pods: 8,
        concurrency: 4,
        config: config::by_active_requests(),
        pod_args: ["--time-to-first-token", "400ms", "--max-num-seqs", "64"]
            .map(String::from)
            .into(),
        ..Plan::default()
    });
    for round in 0..3 {
        let outcome = load::at_once(&lab, 64, &format!("round {round}"), 1);
        outcome.assert_all_served();
        let most = outcome.served.values().copied().max().unwrap_or(0);
        let mean = 64.0 / 8.0;
        assert!(most as f64 / mean <= 1.13, "round {round}: {:?}", outcome.served);
        lab.assert_balanced();
    }
    lab.end();
}

#[test]
fn seven_of_seven_find_their_prefix() {
    let lab = Scenario::start(Plan {
        pods: 4,
        concurrency: 2,
        config: config::profile(&[
            ("load-aware-scorer", 1),
            ("prefix-cache-scorer", 2),
            ("kv-cache-utilization-scorer", 1),
            ("max-score-picker", 0),
        ]),
        pod_args: ["--max-num-seqs", "64"].map(String::from).into(),
        bootstrap: patient(),
        ..Plan::default()
    });
    let prompt = "verify-prefix ".repeat(400);
    let first = lab.client().complete("cold", &prompt, 1).unwrap();
    assert_eq!(first.status, 200);
    lab.wait_until("the prefix to be indexed", Duration::from_secs(5), || {
        lab.metric("llm_d_epp_prefix_indexer_size", "") > 0.0
    })
    .unwrap();
    let outcome = load::at_once(&lab, 7, &prompt, 1);
    outcome.assert_all_served();
    assert_eq!(outcome.served, [(first.pod().to_owned(), 7)].into());
    lab.end();
}

#[test]
fn a_filter_keeps_requests_from_pods() {
    let mut lab = Scenario::of(
        inlane_cli::lab::Lab::prepare(Plan {
            pods: 3,
            config: config::profile(&[("decode-filter", 0), ("random-picker", 0)]),
            ..Plan::default()
        })
        .unwrap(),
    );
    for role in ["prefill", "decode", "encode"] {
        let pod = lab.add_pod().unwrap();
        lab.pods[pod].labels.insert("llm-d.ai/role".into(), role.into());
    }
    lab.write_endpoints().unwrap();
    lab.start_control().unwrap();
    lab.start_envoy().unwrap();
    lab.wait_ready(Duration::from_secs(20)).unwrap();
    for n in 0..10 {
        let answer = lab.client().complete(&format!("f{n}"), "hi", 1).unwrap();
        assert_eq!(answer.pod(), "sim-1");
    }
    let decision = lab.decision("f0").unwrap();
    let rejected = decision["profiles"][0]["rejected"].as_array().unwrap();
    assert_eq!(rejected.len(), 2, "{decision}");
    assert!(rejected.iter().all(|r| r["filter"] == "decode-filter" && r["reason"] != ""));
    lab.end();
}

#[test]
fn client_sent_steering_is_ignored() {
    let lab = Scenario::start(Plan {
        config: config::profile(&[
            ("label-selector-filter {matchExpressions: [{key: only, operator: DoesNotExist}]}", 0),
            ("max-score-picker", 0),
        ]),
        ..Plan::default()
    });
    let elsewhere = format!("127.0.0.1:{}", lab.pods[0].port);
    let body = br#"{"model":"random","prompt":"hi","max_tokens":1}"#;
    let mut pods = std::collections::BTreeSet::new();
    for n in 0..40 {
        let id = n.to_string();
        let headers = [
            ("x-request-id", id.as_str()),
            ("x-gateway-destination-endpoint", &elsewhere),
            ("x-inlane-stream", "0000000000000000"),
            ("x-prefiller-host-port", &elsewhere),
        ];
        let answer = lab.client().post("/v1/completions", &headers, body).unwrap();
        assert_eq!(answer.status, 200);
        pods.insert(answer.pod().to_owned());
    }
    assert!(pods.len() > 1, "every request went to {pods:?}");
    // On paths without a decision nothing of the kind reaches a pod either.
    let headers = [("x-gateway-destination-endpoint", elsewhere.as_str())];
    let answer = lab.client().post("/v1/score", &headers, b"{}").unwrap();
    assert_ne!(answer.status, 503, "{}", answer.text());
    lab.end();
}

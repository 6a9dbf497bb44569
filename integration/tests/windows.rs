//! Streams that wait for a window, and ranks behind a primary port, in a real Envoy.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use inlane_cli::lab::{Lab, Plan};
use inlane_integration::scenario::{Scenario, config, load, patient, pods};

/// A plan with one window of that length at a time.
fn burst(window_ms: u32) -> Plan {
    let producer = format!("burst-prefix-cache-producer {{windowDurationMs: {window_ms}}}");
    let scorer = "prefix-cache-scorer {prefixMatchInfoProducerName: burst-prefix-cache-producer}";
    let profile = config::profile(&[(scorer, 1), ("max-score-picker", 0)]);
    Plan {
        pods: 4,
        config: config::declare(&profile, &producer),
        control_args: vec!["--allow-experimental-plugins".to_owned()],
        bootstrap: patient(),
        ..Plan::default()
    }
}

#[test]
fn a_burst_of_one_prompt_goes_to_one_pod() {
    // Long enough for a busy machine to begin all requests in it.
    let lab = Scenario::start(burst(2_000));
    let outcome = load::at_once(&lab, 12, &"one prompt ".repeat(100), 1);
    outcome.assert_all_served();
    assert_eq!(outcome.served.len(), 1, "{:?}", outcome.served);
    lab.end();
}

#[test]
fn a_request_waits_for_its_window_and_one_whose_client_left_is_forgotten() {
    let lab = Scenario::start(burst(300));
    let body = r#"{"model":"random","prompt":"gone","max_tokens":1}"#;
    let mut gone = TcpStream::connect(("127.0.0.1", lab.port)).unwrap();
    write!(
        gone,
        "POST /v1/completions HTTP/1.1\r\nhost: lab\r\ncontent-type: application/json\r\n\
         x-request-id: gone\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    drop(gone);
    let start = Instant::now();
    assert_eq!(lab.client().complete("first", "hello", 1).unwrap().status, 200);
    assert_eq!(lab.client().complete("second", "hello", 1).unwrap().status, 200);
    // The second one has a window to itself.
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
    assert!(lab.decisions().unwrap().iter().all(|d| d["request_id"] != "gone"));
    lab.end();
}

#[test]
fn ranks_are_reached_through_the_primary_port() {
    let mut lab = Scenario::of(Lab::prepare(Plan::default()).unwrap());
    for _ in 0..3 {
        lab.add_pod().unwrap();
    }
    let handler = format!("data-parallel-profile-handler {{primaryPort: {}}}", lab.pods[1].port);
    lab.plan.config = config::declare(&config::profile(&[("random-picker", 0)]), &handler);
    lab.begin().unwrap();
    let mut chosen = Vec::new();
    for n in 0..20 {
        let id = format!("d{n}");
        assert_eq!(lab.client().complete(&id, "hi", 1).unwrap().pod(), "sim-1");
        chosen.push(pods::chosen(&lab.decision(&id).unwrap()).to_owned());
    }
    let ranks: Vec<String> = pods::arrived(&lab.pods[1])
        .iter()
        .map(|headers| headers["x-data-parallel-host-port"].as_str().unwrap().to_owned())
        .collect();
    let expected = |name: &String| format!("127.0.0.1:{}", lab.pods[lab.pod_index(name)].port);
    assert_eq!(ranks, chosen.iter().map(expected).collect::<Vec<_>>());
    chosen.sort();
    chosen.dedup();
    assert!(chosen.len() > 1, "{chosen:?}");
    lab.end();
}

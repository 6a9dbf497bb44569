//! Predictions held against the counters of engines that do not say what they found of a prompt, as
//! vLLM by default, in a real Envoy with a real control plane.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::fs;
use std::time::Duration;

use inlane_cli::lab::{Binaries, Client, Lab, Plan, Process, process};
use inlane_integration::scenario::{Scenario, config};
use serde_json::{Value, json};

/// Blocks of a prompt, of 16 tokens each.
const BLOCKS: u64 = 8;
/// A verdict is due within a minute; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(90);

/// One pod that tells nothing, to whose events the control plane listens at `port`.
fn start(port: u16, binaries: Binaries) -> Scenario {
    let producer = format!(
        "precise-prefix-cache-producer {{kvEventsConfig: {{podDiscoveryConfig: {{socketPort: {port}}}}}}}"
    );
    let scorer = "prefix-cache-scorer {prefixMatchInfoProducerName: precise-prefix-cache-producer}";
    let profile = config::profile(&[(scorer, 1), ("max-score-picker", 0)]);
    let plan = Plan {
        pods: 1,
        pod_args: vec!["--enable-prompt-tokens-details=false".into()],
        config: config::declare(&profile, &producer),
        ..Plan::default()
    };
    let mut lab = Lab::prepare_with(plan, binaries).unwrap();
    lab.add_pod().unwrap();
    lab.begin().unwrap();
    let lab = Scenario::of(lab);
    let usable = || lab.metric("inlane_precise_index_usable", "") == 1.0;
    lab.wait_until("an index", LIMIT, usable).unwrap();
    lab
}

fn body(prompt: u64, stream: bool) -> Value {
    let tokens: Vec<u64> = (0..BLOCKS * 16).map(|n| prompt * 1_000 + n).collect();
    json!({"model": "random", "prompt": tokens, "max_tokens": 1, "stream": stream})
}

/// Sends a prompt through Envoy. Of a stream not even the number of its tokens is told.
fn ask(lab: &Lab, prompt: u64) {
    let stream = prompt % 2 == 1;
    let answer =
        lab.client().post("/v1/completions", &[], body(prompt, stream).to_string().as_bytes());
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(!answer.text().contains("cached_tokens"), "{}", answer.text());
    if !stream {
        assert_eq!(answer.json().unwrap()["usage"]["prompt_tokens"], BLOCKS * 16);
    }
}

/// Sends the first prompt, and waits until the counters have been looked at: what is sent after that
/// is held against them.
fn begin(lab: &Scenario) {
    ask(lab, 0);
    let looked = || lab.metric("inlane_precise_engine_queried_tokens_total", "") > 0.0;
    lab.wait_until("a look at the counters", LIMIT, looked).unwrap();
}

fn wait_for_line(lab: &Scenario, line: &str) {
    let logged = || fs::read_to_string(lab.log("envoy")).is_ok_and(|log| log.contains(line));
    lab.wait_until(line, LIMIT, logged).unwrap();
}

fn verdicts(lab: &Scenario, verdict: &str) -> f64 {
    lab.metric("inlane_precise_verdicts_total", &format!("verdict=\"{verdict}\""))
}

#[test]
fn a_pod_whose_events_are_anothers_is_distrusted() {
    let binaries = Binaries::find(&Plan::default().envoy).unwrap();
    let [port, events] = process::free_ports();
    let lab = start(events, binaries.clone());
    // A server that is none of the pool's publishes where the pod should.
    let publish = json!({"enable_kv_cache_events": true, "endpoint": format!("tcp://*:{events}")});
    let (port_arg, publish) = (port.to_string(), publish.to_string());
    let arguments = ["--port", &port_arg, "--kv-events-config", &publish];
    let log = lab.log("other");
    let mut other = Process::spawn(&binaries.sim, &arguments, &[], &log).unwrap();
    let serves = || Client::new(port).get("/health").is_ok_and(|answer| answer.status == 200);
    other.wait_for("the other server", LIMIT, serves).unwrap();
    let control = Client::new(lab.control_port);
    let page = || control.get("/metrics").unwrap().text();
    let connected = || page().contains("inlane_control_kv_connected{endpoint=\"default/sim-0\"} 1");
    lab.wait_until("the other server's events", LIMIT, connected).unwrap();
    for prompt in 0..40 {
        let answer = Client::new(port).post(
            "/v1/completions",
            &[],
            body(prompt, false).to_string().as_bytes(),
        );
        assert_eq!(answer.unwrap().status, 200);
    }
    let held =
        format!("inlane_control_kv_held_blocks{{endpoint=\"default/sim-0\"}} {}", 40 * BLOCKS);
    lab.wait_until("the other server's blocks", LIMIT, || page().contains(&held)).unwrap();

    begin(&lab);
    (1..40).for_each(|prompt| ask(&lab, prompt));
    let distrusted = || lab.metric("inlane_precise_distrusted", "default/sim-0") == 1.0;
    lab.wait_until("distrust", LIMIT, distrusted).unwrap();
    wait_for_line(
        &lab,
        "default/sim-0 does not confirm what the index predicts: by its counters it found at most 0 of ",
    );
    wait_for_line(&lab, "Either its events are another server's (topic, port), or");
    assert_eq!((verdicts(&lab, "refuted"), verdicts(&lab, "missed")), (1.0, 0.0));
    assert_eq!(lab.metric("inlane_precise_reported_tokens_total", ""), 0.0);
    lab.end();
}

#[test]
fn a_pod_that_finds_what_no_event_tells_of_is_said_so() {
    let binaries = Binaries::find(&Plan::default().envoy).unwrap();
    let [nobody] = process::free_ports();
    let lab = start(nobody, binaries);
    begin(&lab);
    // Each was computed the first time, but for its last block.
    (0..30).for_each(|_| ask(&lab, 0));
    wait_for_line(
        &lab,
        "default/sim-0 finds prompts in its cache that the index does not predict, by its counters at \
         least ",
    );
    wait_for_line(&lab, "and 0 were predicted: no event has arrived");
    assert_eq!((verdicts(&lab, "refuted"), verdicts(&lab, "missed")), (0.0, 1.0));
    assert_eq!(lab.metric("inlane_precise_distrusted", ""), 0.0);
    lab.end();
}

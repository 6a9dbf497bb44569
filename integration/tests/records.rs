//! Records of decisions from a real Envoy: replayed, explained, and beside a shadow configuration.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use inlane_cli::lab::{Binaries, Bootstrap, Lab, Plan};
use inlane_integration::scenario::{Scenario, config, pods};
use serde_json::Value;

/// The only pod with the label `tier: fast`.
const FAST: &str = "sim-2";
const REQUESTS: usize = 30;

/// Chooses among the fast pods, which is one.
fn fast_only() -> String {
    let filter = "label-selector-filter {matchLabels: {tier: fast}}";
    config::profile(&[(filter, 0), ("random-picker", 0)])
}

/// A lab that records what decisions are made of and has had its requests; how many of them each
/// pod answered is in the second value, by its place in the lab.
fn served(config: String) -> (Scenario, Vec<usize>) {
    let settings = "decisionBudget: 10s\nrecordInputs: true".to_owned();
    let bootstrap = Bootstrap { settings, ..Bootstrap::default() };
    let plan = Plan { config, bootstrap, ..Plan::default() };
    let mut lab = Scenario::of(Lab::prepare(plan).unwrap());
    for _ in 0..lab.plan.pods {
        lab.add_pod().unwrap();
    }
    let fast = lab.pod_index(FAST);
    lab.pods[fast].labels.insert("tier".into(), "fast".into());
    lab.begin().unwrap();
    let mut answered = vec![0; lab.pods.len()];
    for n in 0..REQUESTS {
        let prompt = format!("prefix {} ", n % 4).repeat(100) + &n.to_string();
        let answer = lab.client().complete(&format!("r{n}"), &prompt, 4).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answered[lab.pod_index(answer.pod())] += 1;
        lab.decision(&format!("r{n}")).unwrap();
    }
    (lab, answered)
}

fn scored() -> String {
    config::profile(&[
        ("queue-scorer", 2),
        ("kv-cache-utilization-scorer", 2),
        ("active-request-scorer", 1),
        ("prefix-cache-scorer", 3),
        ("max-score-picker", 0),
    ])
}

/// Runs the command line as a process.
fn inlane(args: &[&str]) -> Output {
    let control = Binaries::find(&Plan::default().envoy).unwrap().control;
    Command::new(control.with_file_name("inlane")).args(args).output().unwrap()
}

/// The same; what it printed when it succeeded.
fn printed(args: &[&str]) -> String {
    let output = inlane(args);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn record(lab: &Lab) -> PathBuf {
    let path = lab.dir.join("records.jsonl");
    fs::write(&path, lab.admin().get("/debug/records").unwrap().body).unwrap();
    path
}

#[test]
fn recorded_decisions_are_made_again_to_the_last_bit() {
    let (lab, answered) = served(scored());
    let record = record(&lab);
    let record = record.to_str().unwrap();
    let page = printed(&["replay", record]);
    let verdict = format!(
        "{REQUESTS} decisions: {REQUESTS} identical to the last bit, {REQUESTS} to the same endpoint, \
         0 to another\n"
    );
    assert_eq!(page, verdict);

    let other = lab.dir.join("other.yaml");
    fs::write(&other, fast_only()).unwrap();
    let page = printed(&["replay", record, "--config", other.to_str().unwrap()]);
    let to_fast = answered[lab.pod_index(FAST)];
    let verdict = format!("{to_fast} to the same endpoint, {} to another", REQUESTS - to_fast);
    assert!(page.contains(&verdict), "{page}");
    lab.end();
}

#[test]
fn a_gateway_and_its_record_explain_a_request_alike() {
    let (lab, _) = served(scored());
    let gateway = format!("http://127.0.0.1:{}", lab.admin_port);
    let decision = lab.decision("r7").unwrap();
    let page = printed(&["explain", "r7", "--gateway", &gateway]);
    let chosen = pods::chosen(&decision);
    assert!(page.starts_with("request r7, model random"), "{page}");
    for part in [chosen, "sent to", "queue-scorer", "prefix-cache-scorer", "max-score-picker"] {
        assert!(page.contains(part), "{part} is missing:\n{page}");
    }

    let record = record(&lab);
    let json = |args: &[&str]| {
        let page = printed(&[&["explain", "r7", "--json"], args].concat());
        serde_json::from_str::<Value>(&page).unwrap()
    };
    let from_gateway = json(&["--gateway", &gateway]);
    assert_eq!(from_gateway, json(&["--file", record.to_str().unwrap()]));
    assert_eq!(from_gateway[0]["endpoint"], decision["endpoint"]);

    let unknown = inlane(&["explain", "nobody", "--gateway", &gateway]);
    let error = String::from_utf8(unknown.stderr).unwrap();
    assert!(!unknown.status.success());
    assert!(error.contains("remembers no decision for request nobody"), "{error}");
    lab.end();
}

#[test]
fn a_shadow_is_counted_and_moves_no_request() {
    let shadow = "shadow:
  config:
    plugins:
    - {type: label-selector-filter, parameters: {matchLabels: {tier: fast}}}
    - {type: random-picker}
    schedulingProfiles:
    - {name: default, plugins: [{pluginRef: label-selector-filter}, {pluginRef: random-picker}]}
";
    let (lab, answered) = served(scored() + shadow);
    let fast = answered[lab.pod_index(FAST)];
    assert!(fast < REQUESTS, "{answered:?}");
    let counted = |outcome: &str| {
        let labels = format!("outcome=\"{outcome}\"");
        lab.metric("inlane_shadow_decisions_total", &labels) as usize
    };
    assert_eq!([counted("same"), counted("other"), counted("none")], [fast, REQUESTS - fast, 0]);
    let margins = lab.metric("inlane_shadow_live_margin_count", "");
    assert_eq!(margins as usize, REQUESTS - fast);
    assert_eq!(lab.metric("inlane_shadow_duration_seconds_count", "") as usize, REQUESTS);

    // What was recorded is what counted.
    let record = record(&lab);
    let page = printed(&["replay", record.to_str().unwrap()]);
    assert!(page.contains(&format!("{REQUESTS} identical")), "{page}");
    lab.end();
}

//! Older forms of a configuration serve requests, in a real Envoy.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::time::Duration;

use inlane_cli::lab::{Lab, Plan};
use inlane_integration::scenario::{Scenario, pods};
use serde_json::Value;

fn start(plan: Plan) -> Scenario {
    let mut lab = Scenario::of(Lab::prepare(plan).unwrap());
    for _ in 0..lab.plan.pods {
        lab.add_pod().unwrap();
    }
    let endpoints = format!("--endpoints-file={}", lab.endpoints_file().display());
    if !lab.plan.config.is_empty() {
        lab.plan.control_args.push(endpoints);
    }
    lab.begin().unwrap();
    lab
}

/// Scorers of a decision's profile, with their weights.
fn scorers(decision: &Value) -> Vec<(&str, f64)> {
    let scorers = decision["profiles"][0]["scorers"].as_array().unwrap().iter();
    scorers.map(|s| (s["name"].as_str().unwrap(), s["weight"].as_f64().unwrap())).collect()
}

fn served(lab: &Scenario, id: &str) -> Value {
    let answer = lab.client().complete(id, &"hello there ".repeat(100), 4).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    lab.decision(id).unwrap()
}

/// The first guides had a pool before the profiles.
const PROFILES: &str = "
apiVersion: inference.gateway.io/v1alpha1
kind: InferencePool
metadata: {name: my-model-pool}
spec: {targetModel: random, selector: {matchLabels: {model: random}}}
---
profiles:
- name: default
  plugins:
    filter:
      enabled: [{name: decode-filter}]
    score:
      enabled:
      - {name: predicted-latency-scorer, weight: 3}
      - {name: load-aware-scorer, weight: 2}
";

#[test]
fn profiles_after_a_pool_serve_with_what_their_scorers_are_called_today() {
    let lab = start(Plan { config: PROFILES.into(), ..Plan::default() });
    let decision = served(&lab, "profiles");
    assert_eq!(scorers(&decision), [("latency-scorer", 3.0), ("load-aware-scorer", 2.0)]);
    lab.end();
}

#[test]
fn environment_variables_serve_with_the_scorers_that_they_switch_on() {
    let variables = [
        ("ENABLE_PREFIX_AWARE_SCORER", "true"),
        ("PREFIX_AWARE_SCORER_WEIGHT", "5"),
        ("ENABLE_LOAD_AWARE_SCORER", "true"),
        ("ENABLE_SESSION_AWARE_SCORER", "yes"),
    ];
    let control_env = variables.map(|(name, value)| (name.into(), value.into())).into();
    let lab = start(Plan { control_env, ..Plan::default() });
    let first = served(&lab, "e0");
    assert_eq!(scorers(&first), [("load-aware-scorer", 1.0), ("prefix-cache-scorer", 5.0)]);
    // The index follows the decision at once, but not in the same moment.
    let mut n = 0;
    lab.wait_until("a warm prompt", Duration::from_secs(10), || {
        n += 1;
        let decision = served(&lab, &format!("e{n}"));
        pods::score(&decision, "prefix-cache-scorer", pods::chosen(&decision)) > Some(0.9)
    })
    .unwrap();
    lab.end();
}

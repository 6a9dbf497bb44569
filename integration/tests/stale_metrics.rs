//! A pod that serves but does not tell its metrics.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::time::Duration;

use inlane_cli::lab::{Bootstrap, Client, Lab, Plan};
use inlane_integration::scenario::front::{Front, Scrape};
use inlane_integration::scenario::{Scenario, config, pods};

const LIMIT: Duration = Duration::from_secs(10);
const SCORER: &str = "kv-cache-utilization-scorer";

/// Three pods with their cache 20 %, 60 % and 90 % full: scores 0.8, 0.4 and 0.1.
fn start(settings: &str) -> (Scenario, Vec<Front>) {
    let mut lab = Lab::prepare(Plan {
        config: config::profile(&[(SCORER, 1), ("max-score-picker", 0)]),
        bootstrap: Bootstrap {
            settings: format!("metricsStaleAfter: 600ms\n{settings}"),
            ..Bootstrap::default()
        },
        ..Plan::default()
    })
    .unwrap();
    let mut fronts = Vec::new();
    for usage in [0.2, 0.6, 0.9] {
        let pod = lab.add_pod().unwrap();
        let front = Front::of(lab.pods[pod].port, Scrape::Usage(usage));
        lab.pods[pod].port = front.port;
        fronts.push(front);
    }
    lab.write_endpoints().unwrap();
    lab.start_control().unwrap();
    lab.start_envoy().unwrap();
    lab.wait_ready(Duration::from_secs(20)).unwrap();
    (Scenario::of(lab), fronts)
}

/// The scores of a new decision, and who served it.
fn scores(lab: &Scenario, id: &str) -> ([f64; 3], String) {
    let answer = lab.client().complete(id, "hi", 1).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let decision = lab.decision(id).unwrap();
    let score = |n: usize| {
        let score = pods::score(&decision, SCORER, &format!("sim-{n}")).unwrap();
        (score * 1e6).round() / 1e6
    };
    (std::array::from_fn(score), answer.pod().to_owned())
}

fn age(lab: &Scenario, pod: usize) -> u64 {
    lab.pool().unwrap()["endpoints"][pod]["metrics_age_ms"].as_u64().unwrap()
}

/// Breaks the third pod's metrics, asserts what becomes of its score, and mends them.
fn breaks_and_mends(lab: &Scenario, fronts: &[Front], fault: Scrape, while_stale: f64) {
    let id = |step: &str| format!("{fault:?}-{step}");
    assert_eq!(scores(lab, &id("fresh")), ([0.8, 0.4, 0.1], "sim-0".into()));
    fronts[2].set(fault);
    lab.wait_until("stale metrics", LIMIT, || age(lab, 2) > 700).unwrap();
    assert_eq!(scores(lab, &id("stale")), ([0.8, 0.4, while_stale], "sim-0".into()));
    assert!(age(lab, 0) < 600, "the other pods' metrics are stale as well");
    // The pod itself serves.
    assert_eq!(Client::new(lab.pods[2].port).complete("direct", "hi", 1).unwrap().status, 200);

    fronts[2].set(Scrape::Usage(0.0));
    lab.wait_until("fresh metrics", LIMIT, || age(lab, 2) < 600).unwrap();
    assert_eq!(scores(lab, &id("mended")), ([0.8, 0.4, 1.0], "sim-2".into()));
    fronts[2].set(Scrape::Usage(0.9));
    lab.wait_until("the old numbers", LIMIT, || {
        lab.pool().unwrap()["endpoints"][2]["kv_usage"].as_f64() > Some(0.5)
    })
    .unwrap();
}

#[test]
fn a_pod_with_stale_metrics_gets_the_mean_of_the_others() {
    let (lab, fronts) = start("");
    for fault in [Scrape::Hangs, Scrape::Fails] {
        breaks_and_mends(&lab, &fronts, fault, 0.6);
    }
    lab.end();
}

#[test]
fn with_last_known_the_last_numbers_count_however_old() {
    let (lab, fronts) = start("staleMetrics: lastKnown");
    for fault in [Scrape::Hangs, Scrape::Fails] {
        breaks_and_mends(&lab, &fronts, fault, 0.1);
    }
    lab.end();
}

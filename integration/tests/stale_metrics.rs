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

/// Asks until the scores are these and the best pod serves: on a busy machine a scrape of the others may
/// be late too.
fn expect_scores(lab: &Scenario, step: &str, scores: [f64; 3], pod: &str) {
    let (mut tries, mut last) = (0, None);
    let asked = lab.wait_until("the scores", LIMIT, || {
        tries += 1;
        last = Some(self::scores(lab, &format!("{step}-{tries}")));
        last.as_ref().is_some_and(|last| last.0 == scores && last.1 == pod)
    });
    assert!(asked.is_ok(), "{step}: {last:?}, expected {scores:?} and {pod}");
}

fn age(lab: &Scenario, pod: usize) -> u64 {
    lab.pool().unwrap()["endpoints"][pod]["metrics_age_ms"].as_u64().unwrap()
}

/// Breaks the third pod's metrics, asserts what becomes of its score, and mends them.
fn breaks_and_mends(lab: &Scenario, fronts: &[Front], fault: Scrape, while_stale: f64) {
    let expect = |step: &str, third: f64, pod: &str| {
        expect_scores(lab, &format!("{fault:?}-{step}"), [0.8, 0.4, third], pod);
    };
    expect("fresh", 0.1, "sim-0");
    fronts[2].set(fault);
    lab.wait_until("stale metrics", LIMIT, || age(lab, 2) > 700).unwrap();
    expect("stale", while_stale, "sim-0");
    // The pod itself serves.
    assert_eq!(Client::new(lab.pods[2].port).complete("direct", "hi", 1).unwrap().status, 200);

    fronts[2].set(Scrape::Usage(0.0));
    lab.wait_until("fresh metrics", LIMIT, || age(lab, 2) < 600).unwrap();
    expect("mended", 1.0, "sim-2");
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

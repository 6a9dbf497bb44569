//! Either side may die, pods come and go, and no request fails for it.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::time::Duration;

use inlane_cli::lab::{Client, Lab, Plan};
use inlane_integration::scenario::{Scenario, config, load};
use load::Kind;

fn plan() -> Plan {
    Plan {
        config: config::by_active_requests(),
        pod_args: ["--inter-token-latency", "3ms", "--max-num-seqs", "64"].map(String::from).into(),
        ..Plan::default()
    }
}

#[test]
fn a_killed_control_plane_is_not_noticed() {
    let mut lab = Scenario::start(plan());
    let before = lab.pool().unwrap();
    let (outcome, ()) = load::during(&mut lab, 8, Duration::from_secs(4), Kind::Mixed, |lab| {
        for _ in 0..3 {
            lab.control.take().unwrap().kill();
            std::thread::sleep(Duration::from_millis(300));
            lab.start_control().unwrap();
        }
    });
    outcome.assert_all_served();
    let after = lab.pool().unwrap();
    for n in 0..3 {
        assert_eq!(before["endpoints"][n]["slot"], after["endpoints"][n]["slot"]);
        assert_eq!(
            before["endpoints"][n]["slot_generation"],
            after["endpoints"][n]["slot_generation"]
        );
    }
    assert!(after["config_generation"].as_u64() >= before["config_generation"].as_u64());
    lab.end();
}

#[test]
fn a_killed_envoy_leaves_nothing_behind() {
    let mut lab = Scenario::start(plan());
    let first = lab.pool().unwrap()["ledger"]["file"].as_str().unwrap().to_owned();
    let (outcome, ()) = load::during(&mut lab, 8, Duration::from_secs(1), Kind::Mixed, |lab| {
        lab.envoy.take().unwrap().kill();
    });
    assert!(outcome.completed() > 0);
    let ledger = lab.segment_dir.join(&first);
    lab.wait_until("the dead Envoy's ledger to be discarded", Duration::from_secs(10), || {
        !ledger.exists()
    })
    .unwrap();
    lab.start_envoy().unwrap();
    lab.wait_ready(Duration::from_secs(20)).unwrap();
    assert_ne!(lab.pool().unwrap()["ledger"]["file"], first.as_str());
    assert_eq!(lab.client().complete("again", "hi", 1).unwrap().status, 200);
    lab.end();
}

#[test]
fn a_killed_pod_costs_only_streams_past_their_first_byte() {
    let mut lab = Scenario::start(plan());
    let (outcome, victim) =
        load::during(&mut lab, 12, Duration::from_secs(4), Kind::Mixed, |lab| {
            lab.pods[1].process.take().unwrap().kill();
            lab.pods[1].name.clone()
        });
    outcome.assert_none_failed();
    assert!(outcome.broken.keys().all(|pod| *pod == victim), "{:?}", outcome.broken);
    assert!(lab.metric("inlane_retries_total", "") > 0.0, "no attempt met the dead pod");
    lab.end();
}

/// Pods that have left the pool and may still have requests, as the control plane knows from the ledgers.
fn retired_slots(lab: &Lab) -> Option<f64> {
    let page = Client::new(lab.control_port).get("/metrics").ok()?.text();
    let value = |line: &str| line.strip_prefix("inlane_control_retired_slots ")?.parse().ok();
    page.lines().find_map(value)
}

#[test]
fn pods_come_and_go_under_load() {
    let mut lab = Scenario::start(plan());
    let (outcome, ()) = load::during(&mut lab, 8, Duration::from_secs(6), Kind::Mixed, |lab| {
        for _ in 0..3 {
            lab.add_pod().unwrap();
            lab.write_endpoints().unwrap();
            lab.wait_ready(Duration::from_secs(10)).unwrap();
            // The pod leaves the pool, finishes what it has, and ends.
            let gone = lab.pods.remove(0);
            lab.write_endpoints().unwrap();
            lab.wait_ready(Duration::from_secs(10)).unwrap();
            lab.wait_until("the pod's last requests", Duration::from_secs(30), || {
                retired_slots(lab) == Some(0.0)
            })
            .unwrap();
            drop(gone);
        }
    });
    outcome.assert_all_served();
    assert_eq!(outcome.served.len(), 6, "{:?}", outcome.served);
    lab.end();
}

#[test]
fn a_hot_configuration_is_switched_under_load() {
    let mut lab = Scenario::start(plan());
    let first = lab.pool().unwrap()["config_generation"].as_u64().unwrap();
    let (outcome, ()) = load::during(&mut lab, 8, Duration::from_secs(3), Kind::Mixed, |lab| {
        let generation = |lab: &Lab| lab.pool().unwrap()["config_generation"].as_u64().unwrap();
        lab.write_config(&config::profile(&[("queue-scorer", 3), ("random-picker", 0)])).unwrap();
        lab.wait_until("the new configuration", Duration::from_secs(5), || generation(lab) > first)
            .unwrap();
        let second = generation(lab);
        // A bad one is refused, and the last good one stays.
        let bad = config::profile(&[("no-such-plugin", 0), ("random-picker", 0)]);
        lab.write_config(&bad).unwrap();
        let control = Client::new(lab.control_port);
        lab.wait_until("the refusal", Duration::from_secs(5), || {
            control.get("/readyz").is_ok_and(|page| page.text().contains("no-such-plugin"))
        })
        .unwrap_or_else(|e| panic!("{}\n{e}", control.get("/readyz").unwrap().text()));
        assert_eq!(generation(lab), second);
    });
    outcome.assert_all_served();
    let answer = lab.client().complete("after", "hi", 1).unwrap();
    assert_eq!(answer.status, 200);
    let decision = lab.decision("after").unwrap();
    assert_eq!(decision["profiles"][0]["picker"], "random-picker");
    lab.end();
}

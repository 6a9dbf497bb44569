//! Clusters whose hosts are not Inlane's: the same decisions, handed to Envoy by override host,
//! header or metadata.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::collections::BTreeSet;

use inlane_cli::lab::bootstrap::Edit;
use inlane_cli::lab::{Answer, Bootstrap, Plan};
use inlane_integration::scenario::{Scenario, config, ordinary, pods};
use serde_json::Value;

const DESTINATION: &str = "x-gateway-destination-endpoint";

fn start(destination: &str, edit: Edit) -> Scenario {
    let settings = format!("destination: {destination}");
    Scenario::start(Plan {
        pods: 4,
        config: config::by_active_requests(),
        bootstrap: Bootstrap { settings, edit: Some(edit) },
        ..Plan::default()
    })
}

fn ask(lab: &Scenario, id: &str) -> (Answer, Value) {
    let answer = lab.client().complete(id, "hi", 1).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    (answer, lab.decision(id).unwrap())
}

/// Addresses of pods by name, as the destination header lists them.
fn addresses(lab: &Scenario, names: &[String]) -> String {
    let port = |name: &String| lab.pods[lab.pod_index(name)].port;
    names.iter().map(|name| format!("127.0.0.1:{}", port(name))).collect::<Vec<_>>().join(",")
}

/// Requests arrive at the decided pod, with the header that `listed` of the ranking names.
fn assert_decided_pod_serves(lab: &Scenario, listed: usize) {
    let mut served = BTreeSet::new();
    for n in 0..30 {
        let (answer, decision) = ask(lab, &format!("d{n}"));
        assert_eq!(answer.pod(), pods::chosen(&decision));
        let ranking = pods::ranking(&decision);
        let arrived = pods::arrived(&lab.pods[lab.pod_index(answer.pod())]);
        let header = arrived.last().unwrap()[DESTINATION].as_str();
        assert_eq!(header, Some(addresses(lab, &ranking[..listed]).as_str()));
        served.insert(answer.pod().to_owned());
    }
    assert!(served.len() > 1, "every request went to {served:?}");
}

/// With two pods broken, requests are served by the first one of the ranking that is not.
fn assert_retries_follow_the_ranking(lab: &mut Scenario) {
    lab.pods[0].process.take().unwrap().kill();
    pods::configure(&lab.pods[2], pods::RESETS);
    let mut retried = 0;
    for n in 0..30 {
        let (answer, decision) = ask(lab, &format!("r{n}"));
        let ranking = pods::ranking(&decision);
        let place = ranking.iter().position(|pod| pod == "sim-1" || pod == "sim-3").unwrap();
        assert_eq!(answer.pod(), ranking[place], "{ranking:?}");
        retried += usize::from(place > 0);
    }
    assert!(retried > 0, "no request met a broken pod first");
}

#[test]
fn an_override_host_is_the_decided_pod() {
    let mut lab = start("overrideHost", ordinary::round_robin);
    assert_decided_pod_serves(&lab, 1);
    // A retry is the cluster's own choice.
    lab.pods[1].process.take().unwrap().kill();
    let met = (0..60).filter(|n| pods::chosen(&ask(&lab, &format!("o{n}")).1) == "sim-1").count();
    assert!(met > 0, "no request met the broken pod");
    lab.end();
}

#[test]
fn an_override_host_that_the_cluster_lacks_is_refused() {
    fn without_the_last(document: &mut serde_yaml::Value, lab: &inlane_cli::lab::Lab) {
        ordinary::round_robin(document, lab);
        let hosts = &mut document["static_resources"]["clusters"][0]["load_assignment"];
        let hosts = hosts["endpoints"][0]["lb_endpoints"].as_sequence_mut().unwrap();
        hosts.truncate(3);
    }
    let lab = start("overrideHost", without_the_last);
    let mut refused = 0;
    for n in 0..60 {
        let id = n.to_string();
        let answer = lab.client().complete(&id, "hi", 1).unwrap();
        let decision = lab.decision(&id).unwrap();
        let expected = if pods::chosen(&decision) == "sim-3" { 503 } else { 200 };
        assert_eq!(answer.status, expected, "{}: {}", pods::chosen(&decision), answer.text());
        refused += usize::from(expected == 503);
    }
    assert!(refused > 0, "the fourth pod was never chosen");
    lab.end();
}

#[test]
fn a_header_names_the_decided_pod_and_those_after_it() {
    let mut lab = start("header", ordinary::by_header);
    assert_decided_pod_serves(&lab, 4);
    assert_retries_follow_the_ranking(&mut lab);
    lab.end();
}

#[test]
fn metadata_names_the_decided_pod_and_those_after_it() {
    let mut lab = start("header", ordinary::by_metadata);
    assert_decided_pod_serves(&lab, 4);
    assert_retries_follow_the_ranking(&mut lab);
    lab.end();
}

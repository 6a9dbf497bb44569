//! What clients get when no decision can be made. Each row of `docs/operations.md` is a test here.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::time::Duration;

use inlane_cli::lab::{Answer, Bootstrap, Lab, Plan};
use inlane_integration::scenario::{Scenario, config};

const REASON: &str = "x-llm-d-request-dropped-reason";
const BODY: &[u8] = br#"{"model":"random","prompt":"hi","max_tokens":1}"#;

fn with_settings(settings: &str) -> Plan {
    Plan {
        config: config::profile(&[("decode-filter", 0), ("max-score-picker", 0)]),
        bootstrap: Bootstrap { settings: settings.into(), ..Bootstrap::default() },
        ..Plan::default()
    }
}

fn ask(lab: &Lab) -> Answer {
    lab.client().post("/v1/completions", &[], BODY).unwrap()
}

fn assert_refused(answer: &Answer, status: u16, reason: &str) {
    let got = (answer.status, answer.header(REASON));
    assert_eq!(got, (status, reason), "{}", answer.text());
    assert!(answer.text().starts_with("inference error: "), "{}", answer.text());
}

fn without_control_plane(settings: &str) -> Scenario {
    let mut lab = Scenario::of(Lab::prepare(with_settings(settings)).unwrap());
    lab.start_envoy().unwrap();
    lab
}

/// Ends a scenario in which the module never had a pool.
fn end_without_pool(lab: Scenario) {
    assert_eq!(lab.pool().unwrap()["held_body_bytes"], 0);
    drop(lab.into_lab());
}

#[test]
fn no_snapshot_fails_closed() {
    let lab = without_control_plane("");
    assert_refused(&ask(&lab), 503, "rejected-no-snapshot");
    assert_eq!(lab.admin().get("/healthz").unwrap().status, 503);
    end_without_pool(lab);
}

#[test]
fn no_snapshot_fails_open_to_nobody() {
    let lab = without_control_plane("failureMode: FailOpen");
    // There is no host yet that the request could go to: Envoy's own 503.
    let answer = ask(&lab);
    assert_eq!((answer.status, answer.header(REASON)), (503, ""), "{}", answer.text());
    end_without_pool(lab);
}

#[test]
fn a_snapshot_that_comes_late_is_served() {
    let mut lab = without_control_plane("");
    assert_refused(&ask(&lab), 503, "rejected-no-snapshot");
    lab.add_pod().unwrap();
    lab.write_endpoints().unwrap();
    lab.start_control().unwrap();
    lab.wait_ready(Duration::from_secs(20)).unwrap();
    assert_eq!(ask(&lab).status, 200);
    lab.end();
}

#[test]
fn a_stale_snapshot_fails_closed_or_open() {
    for (mode, status, reason) in
        [("FailClose", 503, "rejected-stale-snapshot"), ("FailOpen", 200, "")]
    {
        let settings = format!("snapshotStaleAfter: 1s\nfailureMode: {mode}");
        let mut lab = Scenario::start(with_settings(&settings));
        lab.wait_until("a fresh snapshot", Duration::from_secs(10), || ask(&lab).status == 200)
            .unwrap();
        lab.control.take().unwrap().kill();
        std::thread::sleep(Duration::from_millis(1_500));
        let answer = ask(&lab);
        assert_eq!((answer.status, answer.header(REASON)), (status, reason), "{}", answer.text());
        lab.start_control().unwrap();
        lab.wait_until("the snapshot to be fresh", Duration::from_secs(5), || {
            ask(&lab).status == 200
        })
        .unwrap();
        lab.end();
    }
}

#[test]
fn an_empty_pool_has_no_endpoints() {
    for settings in ["", "failureMode: FailOpen"] {
        let lab = Scenario::start(Plan { pods: 0, ..with_settings(settings) });
        lab.wait_until("the topology", Duration::from_secs(5), || {
            lab.pool().is_ok_and(|pool| pool["serving"] == "yes")
        })
        .unwrap();
        let answer = ask(&lab);
        assert_eq!(answer.status, 503);
        if settings.is_empty() {
            assert_refused(&answer, 503, "rejected-no-endpoints");
        }
        lab.end();
    }
}

#[test]
fn all_filtered_is_saturation() {
    let config = config::profile(&[("prefill-filter", 0), ("max-score-picker", 0)]);
    let lab = Scenario::start(Plan { config: config.clone(), ..with_settings("") });
    assert_refused(&ask(&lab), 429, "rejected-saturated");
    lab.end();
    let lab = Scenario::start(Plan { config, ..with_settings("failureMode: FailOpen") });
    assert_eq!(ask(&lab).status, 200);
    assert!(lab.metric("inlane_undecided_total", "outcome=\"any_endpoint\"") >= 1.0);
    lab.end();
}

#[test]
fn a_panic_costs_its_own_request_only() {
    let settings = "faultInjectionHeader: x-fault";
    let lab = Scenario::start(with_settings(settings));
    let panic = [("x-fault", "panic")];
    let answer = lab.client().post("/v1/completions", &panic, BODY).unwrap();
    assert_refused(&answer, 503, "rejected-decision-failed");
    assert_eq!(ask(&lab).status, 200);
    assert_eq!(lab.metric("inlane_decision_panics_total", ""), 1.0);
    lab.end();
    let lab = Scenario::start(with_settings(&format!("{settings}\nfailureMode: FailOpen")));
    assert_eq!(lab.client().post("/v1/completions", &panic, BODY).unwrap().status, 200);
    lab.end();
}

#[test]
fn bad_bodies_are_the_clients_fault() {
    let lab = Scenario::start(with_settings(""));
    for (path, body, text) in [
        ("/v1/completions", &b"{\"model\":\"m\",\"prompt\":"[..], "error unmarshaling"),
        ("/v1/completions", b"{\"model\":\"m\"}", "must have prompt field"),
        ("/v1/completions", b"{\"prompt\":\"hi\"}", "model not found in request body"),
        ("/v1/chat/completions", b"{\"model\":\"m\",\"messages\":[]}", "must have valid messages"),
        ("/v1/completions", b"\xff\xfe", "error unmarshaling"),
    ] {
        let answer = lab.client().post(path, &[], body).unwrap();
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().starts_with("inference error: BadRequest - "), "{}", answer.text());
        assert!(answer.text().contains(text), "{} lacks {text}", answer.text());
    }
    lab.end();
}

#[test]
fn other_paths_pass_or_are_refused() {
    let lab = Scenario::start(with_settings(""));
    let models = lab.client().get("/v1/models").unwrap();
    assert_eq!(models.status, 200, "{}", models.text());
    lab.end();
    let lab = Scenario::start(with_settings("otherPaths: refuse"));
    assert_eq!(lab.client().get("/v1/models").unwrap().status, 404);
    assert_eq!(ask(&lab).status, 200);
    lab.end();
}

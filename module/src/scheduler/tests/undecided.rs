//! Requests without a decision: what the client is told, and what is counted.

use std::sync::atomic::Ordering;
use std::time::Duration;

use envoy_proxy_dynamic_modules_rust_sdk::abi;
use inlane_core::snapshot::FailureMode;

use super::super::control_headers::DESTINATION;
use super::{BODY, Stream};
use crate::settings::Settings;
use crate::testing::{LEAST_BOOKED, World, registry, settings};

use abi::envoy_dynamic_module_type_on_http_filter_request_body_status as BodyStatus;

const REASON: &str = "x-llm-d-request-dropped-reason";

fn open() -> Settings {
    Settings { failure_mode: Some(FailureMode::FailOpen), ..settings() }
}

/// A world in which `reason` keeps requests from being decided on.
fn broken(reason: &str, settings: Settings) -> World {
    let world = |settings, endpoints| World::with(settings, registry, LEAST_BOOKED, endpoints);
    match reason {
        "rejected-no-snapshot" => World::empty(settings, registry),
        "rejected-stale-snapshot" => {
            let world = world(Settings { snapshot_stale_after: Duration::ZERO, ..settings }, 1);
            world.runtime.heartbeat_ns.store(1, Ordering::Relaxed);
            world
        }
        "rejected-no-endpoints" => world(settings, 0),
        "rejected-decision-failed" => {
            world(Settings { fault_injection_header: "x-fault".into(), ..settings }, 1)
        }
        other => panic!("{other}"),
    }
}

fn ask(world: &World) -> (Stream, BodyStatus) {
    let mut stream = Stream::new(world, "/v1/completions").with_header("x-fault", "panic");
    stream.headers(false);
    let status = stream.body(BODY.as_bytes(), true);
    (stream, status)
}

const REASONS: [&str; 4] = [
    "rejected-no-snapshot",
    "rejected-stale-snapshot",
    "rejected-no-endpoints",
    "rejected-decision-failed",
];

#[test]
fn fail_close_answers_with_the_reason() {
    for reason in REASONS {
        let world = broken(reason, settings());
        let (stream, status) = ask(&world);
        assert_eq!(status, BodyStatus::StopIterationNoBuffer, "{reason}");
        let reply = stream.reply();
        assert_eq!((reply.status, reply.header(REASON)), (503, Some(reason)));
        assert!(reply.body.starts_with("inference error: ServiceUnavailable - "), "{}", reply.body);
        let counted =
            format!("inlane_undecided_total{{outcome=\"answered\",reason=\"{reason}\"}} 1");
        assert!(world.metrics().contains(&counted), "{reason}");
    }
}

#[test]
fn fail_open_lets_the_request_go_without_a_destination() {
    for reason in REASONS {
        let world = broken(reason, open());
        let (stream, status) = ask(&world);
        assert_eq!(status, BodyStatus::Continue, "{reason}");
        assert!(stream.seen().replies.is_empty());
        assert_eq!(stream.request_header(DESTINATION), None);
        assert!(stream.seen().filter_state.is_empty());
        let counted =
            format!("inlane_undecided_total{{outcome=\"any_endpoint\",reason=\"{reason}\"}} 1");
        assert!(world.metrics().contains(&counted), "{reason}");
    }
}

#[test]
fn the_pool_says_how_to_fail_when_the_settings_do_not() {
    let mut world = broken("rejected-no-endpoints", settings());
    world.set_failure_mode(FailureMode::FailOpen);
    assert_eq!(ask(&world).1, BodyStatus::Continue);

    let close = Settings { failure_mode: Some(FailureMode::FailClose), ..settings() };
    let mut world = broken("rejected-no-endpoints", close);
    world.set_failure_mode(FailureMode::FailOpen);
    assert_eq!(ask(&world).1, BodyStatus::StopIterationNoBuffer);
}

#[test]
fn a_panic_costs_its_own_request_only() {
    let world = broken("rejected-decision-failed", settings());
    let (stream, _) = ask(&world);
    assert_eq!(stream.reply().status, 503);
    let next = Stream::sent(&world, BODY);
    assert!(next.request_header(DESTINATION).is_some());
    assert_eq!(world.booked(), [1]);
    assert!(world.metrics().contains("inlane_decision_panics_total 1"));
}

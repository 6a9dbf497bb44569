//! Spans of a traced stream.

use super::{BODY, Stream};
use crate::testing::World;

/// The stream of a completion, traced, up to its destination.
fn traced(world: &World, body: &str) -> Stream {
    let mut stream = Stream::new(world, "/v1/completions");
    stream.seen().traced = true;
    stream.headers(false);
    stream.body(body.as_bytes(), true);
    stream
}

/// What happened to spans, without their tags.
fn lifetimes(stream: &Stream) -> Vec<String> {
    let seen = stream.seen();
    seen.spans.iter().filter(|line| !line.contains('=')).cloned().collect()
}

#[test]
fn a_decision_shows_its_stages() {
    let world = World::new(2);
    let stream = traced(&world, BODY);
    assert_eq!(
        lifetimes(&stream),
        [
            "+ gateway.request_orchestration",
            "+ index_lookup",
            "- index_lookup",
            "+ run_scheduler_profile",
            "- run_scheduler_profile",
            "- gateway.request_orchestration",
        ]
    );
    let seen = stream.seen();
    for tag in [
        "request: gen_ai.request.model=m",
        "request: gen_ai.request.id=r-1",
        "gateway.request_orchestration: target_model=m",
        "gateway.request_orchestration: request_prio=0",
        "gateway.request_orchestration: inlane.step=full",
        "run_scheduler_profile: llm_d.epp.scheduling.profile.name=default",
        "run_scheduler_profile: llm_d.epp.filter.filtered_endpoints=2",
        "run_scheduler_profile: llm_d.epp.scorer.count=1",
    ] {
        assert!(seen.spans.iter().any(|line| line == tag), "{tag}: {:#?}", seen.spans);
    }
    let endpoint = "gateway.request_orchestration: inlane.endpoint=10.0.0.";
    assert!(seen.spans.iter().any(|line| line.starts_with(endpoint)), "{:#?}", seen.spans);
}

#[test]
fn a_request_without_endpoints_says_so_in_its_span() {
    let world = World::new(0);
    let stream = traced(&world, BODY);
    assert_eq!(stream.reply().status, 503);
    let error = "gateway.request_orchestration: inlane.error=inference error: ServiceUnavailable";
    assert!(stream.seen().spans.iter().any(|line| line.starts_with(error)));
    let ended = lifetimes(&stream).iter().filter(|line| line.starts_with('-')).count();
    assert_eq!(ended, 3);
}

#[test]
fn an_untraced_stream_has_no_spans() {
    let world = World::new(1);
    let stream = Stream::sent(&world, BODY);
    assert!(stream.seen().spans.is_empty());
}

//! Requests that wait for a window to close.

use inlane_plugins::registry;

use super::super::testing::{BodyStatus, Stream, TrailersStatus};
use super::BODY;
use crate::testing::{World, settings};

/// Places equal prompts together, as they come within a minute of test time.
const BURST: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: burst-prefix-cache-producer, parameters: {windowDurationMs: 10000, maxBatchSize: 3}}
- type: prefix-cache-scorer
  parameters: {prefixMatchInfoProducerName: burst-prefix-cache-producer}
- type: max-score-picker
schedulingProfiles:
- {name: default, plugins: [{pluginRef: prefix-cache-scorer}, {pluginRef: max-score-picker}]}
";

fn world() -> World {
    World::with(settings(), registry, BURST, 4)
}

/// A stream that waits.
fn held(world: &World, body: &str) -> Stream {
    let mut stream = Stream::new(world, "/v1/completions");
    stream.headers(false);
    assert_eq!(stream.body(body.as_bytes(), true), BodyStatus::StopIterationAndBuffer);
    assert!(stream.request_header("x-gateway-destination-endpoint").is_none());
    stream
}

#[test]
fn equal_prompts_of_a_window_go_together() {
    let world = world();
    let mut streams = [held(&world, BODY), held(&world, BODY)];
    let alarms = world.runtime.timer.drain();
    assert_eq!(alarms.len(), 2);
    assert_eq!(alarms[0].at_ms, alarms[1].at_ms);
    assert_eq!(world.booked(), [0; 4], "nothing is booked for a request that waits");
    let destinations = streams.each_mut().map(|stream| {
        stream.scheduled(alarms[0].event);
        assert_eq!(stream.seen().continued, 1);
        stream.request_header("x-gateway-destination-endpoint").unwrap()
    });
    assert_eq!(destinations[0], destinations[1]);
    assert_eq!(world.booked().iter().max(), Some(&2));
    streams.iter_mut().for_each(Stream::destroy);
    assert_eq!((world.booked(), world.stale_releases()), (vec![0; 4], 0));
}

#[test]
fn a_stream_that_is_given_up_while_it_waits_leaves_nothing() {
    let world = world();
    held(&world, BODY).destroy();
    assert_eq!(world.booked(), [0; 4]);
    assert_eq!(world.runtime.held_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
    let mut other = held(&world, BODY);
    other.scheduled(world.runtime.timer.drain()[1].event);
    assert_eq!(other.seen().continued, 1);
}

#[test]
fn a_request_beyond_the_window_does_not_wait() {
    let world = world();
    let _waiting = [held(&world, BODY), held(&world, BODY), held(&world, BODY)];
    let mut stream = Stream::new(&world, "/v1/completions");
    stream.headers(false);
    assert_eq!(stream.body(BODY.as_bytes(), true), BodyStatus::Continue);
    assert!(stream.request_header("x-gateway-destination-endpoint").is_some());
}

#[test]
fn a_request_with_trailers_waits_at_these() {
    let world = world();
    let mut stream = Stream::new(&world, "/v1/completions");
    stream.headers(false);
    stream.body(BODY.as_bytes(), false);
    assert_eq!(stream.trailers(), TrailersStatus::StopIteration);
    let [alarm] = &world.runtime.timer.drain()[..] else { panic!("one alarm") };
    stream.scheduled(alarm.event);
    assert_eq!(stream.seen().continued, 1);
    stream.scheduled(alarm.event);
    assert_eq!(stream.seen().continued, 1, "it is taken up once");
}

#[test]
fn a_new_configuration_voids_the_places() {
    let mut world = world();
    let mut stream = held(&world, BODY);
    world.publish_config(&BURST.replace("10000", "9999"));
    world.tick();
    stream.scheduled(world.runtime.timer.drain()[0].event);
    assert_eq!(stream.seen().continued, 1);
    assert_eq!(world.booked().iter().sum::<u32>(), 1);
}

#[test]
fn a_request_that_nobody_can_serve_is_answered_after_the_wait() {
    let mut world = world();
    let mut stream = held(&world, BODY);
    world.set_endpoints(0..0);
    world.tick();
    stream.scheduled(world.runtime.timer.drain()[0].event);
    assert_eq!(stream.reply().status, 503);
    assert_eq!(stream.seen().continued, 0);
}

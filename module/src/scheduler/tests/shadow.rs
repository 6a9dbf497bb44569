//! The shadow configuration, and records of decisions.

use inlane_core::record::{Line, Replayer};

use super::super::control_headers::DESTINATION;
use super::{BODY, Stream};
use crate::admin::records;
use crate::settings::Settings;
use crate::testing::{LEAST_BOOKED, World, registry, settings};

/// A shadow that wants every prompt where it was before.
const STICKY: &str = "
shadow:
  config:
    plugins: [{type: prefix-cache-scorer}]
";

fn shadowed(shadow: &str) -> World {
    World::with(settings(), registry, &format!("{LEAST_BOOKED}{shadow}"), 3)
}

#[test]
fn a_shadow_moves_no_request_and_is_counted() {
    let world = shadowed(STICKY);
    let streams: Vec<Stream> = (0..9)
        .map(|_| {
            let stream = Stream::sent(&world, BODY);
            world.runtime.prefixes().iter().for_each(|(_, index)| {
                index.drain();
            });
            stream
        })
        .collect();
    assert_eq!(world.booked(), [3, 3, 3], "the live configuration spreads");
    let page = world.metrics();
    let count = |outcome: &str| -> u32 {
        let name = format!("inlane_shadow_decisions_total{{outcome=\"{outcome}\"}} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    assert_eq!(count("same") + count("other"), 9, "{page}");
    assert!(page.contains("inlane_shadow_margin_count"), "{page}");
    drop(streams);
}

#[test]
fn a_shadow_learns_where_requests_really_went() {
    let world = shadowed(STICKY);
    // One pod holds the prompt after the first request; the shadow would send the second there,
    // whatever the bookings say.
    let first = Stream::sent(&world, BODY);
    let (_, index) = world.runtime.prefixes().pop().unwrap();
    assert!(index.drain() > 0, "the pick was recorded");
    drop(first);
}

#[test]
fn no_request_is_for_a_shadow_of_fraction_zero() {
    let world = shadowed("shadow: {fraction: 0, config: {plugins: [{type: queue-scorer}]}}\n");
    drop(Stream::sent(&world, BODY));
    let page = world.metrics();
    assert!(page.contains("inlane_shadow_decisions_total{outcome=\"same\"} 0"), "{page}");
    assert!(page.contains("inlane_shadow_duration_seconds_count 0"), "{page}");
}

#[test]
fn recorded_decisions_replay() {
    let settings = Settings { record_inputs: true, ..settings() };
    let world = World::with(settings, registry, LEAST_BOOKED, 3);
    let streams: Vec<Stream> = (0..6).map(|_| Stream::sent(&world, BODY)).collect();
    let page = String::from_utf8(records::page(&world.runtime)).unwrap();
    let registry = registry();
    let mut replayer = Replayer::new(&registry, None);
    let mut replayed = 0;
    for line in page.lines() {
        match serde_json::from_str(line).unwrap() {
            Line::Setting(setting) => replayer.setting(&setting).unwrap(),
            Line::Decision(decision) => {
                assert_eq!(replayer.decide(&decision).unwrap().outcome, decision.outcome);
                let destination = streams[replayed].request_header(DESTINATION);
                assert_eq!(decision.outcome.destination, destination);
                replayed += 1;
            }
        }
    }
    assert_eq!(replayed, 6);
}

#[test]
fn nothing_is_recorded_unless_asked_for() {
    let world = World::new(2);
    drop(Stream::sent(&world, BODY));
    assert!(records::page(&world.runtime).is_empty());
}

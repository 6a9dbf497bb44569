//! Pick and book: conflicts, budget, and plugins that misbehave.

use std::time::Duration;

use inlane_core::effect::{Effect, TokenRelease};
use inlane_core::plugin::Refusal;

use super::super::claim;
use super::super::control_headers::DESTINATION;
use super::{BODY, Stream};
use crate::runtime::Serving;
use crate::settings::Settings;
use crate::testing::{LEAST_BOOKED, PROBED, World, registry, script, settings};

fn probed(settings: Settings, endpoints: u32) -> World {
    World::with(settings, registry, PROBED, endpoints)
}

/// Books requests on an endpoint, as another worker would. They outlive the test.
fn book(serving: &Serving, endpoint: u32, requests: u32) {
    for _ in 0..requests {
        let _held = claim(serving, endpoint, 1, None).unwrap();
    }
}

fn destination(stream: &Stream) -> String {
    stream.request_header(DESTINATION).unwrap()
}

/// Runs `meddle` with the number of the decision, while that scores.
fn while_scoring(world: &World, meddle: impl Fn(&Serving, u32) + 'static) {
    let (served, mut round) = (world.served(), 0);
    script(|script| {
        script.score = Some(Box::new(move || {
            round += 1;
            meddle(served.serving().unwrap(), round);
        }));
    });
}

#[test]
fn a_burst_sees_its_own_picks() {
    let world = World::new(3);
    let streams: Vec<Stream> = (0..9).map(|_| Stream::sent(&world, BODY)).collect();
    assert_eq!(world.booked(), [3, 3, 3]);
    drop(streams);
    assert_eq!(world.booked(), [0, 0, 0]);
}

#[test]
fn a_booking_in_between_is_noticed_and_the_decision_made_again() {
    let world = probed(settings(), 2);
    book(world.served().serving().unwrap(), 1, 1);
    while_scoring(&world, |serving, round| {
        if round == 1 {
            book(serving, 0, 2);
        }
    });
    let stream = Stream::sent(&world, BODY);
    assert_eq!(destination(&stream), "10.0.0.2:8000");
    assert_eq!(world.booked(), [2, 2]);
    assert!(world.metrics().contains("inlane_booking_conflicts_total 1"));
    let mut conflicts = Vec::new();
    world.runtime.log.read(|entry| conflicts.push(entry.conflicts));
    assert_eq!(conflicts, [1]);
}

#[test]
fn endless_conflicts_end_with_a_booking_all_the_same() {
    let world = probed(settings(), 1);
    while_scoring(&world, |serving, _| {
        book(serving, 0, 1);
    });
    let mut stream = Stream::sent(&world, BODY);
    assert_eq!(destination(&stream), "10.0.0.1:8000");
    // Eight decisions that conflicted and one that did not look; each saw one more booking.
    assert!(world.metrics().contains("inlane_booking_conflicts_total 8"));
    assert_eq!(world.booked(), [10]);
    stream.destroy();
    assert_eq!(world.booked(), [9]);
}

#[test]
fn past_the_budget_only_load_counts() {
    let world = probed(Settings { decision_budget: Duration::ZERO, ..settings() }, 2);
    book(world.served().serving().unwrap(), 0, 20);
    let _streams: Vec<Stream> = (0..20).map(|_| Stream::sent(&world, BODY)).collect();
    assert!(world.metrics().contains("inlane_decision_steps_total{step=\"load-only\"} 20"));
    assert_eq!(world.booked(), [20, 20], "bookings are load too");
    let mut steps = Vec::new();
    world.runtime.log.read(|entry| steps.push(entry.step));
    assert_eq!(steps, ["load-only"; 20]);
}

#[test]
fn a_plugin_that_panics_is_neutral_and_counted() {
    let world = probed(settings(), 2);
    book(world.served().serving().unwrap(), 0, 1);
    while_scoring(&world, |_, _| panic!("as the test wants it"));
    let stream = Stream::sent(&world, BODY);
    assert_eq!(destination(&stream), "10.0.0.2:8000", "the other scorer still counts");
    assert!(world.metrics().contains("inlane_plugin_failures_total{plugin_name=\"probe\"} 1"));
    assert!(world.metrics().contains("inlane_decision_panics_total 0"));
}

#[test]
fn a_plugin_may_refuse_a_request() {
    let world = probed(settings(), 1);
    script(|script| {
        script.pre_call = Some(|request, _| match request.headers.get("x-team") {
            Some("blue") => Ok(()),
            _ => Err(Refusal { status: 403, message: "not your pool".into() }),
        });
    });
    let refused = Stream::sent(&world, BODY);
    assert_eq!(refused.reply().status, 403);
    assert_eq!(refused.reply().body, "inference error: Forbidden - not your pool");
    let mut logged = Vec::new();
    world.runtime.log.read(|entry| logged.push((entry.step, entry.error.clone())));
    assert_eq!(logged, [("refused", "not your pool".to_owned())]);
    assert_eq!(world.booked(), [0]);

    let mut stream = Stream::new(&world, "/v1/completions").with_header("x-team", "blue");
    stream.headers(false);
    stream.body(BODY.as_bytes(), true);
    assert_eq!(world.booked(), [1]);
}

#[test]
fn a_plugin_may_set_priority_and_fairness() {
    let world = probed(settings(), 1);
    script(|script| {
        script.pre_call = Some(|_, facts| {
            facts.priority = Some(-7);
            facts.fairness_id = Some("team-a".into());
            Ok(())
        });
    });
    let _stream = Stream::sent(&world, BODY);
    assert_eq!(script(|script| script.decided.clone()), [(-7, "team-a".to_owned())]);
}

#[test]
fn headers_that_plugins_ask_for_are_set_and_removed() {
    let world = probed(settings(), 1);
    script(|script| {
        script.effects = vec![
            Effect::RequestHeader { name: "x-leg".into(), value: Some("a:1".into()) },
            Effect::RequestHeader { name: "x-old".into(), value: None },
        ];
    });
    let mut stream = Stream::new(&world, "/v1/completions").with_header("x-old", "1");
    stream.headers(false);
    stream.body(BODY.as_bytes(), true);
    assert_eq!(stream.request_header("x-leg").as_deref(), Some("a:1"));
    assert_eq!(stream.request_header("x-old"), None);
}

#[test]
fn another_leg_is_booked_until_the_first_byte() {
    let world = probed(settings(), 2);
    book(world.served().serving().unwrap(), 1, 1);
    let leg = |endpoint| Effect::Claim {
        endpoint,
        tokens: 5,
        release: TokenRelease::FirstByte,
        until_first_byte: true,
    };
    // The second is of no pool: it is left out, and nothing else is lost for it.
    script(|script| script.effects = vec![leg(1), leg(99)]);
    let mut stream = Stream::sent(&world, BODY);
    assert_eq!(world.booked(), [1, 2]);
    stream.respond(&[(":status", "200")], false);
    stream.respond_body(&[b"{"], false);
    assert_eq!(world.booked(), [1, 1]);
    stream.destroy();
    assert_eq!(world.booked(), [0, 1]);

    let mut early = Stream::sent(&world, BODY);
    assert_eq!(world.booked(), [1, 2]);
    early.destroy();
    assert_eq!(world.booked(), [0, 1], "a stream that ends early gives both back");
    assert_eq!(world.stale_releases(), 0);
}

/// A data producer that takes longer than any budget.
mod slow {
    use std::sync::Arc;

    use inlane_core::columns::Columns;
    use inlane_core::decision::PluginError;
    use inlane_core::plugin::{DataProducer, Producing, Roles};
    use inlane_core::registry::{PluginType, Registry};
    use inlane_core::state::CycleState;

    struct Slow;

    impl DataProducer for Slow {
        fn produce(
            &self,
            _: &Producing<'_>,
            _: &mut Columns,
            _: &mut CycleState,
        ) -> Result<(), PluginError> {
            std::thread::sleep(std::time::Duration::from_millis(1_100));
            Ok(())
        }
    }

    pub(super) fn registry() -> Registry {
        let mut registry = super::registry();
        registry.register(PluginType::new("slow-producer", |_, _| {
            Ok(Roles::default().producer(Arc::new(Slow)))
        }));
        registry
    }
}

#[test]
fn producers_whose_turn_comes_too_late_are_left_out() {
    let config = LEAST_BOOKED.replace(
        "- type: inflight-load-producer",
        "- type: slow-producer\n- type: inflight-load-producer\n- type: approx-prefix-cache-producer",
    );
    let budget = Settings { decision_budget: Duration::from_secs(1), ..settings() };
    let world = World::with(budget, slow::registry, &config, 2);
    book(world.served().serving().unwrap(), 0, 3);
    let stream = Stream::sent(&world, BODY);
    assert_eq!(destination(&stream), "10.0.0.2:8000", "bookings count all the same");
    let page = world.metrics();
    assert!(page.contains("inlane_decision_steps_total{step=\"partial\"} 1"), "{page}");
    drop(stream);
}

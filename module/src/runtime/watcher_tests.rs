//! The watcher's passes over a real segment, without its thread.

use std::sync::Arc;
use std::time::Duration;

use inlane_core::endpoint::EndpointIx;
use inlane_latency::{
    Options, RECORD_FORMAT, RECORD_WORDS, Row, Sample, Target, Trainer, endpoint_key,
};
use inlane_plugins::predicted_latency::LatencyState;
use inlane_segment::{Document, SampleSet, Shape};

use super::observations::Observations;
use super::tenants::SETTLE;
use super::{Served, Unserved};
use crate::scheduler::testing::Stream;
use crate::settings::Settings;
use crate::testing::{FakeCluster, LEAST_BOOKED, World, registry, settings};

const BODY: &str = r#"{"model":"m","prompt":"hello there"}"#;
const PREFIX: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: prefix-cache-scorer
- type: queue-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
  - pluginRef: queue-scorer
";

const PREDICTED: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: predicted-latency-producer
- type: latency-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: latency-scorer
";

fn pods(served: &Served) -> Vec<&str> {
    served.serving().unwrap().endpoints().as_slice().iter().map(|e| e.name.as_str()).collect()
}

fn config_generation(world: &World) -> u64 {
    world.served().serving().unwrap().config_generation
}

#[test]
fn nothing_is_served_before_everything_is_there() {
    let mut world = World::empty(settings(), registry);
    let state = |world: &World| world.served().state.as_ref().err().copied();
    world.tick();
    assert_eq!(state(&world), Some(Unserved::NoSnapshot));
    world.open(Shape::default());
    // The watcher looks for a missing segment only ten times in a second.
    std::thread::sleep(Duration::from_millis(110));
    world.tick();
    assert_eq!(state(&world), Some(Unserved::NoTopology));
    world.set_endpoints([0]);
    world.tick();
    assert_eq!(state(&world), Some(Unserved::NoConfiguration));
    let epoch = world.served().epoch;
    world.tick();
    assert_eq!(world.served().epoch, epoch, "nothing new is nothing to publish");
    world.publish_config(LEAST_BOOKED);
    world.tick();
    assert_eq!(state(&world), None);
}

#[test]
fn a_refused_configuration_is_reported_and_the_last_one_stays() {
    let mut world = World::new(1);
    let good = config_generation(&world);
    for (text, reason) in [
        ("kind: Nonsense", "apiVersion"),
        (&LEAST_BOOKED.replace("least-booked", "least-boked"), "least-booked"),
    ] {
        let bad = world.publish_config(text);
        world.tick();
        assert_eq!(config_generation(&world), good);
        let ledgers = world.ledgers();
        let (_, view) = ledgers.iter().next().unwrap();
        let refusal = view.refusal().unwrap();
        assert_eq!((refusal.generation, view.accepted_config()), (bad, good));
        assert!(refusal.reason.contains(reason), "{}", refusal.reason);
    }
    let better = world.publish_config(LEAST_BOOKED);
    world.tick();
    assert_eq!(config_generation(&world), better);
    assert_eq!(world.ledgers().iter().next().unwrap().1.accepted_config(), better);
    assert!(Stream::sent(&world, BODY).seen().replies.is_empty());
}

#[test]
fn a_host_is_there_before_anybody_can_choose_it() {
    let mut world = World::new(1);
    let (hosts, cluster) = world.attach();
    cluster.added.lock().clear();
    world.set_endpoints(0..3);
    world.tick();
    let added = cluster.added.lock().clone();
    assert_eq!(added, [("10.0.0.2:8000".into(), false), ("10.0.0.3:8000".into(), false)]);
    assert_eq!(pods(&world.served()), ["pod-0", "pod-1", "pod-2"]);
    let served = world.served();
    for (slot, pod) in served.serving().unwrap().endpoints().slots().iter().zip(0..) {
        assert_eq!(hosts.table.get(*slot), Some(FakeCluster::host(pod)));
    }
}

#[test]
fn a_pod_that_leaves_goes_step_by_step() {
    let mut world = World::new(2);
    let (hosts, cluster) = world.attach();
    let served = world.served();
    let slot = served.serving().unwrap().endpoints()[1].slot;
    let mut streams: Vec<Stream> = (0..2).map(|_| Stream::sent(&world, BODY)).collect();
    let claims = |world: &World| {
        let served = world.served();
        served.serving().unwrap().ledger.observe(slot.index).requests()
    };
    let generation = world.set_endpoints([0]);
    world.tick();
    assert_eq!(pods(&world.served()), ["pod-0"]);
    assert!(hosts.table.get(slot).is_some(), "requests in between still find it");
    assert_ne!(world.ledgers().accepted_topology(), Some(generation));

    std::thread::sleep(SETTLE);
    world.tick();
    assert_eq!(hosts.table.get(slot), None);
    assert_eq!(world.ledgers().accepted_topology(), Some(generation));

    std::thread::sleep(SETTLE);
    world.tick();
    assert_eq!(claims(&world), 1);
    assert_eq!(cluster.addresses().len(), 2, "a request is in flight there");
    streams.clear();
    assert_eq!(claims(&world), 0);
    world.tick();
    assert_eq!(cluster.addresses(), ["10.0.0.1:8000"]);
}

#[test]
fn the_grace_ends_even_with_requests_in_flight() {
    let settings = Settings { removal_grace: Duration::ZERO, ..settings() };
    let mut world = World::with(settings, registry, LEAST_BOOKED, 2);
    let (_hosts, cluster) = world.attach();
    let _streams: Vec<Stream> = (0..2).map(|_| Stream::sent(&world, BODY)).collect();
    world.set_endpoints([0]);
    world.tick();
    std::thread::sleep(2 * SETTLE);
    world.tick();
    assert_eq!(cluster.addresses(), ["10.0.0.1:8000"]);
    assert_eq!(world.stale_releases(), 0);
}

#[test]
fn a_directory_made_anew_is_followed() {
    let mut world = World::new(2);
    let (hosts, cluster) = world.attach();
    let before = world.served();
    let mut old = Stream::sent(&world, BODY);
    world.wipe();
    world.tick();
    assert_eq!(pods(&world.served()), ["pod-0", "pod-1"], "what was there goes on");
    assert!(Stream::sent(&world, BODY).seen().replies.is_empty());

    world.open(Shape { slots: 64, ..Shape::default() });
    world.publish_config(LEAST_BOOKED);
    world.set_endpoints([5]);
    world.tick();
    assert_eq!(pods(&world.served()), ["pod-5"]);
    let ledgers = world.ledgers();
    assert_eq!(ledgers.iter().count(), 1, "there is a ledger in the new directory");
    // The new pod has the slot that another one had in the old directory.
    let served = world.served();
    let slot = served.serving().unwrap().endpoints()[0].slot;
    assert_eq!(slot, before.serving().unwrap().endpoints()[0].slot);
    assert_eq!(hosts.table.get(slot), Some(FakeCluster::host(5)));
    std::thread::sleep(2 * SETTLE);
    world.tick();
    assert_eq!(cluster.addresses(), ["10.0.0.6:8000"]);
    old.destroy();
    assert_eq!(world.booked(), [0]);
    let old_ledger = &before.serving().unwrap().ledger;
    assert_eq!(old_ledger.counters().stale_releases + world.stale_releases(), 0);
}

#[test]
fn a_grown_data_file_is_followed() {
    let mut world = World::new(2);
    let before = world.served();
    let mut old = Stream::sent(&world, BODY);
    world.writer().grow(Shape { slots: 128, ..Shape::default() }).unwrap();
    world.set_endpoints(0..100);
    world.tick();
    let served = world.served();
    let serving = served.serving().unwrap();
    assert_eq!(serving.snapshot.shape().slots, 128);
    assert!(serving.ledger.capacity() >= 128);
    assert_eq!(serving.endpoints().len(), 100);
    let streams: Vec<Stream> = (0..100).map(|_| Stream::sent(&world, BODY)).collect();
    assert_eq!(world.booked(), [1; 100], "every endpoint has its cell");
    drop(streams);
    old.destroy();
    let old_ledger = &before.serving().unwrap().ledger;
    let in_old = |ix: EndpointIx| {
        old_ledger.observe(before.serving().unwrap().endpoints()[ix].slot.index).requests()
    };
    assert_eq!((in_old(0), in_old(1)), (0, 0));
    assert_eq!(old_ledger.counters().stale_releases + world.stale_releases(), 0);
}

#[test]
fn an_old_ledger_goes_with_its_last_stream() {
    let mut world = World::new(1);
    let mut old = Stream::sent(&world, BODY);
    world.writer().grow(Shape { slots: 128, ..Shape::default() }).unwrap();
    world.tick();
    assert_eq!(world.ledgers().iter().count(), 2, "a stream has a claim in the old one");
    old.destroy();
    assert_eq!(world.ledgers().iter().count(), 1, "the log of decisions keeps none");
}

#[test]
fn prefix_indexes_survive_another_configuration() {
    let mut world = World::with(settings(), registry, PREFIX, 2);
    let long = format!(r#"{{"model":"m","prompt":"{}"}}"#, "word ".repeat(500));
    let _stream = Stream::sent(&world, &long);
    let (_, index) = world.runtime.prefixes().pop().unwrap();
    assert!(index.drain() > 0);
    let size = index.size();
    assert!(size > 0);

    let weighted =
        PREFIX.replace("- pluginRef: queue-scorer", "- {pluginRef: queue-scorer, weight: 7}");
    let generation = world.publish_config(&weighted);
    world.tick();
    assert_eq!(config_generation(&world), generation);
    let (_, after) = world.runtime.prefixes().pop().unwrap();
    assert!(Arc::ptr_eq(&index, &after));
    assert_eq!(after.size(), size);
}

fn sample(tokens: u16) -> Sample {
    let row = Row { input_token_length: tokens.into(), ..Row::default() };
    let y_ms = 5.0 + 0.1 * f32::from(tokens);
    Sample { row, target: Target::EndToEnd, y_ms, endpoint: endpoint_key("default/pod-0") }
}

#[test]
fn latency_models_reach_the_plugins_also_after_a_reload() {
    let mut world = World::with(settings(), registry, PREDICTED, 2);
    let predicts = |world: &World| {
        let states = world.runtime.kept.all::<LatencyState>();
        states.iter().map(|(_, state)| state.has_predictor()).collect::<Vec<_>>()
    };
    assert_eq!(predicts(&world), [false]);
    let mut trainer = Trainer::new(Options::default()).unwrap();
    (0..50).for_each(|n| trainer.observe(&sample(n)).unwrap());
    let model = trainer.publish();
    let first = world.writer().publish_document(Document::Model, &model).unwrap();
    world.tick();
    assert_eq!(predicts(&world), [true]);
    let generation =
        |world: &World| world.runtime.model_generation.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(generation(&world), first);

    world.writer().publish_document(Document::Model, &model[..model.len() / 2]).unwrap();
    world.tick();
    assert_eq!(predicts(&world), [true], "a damaged document changes nothing");

    world.publish_config(LEAST_BOOKED);
    world.tick();
    assert!(predicts(&world).is_empty());
    world.publish_config(PREDICTED);
    world.tick();
    assert_eq!(predicts(&world), [true], "a new instance gets what is known");
}

#[test]
fn observed_latencies_reach_the_collector() {
    let mut world = World::with(settings(), registry, PREDICTED, 1);
    let mut observations = Observations::default();
    let (_, state) = world.runtime.kept.all::<LatencyState>().pop().unwrap();
    (1..=3).for_each(|n| state.samples.push(sample(n)));
    assert_eq!(observations.pass(&world.runtime), 3);
    let mut set = SampleSet::open(world.runtime.segment_dir(), RECORD_FORMAT).unwrap();
    let mut taken = Vec::new();
    set.drain(|words| {
        assert_eq!(words.len(), RECORD_WORDS);
        taken.push(Sample::from_words(words).unwrap());
    })
    .unwrap();
    assert_eq!(taken, [sample(1), sample(2), sample(3)]);
    drop(state);
    world.publish_config(LEAST_BOOKED);
    world.tick();
    assert_eq!(observations.pass(&world.runtime), 0, "nobody observes any more");
}

//! The index of engines' caches from a real segment to decisions.

use std::num::NonZeroU32;

use inlane_core::exposition::Exposition;
use inlane_core::request::{Prompt, Request};
use inlane_core::snapshot::IndexDocument;
use inlane_plugins::precise::PreciseSource;
use inlane_plugins::precise::keying::Keying;
use inlane_plugins::precise::parameters::HashAlgorithm;
use inlane_segment::mapped::MappedWords;
use inlane_segment::table::{MirrorSpec, MirrorWriter};
use inlane_segment::{Document, Shape};

use super::owner;
use crate::scheduler::testing::Stream;
use crate::testing::{World, registry, settings};

const PRECISE: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: precise-prefix-cache-producer
  parameters: {tokenProcessorConfig: {blockSizeTokens: 4}, speculativeIndexing: SPECULATIVE}
- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- type: inflight-load-producer
- type: least-booked
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: prefix-cache-scorer, weight: 10}
  - pluginRef: least-booked
  - pluginRef: max-score-picker
";

fn spec() -> MirrorSpec {
    MirrorSpec::within(64, 1 << 20)
}

fn shape() -> Shape {
    Shape { slots: 64, table_words: spec().words().unwrap() as u64, ..Shape::default() }
}

fn world(speculative: bool) -> World {
    let mut world = World::empty(settings(), registry);
    world.open(shape());
    let expecting = if speculative { "true, speculativeTTL: 60s" } else { "false" };
    world.publish_config(&PRECISE.replace("SPECULATIVE", expecting));
    world.set_endpoints(0..4);
    world.tick();
    world
}

fn mirror(world: &mut World) -> MirrorWriter<MappedWords> {
    MirrorWriter::create(world.writer().table(), &spec(), 7).unwrap()
}

fn publish(world: &mut World, block_tokens: u32) {
    let document = IndexDocument {
        block_tokens,
        algorithm: "cbor-fnv".into(),
        seed: String::new(),
        tiers: vec!["gpu".into()],
    };
    let bytes = serde_json::to_vec(&document).unwrap();
    world.writer().publish_document(Document::Index, &bytes).unwrap();
    world.tick();
}

const TOKENS: std::ops::Range<u32> = 100..116;

fn keys() -> Vec<u64> {
    let keying = Keying::new(HashAlgorithm::CborFnv, "", NonZeroU32::new(4).unwrap());
    let (tokens, mut keys) = (TOKENS.collect::<Vec<_>>(), Vec::new());
    let prompts = [Prompt::Tokens(&tokens)];
    let request = Request { target_model: "m", prompts: &prompts, ..Request::default() };
    keying.keys(&request, 0, &mut keys);
    keys
}

fn body() -> String {
    format!(r#"{{"model":"m","prompt":{:?}}}"#, TOKENS.collect::<Vec<_>>())
}

/// Who has a booking after a request, which then ends.
fn chosen(world: &World) -> usize {
    let _stream = Stream::sent(world, &body());
    world.booked().iter().position(|&booked| booked > 0).unwrap()
}

fn usable(world: &World) -> Vec<Option<u32>> {
    let sources = world.runtime.kept.all::<PreciseSource>();
    let block = |source: &PreciseSource| Some(source.engines().document()?.block_tokens);
    sources.iter().map(|(_, source)| block(source)).collect()
}

#[test]
fn a_prompt_goes_to_the_pod_that_holds_it() {
    let mut world = world(false);
    let mut mirror = mirror(&mut world);
    publish(&mut world, 4);
    for (pod, blocks) in [(2, 4), (1, 3), (3, 2)] {
        mirror.hold(pod, 0, &keys()[..blocks], &keys()[..blocks]);
        if pod == 2 {
            assert_eq!(chosen(&world), 2);
        }
    }
    assert_eq!(chosen(&world), 2);
    mirror.release(2, 0, keys()[3]);
    mirror.release(2, 0, keys()[2]);
    assert_eq!(chosen(&world), 1);
    mirror.clear(1);
    mirror.clear(2);
    assert_eq!(chosen(&world), 3);
}

#[test]
fn what_is_written_otherwise_is_not_read() {
    let mut world = world(false);
    let mut mirror = mirror(&mut world);
    assert_eq!(usable(&world), [None]);
    mirror.hold(3, 0, &keys(), &keys());
    publish(&mut world, 16);
    assert_eq!(usable(&world), [Some(16)]);
    let metric = |world: &World| {
        let mut page = Exposition::default();
        world.served().serving().unwrap().plan.collect(&mut page);
        let metrics = page.render();
        let line = metrics.lines().find(|line| line.starts_with("inlane_precise_index_usable"));
        line.and_then(|line| line.split(' ').nth(1)).map(str::to_owned)
    };
    assert_eq!(metric(&world).as_deref(), Some("0"));
    publish(&mut world, 4);
    assert_eq!(metric(&world).as_deref(), Some("1"));
    assert_eq!(chosen(&world), 3);
    // A new producer gets what is known.
    world.publish_config(&PRECISE.replace("SPECULATIVE", "false").replace("4}", "16}"));
    world.tick();
    assert_eq!(metric(&world).as_deref(), Some("0"));
}

#[test]
fn another_data_file_is_followed_and_damage_is_not() {
    let mut world = world(false);
    let mut old = mirror(&mut world);
    publish(&mut world, 4);
    old.hold(3, 0, &keys(), &keys());
    world.writer().grow(Shape { slots: 128, ..shape() }).unwrap();
    world.tick();
    assert_eq!(chosen(&world), 3, "the new file begins with what was in the old one");
    let mut new = MirrorWriter::recover(world.writer().table()).unwrap();
    new.hold(1, 0, &keys(), &keys());
    new.clear(3);
    assert_eq!(chosen(&world), 1);
    world.writer().publish_document(Document::Index, b"{").unwrap();
    world.tick();
    assert_eq!(chosen(&world), 1);
}

#[test]
fn a_second_request_follows_the_first_before_the_engine_says_anything() {
    let mut world = world(true);
    let mut mirror = mirror(&mut world);
    publish(&mut world, 4);
    let first = chosen(&world);
    let mut progress = owner::Progress::default();
    owner::pass(&world.runtime, &mut progress);
    // Without an expectation they would be spread.
    let _burst: Vec<Stream> = (0..4).map(|_| Stream::sent(&world, &body())).collect();
    assert_eq!(world.booked()[first], 4);
    mirror.clear(first as u16);
    owner::pass(&world.runtime, &mut progress);
    let _next = Stream::sent(&world, &body());
    assert_eq!(world.booked()[first], 4, "an engine that cleared its cache");
}

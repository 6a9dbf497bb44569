//! A decision by the real plugins does not allocate once its memory has grown to size.
//!
//! Alone in its crate: the counting allocator sees every thread of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::alloc::System;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};

use inlane_core::request::{Media, Prompt, Request};
use inlane_core::snapshot::IndexDocument;
use inlane_plugins::precise::PreciseSource;
use inlane_plugins::precise::keying::Keying;
use inlane_plugins::precise::parameters::HashAlgorithm;
use inlane_segment::mapped::MappedWords;
use inlane_segment::table::{MirrorReader, MirrorSpec, MirrorWriter};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use support::Proxy;
use support::alone::{self, Alone};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONFIG: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: decode-filter
- type: utilization-detector
- type: concurrency-detector
- type: cel-filter
  parameters:
    expression: >-
      endpoint.waiting < 5 && !('reserved' in endpoint.labels) && !('x-a' in request.headers)
- type: cel-scorer
  parameters:
    expression: endpoint.prefix_ratio / (1.0 + endpoint.in_flight_requests + size(request.model))
- {type: endpoint-attribute-filter, parameters: {attribute: age, algorithm: {type: threshold, threshold: {operator: LessThan, value: 4}}}}
- {type: utilization-filter, parameters: {conditions: [{metric: active-requests, maxValue: 9}]}}
- {type: prefix-cache-affinity-filter, parameters: {explorationProbability: 0.5}}
- type: topology-affinity-filter
- type: topology-extractor
- {type: context-length-aware, parameters: {enableFiltering: true}}
- {type: endpoint-attribute-scorer, parameters: {attributeKey: age, algorithm: {type: linear_lower_is_better}}}
- {type: header-label-affinity-scorer, parameters: {headerName: x-zone, labelKey: zone}}
- type: topology-affinity-scorer
- {type: session-affinity-scorer, parameters: {strategy: session_id}}
- type: session-affinity-filter
- type: queue-scorer
- type: running-requests-size-scorer
- type: kv-cache-utilization-scorer
- type: load-aware-scorer
- type: active-request-scorer
- type: prefix-cache-scorer
- type: inflight-load-producer
- type: token-load-scorer
- type: lora-affinity-scorer
- type: no-hit-lru-scorer
- type: mm-embeddings-cache-scorer
- type: lmetric-scorer
- type: prefix-load-scorer
- {type: power-of-d, parameters: {d: 200}}
- {type: PICKER, parameters: {maxNumOfEndpoints: 3}}
";

/// One test at a time: the allocator counts for all of them.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn no_registered_plugin_allocates_once_warm() {
    let _guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let registry = inlane_plugins::registry();
    let mut faults = Vec::new();
    for (name, role) in alone::roles(&registry).unwrap() {
        let mut plugin = Alone::new(&registry, name, 300).unwrap();
        let mut run = |seeds: std::ops::Range<u64>| {
            for seed in seeds {
                plugin.run(role, seed)?;
            }
            Ok::<(), String>(())
        };
        if let Err(error) = run(0..200) {
            faults.push(format!("{name} as {}: {error}", role.name()));
            continue;
        }
        let region = Region::new(ALLOCATOR);
        let outcome = run(0..100);
        let change = region.change();
        assert_eq!(outcome, Ok(()), "{name}");
        let allocates = change.allocations + change.reallocations > 0;
        if allocates != alone::may_allocate(name, role) {
            faults.push(format!("{name} as {}: {change:?}", role.name()));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn a_warm_decision_does_not_allocate() {
    let _guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ids: Vec<u32> = (0..5_000).collect();
    let prompts = [Prompt::Tokens(&ids)];
    let headers = [("x-session-id", "u")];
    let request = Request {
        id: "r",
        target_model: "m",
        prompts: &prompts,
        headers: &headers,
        ..Default::default()
    };
    for picker in ["max-score-picker", "weighted-random-picker", "random-picker"] {
        let mut proxy = Proxy::new(&CONFIG.replace("PICKER", picker), 300);
        for seed in 0..50 {
            proxy.serve(&request, seed);
            proxy.drain();
        }
        let region = Region::new(ALLOCATOR);
        for seed in 0..50 {
            proxy.serve(&request, seed);
        }
        let change = region.change();
        assert_eq!((change.allocations, change.reallocations), (0, 0), "{picker}: {change:?}");
    }
}

const PRECISE: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: precise-prefix-cache-producer
  parameters: {speculativeIndexing: true}
- {type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: precise-prefix-cache-producer}}
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: prefix-cache-scorer
  - pluginRef: max-score-picker
";

/// With token ids, images and a salt; what is held in two tiers and what is expected are looked up.
#[test]
fn a_warm_precise_decision_does_not_allocate() {
    let _guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ids: Vec<u32> = (0..5_000).collect();
    let prompts = [Prompt::Tokens(&ids), Prompt::Tokens(&ids[..100])];
    let image = Media { modality: "image", hash: "h", prompt: 0, offset: 7, length: 60 };
    let request = Request {
        id: "r",
        target_model: "m",
        prompts: &prompts,
        media: &[image],
        cache_salt: "tenant",
        ..Default::default()
    };
    let mut proxy = Proxy::new(PRECISE, 300);
    let source = proxy.kept::<PreciseSource>().unwrap();
    let spec = MirrorSpec::within(300, 4 << 20);
    let words = MappedWords::anonymous(spec.words().unwrap()).unwrap();
    let view = words.view();
    let mut mirror = MirrorWriter::create(words, &spec, 1).unwrap();
    let keying = Keying::new(HashAlgorithm::CborFnv, "", NonZeroU32::new(16).unwrap());
    let mut keys = Vec::new();
    keying.keys(&request, 0, &mut keys);
    for slot in 0..200 {
        let held = &keys[..keys.len() * usize::from(slot) / 300];
        mirror.hold(slot, (slot % 2) as u8, held, held);
    }
    let index = IndexDocument {
        block_tokens: 16,
        algorithm: "cbor-fnv".into(),
        tiers: vec!["gpu".into(), "cpu".into()],
        ..Default::default()
    };
    source.engines().follow(Some((MirrorReader::open(view).unwrap(), index)));
    for seed in 0..50 {
        proxy.serve(&request, seed);
        source.engines().pass(seed);
    }
    assert!(source.engines().expected_blocks() > 0);
    let region = Region::new(ALLOCATOR);
    for seed in 0..50 {
        proxy.serve(&request, seed);
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}

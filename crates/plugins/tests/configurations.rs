//! Whole configurations, loaded and served from.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use inlane_core::request::{BlockUnit, Prompt, Request};

use support::Proxy;

/// The profile `default` of the first operator, word for word.
const FIRST_OPERATOR: &str = "
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: load-aware-scorer
- type: prefix-cache-scorer
  parameters:
    hashBlockSize: 5
    maxPrefixBlocksToMatch: 256
    lruCapacityPerServer: 31250
- type: kv-cache-utilization-scorer
- type: decode-filter
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: decode-filter
  - pluginRef: max-score-picker
  - pluginRef: load-aware-scorer
    weight: 1
  - pluginRef: prefix-cache-scorer
    weight: 2
  - pluginRef: kv-cache-utilization-scorer
    weight: 1
";

/// The published experiment: three idle decode pods, a prompt of 5,000 characters, eight times.
#[test]
fn the_first_request_totals_a_half_more_than_one_and_the_others_two_more() {
    let mut proxy = Proxy::new(FIRST_OPERATOR, 3);
    let unit = proxy.plan.block_unit(&proxy.scratch.columns.metrics, 0).unwrap();
    assert_eq!(unit, BlockUnit::Bytes(5));
    let contents: Vec<u64> = (0..1_000).collect();
    let prompts = [Prompt::Blocks { unit, tokens: 1_250, contents: &contents }];
    let request = Request { id: "r", target_model: "m", prompts: &prompts, ..Default::default() };

    let first = proxy.serve(&request, 7);
    let run = &proxy.scratch.decision.profiles[0];
    assert_eq!(run.totals, [1.5; 3]);
    assert_eq!(run.scores[1], [0.0; 3]);
    proxy.drain();

    for seed in 0..7 {
        assert_eq!(proxy.serve(&request, seed), first);
        let run = &proxy.scratch.decision.profiles[0];
        for (&endpoint, &total) in run.candidates.iter().zip(&run.totals) {
            assert_eq!(total, if endpoint == first { 3.5 } else { 1.5 });
        }
        proxy.drain();
    }
    assert_eq!(proxy.indexes()[0].size(), 256);
}

#[test]
fn the_built_in_default_learns_where_prompts_went() {
    let mut proxy = Proxy::new("", 4);
    let unit = proxy.plan.block_unit(&proxy.scratch.columns.metrics, 0);
    assert_eq!(unit, Some(BlockUnit::Tokens(64)));
    let ids: Vec<u32> = (0..500).collect();
    let prompts = [Prompt::Tokens(&ids)];
    let request = Request { id: "r", target_model: "m", prompts: &prompts, ..Default::default() };
    let first = proxy.serve(&request, 3);
    proxy.drain();
    assert!((0..20).all(|seed| proxy.serve(&request, seed) == first));
    let other = Request { target_model: "other", ..request };
    let mut seen = [false; 4];
    for seed in 0..64 {
        seen[proxy.serve(&other, seed) as usize] = true;
    }
    assert_eq!(seen, [true; 4], "another model has its own cache");
}

#[test]
fn in_flight_load_is_booked_where_a_scorer_asks_for_it() {
    let mut proxy = Proxy::new(
        "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: active-request-scorer
- type: prefix-cache-scorer
",
        2,
    );
    let ids: Vec<u32> = (0..100).collect();
    let prompts = [Prompt::Tokens(&ids)];
    let request = Request { id: "r", target_model: "m", prompts: &prompts, ..Default::default() };
    proxy.serve(&request, 1);
    let claims: Vec<u64> = proxy
        .scratch
        .effects
        .iter()
        .filter_map(|effect| match effect {
            inlane_core::effect::Effect::Claim { tokens, .. } => Some(*tokens),
            _ => None,
        })
        .collect();
    assert_eq!(claims, [128], "two blocks of 64 that nobody holds");
}

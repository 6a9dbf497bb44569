//! A decision does not allocate once its memory has grown to size.
//!
//! Alone in its crate: the counting allocator sees every thread of the process.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::alloc::System;
use std::sync::Arc;

use inlane_core::cycle::{Ask, Scratch};
use inlane_core::endpoint::EndpointSet;
use inlane_core::request::{Prompt, Request};
use inlane_core::rng::Rng;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use support::{Idle, endpoint, plan};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_warm_decision_does_not_allocate() {
    let body = "
plugins:
- {type: decode-filter}
- {type: unqueued-filter}
- {type: queue-scorer}
- {type: kv-cache-utilization-scorer}
- {type: prefix-cache-scorer}
- {type: active-request-scorer}
- {type: random-picker}
";
    let endpoints = (0..500).map(|i| {
        let role = if i % 5 == 0 { "prefill" } else { "decode" };
        endpoint(&format!("e{i}"), &[("role", role)])
    });
    let plan = plan(body, Arc::new(EndpointSet::new(1, endpoints.collect())));
    let mut scratch = Scratch::new(&plan);
    let tokens: Vec<u32> = (0..2_000).collect();
    let prompts = [Prompt::Tokens(&tokens)];
    let request = Request { id: "r", target_model: "e7", prompts: &prompts, ..Request::default() };
    let subset: Vec<u32> = (0..500).step_by(3).collect();

    let mut serve = |seed: u64| {
        let mut rng = Rng::new(seed);
        plan.begin(&mut scratch);
        for i in 0..500 {
            scratch.columns.metrics.waiting[i] = rng.below(2);
            scratch.columns.metrics.kv_usage[i] = rng.unit();
            scratch.columns.metrics.fresh[i] = rng.below(10) > 0;
        }
        let subset = seed.is_multiple_of(2).then_some(&subset[..]);
        plan.produce(&Ask::new(&request, &Idle, 1).within(subset), &mut scratch);
        plan.decide(&request, 1, seed, &mut scratch).unwrap();
        // A booking conflict: once more.
        plan.decide(&request, 1, seed + 1, &mut scratch).unwrap();
        plan.apply_records(&request, 1, seed, &mut scratch);
    };
    // The number of rejections differs from request to request; the largest comes first.
    (0..200).for_each(&mut serve);
    let region = Region::new(ALLOCATOR);
    (0..200).for_each(&mut serve);
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}

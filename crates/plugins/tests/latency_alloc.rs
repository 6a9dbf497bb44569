//! Predicting latencies with a trained model does not allocate once memory has grown to size.
//!
//! Alone in its crate: the counting allocator sees every thread of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::alloc::System;

use inlane_core::columns::LatencyInfo;
use inlane_core::request::{Prompt, Request};
use inlane_latency::{Options, Row, Sample, Target, Trainer};
use inlane_plugins::predicted_latency::LatencyState;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use support::Proxy;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONFIG: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- {type: predicted-latency-producer, parameters: {streamingMode: true}}
- type: latency-scorer
";

fn model() -> inlane_latency::Predictor {
    let mut trainer = Trainer::new(Options::default()).unwrap();
    for n in 0..500u16 {
        let row = Row { input_token_length: f32::from(n), ..Row::default() };
        for target in Target::ALL {
            let y_ms = 5.0 + 0.1 * f32::from(n);
            trainer.observe(&Sample { row, target, y_ms, endpoint: 1 }).unwrap();
        }
    }
    trainer.retrain(|| true);
    inlane_latency::Predictor::decode(&trainer.publish()).unwrap()
}

#[test]
fn a_warm_prediction_does_not_allocate() {
    let ids: Vec<u32> = (0..2_000).collect();
    let prompts = [Prompt::Tokens(&ids)];
    let headers = [("x-llm-d-slo-ttft-ms", "300"), ("x-llm-d-slo-tpot-ms", "20")];
    let request = Request {
        id: "r",
        target_model: "m",
        headers: &headers,
        prompts: &prompts,
        ..Request::default()
    };
    let mut proxy = Proxy::new(CONFIG, 300);
    proxy.kept::<LatencyState>().unwrap().set_predictor(Some(Box::new(model())));
    // Every endpoint gets a request once: the first one on an endpoint makes room for others.
    for seed in 0..2_000 {
        proxy.serve(&request, seed);
        proxy.drain();
    }
    let region = Region::new(ALLOCATOR);
    for seed in 0..50 {
        proxy.serve(&request, seed);
    }
    let change = region.change();
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");

    let schema = &proxy.plan.config().schema;
    let column = schema.find::<LatencyInfo>("predicted-latency-producer").unwrap();
    let infos = proxy.scratch.columns.get(column);
    assert!(infos.iter().all(|info| info.is_some_and(|info| info.ttft > 0.0 && info.tpot > 0.0)));
}

//! A prediction does not allocate.
//!
//! Alone in its crate: the counting allocator sees every thread of the process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::alloc::System;

use inlane_latency::{Options, Prediction, Predictor, Row, Target, Trainer};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use support::Pool;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_prediction_does_not_allocate() {
    let mut trainer = Trainer::new(Options::default()).unwrap();
    let mut pool = Pool::new(31, &[1.0, 2.0]);
    pool.watch(&mut trainer, Target::FirstToken, 600);
    trainer.retrain(|| true);
    // Forests for one target, the linear model for the other: both paths.
    pool.watch(&mut trainer, Target::PerToken, 50);
    let predictor = Predictor::decode(&trainer.publish()).unwrap();
    let rows: Vec<Row> = (0..1_000).map(|_| pool.row()).collect();
    let factors = vec![predictor.factors(1); rows.len()];
    let mut out = vec![Prediction::UNKNOWN; rows.len()];

    let region = Region::new(ALLOCATOR);
    let available = predictor.predict(Target::FirstToken, &rows, &factors, &mut out);
    let change = region.change();
    assert!(available.first && available.per_token);
    assert_eq!((change.allocations, change.reallocations), (0, 0), "{change:?}");
}

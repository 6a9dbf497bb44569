//! Documents: what comes out goes in, and nothing else does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use std::sync::LazyLock;

use inlane_latency::{
    BoostOptions, Objective, Options, Prediction, Predictor, Progress, Row, Target, Trainer,
};
use proptest::prelude::*;

use support::Pool;

fn options() -> Options {
    // Few trees: damage is tried on every part of the document.
    let boost = BoostOptions { trees: 4, learning_rate: 0.5, bins: 64, ..BoostOptions::default() };
    Options { boost, seed: 1, ..Options::default() }
}

fn trained() -> Trainer {
    let mut trainer = Trainer::new(options()).unwrap();
    let mut pool = Pool::new(21, &[1.0, 2.0, 3.0]);
    for target in Target::ALL {
        pool.watch(&mut trainer, target, 700);
    }
    trainer.retrain(|| true);
    trainer
}

static SAVED: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let trainer = trained();
    (trainer.publish(), trainer.save())
});

fn predictions(predictor: &Predictor) -> Vec<Prediction> {
    let mut pool = Pool::new(22, &[1.0]);
    let rows: Vec<Row> = (0..250).map(|_| pool.row()).collect();
    let factors: Vec<_> = (0..250).map(|n| predictor.factors(n % 4)).collect();
    let mut out = vec![Prediction::UNKNOWN; rows.len()];
    predictor.predict(Target::EndToEnd, &rows, &factors, &mut out);
    out
}

#[test]
fn the_same_samples_and_seed_give_the_same_document() {
    assert_eq!(trained().publish(), SAVED.0);
    assert_eq!(trained().save(), SAVED.1);
}

#[test]
fn a_published_document_keeps_its_bound() {
    let tight = Options { max_endpoints: 3, ..options() };
    let (len, bound) = (SAVED.0.len(), tight.max_published_len());
    assert!(len <= bound && bound < len + 8_000, "{len} of {bound}");
}

#[test]
fn a_retrain_in_slices_is_the_same_retrain() {
    let mut whole = Trainer::new(options()).unwrap();
    let mut sliced = Trainer::new(options()).unwrap();
    let mut pool = Pool::new(23, &[1.0, 2.0]);
    for _ in 0..600 {
        let sample = pool.sample(Target::PerToken);
        whole.observe(&sample).unwrap();
        sliced.observe(&sample).unwrap();
    }
    assert_eq!(whole.retrain(|| true), Progress::Landed);
    assert_eq!(whole.retrain(|| true), Progress::Idle);
    let mut slices = 1;
    while sliced.retrain(|| false) == Progress::Working {
        slices += 1;
    }
    assert!(slices > 8, "{slices}");
    assert_eq!(whole.publish(), sliced.publish());
}

#[test]
fn a_saved_trainer_goes_on_where_it_was() {
    let loaded = Trainer::load(options(), &SAVED.1).unwrap();
    assert_eq!(loaded.publish(), SAVED.0);
    assert_eq!(loaded.report().observations, 2_100);
    assert_eq!(loaded.report().targets[0].kept, trained().report().targets[0].kept);

    let mut loaded = loaded;
    let mut pool = Pool::new(24, &[1.0, 2.0, 3.0]);
    pool.watch(&mut loaded, Target::FirstToken, 300);
    let report = &loaded.report().targets[0];
    assert!(report.mape < 0.15, "{}", report.mape);
}

#[test]
fn saved_samples_are_bounded() {
    let bounded = Options { max_saved_samples: 100, ..options() };
    let small = Trainer::load(bounded, &SAVED.1).unwrap().save();
    assert!(small.len() + 3 * 400 * 60 < SAVED.1.len(), "{} of {}", small.len(), SAVED.1.len());
    let fewer = Options { max_endpoints: 2, ..options() };
    assert!(Trainer::load(fewer, &SAVED.1).is_err(), "more endpoints than there is room for");
}

#[test]
fn a_block_boundary_does_not_show() {
    let predictor = Predictor::decode(&SAVED.0).unwrap();
    let whole = predictions(&predictor);
    let mut pool = Pool::new(22, &[1.0]);
    for (n, expected) in whole.iter().enumerate() {
        let mut out = [Prediction::UNKNOWN];
        let factors = [predictor.factors(n as u64 % 4)];
        predictor.predict(Target::EndToEnd, &[pool.row()], &factors, &mut out);
        assert_eq!(out[0], *expected, "row {n}");
    }
}

#[test]
fn the_objective_changes_what_a_forest_says() {
    let mut trainer =
        Trainer::new(Options { objective: Objective::Quantile, ..options() }).unwrap();
    let mut pool = Pool::new(25, &[1.0]);
    pool.watch(&mut trainer, Target::FirstToken, 1_200);
    let report = trainer.report();
    assert!(report.targets[0].center[0] < 0.95, "{:?}", report.targets[0].center);
    assert!((report.targets[0].upper[0] - 1.0).abs() < 0.15, "{:?}", report.targets[0].upper);
}

/// Puts a checksum that fits onto a document that was tampered with.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = (bytes.len() - 24) as u32;
    bytes[12..16].copy_from_slice(&len.to_le_bytes());
    let checksum = xxhash_rust::xxh3::xxh3_64(&bytes[24..]);
    bytes[16..24].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What is accepted must work: finite answers, no panic.
fn try_out(bytes: &[u8]) {
    if let Ok(predictor) = Predictor::decode(bytes) {
        for prediction in predictions(&predictor) {
            for estimate in [prediction.first, prediction.per_token] {
                assert!(!estimate.expected_ms.is_infinite() && !estimate.upper_ms.is_infinite());
            }
        }
    }
    if let Ok(mut trainer) = Trainer::load(options(), bytes) {
        Pool::new(26, &[1.0, 1.0]).watch(&mut trainer, Target::FirstToken, 20);
        trainer.retrain(|| true);
        try_publish(&trainer);
    }
}

fn try_publish(trainer: &Trainer) {
    trainer.report();
    trainer.save();
    if let Ok(predictor) = Predictor::decode(&trainer.publish()) {
        predictions(&predictor);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn forged_documents_do_no_harm(
        saved: bool,
        forgeries in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = if saved { SAVED.1.clone() } else { SAVED.0.clone() };
        for (at, value) in forgeries {
            let at = 24 + at.index(bytes.len() - 24);
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(24 + cut.index(bytes.len() - 24));
        }
        try_out(&bytes);
        try_out(&sealed(bytes));
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 24..600)) {
        let mut published = bytes.clone();
        published[..12].copy_from_slice(&SAVED.0[..12]);
        try_out(&sealed(published));
        let mut state = bytes;
        state[..12].copy_from_slice(&SAVED.1[..12]);
        try_out(&sealed(state));
    }
}

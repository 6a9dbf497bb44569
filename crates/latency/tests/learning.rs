//! What the models are accepted by.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod support;

use inlane_latency::{ModelKind, Objective, Options, Prediction, Predictor, Row, Target, Trainer};

use support::Pool;

const SPEEDS: [f32; 8] = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0];

fn trainer(objective: Objective) -> Trainer {
    Trainer::new(Options { objective, seed: 1, ..Options::default() }).unwrap()
}

/// Coverage and MAPE over the last 500 observations.
fn window(trainer: &Trainer, target: Target) -> (f64, f64) {
    let report = &trainer.report().targets[target.index()];
    assert_eq!(report.window_len, 500);
    (report.window_coverage, report.window_mape)
}

#[test]
fn coverage_holds_after_2_000_samples_and_within_1_000_of_a_shift() {
    for (objective, cadence) in
        [(Objective::Mean, 400), (Objective::Mean, 100), (Objective::Quantile, 400)]
    {
        let mut trainer = trainer(objective);
        let mut pool = Pool::new(11, &[1.0; 4]);
        pool.cadence = cadence;
        pool.watch(&mut trainer, Target::FirstToken, 2_000);
        let (coverage, _) = window(&trainer, Target::FirstToken);
        assert!((0.85..=0.95).contains(&coverage), "{objective:?}: {coverage}");
        pool.scale = 2.0;
        pool.watch(&mut trainer, Target::FirstToken, 1_000);
        let (coverage, mape) = window(&trainer, Target::FirstToken);
        assert!((0.85..=0.95).contains(&coverage), "{objective:?} shifted: {coverage}");
        // The pinball loss has fewer samples to find a tail with than the mean has.
        let bound = if objective == Objective::Mean { 0.15 } else { 0.25 };
        assert!(mape < bound, "{objective:?} shifted: {mape}");
        // Twice where the first models after the shift were much worse than their successors.
        let drifts = trainer.report().targets[0].drifts;
        assert!((1..=2).contains(&drifts), "{objective:?}: {drifts}");
    }
}

#[test]
fn two_speeds_are_learned_within_2_000_requests() {
    for objective in [Objective::Mean, Objective::Quantile] {
        for target in Target::ALL {
            let mut trainer = trainer(objective);
            let mut pool = Pool::new(12, &SPEEDS);
            pool.watch(&mut trainer, target, 2_000);
            let (coverage, mape) = window(&trainer, target);
            assert!(mape < 0.15, "{objective:?} {target:?}: {mape}");
            assert!((0.85..=0.95).contains(&coverage), "{objective:?} {target:?}: {coverage}");
        }
    }
}

#[test]
fn the_fast_one_of_two_equal_candidates_is_predicted_faster() {
    let mut trainer = trainer(Objective::Mean);
    let mut pool = Pool::new(13, &SPEEDS);
    pool.watch(&mut trainer, Target::FirstToken, 2_000);
    pool.watch(&mut trainer, Target::PerToken, 500);
    let predictor = Predictor::decode(&trainer.publish()).unwrap();
    let rows =
        [Row { input_token_length: 2_000.0, num_request_running: 10.0, ..Row::default() }; 3];
    let factors = [predictor.factors(0), predictor.factors(7), predictor.factors(99)];
    let mut out = [Prediction::UNKNOWN; 3];
    let available = predictor.predict(Target::FirstToken, &rows, &factors, &mut out);
    assert!(available.first && available.per_token);
    let ratio = out[1].first.expected_ms / out[0].first.expected_ms;
    assert!((ratio - 2.0).abs() < 0.25, "{ratio}");
    let stranger = out[2].first.expected_ms;
    assert!(out[0].first.expected_ms < stranger && stranger < out[1].first.expected_ms);
    assert!(out.iter().all(|p| p.first.upper_ms >= p.first.expected_ms));

    trainer.forget(7);
    let predictor = Predictor::decode(&trainer.publish()).unwrap();
    assert_eq!(predictor.factors(7), [1.0; 3]);
}

#[test]
fn a_pool_that_gets_faster_is_noticed() {
    let mut trainer = trainer(Objective::Mean);
    let mut pool = Pool::new(14, &[1.0; 4]);
    pool.watch(&mut trainer, Target::PerToken, 2_000);
    pool.scale = 0.5;
    pool.watch(&mut trainer, Target::PerToken, 1_000);
    let (coverage, mape) = window(&trainer, Target::PerToken);
    assert!((0.85..=0.95).contains(&coverage) && mape < 0.15, "{coverage} {mape}");
}

#[test]
fn a_steady_pool_does_not_drift() {
    for noise in [0.0, 0.1, 0.3] {
        let mut trainer = trainer(Objective::Mean);
        let mut pool = Pool::new(15, &SPEEDS);
        pool.noise = noise;
        pool.watch(&mut trainer, Target::FirstToken, 6_000);
        assert_eq!(trainer.report().targets[0].drifts, 0, "{noise}");
    }
}

#[test]
fn models_take_over_one_after_the_other() {
    let mut trainer = trainer(Objective::Mean);
    let mut pool = Pool::new(16, &[1.0]);
    let kinds = |trainer: &Trainer| trainer.report().targets[0].models;
    pool.watch(&mut trainer, Target::FirstToken, 9);
    assert_eq!(kinds(&trainer), [ModelKind::None; 2]);
    pool.watch(&mut trainer, Target::FirstToken, 1);
    assert_eq!(kinds(&trainer), [ModelKind::Linear; 2]);
    let mut idle = 0;
    while idle < 250 {
        let sample = pool.sample(Target::FirstToken);
        if !sample.row.is_queued() {
            idle += 1;
            trainer.observe(&sample).unwrap();
        }
    }
    trainer.retrain(|| true);
    assert_eq!(kinds(&trainer), [ModelKind::Forest, ModelKind::Linear]);
    pool.watch(&mut trainer, Target::FirstToken, 800);
    assert_eq!(kinds(&trainer), [ModelKind::Forest; 2]);
    assert_eq!(trainer.report().targets[1].models, [ModelKind::None; 2]);
}

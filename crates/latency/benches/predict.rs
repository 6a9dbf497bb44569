//! Time of one call: 100 candidates and others, both targets, by the model that answers.
#![allow(clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/support/mod.rs"]
mod support;

use inlane_latency::{ModelKind, Options, Prediction, Predictor, Row, Target, Trainer};

use support::Pool;

fn main() {
    divan::main();
}

const CANDIDATES: [usize; 4] = [10, 100, 112, 1_000];

fn trained(kept: impl Fn(&Row) -> bool) -> (Trainer, Pool) {
    // As many trees as allowed, the most work there can be: without noise each one helps.
    let mut options = Options::default();
    options.boost.patience = 1_000_000;
    options.boost.gamma = 0.0;
    let mut trainer = Trainer::new(options).unwrap();
    let mut pool = Pool::new(41, &[1.0]);
    pool.noise = 0.0;
    for target in [Target::FirstToken, Target::PerToken] {
        for _ in 0..2_000 {
            let sample = pool.sample(target);
            if kept(&sample.row) {
                trainer.observe(&sample).unwrap();
            }
        }
    }
    (trainer, pool)
}

fn run(bencher: divan::Bencher<'_, '_>, candidates: usize, retrain: bool) {
    let (mut trainer, mut pool) = trained(|_| true);
    if retrain {
        trainer.retrain(|| true);
        let report = trainer.report();
        assert!([0, 2].iter().all(|t| report.targets[*t].trees == [128; 2]), "{report:?}");
    }
    let predictor = Predictor::decode(&trainer.publish()).unwrap();
    let rows: Vec<Row> = (0..candidates).map(|_| pool.row()).collect();
    let factors = vec![predictor.factors(1); rows.len()];
    let mut out = vec![Prediction::UNKNOWN; rows.len()];
    bencher.bench_local(|| {
        predictor.predict(Target::FirstToken, divan::black_box(&rows), &factors, &mut out)
    });
}

/// Two forests of 128 trees.
#[divan::bench(args = CANDIDATES)]
fn forests(bencher: divan::Bencher<'_, '_>, candidates: usize) {
    run(bencher, candidates, true);
}

/// Two linear models.
#[divan::bench(args = CANDIDATES)]
fn linear(bencher: divan::Bencher<'_, '_>, candidates: usize) {
    run(bencher, candidates, false);
}

/// One candidate with a queue, for which there is no forest, beside others for which there is.
#[divan::bench(args = [100])]
fn mixed(bencher: divan::Bencher<'_, '_>, candidates: usize) {
    let (mut trainer, mut pool) = trained(|row| !row.is_queued());
    trainer.retrain(|| true);
    let predictor = Predictor::decode(&trainer.publish()).unwrap();
    assert_eq!(predictor.kinds(Target::PerToken), [ModelKind::Forest, ModelKind::Linear]);
    let mut rows: Vec<Row> = (0..candidates).map(|_| pool.row()).collect();
    rows.iter_mut().skip(1).for_each(|row| row.num_request_waiting = 0.0);
    rows[0].num_request_waiting = 3.0;
    let mut out = vec![Prediction::UNKNOWN; rows.len()];
    bencher.bench_local(|| {
        predictor.predict(Target::FirstToken, divan::black_box(&rows), &[], &mut out)
    });
}

#[divan::bench]
fn observe(bencher: divan::Bencher<'_, '_>) {
    let (mut trainer, mut pool) = trained(|_| true);
    trainer.retrain(|| true);
    let sample = pool.sample(Target::FirstToken);
    bencher.bench_local(|| trainer.observe(&sample));
}

/// One tree on 2,000 rows.
#[divan::bench(sample_count = 20)]
fn tree(bencher: divan::Bencher<'_, '_>) {
    let (mut trainer, _) = trained(|_| true);
    trainer.retrain(|| false);
    bencher.bench_local(|| trainer.retrain(|| false));
}

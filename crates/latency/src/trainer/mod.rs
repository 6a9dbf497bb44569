//! What the control plane runs: it learns from observations and publishes what it knows.

mod normal;
mod persist;
mod report;
mod retrain;

use std::collections::VecDeque;

use fastrand::Rng;

use crate::calibration::{BUFFER, Calibrator};
use crate::error::Error;
use crate::factors::FactorTable;
use crate::models::Models;
use crate::monitor::{DriftRule, Monitor};
use crate::options::Options;
use crate::predictor::{Predictor, estimate};
use crate::reservoir::{Kept, Reservoir};
use crate::ridge::Ridge;
use crate::sample::{Sample, Target};

pub use report::{Report, TargetReport};
pub use retrain::Progress;

/// Observations since a start before drift is looked for: until then models change by getting better.
const SETTLED: u64 = 500;

/// Everything learned, of all targets: models, samples, calibration, the speeds of endpoints.
///
/// One thread owns it. An observation costs about two microseconds; a retrain is grown tree by tree
/// between whatever else that thread does. At most about 45 MB, reached only when every load regime
/// has been seen.
#[derive(Debug)]
pub struct Trainer {
    options: Options,
    /// Deviations of the quantile, of a normal distribution.
    z: f64,
    /// Observations so far: the clock of everything here.
    now: u64,
    models: Models,
    learners: [Learner; 3],
    factors: FactorTable,
    job: Option<retrain::Job>,
    since_retrain: u64,
    retrains: u64,
    refused: u64,
    rng: Rng,
}

/// The state of one target.
#[derive(Debug)]
struct Learner {
    ridge: Ridge,
    reservoir: Reservoir,
    /// Samples that no forest is trained on: the newest ones.
    held: VecDeque<Kept>,
    /// By gate.
    calibrators: [Calibrator; 2],
    monitor: Monitor,
}

impl Learner {
    fn new(target: Target, options: &Options) -> Self {
        let rule = DriftRule {
            coverage: options.quantile.into(),
            threshold: options.drift_threshold.into(),
            evaluations: options.drift_evaluations,
            window: options.drift_window,
        };
        Self {
            ridge: Ridge::new(target, options.forgetting),
            reservoir: Reservoir::new(options.cell_capacity),
            held: VecDeque::with_capacity(BUFFER),
            calibrators: [(); 2]
                .map(|()| Calibrator::new(options.quantile, options.calibration_step)),
            monitor: Monitor::new(rule),
        }
    }

    fn hold(&mut self, sample: Kept) {
        if self.held.len() >= BUFFER {
            self.held.pop_front();
        }
        self.held.push_back(sample);
    }
}

impl Trainer {
    /// A trainer that knows nothing.
    ///
    /// # Errors
    /// A setting outside its range.
    pub fn new(options: Options) -> Result<Self, Error> {
        options.validate()?;
        Ok(Self {
            z: normal::quantile(options.quantile.into()),
            now: 0,
            models: Models::new(),
            learners: Target::ALL.map(|target| Learner::new(target, &options)),
            factors: FactorTable::new(options.max_endpoints),
            job: None,
            since_retrain: 0,
            retrains: 0,
            refused: 0,
            rng: Rng::with_seed(options.seed),
            options,
        })
    }

    /// Scores the present prediction by an observation, then learns from it.
    ///
    /// # Errors
    /// A number that is out of range; nothing is learned, the refusal is counted.
    pub fn observe(&mut self, sample: &Sample) -> Result<(), Error> {
        sample.validate().inspect_err(|_| self.refused += 1)?;
        self.now += 1;
        self.since_retrain += 1;
        let kept =
            Kept { row: sample.row, y_ms: sample.y_ms, endpoint: sample.endpoint, at: self.now };
        let drifted = self.score(sample.target, &kept);
        self.learn(sample.target, &kept);
        if self.rng.f32() < self.options.test_share {
            self.learners[sample.target.index()].hold(kept);
        } else {
            self.learners[sample.target.index()].reservoir.push(kept);
        }
        if drifted {
            self.start_over(sample.target);
        }
        Ok(())
    }

    /// Forgets the speed of an endpoint that is gone.
    pub fn forget(&mut self, endpoint: u64) {
        self.factors.forget(endpoint);
    }

    /// Forgets the speeds of all endpoints but those that `keep` names.
    pub fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        self.factors.retain(keep);
    }

    /// The document that workers read, by [`Predictor::decode`].
    pub fn publish(&self) -> Vec<u8> {
        Predictor::encode(self.options.quantile, &self.models, &self.factors)
    }

    /// Compares what is predicted now with what was observed; says whether that is drift.
    fn score(&mut self, target: Target, sample: &Kept) -> bool {
        let Some((center, upper)) = self.models.one(target, &sample.row) else { return false };
        let gate = sample.row.gate();
        let served = &mut self.models.targets[target.index()];
        let learner = &mut self.learners[target.index()];
        let factor = self.factors.factor(sample.endpoint, target.index());
        let pool = center * served.center[gate];
        let said = estimate(pool * factor, upper * served.upper[gate] * factor);
        let error = (said.expected_ms - sample.y_ms).abs() / sample.y_ms;
        learner.monitor.score(sample.y_ms <= said.upper_ms, error);

        let calibrator = &mut learner.calibrators[gate];
        let score = sample.y_ms / (upper * factor);
        let drifted = learner.ridge.seen() >= SETTLED
            && calibrator
                .within_reference(score)
                .is_some_and(|covered| learner.monitor.drifts(covered, calibrator.has_moved()));
        calibrator.observe(sample.y_ms / (center * factor), score);
        served.center[gate] = calibrator.center();
        served.upper[gate] = calibrator.upper();
        // Drift is what is sudden: the reference follows a slow change.
        if calibrator.has_turned_over() && !learner.monitor.is_suspicious() {
            calibrator.set_reference();
        }
        let deviation = f64::from(sample.y_ms / pool.max(f32::MIN_POSITIVE)).ln();
        self.factors.observe(sample.endpoint, target.index(), deviation, sample.at);
        drifted
    }

    /// Model A learns what the pool would have taken: the observation without its endpoint's factor.
    fn learn(&mut self, target: Target, sample: &Kept) {
        let factor = self.factors.factor(sample.endpoint, target.index());
        let ridge = &mut self.learners[target.index()].ridge;
        ridge.observe(&sample.row.linear_columns(), f64::from(sample.y_ms / factor));
        if ridge.seen() >= self.options.min_samples && ridge.is_due() {
            self.models.targets[target.index()].linear = Some(ridge.fit(self.z));
        }
    }

    /// Drops what was learned of a target before the samples that gave drift away.
    fn start_over(&mut self, target: Target) {
        let options = &self.options;
        let learner = &mut self.learners[target.index()];
        let window = options.drift_window as usize * (options.drift_evaluations as usize + 1);
        let mut newest = learner.reservoir.newest(window);
        let Some(oldest) = newest.first().map(|sample| sample.at) else { return };
        learner.reservoir.forget_before(oldest);
        learner.held.retain(|sample| sample.at >= oldest);
        newest.extend(&learner.held);
        newest.sort_unstable_by_key(|sample| sample.at);
        learner.ridge = Ridge::new(target, options.forgetting);
        for sample in &newest {
            self.learn(target, sample);
        }
        self.job = None;
        self.since_retrain = self.since_retrain.max(self.options.retrain_after);
        let forests = &self.models.targets[target.index()].forests;
        // A forest stays in service, adaptively corrected, until its successor lands; the linear
        // model has landed already.
        let pending = forests.iter().any(Option::is_some);
        for gate in 0..2 {
            if self.models.targets[target.index()].forests[gate].is_none() {
                self.calibrate(target, gate, &newest);
            }
        }
        if !pending {
            self.learners[target.index()].monitor.landed();
        }
    }

    /// Starts the calibration of a new model with samples.
    fn calibrate<'a>(
        &mut self,
        target: Target,
        gate: usize,
        samples: impl IntoIterator<Item = &'a Kept>,
    ) {
        let calibrator = &mut self.learners[target.index()].calibrators[gate];
        calibrator.clear();
        for sample in samples.into_iter().filter(|sample| sample.row.gate() == gate) {
            if let Some((center, upper)) = self.models.one(target, &sample.row) {
                let factor = self.factors.factor(sample.endpoint, target.index());
                calibrator.observe(sample.y_ms / (center * factor), sample.y_ms / (upper * factor));
            }
        }
        calibrator.set_reference();
        let served = &mut self.models.targets[target.index()];
        served.center[gate] = calibrator.center();
        served.upper[gate] = calibrator.upper();
    }
}

//! Growing new forests, a little at a time.

use super::Trainer;
use crate::boost::{Boosting, Rows};
use crate::forest::Forest;
use crate::grid::Grid;
use crate::reservoir::Kept;
use crate::sample::Target;

/// What [`Trainer::retrain`] has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is nothing to do.
    Idle,
    /// New forests are in service: publish.
    Landed,
    /// There is more to do: call again.
    Working,
}

/// Forests while they grow. They come into service together, because they share a grid.
#[derive(Debug)]
pub(super) struct Job {
    grid: Grid,
    pending: Vec<(Target, usize)>,
    growing: Option<(Target, usize, Boosting)>,
    done: [[Option<Forest>; 2]; 3],
}

impl Trainer {
    /// Whether [`retrain`](Self::retrain) has something to do.
    pub fn is_retrain_due(&self) -> bool {
        self.job.is_some() || self.since_retrain >= self.options.retrain_after
    }

    /// Grows trees as long as `go_on` says so, which is asked after each: with a clock of the
    /// caller's, this bounds the time to that of one tree beyond the budget (0.1 ms per 1,000 rows)
    /// or of gathering the rows of one forest. What is in service stays until all forests of a retrain are there.
    pub fn retrain(&mut self, mut go_on: impl FnMut() -> bool) -> Progress {
        if !self.is_retrain_due() {
            return Progress::Idle;
        }
        let mut job = match self.job.take() {
            Some(job) => job,
            None => self.plan(),
        };
        loop {
            if let Some((target, gate, mut boosting)) = job.growing.take() {
                if boosting.grow() {
                    job.growing = Some((target, gate, boosting));
                } else {
                    job.done[target.index()][gate] = Some(boosting.finish());
                }
            } else if let Some((target, gate)) = job.pending.pop() {
                let boosting = self.prepare(target, gate, &job.grid);
                job.growing = Some((target, gate, boosting));
            } else {
                self.land(job);
                return Progress::Landed;
            }
            if !go_on() {
                self.job = Some(job);
                return Progress::Working;
            }
        }
    }

    fn plan(&mut self) -> Job {
        self.since_retrain = 0;
        let since = self.now.saturating_sub(self.options.max_age);
        let mut pending = Vec::new();
        for (target, learner) in Target::ALL.into_iter().zip(&mut self.learners) {
            learner.reservoir.forget_before(since);
            learner.held.retain(|sample| sample.at >= since);
            let mut counts = [0; 2];
            for sample in learner.reservoir.iter().chain(&learner.held) {
                counts[sample.row.gate()] += 1;
            }
            let enough = |gate: &usize| counts[*gate] >= self.options.min_forest_samples;
            pending.extend((0..2).filter(enough).map(|gate| (target, gate)));
        }
        let trained = pending.iter().map(|(target, _)| target.index()).collect::<Vec<_>>();
        let rows = self
            .learners
            .iter()
            .enumerate()
            .filter(|(target, _)| trained.contains(target))
            .flat_map(|(_, learner)| learner.reservoir.iter().map(|sample| &sample.row));
        let grid = Grid::of(rows, self.options.boost.bins);
        Job { grid, pending, growing: None, done: Default::default() }
    }

    fn prepare(&mut self, target: Target, gate: usize, grid: &Grid) -> Boosting {
        let learner = &self.learners[target.index()];
        let of_gate = |sample: &&Kept| sample.row.gate() == gate;
        let mut samples: Vec<&Kept> = learner.reservoir.iter().filter(of_gate).collect();
        if samples.len() > self.options.max_training_rows {
            self.rng.shuffle(&mut samples);
            samples.truncate(self.options.max_training_rows);
        }
        let rows = |samples: &mut dyn Iterator<Item = &Kept>| {
            let mut rows = Rows::default();
            for sample in samples {
                let factor = self.factors.factor(sample.endpoint, target.index());
                rows.push(grid, &sample.row, (sample.y_ms / factor).ln());
            }
            rows
        };
        Boosting::new(
            &self.options.boost,
            (self.options.objective, self.options.quantile),
            target,
            grid,
            rows(&mut samples.into_iter()),
            rows(&mut learner.held.iter().filter(of_gate)),
            self.rng.u64(..),
        )
    }

    fn land(&mut self, job: Job) {
        self.retrains += 1;
        self.models.grid = job.grid;
        for (target, forests) in Target::ALL.into_iter().zip(job.done) {
            let index = target.index();
            let waiting = self.learners[index].monitor.is_waiting();
            let before = [0, 1].map(|gate| self.models.targets[index].kind(gate));
            self.models.targets[index].forests = forests;
            let held = self.learners[index].held.clone();
            for (gate, before) in before.into_iter().enumerate() {
                // The successor of a forest is about as good: its calibration goes on. Starting over
                // with the few samples held out would cost more than it mends.
                if waiting || self.models.targets[index].kind(gate) != before {
                    self.calibrate(target, gate, &held);
                }
            }
            self.learners[index].monitor.landed();
        }
    }
}

//! How good the predictions have been, and whether the world has changed.

use std::collections::VecDeque;

const RATE: f64 = 0.01;
const WINDOW: usize = 500;
const DRIFT_RATE: f64 = 0.3;

/// An exponential moving average that starts as a plain one.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    value: f64,
    seen: u64,
}

impl Average {
    fn add(&mut self, value: f64, rate: f64) {
        self.seen += 1;
        self.value += rate.max(1.0 / self.seen as f64) * (value - self.value);
    }
}

/// When drift is declared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DriftRule {
    pub(crate) coverage: f64,
    pub(crate) threshold: f64,
    pub(crate) evaluations: u32,
    pub(crate) window: u32,
}

/// The record of one target. Predictions are scored before the observation is learned from.
#[derive(Clone, Debug)]
pub(crate) struct Monitor {
    rule: DriftRule,
    coverage: Average,
    error: Average,
    recent: VecDeque<(bool, f32)>,
    drift: Average,
    hits: u32,
    looked: u32,
    breaches: u32,
    silent: bool,
    drifts: u64,
}

impl Monitor {
    pub(crate) fn new(rule: DriftRule) -> Self {
        Self {
            rule,
            coverage: Average::default(),
            error: Average::default(),
            recent: VecDeque::with_capacity(WINDOW),
            drift: Average::default(),
            hits: 0,
            looked: 0,
            breaches: 0,
            silent: false,
            drifts: 0,
        }
    }

    /// Scores one prediction: whether the quantile covered the observation, and by which share of
    /// the observation the usual value was off.
    pub(crate) fn score(&mut self, covered: bool, error: f32) {
        self.coverage.add(f64::from(u8::from(covered)), RATE);
        self.error.add(error.into(), RATE);
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((covered, error));
    }

    /// Looks for drift: `covered` by the quantile as it was calibrated when the model came into
    /// service. `true` once the moving average of the coverage has been off for several evaluations,
    /// and the correction that is needed has `moved`; after that it is silent until [`landed`](Self::landed).
    pub(crate) fn drifts(&mut self, covered: bool, moved: bool) -> bool {
        self.looked += 1;
        self.hits += u32::from(covered);
        if self.looked < self.rule.window {
            return false;
        }
        self.drift.add(f64::from(self.hits) / f64::from(self.looked), DRIFT_RATE);
        (self.hits, self.looked) = (0, 0);
        let off = (self.drift.value - self.rule.coverage).abs() > self.rule.threshold;
        self.breaches = if off { self.breaches + 1 } else { 0 };
        if self.silent || !moved || self.breaches < self.rule.evaluations {
            return false;
        }
        self.silent = true;
        self.drifts += 1;
        true
    }

    /// A new model is in service. Where that answers a drift, the watch starts over; otherwise it goes
    /// on, or retraining often would keep it from ever coming to an end.
    pub(crate) fn landed(&mut self) {
        if !self.silent {
            return;
        }
        (self.hits, self.looked, self.breaches, self.silent) = (0, 0, 0, false);
        self.drift = Average::default();
    }

    /// Whether drift may be under way.
    pub(crate) fn is_suspicious(&self) -> bool {
        self.silent || self.breaches > 0
    }

    /// Whether drift was declared and no new model has come since.
    pub(crate) fn is_waiting(&self) -> bool {
        self.silent
    }

    /// Moving averages of coverage and of the absolute percentage error, the latter as a share.
    pub(crate) fn moving(&self) -> (f64, f64) {
        (self.coverage.value, self.error.value)
    }

    /// The same over the last 500 predictions, and their number.
    pub(crate) fn window(&self) -> (f64, f64, usize) {
        let n = self.recent.len().max(1) as f64;
        let covered = self.recent.iter().filter(|(covered, _)| *covered).count() as f64;
        let error: f64 = self.recent.iter().map(|(_, error)| f64::from(*error)).sum();
        (covered / n, error / n, self.recent.len())
    }

    pub(crate) fn scored(&self) -> u64 {
        self.coverage.seen
    }

    pub(crate) fn drift_count(&self) -> u64 {
        self.drifts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: DriftRule =
        DriftRule { coverage: 0.9, threshold: 0.08, evaluations: 3, window: 50 };

    #[test]
    fn averages_and_window_agree_on_steady_input() {
        let mut monitor = Monitor::new(RULE);
        (0..2_000).for_each(|n| monitor.score(n % 10 != 0, 0.2));
        let (coverage, error) = monitor.moving();
        assert!((coverage - 0.9).abs() < 0.05 && (error - 0.2).abs() < 1e-6);
        let (coverage, error, len) = monitor.window();
        assert!((coverage - 0.9).abs() < 1e-9 && (error - 0.2).abs() < 1e-6 && len == 500);
    }

    #[test]
    fn drift_needs_three_evaluations_and_is_declared_once() {
        let mut monitor = Monitor::new(RULE);
        assert!((0..500).all(|_| !monitor.drifts(false, false)), "off by next to nothing");
        let mut monitor = Monitor::new(RULE);
        assert!((0..5_000).all(|n| !monitor.drifts(n % 10 != 0, true)), "steady");
        let declared: Vec<u32> = (1..2_000).filter(|_| monitor.drifts(false, true)).collect();
        assert_eq!(declared, [150]);
        monitor.landed();
        assert_eq!(
            (1..2_000).find(|_| monitor.drifts(true, true)),
            Some(150),
            "too wide counts too"
        );
        assert_eq!(monitor.drift_count(), 2);
    }
}

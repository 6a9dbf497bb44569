//! A histogram with fixed bucket bounds.

use std::sync::Arc;

/// Counts observations by bucket; bounds are inclusive upper bounds, ascending.
#[derive(Clone, Debug)]
pub struct Histogram {
    bounds: Arc<[f64]>,
    /// One per bound, and the last for what lies above all of them; not cumulative.
    buckets: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty histogram over `bounds`.
    pub fn new(bounds: impl Into<Arc<[f64]>>) -> Self {
        let bounds = bounds.into();
        Self { buckets: vec![0; bounds.len() + 1], bounds, sum: 0.0 }
    }

    /// Counts `value`.
    pub fn observe(&mut self, value: f64) {
        self.observe_many(value, 1);
    }

    /// Counts `value` `times` times.
    pub fn observe_many(&mut self, value: f64, times: u64) {
        let at = self.bounds.partition_point(|bound| *bound < value);
        self.buckets[at] += times;
        self.sum += value * times as f64;
    }

    /// The finite bounds.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// The count of each bucket, without those below it; the last one has no bound.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// The number of observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The sum of the observations.
    pub fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive() {
        let mut histogram = Histogram::new([1.0, 2.0]);
        for value in [0.5, 1.0, 1.5, 2.0, 2.5] {
            histogram.observe(value);
        }
        histogram.observe_many(9.0, 2);
        assert_eq!(histogram.buckets(), [2, 2, 3]);
        assert_eq!((histogram.count(), histogram.sum()), (7, 25.5));
    }
}

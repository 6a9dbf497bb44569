//! Min–max scores of a count where less is better, shared by the scorers of queue lengths.

use inlane_core::columns::Metrics;
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Scorer};

/// Scores by a count that engines report: `(max - q) / (max - min)` over the candidates, 1 for all when
/// they are equal.
#[derive(Debug)]
pub(crate) struct LowestScorer(pub(crate) fn(&Metrics) -> &[u32]);

impl Scorer for LowestScorer {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn reads_metrics(&self) -> bool {
        true
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        lowest_is_best((self.0)(&cx.columns.metrics), candidates, out);
        Ok(())
    }
}

/// Writes `(max - q) / (max - min)` over the candidates' counts, 1 for all when they are equal.
///
/// Two passes over the candidates and no allocation; the loops have no branch but the bounds check.
fn lowest_is_best(column: &[u32], candidates: &[EndpointIx], out: &mut [f64]) {
    let count = |ix: EndpointIx| column.get(ix as usize).copied().unwrap_or(0);
    let (mut min, mut max) = (u32::MAX, 0);
    for &ix in candidates {
        let q = count(ix);
        min = min.min(q);
        max = max.max(q);
    }
    if max <= min {
        out.fill(1.0);
        return;
    }
    let range = f64::from(max - min);
    for (&ix, out) in candidates.iter().zip(out) {
        *out = f64::from(max - count(ix)) / range;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn spans_the_unit_interval(column in proptest::collection::vec(0..50u32, 1..40)) {
            let candidates: Vec<_> = (0..).take(column.len()).collect();
            let mut out = vec![f64::NAN; column.len()];
            lowest_is_best(&column, &candidates, &mut out);
            prop_assert!(out.iter().all(|s| (0.0..=1.0).contains(s)));
            let (min, max) = (column.iter().min().unwrap(), column.iter().max().unwrap());
            for (q, score) in column.iter().zip(&out) {
                prop_assert!(q != min || *score == 1.0);
                prop_assert!(min == max || q != max || *score == 0.0);
            }
        }
    }
}

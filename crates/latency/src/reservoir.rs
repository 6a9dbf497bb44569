//! The samples that forests are trained on: the last ones of every load regime.
//!
//! One cell per (queue, KV use, prefix share) holds the newest samples first in, first out, so that
//! an hour of idling does not displace what is known about being busy. (5 × 20 × 4 cells, 500 each:
//! the buckets of llm-d's latency predictor.) At most 400 × 500 × 64 bytes = 13 MB per target.

use std::collections::VecDeque;

use crate::codec::{Reader, Writer};
use crate::error::Error;
use crate::features::{ROW_LEN, Row};

const QUEUES: usize = 5;
const KV: usize = 20;
const PREFIXES: usize = 4;
const CELLS: usize = QUEUES * KV * PREFIXES;

/// Bytes of a sample in a saved state.
pub(crate) const SAMPLE_LEN: usize = 4 * ROW_LEN + 4 + 8 + 8;

/// A sample of one target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Kept {
    pub(crate) row: Row,
    pub(crate) y_ms: f32,
    pub(crate) endpoint: u64,
    /// When it was observed, counted in observations.
    pub(crate) at: u64,
}

impl Kept {
    pub(crate) fn encode(&self, out: &mut Writer) {
        out.f32s(&self.row.to_array());
        out.f32(self.y_ms);
        out.u64(self.endpoint);
        out.u64(self.at);
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            row: Row::from_array(&from.f32s("sample row")?)?,
            y_ms: from.f32("sample y")?,
            endpoint: from.u64("sample endpoint")?,
            at: from.u64("sample time")?,
        })
    }
}

/// The cells of one target.
#[derive(Clone, Debug)]
pub(crate) struct Reservoir {
    capacity: usize,
    cells: Vec<VecDeque<Kept>>,
}

impl Reservoir {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, cells: vec![VecDeque::new(); CELLS] }
    }

    pub(crate) fn push(&mut self, sample: Kept) {
        let Some(cell) = self.cells.get_mut(cell_of(&sample.row)) else { return };
        if cell.len() >= self.capacity {
            cell.pop_front();
        }
        cell.push_back(sample);
    }

    /// Forgets what was observed before `at`.
    pub(crate) fn forget_before(&mut self, at: u64) {
        self.cells.iter_mut().for_each(|cell| cell.retain(|sample| sample.at >= at));
    }

    /// All samples, cell by cell.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Kept> {
        self.cells.iter().flatten()
    }

    /// The newest `max` samples, oldest first.
    pub(crate) fn newest(&self, max: usize) -> Vec<Kept> {
        let mut samples: Vec<Kept> = self.iter().copied().collect();
        samples.sort_unstable_by_key(|sample| sample.at);
        samples.split_off(samples.len().saturating_sub(max))
    }
}

fn cell_of(row: &Row) -> usize {
    let queue = match row.num_request_waiting {
        w if w < 1.0 => 0,
        w if w < 3.0 => 1,
        w if w < 6.0 => 2,
        w if w < 11.0 => 3,
        _ => 4,
    };
    let kv = ((row.kv_cache_percentage * KV as f32) as usize).min(KV - 1);
    (queue * KV + kv) * PREFIXES + usize::from(row.prefill_score_bucket())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(waiting: f32, kv: f32, prefix: f32, at: u64) -> Kept {
        let row = Row {
            num_request_waiting: waiting,
            kv_cache_percentage: kv,
            prefix_cache_score: prefix,
            ..Row::default()
        };
        Kept { row, y_ms: 1.0, endpoint: 7, at }
    }

    #[test]
    fn cells_are_those_of_the_reference() {
        let cells: Vec<usize> = [0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 10.0, 11.0, 1e9]
            .map(|waiting| cell_of(&sample(waiting, 0.0, 0.0, 0).row) / (KV * PREFIXES))
            .to_vec();
        assert_eq!(cells, [0, 1, 1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(cell_of(&sample(99.0, 1.0, 1.0, 0).row), CELLS - 1);
    }

    #[test]
    fn a_busy_hour_does_not_displace_an_idle_one() {
        let mut reservoir = Reservoir::new(3);
        reservoir.push(sample(0.0, 0.1, 0.0, 0));
        (1..100).for_each(|at| reservoir.push(sample(20.0, 0.9, 0.0, at)));
        let times = |samples: &[Kept]| samples.iter().map(|s| s.at).collect::<Vec<_>>();
        assert_eq!(times(&reservoir.newest(10)), [0, 97, 98, 99]);
        assert_eq!(times(&reservoir.newest(2)), [98, 99]);
        reservoir.forget_before(98);
        assert_eq!(reservoir.iter().count(), 2);
    }
}

//! The models of all targets as they are served, and their evaluation.

use crate::block::{LANES, ROWS, VECTOR};
use crate::codec::{Reader, Writer};
use crate::error::{Error, intact};
use crate::features::{LINEAR_COLUMNS, Row, TREE_COLUMNS};
use crate::forest::Forest;
use crate::grid::Grid;
use crate::linear::{LinearModel, spread};
use crate::sample::Target;

/// Which model answers for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelKind {
    /// Model B, gradient boosted trees.
    Forest,
    /// Model A, Bayesian ridge.
    Linear,
    /// Too little is known: nothing is predicted.
    None,
}

/// The models of one target. Arrays of two are by gate: without a queue, with one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Served {
    pub(crate) linear: Option<LinearModel>,
    pub(crate) forests: [Option<Forest>; 2],
    /// Calibration of the usual value.
    pub(crate) center: [f32; 2],
    /// Calibration of the quantile.
    pub(crate) upper: [f32; 2],
}

impl Served {
    fn new() -> Self {
        Self { linear: None, forests: [None, None], center: [1.0; 2], upper: [1.0; 2] }
    }

    pub(crate) fn kind(&self, gate: usize) -> ModelKind {
        match (&self.linear, &self.forests[gate]) {
            (None, _) => ModelKind::None,
            (_, None) => ModelKind::Linear,
            _ => ModelKind::Forest,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Models {
    pub(crate) grid: Grid,
    pub(crate) targets: [Served; 3],
}

/// Candidates laid out for evaluation: those of gate 0 first, each gate in whole vectors.
pub(crate) struct Block {
    /// The lane of each row.
    lane: [u8; ROWS],
    /// Where the lanes of gate 1 start and end.
    split: usize,
    end: usize,
    bins: [[u8; LANES]; TREE_COLUMNS],
}

impl Block {
    /// Lays out at most [`ROWS`] rows.
    #[inline]
    pub(crate) fn of(rows: &[Row], grid: &Grid) -> Self {
        let rows = &rows[..rows.len().min(ROWS)];
        let queued = rows.iter().filter(|row| row.is_queued()).count();
        let split = (rows.len() - queued).next_multiple_of(VECTOR);
        let mut next = [0, split];
        let mut block = Self {
            lane: [0; ROWS],
            split,
            end: (split + queued).next_multiple_of(VECTOR).min(LANES),
            bins: [[0; LANES]; TREE_COLUMNS],
        };
        for (place, row) in block.lane.iter_mut().zip(rows) {
            let next = &mut next[row.gate()];
            let lane = *next % LANES;
            *next += 1;
            *place = lane as u8;
            for (column, bin) in block.bins.iter_mut().zip(grid.row(row)) {
                column[lane] = bin;
            }
        }
        block
    }

    #[inline]
    pub(crate) fn lane(&self, row: usize) -> usize {
        usize::from(self.lane[row % ROWS]) % LANES
    }

    fn range(&self, gate: usize) -> (usize, usize) {
        if gate == 0 { (0, self.split) } else { (self.split, self.end) }
    }
}

impl Models {
    pub(crate) fn new() -> Self {
        Self { grid: Grid::flat(), targets: std::array::from_fn(|_| Served::new()) }
    }

    /// Usual value and quantile of every lane, uncalibrated, as the pool and not an endpoint would
    /// have them; `false` when there is no model.
    #[inline]
    pub(crate) fn lanes(
        &self,
        target: Target,
        rows: &[Row],
        block: &Block,
        center: &mut [f32; LANES],
        upper: &mut [f32; LANES],
    ) -> bool {
        let served = &self.targets[target.index()];
        let Some(linear) = &served.linear else { return false };
        let [idle, queued] = [0, 1].map(|gate| {
            let (from, to) = block.range(gate);
            (from < to && served.forests[gate].is_none()).then_some((from, to))
        });
        if let Some((from, _)) = idle.or(queued)
            && let Some((_, to)) = queued.or(idle)
        {
            let mut columns = [[0.0; LANES]; LINEAR_COLUMNS];
            let lanes = rows.iter().take(ROWS).enumerate().map(|(i, row)| (block.lane(i), row));
            let lanes = lanes.filter(|(_, row)| served.forests[row.gate()].is_none());
            spread(lanes, &mut columns);
            linear.lanes(&mut columns, (from, to), center, upper);
        }
        for (gate, forest) in served.forests.iter().enumerate() {
            let (from, to) = block.range(gate);
            if let Some(forest) = forest
                && from < to
            {
                forest.lanes(&block.bins, from, to, center);
                upper[from..to].copy_from_slice(&center[from..to]);
            }
        }
        true
    }

    /// The same for one row.
    pub(crate) fn one(&self, target: Target, row: &Row) -> Option<(f32, f32)> {
        let rows = std::slice::from_ref(row);
        let block = Block::of(rows, &self.grid);
        let (mut center, mut upper) = ([0.0; LANES], [0.0; LANES]);
        let lane = block.lane(0);
        self.lanes(target, rows, &block, &mut center, &mut upper)
            .then(|| (center[lane], upper[lane]))
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        self.grid.encode(out);
        for served in &self.targets {
            out.u8(u8::from(served.linear.is_some()));
            if let Some(linear) = &served.linear {
                linear.encode(out);
            }
            for forest in &served.forests {
                out.u8(u8::from(forest.is_some()));
                if let Some(forest) = forest {
                    forest.encode(out);
                }
            }
            out.f32s(&served.center);
            out.f32s(&served.upper);
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let mut models = Self { grid: Grid::decode(from)?, ..Self::new() };
        for served in &mut models.targets {
            if from.flag("linear present")? {
                served.linear = Some(LinearModel::decode(from)?);
            }
            for forest in &mut served.forests {
                if from.flag("forest present")? {
                    *forest = Some(Forest::decode(from)?);
                }
            }
            served.center = from.f32s("center")?;
            served.upper = from.f32s("upper")?;
            for ratio in served.center.iter().chain(&served.upper) {
                intact("calibration ratio", (*ratio).into(), "0 or more", *ratio >= 0.0)?;
            }
        }
        Ok(models)
    }
}

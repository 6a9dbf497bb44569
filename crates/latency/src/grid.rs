//! From a feature to the byte that trees compare.
//!
//! A value first falls into one of 2,048 fine cells by arithmetic alone: shares linearly, counts on
//! a logarithmic scale of 64 cells per octave, taken straight from the float's bits. A table per
//! column then joins cells into at most 256 bins of about equal frequency. So a threshold can lie
//! anywhere with an error of at most 1.6 % of a count or 0.05 % of a share, and finding the bin of a
//! value is one table look-up instead of a search.

use crate::codec::{Reader, Writer};
use crate::error::{Error, intact};
use crate::features::{Row, TREE_COLUMNS};

const FINE: usize = 2_048;
/// Mantissa bits dropped: 23 − 6, which leaves 64 cells per octave.
const DROPPED: u32 = 17;
const ONE: u32 = 1f32.to_bits();
/// Columns that are shares.
const SHARES: [bool; TREE_COLUMNS] =
    [true, false, false, false, false, false, true, false, false, false, false];

/// The bins of every column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// The first fine cell of each bin but the first, ascending.
    edges: [Vec<u16>; TREE_COLUMNS],
    bins: Box<[[u8; FINE]; TREE_COLUMNS]>,
}

impl Grid {
    /// A grid that puts everything into one bin.
    pub(crate) fn flat() -> Self {
        Self::of_edges(Default::default())
    }

    /// Bins of about equal frequency over `rows`, at most `max` per column.
    pub(crate) fn of<'a>(rows: impl Iterator<Item = &'a Row>, max: usize) -> Self {
        let mut counts = vec![[0u32; FINE]; TREE_COLUMNS];
        let mut total = 0u32;
        for row in rows {
            total += 1;
            for (column, (counts, value)) in counts.iter_mut().zip(row.tree_columns()).enumerate() {
                counts[cell(SHARES[column], value)] += 1;
            }
        }
        let mut edges = counts.iter().map(|counts| edges(counts, total, max));
        Self::of_edges(std::array::from_fn(|_| edges.next().unwrap_or_default()))
    }

    fn of_edges(edges: [Vec<u16>; TREE_COLUMNS]) -> Self {
        let mut bins = Box::new([[0u8; FINE]; TREE_COLUMNS]);
        for (bins, edges) in bins.iter_mut().zip(&edges) {
            for edge in edges {
                bins[usize::from(*edge).min(FINE)..].iter_mut().for_each(|bin| *bin += 1);
            }
        }
        Self { edges, bins }
    }

    /// The bins of one row.
    #[inline]
    pub(crate) fn row(&self, row: &Row) -> [u8; TREE_COLUMNS] {
        let values = row.tree_columns();
        std::array::from_fn(|column| self.bins[column][cell(SHARES[column], values[column])])
    }

    /// Bins of a column, from 1 to 256.
    pub(crate) fn len(&self, column: usize) -> usize {
        self.edges.get(column).map_or(1, |edges| edges.len() + 1)
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        for edges in &self.edges {
            out.count(edges.len());
            edges.iter().for_each(|edge| out.u16(*edge));
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let mut edges: [Vec<u16>; TREE_COLUMNS] = Default::default();
        for edges in &mut edges {
            for _ in 0..from.count("grid edges", 255, 2)? {
                let edge = from.u16("grid edge")?;
                let rises = edges.last().is_none_or(|last| edge > *last);
                let inside = (1..FINE).contains(&usize::from(edge));
                intact("grid edge", edge.into(), "ascending, 1 to 2047", rises && inside)?;
                edges.push(edge);
            }
        }
        Ok(Self::of_edges(edges))
    }
}

#[inline]
fn cell(share: bool, value: f32) -> usize {
    if share {
        ((value * (FINE - 1) as f32) as usize).min(FINE - 1)
    } else {
        // Floats above 1 have the order of their bits.
        let bits = (value.max(0.0) + 1.0).to_bits();
        ((bits.saturating_sub(ONE) >> DROPPED) as usize).min(FINE - 1)
    }
}

/// Edges lie in the middle between the values that they part.
fn edges(counts: &[u32; FINE], total: u32, max: usize) -> Vec<u16> {
    let occupied = counts.iter().filter(|count| **count > 0).count();
    let share = if occupied <= max { 0 } else { total.div_ceil(max.max(1) as u32) };
    let mut edges = Vec::new();
    let mut last: Option<usize> = None;
    let mut held = 0;
    for (cell, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        if let Some(last) = last
            && held > 0
            && held >= share
            && edges.len() + 1 < max
        {
            edges.push((last + cell).div_ceil(2) as u16);
            held = 0;
        }
        held += count;
        last = Some(cell);
    }
    edges
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(n: u32) -> Row {
        Row { num_request_waiting: n as f32, ..Row::default() }
    }

    #[test]
    fn small_counts_have_bins_of_their_own() {
        let rows: Vec<Row> = (0..100).map(waiting).collect();
        let grid = Grid::of(rows.iter(), 256);
        assert_eq!(grid.len(2), 100);
        for (n, row) in rows.iter().enumerate() {
            assert_eq!(usize::from(grid.row(row)[2]), n);
        }
        assert_eq!(grid.len(0), 1, "a constant column has one bin");
    }

    #[test]
    fn many_values_share_bins_evenly() {
        let rows: Vec<Row> = (0..10_000)
            .map(|n| Row { kv_cache_percentage: n as f32 / 1e4, ..waiting(n) })
            .collect();
        let grid = Grid::of(rows.iter(), 64);
        for column in [0, 2] {
            assert!((50..=64).contains(&grid.len(column)), "{}", grid.len(column));
            let mut held = [0; 256];
            rows.iter().for_each(|row| held[usize::from(grid.row(row)[column])] += 1);
            assert!(held[..grid.len(column)].iter().all(|n| *n > 0 && *n <= 400));
        }
    }

    #[test]
    fn order_is_kept_and_extremes_fit() {
        let rows: Vec<Row> = (0..31).map(|n| waiting(1 << n.min(29))).collect();
        let grid = Grid::of(rows.iter(), 256);
        let bins: Vec<u8> = rows.iter().map(|row| grid.row(row)[2]).collect();
        assert!(bins.is_sorted());
        assert_eq!(cell(false, f32::MAX), FINE - 1);
        assert_eq!(cell(true, 2.0), FINE - 1);
        assert_eq!(cell(true, f32::NAN), 0);
        assert_eq!(cell(false, f32::NAN), 0);
    }

    #[test]
    fn it_survives_its_encoding() {
        let rows: Vec<Row> = (0..300).map(waiting).collect();
        let grid = Grid::of(rows.iter(), 256);
        let mut out = Writer::default();
        grid.encode(&mut out);
        let bytes = out.seal(*b"gridtest", 1);
        let mut from = Reader::open(&bytes, *b"gridtest", 1).unwrap();
        assert_eq!(Grid::decode(&mut from), Ok(grid));
    }
}

//! The served form of model B: a sum of oblivious trees.
//!
//! An oblivious (symmetric) tree asks the same question of every node of a level, so a tree of depth
//! 6 is six (column, threshold) pairs and 64 leaves, and a row's leaf number is six bits from six
//! comparisons that do not depend on each other. With features as bytes, one vector instruction
//! compares 16 candidates; no branch depends on data. That is what makes hundreds of trees affordable
//! in a request's path (Prokhorenkova et al., "CatBoost: unbiased boosting with categorical features",
//! 2018, use the same form). 128 trees for 100 candidates take about 6 µs with SSE2 alone; walking the
//! nodes of ordinary trees takes over ten times that.
//!
//! Leaves hold logarithms of milliseconds: an error then counts by its ratio, short and long
//! requests alike, and a quantile of the logarithm is the logarithm of the quantile.

use crate::block::{LANES, VECTOR};
use crate::codec::{Reader, Writer};
use crate::error::{Error, intact};
use crate::features::TREE_COLUMNS;

/// Questions per tree.
pub(crate) const DEPTH: usize = 6;
pub(crate) const LEAVES: usize = 1 << DEPTH;
/// Bytes of a tree in a document.
pub(crate) const TREE_LEN: usize = 2 * DEPTH + 4 * LEAVES;
/// Bytes of a forest in a document, without its trees.
pub(crate) const FOREST_HEAD_LEN: usize = 8;
/// Trees of a forest at most, in any document.
pub const MAX_TREES: usize = 512;

/// Trees that are summed up in one pass over the candidates.
const GROUP: usize = 4;
/// No bin is above it: a question that nobody answers with yes.
pub(crate) const NEVER: u8 = 255;
/// Logarithms of milliseconds are kept within this, which bounds predictions to 2e-9..5e8 ms.
const BOUND: f32 = 20.0;

/// One tree: bit `l` of a leaf's number says whether column `column[l]` is above `threshold[l]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tree {
    pub(crate) column: [u8; DEPTH],
    pub(crate) threshold: [u8; DEPTH],
    pub(crate) leaves: [f32; LEAVES],
}

impl Tree {
    /// A tree that adds nothing.
    pub(crate) const NEUTRAL: Self =
        Self { column: [0; DEPTH], threshold: [NEVER; DEPTH], leaves: [0.0; LEAVES] };

    #[inline(always)]
    fn leaf_numbers(
        &self,
        bins: &[[u8; LANES]; TREE_COLUMNS],
        from: usize,
        to: usize,
        out: &mut [u8; LANES],
    ) {
        let columns: [&[u8; LANES]; DEPTH] =
            std::array::from_fn(|l| &bins[usize::from(self.column[l]).min(TREE_COLUMNS - 1)]);
        let mut at = from;
        while at + VECTOR <= to {
            let mut number = [0u8; VECTOR];
            for (level, (column, threshold)) in columns.iter().zip(self.threshold).enumerate() {
                for (number, bin) in number.iter_mut().zip(&column[at..at + VECTOR]) {
                    *number |= u8::from(*bin > threshold) << level;
                }
            }
            out[at..at + VECTOR].copy_from_slice(&number);
            at += VECTOR;
        }
    }

    /// The leaf of one row.
    pub(crate) fn leaf(&self, bins: &[u8; TREE_COLUMNS]) -> usize {
        (0..DEPTH)
            .filter(|l| bins[usize::from(self.column[*l])] > self.threshold[*l])
            .map(|l| 1 << l)
            .sum()
    }
}

/// A base and the trees that correct it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forest {
    base: f32,
    trees: Vec<Tree>,
}

impl Forest {
    pub(crate) fn new(base: f32, mut trees: Vec<Tree>) -> Self {
        trees.truncate(MAX_TREES);
        trees.resize(trees.len().next_multiple_of(GROUP), Tree::NEUTRAL);
        Self { base, trees }
    }

    /// Milliseconds for the lanes `from..to`, whole vectors.
    #[inline]
    pub(crate) fn lanes(
        &self,
        bins: &[[u8; LANES]; TREE_COLUMNS],
        from: usize,
        to: usize,
        out: &mut [f32; LANES],
    ) {
        let to = to.min(LANES);
        let from = from.min(to);
        out[from..to].fill(self.base);
        let mut numbers = [[0u8; LANES]; GROUP];
        for group in self.trees.chunks_exact(GROUP) {
            for (tree, numbers) in group.iter().zip(&mut numbers) {
                tree.leaf_numbers(bins, from, to, numbers);
            }
            let [a, b, c, d] = group else { continue };
            let [na, nb, nc, nd] = &numbers;
            let lanes = out[from..to].iter_mut().zip(&na[from..to]).zip(&nb[from..to]);
            for ((((sum, na), nb), nc), nd) in lanes.zip(&nc[from..to]).zip(&nd[from..to]) {
                let leaf = |tree: &Tree, number: u8| tree.leaves[usize::from(number) % LEAVES];
                *sum += (leaf(a, *na) + leaf(b, *nb)) + (leaf(c, *nc) + leaf(d, *nd));
            }
        }
        for value in &mut out[from..to] {
            *value = value.clamp(-BOUND, BOUND).exp();
        }
    }

    /// Trees, the padding included.
    pub(crate) fn len(&self) -> usize {
        self.trees.len()
    }

    pub(crate) fn encode(&self, out: &mut Writer) {
        out.f32(self.base);
        out.count(self.trees.len());
        for tree in &self.trees {
            out.bytes(&tree.column);
            out.bytes(&tree.threshold);
            out.f32s(&tree.leaves);
        }
    }

    pub(crate) fn decode(from: &mut Reader<'_>) -> Result<Self, Error> {
        let base = from.f32("forest base")?;
        let len = from.count("forest trees", MAX_TREES, TREE_LEN)?;
        let mut trees = Vec::with_capacity(len);
        for _ in 0..len {
            let tree = Tree {
                column: from.array("tree columns")?,
                threshold: from.array("tree thresholds")?,
                leaves: from.f32s("tree leaves")?,
            };
            let known = tree.column.iter().all(|column| usize::from(*column) < TREE_COLUMNS);
            intact("tree columns", 0.0, "columns that exist", known)?;
            trees.push(tree);
        }
        Ok(Self::new(base, trees))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_equal_the_walk_of_one_row() {
        let mut rng = fastrand::Rng::with_seed(5);
        let trees: Vec<Tree> = (0..7)
            .map(|_| Tree {
                column: std::array::from_fn(|_| rng.u8(..TREE_COLUMNS as u8)),
                threshold: std::array::from_fn(|_| rng.u8(..)),
                leaves: std::array::from_fn(|_| rng.f32() - 0.5),
            })
            .collect();
        let rows: Vec<[u8; TREE_COLUMNS]> =
            (0..LANES).map(|_| std::array::from_fn(|_| rng.u8(..))).collect();
        let mut bins = [[0; LANES]; TREE_COLUMNS];
        for (lane, row) in rows.iter().enumerate() {
            (0..TREE_COLUMNS).for_each(|column| bins[column][lane] = row[column]);
        }
        let forest = Forest::new(1.0, trees.clone());
        assert_eq!(forest.len(), 8);
        let mut out = [0.0; LANES];
        forest.lanes(&bins, 16, 96, &mut out);
        for (lane, row) in rows.iter().enumerate() {
            let log = 1.0 + trees.iter().map(|t| t.leaves[t.leaf(row)]).sum::<f32>();
            let expected = if (16..96).contains(&lane) { log.exp() } else { 0.0 };
            assert!((out[lane] - expected).abs() < 1e-5, "lane {lane}");
        }
    }

    #[test]
    fn leaves_out_of_all_reason_stay_finite() {
        let mut tree = Tree::NEUTRAL;
        tree.leaves = [f32::MAX; LEAVES];
        let forest = Forest::new(f32::MAX, vec![tree; 8]);
        let mut out = [0.0; LANES];
        forest.lanes(&[[0; LANES]; TREE_COLUMNS], 0, LANES, &mut out);
        assert!(out.iter().all(|value| value.is_finite()));
    }
}

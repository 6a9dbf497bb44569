//! The unit of evaluation: a fixed number of candidates, column by column.

/// Candidates that are evaluated together.
pub(crate) const LANES: usize = 128;
/// Candidates of a vector of bytes: blocks are worked off in whole vectors.
pub(crate) const VECTOR: usize = 16;
/// Candidates taken into a block: those of each gate start at a whole vector, which may leave lanes.
pub(crate) const ROWS: usize = LANES - VECTOR;

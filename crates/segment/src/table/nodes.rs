//! From (entry, slot) to the recency node in the arena: the writer's private index.
//!
//! A flat open-addressing array of node units, probed linearly, deleted by shifting back, so that no
//! tombstones ever accumulate. It is 4/3 times as large as the number of nodes the arena can hold
//! and therefore never full and never grown. The keys are not stored: a cell's node names its entry
//! and slot itself.

use super::layout::{Layout, NODE_INDEX_DEN, NODE_INDEX_NUM};
use super::memory::Table;
use super::recency::{ARENA, Held};
use crate::words::WordsMut;

#[derive(Debug)]
pub(super) struct Nodes {
    /// Unit + 1, or 0. Allocated zeroed, so untouched parts cost no memory.
    cells: Vec<u32>,
    len: usize,
}

impl Nodes {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { cells: vec![0; layout.units() * NODE_INDEX_NUM / NODE_INDEX_DEN + 1], len: 0 }
    }

    /// The node of `held`.
    pub(super) fn find<M: WordsMut>(&self, table: &Table<M>, held: Held) -> Option<u32> {
        self.cell_of(table, held).map(|cell| self.cells[cell] - 1)
    }

    /// Adds a node whose words already name its entry and slot.
    pub(super) fn insert(&mut self, held: Held, unit: u32) {
        let mut cell = self.home(held);
        while self.cells[cell] != 0 {
            cell = self.after(cell);
        }
        self.cells[cell] = unit + 1;
        self.len += 1;
    }

    /// Forgets the node of `held` and returns it.
    pub(super) fn remove<M: WordsMut>(&mut self, table: &Table<M>, held: Held) -> Option<u32> {
        let mut gap = self.cell_of(table, held)?;
        let unit = self.cells[gap] - 1;
        let mut cell = gap;
        loop {
            cell = self.after(cell);
            let Some(next) = self.cells[cell].checked_sub(1) else { break };
            let home = self.home(table.held(0, next | ARENA));
            // The node may move back to the gap unless its home lies after the gap.
            if self.distance(home, cell) >= self.distance(gap, cell) {
                self.cells[gap] = next + 1;
                gap = cell;
            }
        }
        self.cells[gap] = 0;
        self.len -= 1;
        Some(unit)
    }

    /// Bytes of this index, as far as it is used.
    pub(super) fn bytes(&self) -> usize {
        self.len * size_of::<u32>() * NODE_INDEX_NUM / NODE_INDEX_DEN
    }

    fn cell_of<M: WordsMut>(&self, table: &Table<M>, held: Held) -> Option<usize> {
        let mut cell = self.home(held);
        loop {
            let unit = self.cells[cell].checked_sub(1)?;
            if table.held(0, unit | ARENA) == held {
                return Some(cell);
            }
            cell = self.after(cell);
        }
    }

    fn home(&self, held: Held) -> usize {
        let key = (held.entry as u64) << 16 | u64::from(held.slot);
        let product = u128::from(key) * 0x9e37_79b9_7f4a_7c15;
        let mixed = product as u64 ^ (product >> 64) as u64;
        ((u128::from(mixed) * self.cells.len() as u128) >> 64) as usize
    }

    fn after(&self, cell: usize) -> usize {
        if cell + 1 == self.cells.len() { 0 } else { cell + 1 }
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.cells.len() - from }
    }
}

//! The arena of a mirror: records, and pages of aliases that a successor can recognise.
//!
//! Nothing refers to an alias from the entries, so the words say which pages hold aliases. Such a
//! page is emptied before it is marked, and no longer marked before it holds anything else.

use super::super::arena::{Arena, Cell};
use super::super::layout::{Layout, PAGE_UNITS};
use super::super::memory::Table;
use crate::words::WordsMut;

/// Of so many pages one stays free for what removals need.
const RESERVE: usize = 16;

#[derive(Debug)]
pub(super) struct Pages {
    arena: Arena,
    reserve: usize,
}

/// What an allocation is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum For {
    /// A holding that is new.
    Adding,
    /// The end of one: it may use what is kept back for it.
    Removing,
}

impl Pages {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { arena: Arena::new(layout), reserve: layout.pages / RESERVE }
    }

    pub(super) fn allocate<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        cell: Cell,
        purpose: For,
    ) -> Option<u32> {
        let reserve = if purpose == For::Adding { self.reserve } else { 0 };
        if !self.arena.has_room(cell, reserve) {
            return None;
        }
        let unit = self.arena.allocate(cell)?;
        let page = unit as usize / PAGE_UNITS;
        match (cell, table.has_aliases(page)) {
            (Cell::Node, false) => {
                let first = (page * PAGE_UNITS) as u32;
                for unit in first..first + PAGE_UNITS as u32 {
                    table.store(table.layout.arena_word(unit) + 1, 0);
                }
                table.mark_aliases(page, true);
            }
            (Cell::Record(_), true) => table.mark_aliases(page, false),
            _ => {}
        }
        Some(unit)
    }

    pub(super) fn free(&mut self, cell: Cell, unit: u32) {
        self.arena.free(cell, unit);
    }

    /// See [`Arena::claim`].
    pub(super) fn claim(&mut self, cell: Cell, unit: u32) -> bool {
        self.arena.claim(cell, unit)
    }

    /// Whether [`Pages::claim`] would succeed.
    pub(super) fn may_claim(&mut self, cell: Cell, unit: u32) -> bool {
        let may = self.arena.claim(cell, unit);
        if may {
            self.arena.unclaim(cell, unit);
        }
        may
    }

    /// Takes a claim back.
    pub(super) fn unclaim(&mut self, cell: Cell, unit: u32) {
        self.arena.unclaim(cell, unit);
    }

    /// See [`Arena::settle`].
    pub(super) fn settle(&mut self) {
        self.arena.settle();
    }

    /// Bytes of pages in use.
    pub(super) fn bytes(&self) -> usize {
        self.arena.bytes()
    }
}

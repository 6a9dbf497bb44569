//! Which cells of the arena are in use: the writer's private allocator.
//!
//! The arena is cut into pages; a page serves cells of one size until its last cell is free again,
//! then any size. Nothing of this is in shared memory: what is in use follows from the entries and
//! the recency lists, so a writer that takes over claims what they refer to ([`Arena::claim`]) and
//! everything else is free, including cells that its predecessor lost between two stores.
//!
//! Cost: O(1) per operation; 48 bytes per page that was ever used.

use super::holders::{LIST_CLASSES, Shape};
use super::layout::{Layout, PAGE_UNITS};

const NONE: u32 = u32::MAX;
const BITMAP_CLASS: usize = LIST_CLASSES;
const NODE_CLASS: usize = LIST_CLASSES + 1;
const CLASSES: usize = LIST_CLASSES + 2;
const MAP_WORDS: usize = PAGE_UNITS.div_ceil(64);

#[derive(Debug)]
pub(super) struct Arena {
    /// Units per cell, by class.
    cell_units: [usize; CLASSES],
    /// First page of each class that has a free cell.
    partial: [u32; CLASSES],
    pages: Vec<Page>,
    free_pages: Vec<u32>,
    max_pages: usize,
    /// Where the last search for a page of nodes ended.
    hand: usize,
}

/// What a cell is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    /// A recency node: two words that name their holding, so that a page of them can be emptied.
    Node,
    /// A record of this shape.
    Record(Shape),
}

#[derive(Debug, Clone)]
struct Page {
    used: [u64; MAP_WORDS],
    live: u16,
    class: u8,
    /// Neighbours in the class's list of pages with a free cell.
    older: u32,
    newer: u32,
}

impl Arena {
    pub(super) fn new(layout: &Layout) -> Self {
        let mut cell_units = [1; CLASSES];
        for (class, units) in cell_units.iter_mut().enumerate().take(LIST_CLASSES) {
            *units = 1 << class;
        }
        cell_units[BITMAP_CLASS] = layout.bitmap_words.div_ceil(2);
        Self {
            cell_units,
            partial: [NONE; CLASSES],
            pages: Vec::new(),
            free_pages: Vec::new(),
            max_pages: layout.pages,
            hand: 0,
        }
    }

    /// A free cell's first unit, or `None` when no page has room for this size.
    pub(super) fn allocate(&mut self, cell: Cell) -> Option<u32> {
        let class = class(cell);
        let page = match self.partial[class] {
            NONE => self.fresh_page(class)?,
            page => page,
        };
        let cells = self.cells(class);
        let entry = &mut self.pages[page as usize];
        let cell = first_zero(&entry.used)?;
        set(&mut entry.used, cell);
        entry.live += 1;
        if usize::from(entry.live) == cells {
            self.unlink(page);
        }
        Some((page as usize * PAGE_UNITS + cell * self.cell_units[class]) as u32)
    }

    /// Whether a cell can be had while more than `reserve` pages stay without use.
    pub(super) fn has_room(&self, cell: Cell, reserve: usize) -> bool {
        self.partial[class(cell)] != NONE || self.spare_pages() > reserve
    }

    /// Pages that serve nothing.
    fn spare_pages(&self) -> usize {
        self.free_pages.len() + self.max_pages - self.pages.len()
    }

    /// Returns a cell. It may be handed out again at once.
    pub(super) fn free(&mut self, cell: Cell, unit: u32) {
        let class = class(cell);
        let (page, cell) = self.locate(class, unit);
        let was_full = usize::from(self.pages[page].live) == self.cells(class);
        let entry = &mut self.pages[page];
        debug_assert!(get(&entry.used, cell), "cell freed twice");
        entry.used[cell / 64] &= !(1 << (cell % 64));
        entry.live -= 1;
        let live = entry.live;
        if was_full {
            self.link(page as u32);
        }
        if live == 0 {
            self.unlink(page as u32);
            self.free_pages.push(page as u32);
        }
    }

    /// Marks a cell as in use, if it is one that an arena could have handed out and that nobody
    /// else has claimed. Only before [`Arena::settle`].
    pub(super) fn claim(&mut self, cell: Cell, unit: u32) -> bool {
        let class = class(cell);
        let units = self.cell_units[class];
        let (page, offset) = (unit as usize / PAGE_UNITS, unit as usize % PAGE_UNITS);
        if page >= self.max_pages || offset % units != 0 || offset / units >= self.cells(class) {
            return false;
        }
        while self.pages.len() <= page {
            self.pages.push(Page::new());
        }
        let entry = &mut self.pages[page];
        if entry.live == 0 {
            entry.class = class as u8;
        }
        if usize::from(entry.class) != class || get(&entry.used, offset / units) {
            return false;
        }
        set(&mut entry.used, offset / units);
        entry.live += 1;
        true
    }

    /// Takes a claim back. Only before [`Arena::settle`].
    pub(super) fn unclaim(&mut self, cell: Cell, unit: u32) {
        let (page, cell) = self.locate(class(cell), unit);
        let entry = &mut self.pages[page];
        entry.used[cell / 64] &= !(1 << (cell % 64));
        entry.live -= 1;
    }

    /// Makes everything that was not claimed available.
    pub(super) fn settle(&mut self) {
        for page in 0..self.pages.len() {
            let entry = &self.pages[page];
            if entry.live == 0 {
                self.free_pages.push(page as u32);
            } else if usize::from(entry.live) < self.cells(usize::from(entry.class)) {
                self.link(page as u32);
            }
        }
    }

    /// Nodes of the next page that has only nodes, in turn. Freeing them all makes room for cells of
    /// any size.
    pub(super) fn next_node_page(&mut self) -> Vec<u32> {
        for _ in 0..self.pages.len() {
            self.hand = (self.hand + 1) % self.pages.len();
            let page = &self.pages[self.hand];
            if usize::from(page.class) == NODE_CLASS && page.live > 0 {
                let used = (0..PAGE_UNITS).filter(|&cell| get(&page.used, cell));
                return used.map(|cell| (self.hand * PAGE_UNITS + cell) as u32).collect();
            }
        }
        Vec::new()
    }

    /// Bytes of pages in use.
    pub(super) fn bytes(&self) -> usize {
        (self.pages.len() - self.free_pages.len()) * PAGE_UNITS * 16
    }

    fn fresh_page(&mut self, class: usize) -> Option<u32> {
        let page = match self.free_pages.pop() {
            Some(page) => page,
            None if self.pages.len() < self.max_pages => {
                self.pages.push(Page::new());
                self.pages.len() as u32 - 1
            }
            None => return None,
        };
        self.pages[page as usize].class = class as u8;
        self.link(page);
        Some(page)
    }

    fn cells(&self, class: usize) -> usize {
        PAGE_UNITS / self.cell_units[class]
    }

    fn locate(&self, class: usize, unit: u32) -> (usize, usize) {
        (unit as usize / PAGE_UNITS, unit as usize % PAGE_UNITS / self.cell_units[class])
    }

    fn link(&mut self, page: u32) {
        let class = usize::from(self.pages[page as usize].class);
        let first = self.partial[class];
        if first != NONE {
            self.pages[first as usize].older = page;
        }
        let entry = &mut self.pages[page as usize];
        (entry.older, entry.newer) = (NONE, first);
        self.partial[class] = page;
    }

    fn unlink(&mut self, page: u32) {
        let Page { older, newer, class, .. } = self.pages[page as usize];
        match older {
            NONE => self.partial[usize::from(class)] = newer,
            older => self.pages[older as usize].newer = newer,
        }
        if newer != NONE {
            self.pages[newer as usize].older = older;
        }
    }
}

impl Page {
    fn new() -> Self {
        Self { used: [0; MAP_WORDS], live: 0, class: 0, older: NONE, newer: NONE }
    }
}

fn class(cell: Cell) -> usize {
    match cell {
        Cell::Node => NODE_CLASS,
        Cell::Record(Shape::List(class) | Shape::Counted(class)) => usize::from(class),
        Cell::Record(Shape::Bitmap) => BITMAP_CLASS,
    }
}

/// Only called on a map with a free cell below the page's cell count, which comes first.
fn first_zero(map: &[u64; MAP_WORDS]) -> Option<usize> {
    map.iter().enumerate().find_map(|(index, &word)| {
        (word != u64::MAX).then(|| index * 64 + word.trailing_ones() as usize)
    })
}

fn get(map: &[u64; MAP_WORDS], cell: usize) -> bool {
    map[cell / 64] >> (cell % 64) & 1 == 1
}

fn set(map: &mut [u64; MAP_WORDS], cell: usize) {
    map[cell / 64] |= 1 << (cell % 64);
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::layout::TableSpec;
    use super::*;

    fn cell(class: usize) -> Cell {
        match class {
            NODE_CLASS => Cell::Node,
            BITMAP_CLASS => Cell::Record(Shape::Bitmap),
            class => Cell::Record(Shape::List(class as u8)),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Cells never overlap, freed cells come back, and claiming what is live in a second
        /// arena gives one that behaves the same.
        #[test]
        fn cells_never_overlap(steps in prop::collection::vec((0..CLASSES, any::<u16>(), any::<bool>()), 1..400)) {
            let layout = TableSpec { slots: 10_000, blocks: 64, pages: 6, default_capacity: 1 }
                .layout(0)
                .unwrap();
            let mut arena = Arena::new(&layout);
            let mut live: Vec<(usize, u32)> = Vec::new();
            let mut owner: HashMap<u32, usize> = HashMap::new();
            for (class, pick, free) in steps {
                if free && !live.is_empty() {
                    let (class, unit) = live.swap_remove(usize::from(pick) % live.len());
                    arena.free(cell(class), unit);
                    for unit in unit..unit + arena.cell_units[class] as u32 {
                        owner.remove(&unit);
                    }
                } else if let Some(unit) = arena.allocate(cell(class)) {
                    for unit in unit..unit + arena.cell_units[class] as u32 {
                        prop_assert!((unit as usize) < layout.units());
                        prop_assert_eq!(owner.insert(unit, class), None);
                    }
                    live.push((class, unit));
                }
            }
            let mut second = Arena::new(&layout);
            for &(class, unit) in &live {
                prop_assert!(second.claim(cell(class), unit));
                prop_assert!(!second.claim(cell(class), unit));
            }
            second.settle();
            prop_assert_eq!(second.bytes(), arena.bytes());
            for (class, unit) in live {
                second.free(cell(class), unit);
            }
            prop_assert_eq!(second.bytes(), 0);
        }
    }
}

//! Which entries are free.
//!
//! Entries are handed out in order, and freed ones again in the order in which they were freed, so
//! that the blocks of a chain mostly lie side by side, also when they take the place of an older
//! chain. The queue runs through the free entries' link words and belongs to the writer alone; a
//! successor makes a new one.

use super::memory::Table;
use super::recency::NIL;
use crate::words::WordsMut;

#[derive(Debug)]
pub(super) struct Entries {
    first: u32,
    last: u32,
    /// Entries from here on were never used.
    fresh: usize,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self { first: NIL, last: NIL, fresh: 0 }
    }

    /// The next free entry. It stays free until it is [`Entries::take`]n.
    pub(super) fn next<M: WordsMut>(&self, table: &Table<M>) -> Option<usize> {
        if self.first != NIL {
            return Some(self.first as usize);
        }
        (self.fresh < table.layout.entries).then_some(self.fresh)
    }

    /// Takes the next free entry out of the queue.
    pub(super) fn take<M: WordsMut>(&mut self, table: &Table<M>) {
        if self.first == NIL {
            self.fresh += 1;
            return;
        }
        self.first = table.links(self.first).1;
        if self.first == NIL {
            self.last = NIL;
        }
    }

    /// Puts an entry at the end of the queue.
    pub(super) fn free<M: WordsMut>(&mut self, table: &Table<M>, entry: usize) {
        let entry = entry as u32;
        table.set_links(entry, NIL, NIL);
        if self.last == NIL {
            self.first = entry;
        } else {
            table.set_links(self.last, NIL, entry);
        }
        self.last = entry;
    }

    /// Queues every free entry below the last one in use.
    pub(super) fn settle<M: WordsMut>(&mut self, table: &Table<M>) {
        let used = |entry: &usize| !table.holders(*entry).is_free();
        self.fresh = (0..table.layout.entries).rfind(used).map_or(0, |last| last + 1);
        for entry in (0..self.fresh).filter(|entry| !used(entry)) {
            self.free(table, entry);
        }
    }
}

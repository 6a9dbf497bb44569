//! Looking ahead of a walk: where the prompt leaves the entries that it is in.
//!
//! Prompts share a front: a chain's blocks lie side by side up to where it leaves the chain that
//! was stored before it, and go on in entries of its own. Finding these is two loads that
//! wait for memory, one for the other, and a third for what is there. A front that many
//! prompts share falls into many runs, whose holders differ; while they are read, the scout
//! finds out by keys alone where the front ends, and asks for what comes behind it, a step with
//! every run. Whatever it loads is a hint: nothing is asked but for memory.

use super::super::ahead::UNKNOWN;
use super::super::memory::Table;
use super::runs::split;
use super::stretch::ENTRIES;
use crate::words::Words;

/// Words of stretches for which entries are asked for before they are looked at.
pub(super) const WORDS: usize = 6;

#[derive(Clone, Copy, Debug)]
pub(super) struct Scout {
    step: Step,
    /// An entry that the walk has come to, and the number of its block.
    from: (usize, usize),
    /// The first block that has another entry, and its key as it is stored.
    leaves: (usize, u64),
    /// Where that block probably is.
    found: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Which block leaves?
    Leave,
    /// Which entry has it?
    Find,
    Done,
}

impl Default for Scout {
    fn default() -> Self {
        Self { step: Step::Done, from: (0, 0), leaves: (0, 0), found: UNKNOWN }
    }
}

impl Scout {
    /// The walk has come to other entries.
    #[inline]
    pub(super) fn begin(&mut self, entry: usize, at: usize) {
        (self.step, self.from) = (Step::Leave, (entry, at));
    }

    /// Whether everything that a walk from this entry on looks at is on its way.
    #[inline]
    pub(super) fn has_asked_for(&self, entry: usize) -> bool {
        self.found as usize == entry
    }

    /// The walk has come to another run. `mix` is that of keys in its tier.
    #[inline]
    pub(super) fn go_on<M: Words>(&mut self, table: &Table<M>, mix: u64, keys: &[u64]) {
        if cfg!(loom) {
            // Loads without consequence only multiply the executions to explore.
            return;
        }
        match self.step {
            Step::Leave => self.leave(table, mix, keys),
            Step::Find => self.find(table, keys.len()),
            Step::Done => {}
        }
    }

    fn leave<M: Words>(&mut self, table: &Table<M>, mix: u64, keys: &[u64]) {
        self.step = Step::Done;
        let (entry, at) = self.from;
        let blocks = keys.len().saturating_sub(at).min(table.layout.entries - entry);
        let is = |block: usize| table.key(entry + block) == keys[at + block] ^ mix;
        if blocks < 2 || is(blocks - 1) {
            return;
        }
        // The ends of words have been asked for.
        let (mut first, mut end) = (0, (entry | (ENTRIES - 1)) - entry);
        for _ in 0..WORDS {
            end = end.min(blocks - 1);
            if !is(end) {
                let leaves = at + first + split(end - first, |block| is(first + block));
                self.leaves = (leaves, keys[leaves] ^ mix);
                let home = table.layout.home(self.leaves.1).0;
                table.words.prefetch(table.layout.bucket_word(home));
                self.step = Step::Find;
                return;
            }
            (first, end) = (end, end + ENTRIES);
        }
    }

    fn find<M: Words>(&mut self, table: &Table<M>, blocks: usize) {
        self.step = Step::Done;
        let (at, key) = self.leaves;
        let (home, tag) = table.layout.home(key);
        if let Some(entry) = table.matches(home, tag).find_map(|way| table.way(home, way)) {
            let end = (entry + blocks.saturating_sub(at)).min(table.layout.entries);
            table.words.prefetch(table.layout.key_word(entry));
            if end > entry {
                table.approach(entry, end);
                self.found = entry as u32;
            }
        }
    }
}

impl<M: Words> Table<M> {
    /// Asks for what a walk from `entry` on looks at, up to `end`.
    #[inline]
    pub(super) fn approach(&self, entry: usize, end: usize) {
        let last = end - 1;
        if last > entry {
            self.words.prefetch(self.stretch_word(entry + 1));
            let ends = (entry | (ENTRIES - 1)..last).step_by(ENTRIES);
            for end in ends.take(WORDS).chain([last]) {
                self.words.prefetch(self.layout.key_word(end));
            }
        }
    }
}

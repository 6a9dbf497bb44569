//! How the writer lets go what an event removes: run by run.
//!
//! Engines evict chains from their tails, so consecutive hashes mostly belong to entries side by side
//! that have one set of holders. What becomes of the set is looked up once; where nobody is left,
//! what freeing the entries takes is asked for a group at a time. Whatever else there is goes
//! hash by hash ([`MirrorWriter::release`]).

use super::super::ahead::GROUP;
use super::cells::Place;
use super::content::Change;
use super::spec::{MAX_TIERS, Slot};
use super::word::{FREE, Flags, SEEN, Word};
use super::writer::{MirrorWriter, engine_word};
use crate::words::WordsMut;

/// Entries side by side, in the order in which they are released.
#[derive(Clone, Copy)]
struct Run {
    first: usize,
    last: usize,
    blocks: usize,
}

impl<M: WordsMut> MirrorWriter<M> {
    /// [`release`](Self::release) of one hash after the other, at less cost. Returns how many went to
    /// zero.
    pub fn release_all(&mut self, slot: u16, tier: u8, engines: &[u64]) -> usize {
        let (mut gone, mut rest) = (0, engines);
        while let Some((&first, behind)) = rest.split_first() {
            let blocks = if behind.is_empty() { 0 } else { self.release_run(slot, tier, rest) };
            gone += blocks;
            rest = match rest.get(blocks..) {
                Some(rest) if blocks > 0 => rest,
                _ => {
                    gone += usize::from(self.release(slot, tier, first));
                    behind
                }
            };
        }
        gone
    }

    /// Releases hashes whose entries lie side by side, as long as there is nothing special about them.
    /// How many; all of them went to zero.
    fn release_run(&mut self, slot: u16, tier: u8, engines: &[u64]) -> usize {
        if !self.serves(slot) || usize::from(tier) >= MAX_TIERS || !self.aliases.is_empty() {
            return 0;
        }
        let Slot { tiers, fan, .. } = self.table.slot(slot);
        if tiers >> tier & 1 == 0 || fan > 0 {
            return 0;
        }
        let first = engine_word(engines[0], tier, 0);
        let found = self.neighbour(slot, tier, first).or_else(|| {
            let is = |entry| self.table.engine(entry as usize) == first;
            self.engines.find(first, is).map(|entry| entry as usize)
        });
        let Some(entry) = found else { return 0 };
        let word = self.table.holders(entry);
        // Others of the same hash, or another tier's: not for here.
        if word.is_free() || word.is_twin() || word.is_aliased() || word.tier() != tier {
            return 0;
        }
        let set = word.set();
        if self.sets.times(&self.table, set, slot) != 1 {
            return 0;
        }
        let Ok(to) = self.changed(set, Change::Drop(slot)) else { return 0 };
        let run = self.run_of(entry, tier, engines);
        self.table.set_dirty(slot);
        if to == FREE {
            self.discard_all(run);
            self.sets.moved(&self.table.layout, set, FREE, run.blocks as u32);
        } else {
            self.set_members_of(run.first.min(run.last), run.blocks, set, to);
        }
        self.last = run.last;
        self.uncount(slot, tier, run.blocks as u32);
        self.advance_if_due();
        run.blocks
    }

    /// The entries of these hashes, the first of which is that of `entry`, while they have the same
    /// word.
    fn run_of(&self, entry: usize, tier: u8, engines: &[u64]) -> Run {
        let word = self.table.holders(entry);
        let differs = SEEN | Flags::TWIN | Flags::ALIASED;
        let count = |step: usize| {
            let mut next = entry;
            let same = engines[1..].iter().position(|&engine| {
                next = next.wrapping_add(step);
                next >= self.table.layout.entries
                    || self.table.engine(next) != engine_word(engine, tier, 0)
                    || (self.table.holders(next).0 ^ word.0) & differs != 0
            });
            same.unwrap_or(engines.len() - 1)
        };
        let (down, up) = (count(usize::MAX), count(1));
        let (last, more) = if down >= up { (entry - down, down) } else { (entry + up, up) };
        Run { first: entry, last, blocks: more + 1 }
    }

    /// Frees the entries of a run.
    fn discard_all(&mut self, run: Run) {
        let layout = self.table.layout;
        let step = if run.last < run.first { usize::MAX } else { 1 };
        let (mut homes, mut places) = ([(0, 0); GROUP], [Place::default(); GROUP]);
        let (mut entry, mut ahead) = (run.first, run.first);
        self.orphan(run.first.min(run.last), run.first.max(run.last));
        // Each is asked for while those before it are freed.
        for at in 0..run.blocks + GROUP {
            if let Some(freed) = at.checked_sub(GROUP) {
                let (home, place) = (homes[freed % GROUP], places[freed % GROUP]);
                self.discard_at(entry, home, place);
                entry = entry.wrapping_add(step);
            }
            if at < run.blocks {
                homes[at % GROUP] = layout.home(self.table.key(ahead));
                self.table.words.prefetch(layout.bucket_word(homes[at % GROUP].0));
                places[at % GROUP] = self.engines.touch(self.table.engine(ahead));
                ahead = ahead.wrapping_add(step);
            }
        }
    }
}

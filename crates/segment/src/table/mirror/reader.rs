//! Lock-free readers of a mirror.
//!
//! No method allocates, locks, blocks, or makes a system call; every loop is bounded by the sizes in
//! the (validated) layout and the number of keys, whatever the memory contains.

use std::ops::ControlFlow;

use super::super::layout::TableError;
use super::super::memory::Table;
use super::runs::{Bits, LARGE, Run, Walk, for_each_bit};
use super::spec::MAX_TIERS;
use crate::words::Words;

/// Words of bits for up to 128 and 1,024 slots.
const SMALL: usize = 2;
const MIDDLE: usize = 16;

/// Reads a mirror. Cheap to clone; any number may read while the writer writes.
#[derive(Clone, Debug)]
pub struct MirrorReader<M> {
    table: Table<M>,
}

impl<M: Words> MirrorReader<M> {
    /// Reads the mirror in `words`.
    ///
    /// # Errors
    /// If there is no complete mirror in the memory.
    pub fn open(words: M) -> Result<Self, TableError> {
        Ok(Self::over(Table::open_mirror(words)?))
    }

    pub(super) fn over(table: Table<M>) -> Self {
        Self { table }
    }

    /// Bytes of the memory that the mirror is in.
    pub fn bytes(&self) -> usize {
        self.table.words.len() * size_of::<u64>()
    }

    /// Endpoint slots that the mirror serves.
    pub fn slots(&self) -> usize {
        self.table.layout.slots
    }

    /// A bit for each tier that somebody uses.
    pub fn tiers(&self) -> u8 {
        self.table.tiers()
    }

    /// Holdings in a tier, over all slots.
    pub fn tier_total(&self, tier: u8) -> u64 {
        if usize::from(tier) < MAX_TIERS { self.table.tier_count(tier) } else { 0 }
    }

    /// Keys held by a slot, as of the writer's last call; a key in two tiers counts twice.
    pub fn len(&self, slot: u16) -> usize {
        if usize::from(slot) < self.slots() { self.table.slot(slot).held as usize } else { 0 }
    }

    /// How often the slot was cleared, wrapping: what else was believed of the slot's engine is void
    /// when this moves.
    pub fn clears(&self, slot: u16) -> u16 {
        if usize::from(slot) < self.slots() { self.table.slot(slot).clears } else { 0 }
    }

    /// Whether nobody holds anything.
    pub fn is_empty(&self) -> bool {
        (0..MAX_TIERS as u8).all(|tier| self.table.tier_count(tier) == 0)
    }

    /// Whether the slot holds the key in the tier.
    pub fn holds(&self, slot: u16, tier: u8, key: u64) -> bool {
        if usize::from(tier) >= MAX_TIERS {
            return false;
        }
        let mut members = [0; LARGE];
        Walk::new(&self.table, tier).run(&[key], 0, &mut members) > 0
            && members[usize::from(slot) / 64 % LARGE] >> (slot % 64) & 1 == 1
    }

    /// Adds to `out[slot]`, for every slot, the length of the longest prefix of `keys` it holds in
    /// `tier` without a gap. Returns the longest of all. Slots at or beyond `out.len()` are ignored.
    ///
    /// Exact. A run of blocks with the same holders costs a nanosecond per block where the blocks
    /// lie side by side (those of a chain do that was stored at once), plus what the set has words.
    pub fn longest_prefix(&self, tier: u8, keys: &[u64], out: &mut [u32]) -> usize {
        self.prefixes(tier, keys, |slot, blocks| {
            if let Some(count) = out.get_mut(usize::from(slot)) {
                *count += blocks;
            }
        })
    }

    /// Visits every slot that holds the first block of `keys` in `tier`, once, with the length of the
    /// longest prefix it holds there without a gap. Returns the longest of all.
    ///
    /// As exact as [`longest_prefix`](Self::longest_prefix), and nothing is paid for slots that hold
    /// nothing.
    pub fn prefixes(&self, tier: u8, keys: &[u64], visit: impl FnMut(u16, u32)) -> usize {
        if usize::from(tier) >= MAX_TIERS {
            return 0;
        }
        let mut walk = Walk::new(&self.table, tier);
        if !walk.begins(keys) {
            return 0;
        }
        match self.table.layout.bitmap_words {
            words if words <= SMALL => prefixes::<SMALL, M>(walk, keys, visit),
            words if words <= MIDDLE => prefixes::<MIDDLE, M>(walk, keys, visit),
            _ => prefixes::<LARGE, M>(walk, keys, visit),
        }
    }

    /// Visits the runs of consecutive blocks whose holders, in all tiers, are the same, front to
    /// back, until nobody holds a block or `visit` says stop.
    pub fn runs(&self, keys: &[u64], visit: impl FnMut(&Run<'_>) -> ControlFlow<()>) {
        match self.table.layout.bitmap_words {
            words if words <= SMALL => self.runs_in::<SMALL>(keys, visit),
            words if words <= MIDDLE => self.runs_in::<MIDDLE>(keys, visit),
            _ => self.runs_in::<LARGE>(keys, visit),
        }
    }

    fn runs_in<const N: usize>(
        &self,
        keys: &[u64],
        mut visit: impl FnMut(&Run<'_>) -> ControlFlow<()>,
    ) {
        let tiers = self.table.tiers();
        if tiers & (tiers.wrapping_sub(1)) == 0 {
            let mut walk = Walk::new(&self.table, tiers.trailing_zeros().min(7) as u8);
            let (mut members, mut at) = ([0; N], 0);
            while at < keys.len() {
                let blocks = walk.run::<N>(keys, at, &mut members);
                if blocks == 0 {
                    return;
                }
                let mut holders = [&[][..]; MAX_TIERS];
                holders[usize::from(walk.tier())] = &members;
                if visit(&Run::new(at, blocks, holders)).is_break() {
                    return;
                }
                at += blocks;
            }
            return;
        }
        Merge::<N, M>::new(&self.table, tiers).visit(keys, visit);
    }
}

fn prefixes<const N: usize, M: Words>(
    mut walk: Walk<'_, M>,
    keys: &[u64],
    mut visit: impl FnMut(u16, u32),
) -> usize {
    let mut live = [0; N];
    let mut at = walk.run(keys, 0, &mut live);
    let (mut both, mut less) = ([0; N], [0; LARGE / 64]);
    while at > 0 && at < keys.len() {
        let mut any = false;
        let blocks = walk.read(keys, at, |walk, word| {
            any = walk.common(word, &live, &mut both, &mut less);
        });
        if blocks == 0 {
            break;
        }
        // Slots that are not among the members: their prefix ends here.
        for (base, &words) in (0..).step_by(64).zip(&less[..N.div_ceil(64)]) {
            for_each_bit(&[words], |word| {
                let word = base + usize::from(word);
                let dropped = live[word] & !both[word];
                for_each_bit(&[dropped], |slot| visit((word * 64) as u16 + slot, at as u32));
                live[word] = both[word];
            });
        }
        if !any {
            return at;
        }
        at += blocks;
    }
    if at > 0 {
        for_each_bit(&live, |slot| visit(slot, at as u32));
    }
    at
}

/// Several tiers walked side by side.
struct Merge<'a, const N: usize, M> {
    tiers: [Option<Tier<'a, N, M>>; MAX_TIERS],
}

struct Tier<'a, const N: usize, M> {
    walk: Walk<'a, M>,
    /// Holders of the blocks up to `until`, nobody if none.
    members: Bits<N>,
    until: usize,
    /// The holders before those, and whether they differ.
    before: Bits<N>,
}

impl<'a, const N: usize, M: Words> Merge<'a, N, M> {
    fn new(table: &'a Table<M>, tiers: u8) -> Self {
        let tier = |tier: usize| {
            let walk = || Walk::new(table, tier as u8);
            let used = tiers >> tier & 1 == 1;
            used.then(|| Tier { walk: walk(), members: [0; N], until: 0, before: [0; N] })
        };
        Self { tiers: std::array::from_fn(tier) }
    }

    fn visit(&mut self, keys: &[u64], mut visit: impl FnMut(&Run<'_>) -> ControlFlow<()>) {
        // The run that is being put together begins at `first`, and goes to `at`.
        let (mut first, mut at) = (0, 0);
        while at < keys.len() {
            let (mut until, mut changed, mut held) = (keys.len(), false, false);
            for tier in self.tiers.iter_mut().flatten() {
                tier.before = tier.members;
                if tier.until == at {
                    let blocks = tier.walk.run::<N>(keys, at, &mut tier.members);
                    if blocks == 0 {
                        tier.members = [0; N];
                    }
                    tier.until = at + blocks.max(1);
                    changed |= tier.members != tier.before;
                    held |= blocks > 0;
                } else {
                    held |= tier.members != [0; N];
                }
                until = until.min(tier.until);
            }
            if changed && at > first {
                let run = Run::new(first, at - first, self.holders(true));
                if visit(&run).is_break() {
                    return;
                }
                first = at;
            }
            if !held {
                return;
            }
            at = until;
        }
        if at > first {
            let _ = visit(&Run::new(first, at - first, self.holders(false)));
        }
    }

    /// The holders now, or those before.
    fn holders(&self, before: bool) -> [&[u64]; MAX_TIERS] {
        std::array::from_fn(|tier| match &self.tiers[tier] {
            Some(tier) if before => &tier.before[..],
            Some(tier) => &tier.members[..],
            None => &[],
        })
    }
}

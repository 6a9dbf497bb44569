//! Adding a slot to an entry's holders and taking it out, one usable state per store.
//!
//! Inline lanes, list lanes and bitmap bits are changed in place by a single store each; a list lane is
//! filled after the holders word has got a new version. A record that is full or has become too large is
//! copied to a new cell and the holders word switched to it with a new version; the old cell goes back
//! to the arena only after that. Writing into a recycled cell begins with a release fence, so that a
//! reader which sees any of the new words also sees, on its second look, that the holders word has moved
//! on.

use std::sync::atomic::Ordering::Release;

use super::arena::{Arena, Cell};
use super::holders::{Holders, INLINE_LANES, Kind, LIST_CLASSES, Record, Shape};
use super::layout::MAX_SLOTS;
use super::memory::Table;
use crate::words::{Words, WordsMut};

const LANES: usize = 4;
const BITMAP_WORDS: usize = MAX_SLOTS / 64;
/// Records shrink to inline lanes with one lane to spare, so that a block at the boundary does not
/// move back and forth.
const INLINE_AGAIN: usize = INLINE_LANES - 1;

/// The arena has no cell of the size needed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<M: Words> Table<M> {
    pub(super) fn is_member(&self, holders: Holders, slot: u16) -> bool {
        match holders.kind() {
            Kind::Free => false,
            Kind::Inline => holders.lanes().any(|lane| lane == slot),
            Kind::Record(Record { shape: Shape::Bitmap | Shape::Counted(_), unit }) => {
                let word = self.load(self.layout.arena_word(unit) + usize::from(slot) / 64);
                word >> (slot % 64) & 1 == 1
            }
            Kind::Record(record) => self.list_lanes(record).any(|(_, _, lane)| lane == slot + 1),
        }
    }

    /// All slots of an entry, in no particular order.
    pub(super) fn for_each_member(&self, holders: Holders, mut visit: impl FnMut(u16)) {
        match holders.kind() {
            Kind::Free => {}
            Kind::Inline => holders.lanes().for_each(visit),
            Kind::Record(record @ Record { shape: Shape::Bitmap | Shape::Counted(_), .. }) => {
                for index in 0..self.layout.bitmap_words {
                    let mut bits = self.load(self.layout.arena_word(record.unit) + index);
                    while bits != 0 {
                        visit((index * 64) as u16 + bits.trailing_zeros() as u16);
                        bits &= bits - 1;
                    }
                }
            }
            Kind::Record(record) => {
                let lanes = self.list_lanes(record);
                lanes.filter_map(|(_, _, lane)| lane.checked_sub(1)).for_each(visit);
            }
        }
    }

    /// Some holder of the entry.
    pub(super) fn any_member(&self, holders: Holders) -> Option<u16> {
        let mut found = None;
        match holders.kind() {
            // The usual case, without visiting the rest of a large record.
            Kind::Record(record @ Record { shape: Shape::List(_), .. }) => {
                self.list_lanes(record).find_map(|(_, _, lane)| lane.checked_sub(1))
            }
            _ => {
                self.for_each_member(holders, |slot| {
                    found.get_or_insert(slot);
                });
                found
            }
        }
    }

    fn record_len(&self, record: Record) -> usize {
        if record.shape != Shape::Bitmap {
            return self.list_lanes(record).filter(|&(_, _, lane)| lane != 0).count();
        }
        let first = self.layout.arena_word(record.unit);
        (first..first + self.layout.bitmap_words)
            .map(|at| self.load(at).count_ones() as usize)
            .sum()
    }

    /// (word, shift, lane) of every lane of a list.
    fn list_lanes(&self, record: Record) -> impl Iterator<Item = (usize, u32, u16)> {
        let first = self.layout.arena_word(record.unit);
        (first..first + record.shape.words(&self.layout)).flat_map(move |word| {
            let lanes = self.load(word);
            (0..LANES as u32).map(move |lane| (word, lane * 16, (lanes >> (lane * 16)) as u16))
        })
    }
}

impl<M: WordsMut> Table<M> {
    /// Adds `slot`, which is no member yet, to the entry at `entry`.
    pub(super) fn add_member(
        &self,
        arena: &mut Arena,
        entry: usize,
        slot: u16,
    ) -> Result<(), Full> {
        let holders = self.holders(entry);
        match holders.kind() {
            Kind::Free | Kind::Inline => {
                // Lane 0 is the owner's and is given by `set_owner`.
                let empty = (1..INLINE_LANES).find(|&lane| holders.lane(lane).is_none());
                if let Some(lane) = empty {
                    self.set_holders(entry, holders.with_lane(lane, Some(slot)));
                    return Ok(());
                }
            }
            Kind::Record(Record { shape: Shape::Bitmap, unit }) => {
                let word = self.layout.arena_word(unit) + usize::from(slot) / 64;
                self.words.store(word, self.load(word) | 1 << (slot % 64), Release);
                return Ok(());
            }
            Kind::Record(record) => {
                let empty = self.list_lanes(record).find(|&(_, _, lane)| lane == 0);
                if let Some((word, shift, _)) = empty {
                    // A slot that left one lane and comes back in a later one would be read twice
                    // by who copies the list meanwhile: the new version makes that one start over.
                    self.set_holders(entry, holders.next_version());
                    let lanes = self.load(word) | (u64::from(slot) + 1) << shift;
                    self.words.store(word, lanes, Release);
                    return Ok(());
                }
            }
        }
        self.grow(arena, entry, holders, slot)
    }

    /// Takes `slot` out of the entry's holders. The entry is freed with its last holder.
    ///
    /// An owner gives up the entry's embedded links with it: the entry has no owner then.
    pub(super) fn remove_member(&self, arena: &mut Arena, entry: usize, slot: u16) {
        let mut holders = self.holders(entry);
        match holders.kind() {
            Kind::Free => return,
            Kind::Inline => {
                for lane in 0..INLINE_LANES {
                    if holders.lane(lane) == Some(slot) {
                        holders = holders.with_lane(lane, None);
                    }
                }
                if holders.lanes().next().is_none() {
                    // A new version: the next key comes before the next holders, and whoever sees it
                    // beside the old holders must notice by this word.
                    holders = Holders::free(holders.version().wrapping_add(1));
                }
                self.set_holders(entry, holders);
                return;
            }
            Kind::Record(Record { shape: Shape::Bitmap, unit }) => {
                let word = self.layout.arena_word(unit) + usize::from(slot) / 64;
                self.words.store(word, self.load(word) & !(1 << (slot % 64)), Release);
            }
            Kind::Record(record) => {
                let held = self.list_lanes(record).find(|&(_, _, lane)| lane == slot + 1);
                if let Some((word, shift, _)) = held {
                    self.words.store(word, self.load(word) & !(0xffff << shift), Release);
                }
            }
        }
        if holders.owner() == Some(slot) {
            holders = holders.with_owner(None);
            self.set_holders(entry, holders);
        }
        self.shrink(arena, entry, holders);
    }

    /// Moves the holders of `entry` and `slot` to the next larger record.
    fn grow(
        &self,
        arena: &mut Arena,
        entry: usize,
        holders: Holders,
        slot: u16,
    ) -> Result<(), Full> {
        let shape = match holders.kind() {
            Kind::Record(Record { shape: Shape::List(class), .. }) => self.list(class + 1),
            _ => self.list(0),
        };
        self.rewrite(arena, entry, holders, shape, Some(slot))
    }

    /// Moves a record that has lost most of its holders to a smaller one, if there is room.
    fn shrink(&self, arena: &mut Arena, entry: usize, holders: Holders) {
        let Kind::Record(record) = holders.kind() else { return };
        let left = self.record_len(record);
        if left <= INLINE_AGAIN {
            self.set_inline(entry, holders);
            arena.free(Cell::Record(record.shape), record.unit);
            return;
        }
        // The smallest list that is at most half full, so that growing back takes a while.
        let class = (2 * left).div_ceil(2 * LANES).next_power_of_two().trailing_zeros() as u8;
        let shape = self.list(class);
        if shape.words(&self.layout) < record.shape.words(&self.layout) {
            // Without room the record stays as large as it is, which is correct.
            let _ = self.rewrite(arena, entry, holders, shape, None);
        }
    }

    /// Copies the holders and `extra` into a new record and switches to it.
    fn rewrite(
        &self,
        arena: &mut Arena,
        entry: usize,
        holders: Holders,
        shape: Shape,
        extra: Option<u16>,
    ) -> Result<(), Full> {
        let unit = arena.allocate(Cell::Record(shape)).ok_or(Full)?;
        let length = shape.words(&self.layout);
        let mut words = [0; BITMAP_WORDS];
        let mut next = 0;
        let mut put = |slot: u16| match shape {
            Shape::Bitmap | Shape::Counted(_) => words[usize::from(slot) / 64] |= 1 << (slot % 64),
            Shape::List(_) => {
                words[next / LANES] |= (u64::from(slot) + 1) << (next % LANES * 16);
                next += 1;
            }
        };
        self.for_each_member(holders, &mut put);
        extra.into_iter().for_each(&mut put);

        self.words.fence(Release);
        self.words.store_run(self.layout.arena_word(unit), &words[..length]);
        let version = holders.version().wrapping_add(1);
        let record = Record { shape, unit };
        self.set_holders(entry, Holders::record(record, holders.owner(), version));
        if let Kind::Record(old) = holders.kind() {
            arena.free(Cell::Record(old.shape), old.unit);
        }
        Ok(())
    }

    /// Replaces a record by inline lanes; with nobody left, frees the entry.
    fn set_inline(&self, entry: usize, holders: Holders) {
        let version = holders.version().wrapping_add(1);
        let owner = holders.owner();
        let mut inline = Holders(Holders::free(version).0 | 1).with_owner(owner);
        let mut lane = 1;
        self.for_each_member(holders, |slot| {
            if Some(slot) != owner {
                inline = inline.with_lane(lane, Some(slot));
                lane += 1;
            }
        });
        let empty = inline.lanes().next().is_none();
        self.set_holders(entry, if empty { Holders::free(version) } else { inline });
    }

    /// The list of this class, or a bitmap where that is no larger.
    fn list(&self, class: u8) -> Shape {
        let list = Shape::List(class);
        if usize::from(class) < LIST_CLASSES && list.words(&self.layout) < self.layout.bitmap_words
        {
            return list;
        }
        Shape::Bitmap
    }

    /// Makes `slot`, a member, the owner of the entry's embedded links.
    pub(super) fn set_owner(&self, entry: usize, slot: u16) {
        let mut holders = self.holders(entry);
        if holders.kind() == Kind::Inline {
            for lane in 1..INLINE_LANES {
                if holders.lane(lane) == Some(slot) {
                    holders = holders.with_lane(lane, None);
                }
            }
        }
        self.set_holders(entry, holders.with_owner(Some(slot)));
    }
}

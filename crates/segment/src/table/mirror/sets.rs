//! Sets of holders, shared between blocks.
//!
//! A slot is in a set as often as it holds the block (under the entry's own hash): counts above
//! one are nothing but the slot once more, and a reader does not notice. Up to three slots are in
//! the holders word itself, in ascending order. Larger sets are records: a list in ascending order,
//! or a bitmap where that is no larger, with a list of those who count again behind it. Equal sets are one record, found by
//! the hash of its members, with a private count of the entries that refer to it; so two words are
//! equal if and only if the sets are. A record is not changed while it is referred to. One that
//! nobody refers to any more waits until the epoch has moved twice.
//!
//! The exception: when the arena is full and a set with a single reference loses a member, it loses
//! it in place, and is a record of its own from then on.

use std::sync::atomic::Ordering::Release;

use super::super::arena::Cell;
use super::super::holders::{Holders, INLINE_LANES, Kind, Record, Shape};
use super::super::layout::{Layout, PAGE_UNITS};
use super::super::memory::Table;
use super::cells::Cells;
use super::content::{Change, Content, Facts, NoSet, apply, lanes, mix, sound};
use super::pages::{For, Pages};
use crate::words::{Words, WordsMut};

/// Changes remembered: enough for the sets along a chain.
const MEMO: usize = 4;

#[derive(Debug)]
pub(super) struct Sets {
    /// Private facts of the records that begin in a page, by unit.
    meta: Vec<Option<Box<[Meta; PAGE_UNITS]>>>,
    interned: Cells,
    memo: [Memo; MEMO],
    next_memo: usize,
    counted: Counted,
    /// Members of the set that is being made, reused.
    members: Vec<u16>,
    records: usize,
    /// Given up in this epoch, and in the one before.
    waiting: [Vec<Record>; 2],
    /// Arena units of the former.
    young_units: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Meta {
    /// Entries that refer to the record.
    refs: u32,
    hash: u32,
    len: u16,
    /// Of these, slots that are in it again.
    again: u16,
    shape: Option<Shape>,
}

/// A set that comes of another by a change.
#[derive(Clone, Copy, Debug)]
struct Memo {
    from: u64,
    change: Change,
    to: u64,
}

/// How often a slot is in a set.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    from: u64,
    slot: u16,
    times: u32,
}

const FORGOTTEN: Memo = Memo { from: 0, change: Change::Once, to: 0 };

impl Sets {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            meta: (0..layout.pages).map(|_| None).collect(),
            interned: Cells::new(64, layout.units(), layout.seed),
            memo: [FORGOTTEN; MEMO],
            next_memo: 0,
            counted: Counted::default(),
            members: Vec::new(),
            records: 0,
            waiting: [Vec::new(), Vec::new()],
            young_units: 0,
        }
    }

    /// The set after a change. A free word if nobody is left.
    #[inline]
    pub(super) fn changed<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        pages: &mut Pages,
        set: Holders,
        change: Change,
    ) -> Result<Holders, NoSet> {
        let memo = self.memo.iter().find(|memo| memo.from == set.0 && memo.change == change);
        if let Some(memo) = memo {
            return Ok(Holders(memo.to));
        }
        let to = self.change(table, pages, set, change)?;
        self.memo[self.next_memo] = Memo { from: set.0, change, to: to.0 };
        self.next_memo = (self.next_memo + 1) % MEMO;
        Ok(to)
    }

    /// How often the slot is in the set.
    #[inline]
    pub(super) fn times<M: Words>(&mut self, table: &Table<M>, set: Holders, slot: u16) -> u32 {
        if (self.counted.from, self.counted.slot) == (set.0, slot) {
            return self.counted.times;
        }
        let mut times = 0;
        match set.kind() {
            Kind::Record(Record { shape: Shape::Bitmap, .. }) => {
                times = u32::from(table.is_member(set, slot));
            }
            Kind::Record(Record { shape: Shape::Counted(_), .. }) => {
                times = u32::from(table.is_member(set, slot));
                table.for_each_again(set, |member| times += u32::from(member == slot));
            }
            _ => table.for_each_member(set, |member| times += u32::from(member == slot)),
        }
        self.counted = Counted { from: set.0, slot, times };
        times
    }

    /// Takes a slot out of a record without room for another one. Whether that was possible: the
    /// record must have only one reference.
    pub(super) fn shrink_in_place<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        set: Holders,
        slot: u16,
    ) -> bool {
        let Kind::Record(record) = set.kind() else { return false };
        if self.meta(record).refs != 1 {
            return false;
        }
        let (hash, times) = (self.meta(record).hash, self.times(table, set, slot));
        if times == 0 || matches!(record.shape, Shape::Counted(_)) {
            return false;
        }
        self.interned.remove(u64::from(hash), record.unit);
        (self.memo, self.counted) = ([FORGOTTEN; MEMO], Counted::default());
        let first = table.layout.arena_word(record.unit);
        match record.shape {
            Shape::Bitmap | Shape::Counted(_) => {
                let word = first + usize::from(slot) / 64;
                table.words.store(word, table.load(word) & !(1 << (slot % 64)), Release);
            }
            Shape::List(_) => {
                for word in first..first + record.shape.words(&table.layout) {
                    for shift in (0..64).step_by(16) {
                        let lanes = table.load(word);
                        if (lanes >> shift) as u16 == slot + 1 {
                            table.words.store(word, lanes & !(0xffff << shift), Release);
                        }
                    }
                }
            }
        }
        if let Some(meta) = self.meta_mut(record) {
            meta.len -= times as u16;
            meta.again -= times as u16 - 1;
            meta.hash = meta.hash.wrapping_sub(mix(slot).wrapping_mul(times));
        }
        true
    }

    /// Takes one of several counts of a slot out of a record without room for another one. Whether that
    /// was possible: the record must have only one reference.
    pub(super) fn take_in_place<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        set: Holders,
        slot: u16,
    ) -> bool {
        let Kind::Record(record) = set.kind() else { return false };
        let skipped = match record.shape {
            Shape::Bitmap => return false,
            Shape::Counted(_) => table.layout.bitmap_words,
            Shape::List(_) => 0,
        };
        if self.meta(record).refs != 1 || self.times(table, set, slot) < 2 {
            return false;
        }
        let first = table.layout.arena_word(record.unit);
        let lane_of = |lanes: u64| (0..64).step_by(16).find(|at| (lanes >> at) as u16 == slot + 1);
        let found = (first + skipped..first + record.shape.words(&table.layout))
            .find_map(|word| lane_of(table.load(word)).map(|at| (word, at)));
        let Some((word, at)) = found else { return false };
        self.interned.remove(u64::from(self.meta(record).hash), record.unit);
        (self.memo, self.counted) = ([FORGOTTEN; MEMO], Counted::default());
        table.words.store(word, table.load(word) & !(0xffff << at), Release);
        if let Some(meta) = self.meta_mut(record) {
            (meta.len, meta.again) = (meta.len - 1, meta.again - 1);
            meta.hash = meta.hash.wrapping_sub(mix(slot));
        }
        true
    }

    /// So many entries refer to `to` and no longer to `from`.
    #[inline]
    pub(super) fn moved(&mut self, layout: &Layout, from: Holders, to: Holders, entries: u32) {
        if let Kind::Record(record) = to.kind()
            && let Some(meta) = self.meta_mut(record)
        {
            meta.refs += entries;
        }
        if let Kind::Record(record) = from.kind()
            && let Some(meta) = self.meta_mut(record)
        {
            meta.refs -= entries;
            if meta.refs == 0 {
                self.give_up(layout, record);
            }
        }
    }

    /// Counts a reference found by recovery. `false` if there cannot be such a record.
    pub(super) fn adopt<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        pages: &mut Pages,
        record: Record,
    ) -> bool {
        let last = record.unit as usize + record.shape.words(&table.layout).div_ceil(2);
        if last > table.layout.units() {
            return false;
        }
        let known = self.meta(record);
        if known.refs > 0 {
            if known.shape != Some(record.shape) {
                return false;
            }
            self.moved(&table.layout, Holders(0), Holders::record(record, None, 0), 1);
            return true;
        }
        let Some((facts, canonical)) = sound(table, record) else { return false };
        if !pages.claim(Cell::Record(record.shape), record.unit) {
            return false;
        }
        let Facts { hash, len, again } = facts;
        self.enter(record, Meta { refs: 1, hash, len, again, shape: Some(record.shape) });
        if canonical && self.interned_like(table, record, hash).is_none() {
            self.intern(hash, record.unit);
        }
        true
    }

    /// The epoch has moved.
    pub(super) fn age(&mut self, pages: &mut Pages) {
        let mut ready = std::mem::take(&mut self.waiting[1]);
        for record in ready.drain(..) {
            pages.free(Cell::Record(record.shape), record.unit);
        }
        self.waiting.swap(0, 1);
        self.waiting[0] = ready;
        self.young_units = 0;
    }

    /// Records that wait for the epoch to move.
    pub(super) fn waiting(&self) -> usize {
        self.waiting[0].len() + self.waiting[1].len()
    }

    /// Arena units given up in this epoch.
    pub(super) fn young_units(&self) -> usize {
        self.young_units
    }

    /// Private bytes for the records in use.
    pub(super) fn bytes(&self) -> usize {
        self.records * size_of::<Meta>() + self.interned.bytes()
    }

    fn change<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        pages: &mut Pages,
        set: Holders,
        change: Change,
    ) -> Result<Holders, NoSet> {
        let mut members = std::mem::take(&mut self.members);
        let made = match self.of_bits(table, set, change, &mut members) {
            Some(content) => Ok(content),
            None => {
                members.clear();
                table.for_each_member(set, |slot| members.push(slot));
                if let Kind::Record(Record { shape: Shape::Counted(_), .. }) = set.kind() {
                    table.for_each_again(set, |slot| members.push(slot));
                    members.sort_unstable();
                }
                apply(&mut members, change);
                match members.len() {
                    0..=INLINE_LANES => Err(lanes(&members)),
                    _ => Ok(Content::new(&table.layout, &members)),
                }
            }
        };
        self.members = members;
        let content = match made {
            Ok(content) => content?,
            Err(inline) => return Ok(inline),
        };
        if let Some(unit) = self.equal(table, &content) {
            return Ok(Holders::record(Record { shape: content.shape, unit }, None, 0));
        }
        let purpose = if matches!(change, Change::Add(_)) { For::Adding } else { For::Removing };
        let cell = Cell::Record(content.shape);
        let unit = pages.allocate(table, cell, purpose).ok_or(NoSet::Full)?;
        let words = content.shape.words(&table.layout);
        table.words.store_run(table.layout.arena_word(unit), &content.words[..words]);
        let record = Record { shape: content.shape, unit };
        let Content { hash, len, again, shape, .. } = content;
        self.enter(record, Meta { refs: 0, hash, len, again, shape: Some(shape) });
        self.intern(hash, unit);
        Ok(Holders::record(record, None, 0))
    }

    fn of_bits<M: Words>(
        &self,
        table: &Table<M>,
        set: Holders,
        change: Change,
        again: &mut Vec<u16>,
    ) -> Option<Result<Content, NoSet>> {
        let Kind::Record(record) = set.kind() else { return None };
        let Meta { len, hash, .. } = self.meta(record);
        Content::of_bits(table, set, (len, hash), change, again)
    }

    fn equal<M: Words>(&self, table: &Table<M>, content: &Content) -> Option<u32> {
        self.interned.find(u64::from(content.hash), |unit| {
            let record = Record { shape: content.shape, unit };
            let meta = self.meta(record);
            let first = table.layout.arena_word(unit);
            (meta.hash, meta.len, meta.shape) == (content.hash, content.len, Some(content.shape))
                && (0..content.shape.words(&table.layout))
                    .all(|at| table.load(first + at) == content.words[at])
        })
    }

    fn interned_like<M: Words>(&self, table: &Table<M>, like: Record, hash: u32) -> Option<u32> {
        let words = like.shape.words(&table.layout);
        let mine = table.layout.arena_word(like.unit);
        self.interned.find(u64::from(hash), |unit| {
            let meta = self.meta(Record { shape: like.shape, unit });
            let other = table.layout.arena_word(unit);
            meta.shape == Some(like.shape)
                && (0..words).all(|at| table.load(mine + at) == table.load(other + at))
        })
    }

    fn intern(&mut self, hash: u32, unit: u32) {
        if self.interned.is_full() {
            self.interned = self.interned.grown(|unit| {
                let (page, at) = (unit as usize / PAGE_UNITS, unit as usize % PAGE_UNITS);
                self.meta[page].as_ref().map_or(0, |page| u64::from(page[at].hash))
            });
        }
        // Without room for its hash the record is only not shared.
        self.interned.insert(u64::from(hash), unit);
    }

    fn give_up(&mut self, layout: &Layout, record: Record) {
        let hash = self.meta(record).hash;
        self.interned.remove(u64::from(hash), record.unit);
        (self.memo, self.counted) = ([FORGOTTEN; MEMO], Counted::default());
        self.records -= 1;
        if let Some(meta) = self.meta_mut(record) {
            *meta = Meta::default();
        }
        self.young_units += record.shape.words(layout).div_ceil(2);
        self.waiting[0].push(record);
    }

    fn enter(&mut self, record: Record, meta: Meta) {
        let (page, at) = (record.unit as usize / PAGE_UNITS, record.unit as usize % PAGE_UNITS);
        let page = self.meta[page].get_or_insert_with(|| Box::new([Meta::default(); PAGE_UNITS]));
        page[at] = meta;
        self.records += 1;
    }

    #[inline]
    fn meta(&self, record: Record) -> Meta {
        let (page, at) = (record.unit as usize / PAGE_UNITS, record.unit as usize % PAGE_UNITS);
        self.meta[page].as_ref().map_or(Meta::default(), |page| page[at])
    }

    #[inline]
    fn meta_mut(&mut self, record: Record) -> Option<&mut Meta> {
        let (page, at) = (record.unit as usize / PAGE_UNITS, record.unit as usize % PAGE_UNITS);
        self.meta[page].as_mut().map(|page| &mut page[at])
    }
}

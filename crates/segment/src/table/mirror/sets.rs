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
use super::super::holders::{Holders, INLINE_LANES, Kind, LIST_CLASSES, Record, Shape};
use super::super::layout::{Layout, MAX_SLOTS, PAGE_UNITS};
use super::super::memory::Table;
use super::cells::Cells;
use super::pages::{For, Pages};
use super::word::Word;
use crate::words::{Words, WordsMut};

const LANES: usize = 4;
const MAX_WORDS: usize = MAX_SLOTS / 64;
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

/// What becomes of a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// A slot is in it once more.
    Add(u16),
    /// A slot is in it no more.
    Drop(u16),
    /// Every slot is in it once.
    Once,
    /// A slot is in it once less.
    Take(u16),
}

/// Why there is no such set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoSet {
    /// The arena is full.
    Full,
    /// Too many slots for a list, and some of them count twice.
    Crowded,
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

/// A set as it will lie in a record.
struct Content {
    words: [u64; MAX_WORDS],
    shape: Shape,
    len: u16,
    /// Slots that are in it again, each time.
    again: u16,
    hash: u32,
}

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

    /// An entry refers to `to` and no longer to `from`.
    #[inline]
    pub(super) fn moved(&mut self, layout: &Layout, from: Holders, to: Holders) {
        if let Kind::Record(record) = to.kind()
            && let Some(meta) = self.meta_mut(record)
        {
            meta.refs += 1;
        }
        if let Kind::Record(record) = from.kind()
            && let Some(meta) = self.meta_mut(record)
        {
            meta.refs -= 1;
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
            self.moved(&table.layout, Holders(0), Holders::record(record, None, 0));
            return true;
        }
        let Some((meta, canonical)) = sound(table, record) else { return false };
        if !pages.claim(Cell::Record(record.shape), record.unit) {
            return false;
        }
        self.enter(record, meta);
        if canonical && self.interned_like(table, record, meta.hash).is_none() {
            self.intern(meta.hash, record.unit);
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
        let made = match self.bits(table, set, change, &mut members) {
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

    /// What becomes of bits if they stay bits; `again` is for the slots that count again.
    fn bits<M: Words>(
        &self,
        table: &Table<M>,
        set: Holders,
        change: Change,
        again: &mut Vec<u16>,
    ) -> Option<Result<Content, NoSet>> {
        let Kind::Record(record) = set.kind() else { return None };
        if let Shape::List(_) = record.shape {
            return None;
        }
        again.clear();
        table.for_each_again(set, |slot| again.push(slot));
        let Meta { len, hash, .. } = self.meta(record);
        let (times, mut flip) = (again.len(), None);
        let (len, hash) = match change {
            Change::Once => return None,
            Change::Add(slot) => {
                if table.is_member(set, slot) {
                    again.insert(again.partition_point(|&member| member < slot), slot);
                } else {
                    flip = Some(slot);
                }
                (len + 1, hash.wrapping_add(mix(slot)))
            }
            Change::Take(slot) => {
                again.remove(again.binary_search(&slot).ok()?);
                (len - 1, hash.wrapping_sub(mix(slot)))
            }
            Change::Drop(slot) => {
                again.retain(|&member| member != slot);
                flip = Some(slot);
                let gone = (times - again.len()) as u16 + 1;
                (len - gone, hash.wrapping_sub(mix(slot).wrapping_mul(gone.into())))
            }
        };
        if usize::from(len) <= INLINE_LANES {
            return None;
        }
        let Some(shape) = shape_of(&table.layout, len.into(), again.len()) else {
            return Some(Err(NoSet::Crowded));
        };
        if let Shape::List(_) = shape {
            return None;
        }
        let count = again.len() as u16;
        let mut content = Content { words: [0; MAX_WORDS], shape, len, again: count, hash };
        let words = table.layout.bitmap_words;
        table.words.load_run(table.layout.arena_word(record.unit), &mut content.words[..words]);
        if let Some(slot) = flip {
            content.words[usize::from(slot) / 64] ^= 1 << (slot % 64);
        }
        pack(&mut content.words[words..], again);
        Some(Ok(content))
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

impl<M: Words> Table<M> {
    /// Slots that are in the set again, as often as they are: behind the bits of one that counts, or
    /// repeated in a list.
    pub(super) fn for_each_again(&self, set: Holders, mut visit: impl FnMut(u16)) {
        match set.kind() {
            Kind::Record(Record { shape: Shape::Counted(class), unit }) => {
                let first = self.layout.arena_word(unit);
                let end = first + Shape::Counted(class).words(&self.layout);
                for word in first + self.layout.bitmap_words..end {
                    let mut lanes = self.load(word);
                    while lanes != 0 {
                        if let Some(slot) = (lanes as u16).checked_sub(1) {
                            visit(slot);
                        }
                        lanes >>= 16;
                    }
                }
            }
            Kind::Record(Record { shape: Shape::Bitmap, .. }) => {}
            _ => {
                let mut last = None;
                self.for_each_member(set, |slot| {
                    if last.replace(slot) == Some(slot) {
                        visit(slot);
                    }
                });
            }
        }
    }
}

impl Content {
    /// Of at least four members, in ascending order.
    fn new(layout: &Layout, members: &[u16]) -> Result<Self, NoSet> {
        let twice = || members.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let again = twice().count();
        let shape = shape_of(layout, members.len(), again).ok_or(NoSet::Crowded)?;
        let mut words = [0; MAX_WORDS];
        if let Shape::List(_) = shape {
            pack(&mut words, members);
        } else {
            for &slot in members {
                words[usize::from(slot) / 64] |= 1 << (slot % 64);
            }
            if again > 0 {
                pack(&mut words[layout.bitmap_words..], &twice().collect::<Vec<_>>());
            }
        }
        let hash = members.iter().fold(0_u32, |hash, &slot| hash.wrapping_add(mix(slot)));
        Ok(Self { words, shape, len: members.len() as u16, again: again as u16, hash })
    }
}

/// Changes members in ascending order.
fn apply(members: &mut Vec<u16>, change: Change) {
    match change {
        Change::Add(slot) => {
            members.insert(members.partition_point(|&member| member < slot), slot);
        }
        Change::Drop(slot) => members.retain(|&member| member != slot),
        Change::Once => members.dedup(),
        Change::Take(slot) => {
            if let Ok(at) = members.binary_search(&slot) {
                members.remove(at);
            }
        }
    }
}

/// Inline lanes of slots in ascending order; nobody is a free word.
fn lanes(members: &[u16]) -> Holders {
    let Some((&first, rest)) = members.split_first() else { return Holders(0) };
    let set = Holders::single(first, 0).set();
    rest.iter().zip(1..).fold(set, |set, (&slot, lane)| set.with_lane(lane, Some(slot)))
}

/// Slots in lanes, from the first word on.
fn pack(words: &mut [u64], slots: &[u16]) {
    for (word, lanes) in words.iter_mut().zip(slots.chunks(LANES)) {
        *word = lanes.iter().rev().fold(0, |word, &slot| word << 16 | (u64::from(slot) + 1));
    }
}

/// The smallest list for so many, or bits where they are no larger. If slots count `again` there
/// are lanes for them behind the bits, and bits are preferred to a list up to twice their size, for
/// readers see less of them. `None` if no record has room.
fn shape_of(layout: &Layout, len: usize, again: usize) -> Option<Shape> {
    let list = class_of(len.div_ceil(LANES)).map(Shape::List);
    if again == 0 {
        let smaller = list.filter(|list| list.words(layout) < layout.bitmap_words);
        return smaller.or(Some(Shape::Bitmap));
    }
    let counted = class_of(layout.bitmap_words + again.div_ceil(LANES)).map(Shape::Counted);
    match (list, counted) {
        (Some(list), Some(counted)) if counted.words(layout) > 2 * list.words(layout) => Some(list),
        (list, counted) => counted.or(list),
    }
}

/// The class of lists with so many words.
fn class_of(words: usize) -> Option<u8> {
    let class = words.div_ceil(2).next_power_of_two().trailing_zeros() as u8;
    (usize::from(class) < LIST_CLASSES).then_some(class)
}

/// A slot's part in the hash of a set.
fn mix(slot: u16) -> u32 {
    let mixed = (u64::from(slot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 32) as u32
}

/// The facts of a record found in memory, with one reference, and whether it is as this module would
/// make it. `None` if it names a slot that there is not, or is out of order.
fn sound<M: Words>(table: &Table<M>, record: Record) -> Option<(Meta, bool)> {
    let set = Holders::record(record, None, 0);
    if matches!(record.shape, Shape::Counted(_))
        && record.shape.words(&table.layout) <= table.layout.bitmap_words
    {
        return None;
    }
    let (mut len, mut again, mut hash, mut sound) = (0_usize, 0_usize, 0_u32, true);
    let mut last = None;
    table.for_each_member(set, |slot| {
        sound &= usize::from(slot) < table.layout.slots && last <= Some(slot);
        again += usize::from(last == Some(slot));
        last = Some(slot);
        hash = hash.wrapping_add(mix(slot));
        len += 1;
    });
    let first = table.layout.arena_word(record.unit);
    let full = |lane: usize| (table.load(first + lane / LANES) >> (lane % LANES * 16)) as u16 != 0;
    let dense = !matches!(record.shape, Shape::List(_)) || (0..len).all(full);
    if let Shape::Counted(_) = record.shape {
        let mut last = None;
        table.for_each_again(set, |slot| {
            let known = usize::from(slot) < table.layout.slots && table.is_member(set, slot);
            sound &= known && last <= Some(slot);
            last = Some(slot);
            hash = hash.wrapping_add(mix(slot));
            (len, again) = (len + 1, again + 1);
        });
    }
    let shape = shape_of(&table.layout, len, again);
    let canonical = dense && len > INLINE_LANES && shape == Some(record.shape);
    let shape = Some(record.shape);
    let meta = Meta { refs: 1, hash, len: len as u16, again: again as u16, shape };
    (sound && len > 0).then_some((meta, canonical))
}

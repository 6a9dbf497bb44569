//! Sets of holders, shared between blocks.
//!
//! Up to three slots are in the holders word itself, in ascending order. Larger sets are records: a
//! list in ascending order, or a bitmap where that is no larger. Equal sets are one record, found
//! by the hash of its members, with a private count of the entries that refer to it; so two words
//! are equal if and only if the sets are. A record is not changed while it is referred to. One that
//! nobody refers to any more waits until the epoch has moved twice.
//!
//! The exception: when the arena is full and a set with a single reference loses a member, it loses
//! it in place, and is a record of its own from then on.

use std::sync::atomic::Ordering::Release;

use super::super::arena::Cell;
use super::super::holders::{Holders, INLINE_LANES, Kind, LIST_CLASSES, Record, Shape};
use super::super::layout::{Layout, MAX_SLOTS, PAGE_UNITS};
use super::super::membership::Full;
use super::super::memory::Table;
use super::cells::Cells;
use super::pages::{For, Pages};
use super::word::Word;
use crate::words::{Words, WordsMut};

const LANES: usize = 4;
const MAX_WORDS: usize = MAX_SLOTS / 64;
/// Transitions remembered: two slots' worth of the sets along a chain.
const MEMO: usize = 4;

#[derive(Debug)]
pub(super) struct Sets {
    /// Private facts of the records that begin in a page, by unit.
    meta: Vec<Option<Box<[Meta; PAGE_UNITS]>>>,
    interned: Cells,
    memo: [Memo; MEMO],
    next_memo: usize,
    records: usize,
    /// Given up in this epoch, and in the one before.
    waiting: [Vec<Record>; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Meta {
    /// Entries that refer to the record.
    refs: u32,
    hash: u32,
    len: u16,
    shape: Option<Shape>,
}

/// The set that comes of another by a slot more or less.
#[derive(Clone, Copy, Debug, Default)]
struct Memo {
    from: u64,
    to: u64,
    slot: u16,
    add: bool,
}

/// A set as it will lie in a record.
struct Content {
    words: [u64; MAX_WORDS],
    shape: Shape,
    len: u16,
    hash: u32,
}

impl Sets {
    pub(super) fn new(layout: &Layout) -> Self {
        Self {
            meta: (0..layout.pages).map(|_| None).collect(),
            interned: Cells::new(64, layout.units(), layout.seed),
            memo: [Memo::default(); MEMO],
            next_memo: 0,
            records: 0,
            waiting: [Vec::new(), Vec::new()],
        }
    }

    /// The set with one slot more. The same set if the slot is in it already.
    #[inline]
    pub(super) fn with<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        pages: &mut Pages,
        set: Holders,
        slot: u16,
    ) -> Result<Holders, Full> {
        if let Some(to) = self.remembered(set, slot, true) {
            return Ok(to);
        }
        if table.is_member(set, slot) {
            self.remember(set, slot, true, set);
            return Ok(set);
        }
        let to = match inline(set, Some(slot), None) {
            Some(to) => to,
            None => self.record(table, pages, set, slot, For::Adding)?,
        };
        self.remember(set, slot, true, to);
        Ok(to)
    }

    /// The set without one of its slots.
    #[inline]
    pub(super) fn without<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        pages: &mut Pages,
        set: Holders,
        slot: u16,
    ) -> Result<Holders, Full> {
        if let Some(to) = self.remembered(set, slot, false) {
            return Ok(to);
        }
        let small = match set.kind() {
            Kind::Record(record) if usize::from(self.meta(record).len) > INLINE_LANES + 1 => None,
            Kind::Record(_) => {
                let (mut members, mut len) = ([0; INLINE_LANES], 0);
                table.for_each_member(set, |member| {
                    if member != slot && len < INLINE_LANES {
                        members[len] = member;
                        len += 1;
                    }
                });
                Some(lanes(&members[..len]))
            }
            _ => inline(set, None, Some(slot)),
        };
        let to = match small {
            Some(to) => to,
            None => self.record(table, pages, set, slot, For::Removing)?,
        };
        self.remember(set, slot, false, to);
        Ok(to)
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
        let hash = self.meta(record).hash;
        self.interned.remove(u64::from(hash), record.unit);
        self.memo = [Memo::default(); MEMO];
        let first = table.layout.arena_word(record.unit);
        match record.shape {
            Shape::Bitmap => {
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
            meta.len -= 1;
            meta.hash ^= mix(slot);
        }
        true
    }

    /// An entry refers to `to` and no longer to `from`.
    #[inline]
    pub(super) fn moved(&mut self, from: Holders, to: Holders) {
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
                self.give_up(record);
            }
        }
    }

    /// Forgets a record that was made and is not referred to after all.
    pub(super) fn discard(&mut self, set: Holders) {
        if let Kind::Record(record) = set.kind()
            && self.meta(record).refs == 0
        {
            self.give_up(record);
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
            self.moved(Holders(0), Holders::record(record, None, 0));
            return true;
        }
        let Some((len, hash, canonical)) = sound(table, record) else { return false };
        if !pages.claim(Cell::Record(record.shape), record.unit) {
            return false;
        }
        self.enter(record, Meta { refs: 1, hash, len, shape: Some(record.shape) });
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
    }

    /// Records that wait for the epoch to move.
    pub(super) fn waiting(&self) -> usize {
        self.waiting[0].len() + self.waiting[1].len()
    }

    /// Records given up in this epoch.
    pub(super) fn young(&self) -> usize {
        self.waiting[0].len()
    }

    /// Private bytes for the records in use.
    pub(super) fn bytes(&self) -> usize {
        self.records * size_of::<Meta>() + self.interned.bytes()
    }

    /// The record of `set` with `slot` more or less: one that exists, or a new one.
    fn record<M: WordsMut>(
        &mut self,
        table: &Table<M>,
        pages: &mut Pages,
        set: Holders,
        slot: u16,
        purpose: For,
    ) -> Result<Holders, Full> {
        let content = self.content(table, set, slot, purpose == For::Adding);
        if let Some(unit) = self.equal(table, &content) {
            return Ok(Holders::record(Record { shape: content.shape, unit }, None, 0));
        }
        let cell = Cell::Record(content.shape);
        let unit = pages.allocate(table, cell, purpose).ok_or(Full)?;
        let words = content.shape.words(&table.layout);
        table.words.store_run(table.layout.arena_word(unit), &content.words[..words]);
        let record = Record { shape: content.shape, unit };
        let Content { hash, len, shape, .. } = content;
        self.enter(record, Meta { refs: 0, hash, len, shape: Some(shape) });
        self.intern(hash, unit);
        Ok(Holders::record(record, None, 0))
    }

    fn content<M: Words>(&self, table: &Table<M>, set: Holders, slot: u16, add: bool) -> Content {
        let (len, hash) = match set.kind() {
            Kind::Record(record) => (self.meta(record).len, self.meta(record).hash),
            _ => set.lanes().fold((0, 0), |(len, hash), lane| (len + 1, hash ^ mix(lane))),
        };
        let len = if add { len + 1 } else { len - 1 };
        let shape = shape_of(&table.layout, usize::from(len));
        let mut content = Content { words: [0; MAX_WORDS], shape, len, hash: hash ^ mix(slot) };
        if let Kind::Record(Record { shape: Shape::Bitmap, unit }) = set.kind()
            && shape == Shape::Bitmap
        {
            let words = table.layout.bitmap_words;
            table.words.load_run(table.layout.arena_word(unit), &mut content.words[..words]);
            content.words[usize::from(slot) / 64] ^= 1 << (slot % 64);
            return content;
        }
        let mut next = 0;
        let mut put = |member: u16| match shape {
            Shape::Bitmap => content.words[usize::from(member) / 64] |= 1 << (member % 64),
            Shape::List(_) => {
                content.words[next / LANES] |= (u64::from(member) + 1) << (next % LANES * 16);
                next += 1;
            }
        };
        let mut extra = add.then_some(slot);
        table.for_each_member(set, |member| {
            if let Some(extra) = extra.take_if(|extra| *extra < member) {
                put(extra);
            }
            if add || member != slot {
                put(member);
            }
        });
        extra.into_iter().for_each(put);
        content
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

    fn give_up(&mut self, record: Record) {
        let hash = self.meta(record).hash;
        self.interned.remove(u64::from(hash), record.unit);
        self.memo = [Memo::default(); MEMO];
        self.records -= 1;
        if let Some(meta) = self.meta_mut(record) {
            *meta = Meta::default();
        }
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

    #[inline]
    fn remembered(&self, set: Holders, slot: u16, add: bool) -> Option<Holders> {
        let memo = self.memo.iter().find(|memo| {
            memo.from == set.0 && memo.slot == slot && memo.add == add && memo.from != 0
        })?;
        Some(Holders(memo.to))
    }

    fn remember(&mut self, from: Holders, slot: u16, add: bool, to: Holders) {
        self.memo[self.next_memo] = Memo { from: from.0, to: to.0, slot, add };
        self.next_memo = (self.next_memo + 1) % MEMO;
    }
}

/// The inline set with a slot more or less, or `None` where it does not fit into the word.
fn inline(set: Holders, add: Option<u16>, remove: Option<u16>) -> Option<Holders> {
    if let Kind::Record(_) = set.kind() {
        return None;
    }
    let mut members = [0; INLINE_LANES + 1];
    let mut len = 0;
    for slot in set.lanes().filter(|&slot| Some(slot) != remove).chain(add) {
        members[len] = slot;
        len += 1;
    }
    members[..len].sort_unstable();
    (len <= INLINE_LANES).then(|| lanes(&members[..len]))
}

/// Inline lanes of slots in ascending order; nobody is a free word.
fn lanes(members: &[u16]) -> Holders {
    let Some((&first, rest)) = members.split_first() else { return Holders(0) };
    let set = Holders::single(first, 0).set();
    rest.iter().zip(1..).fold(set, |set, (&slot, lane)| set.with_lane(lane, Some(slot)))
}

/// The smallest list for so many, or a bitmap where that is no larger.
fn shape_of(layout: &Layout, len: usize) -> Shape {
    let class = len.div_ceil(2 * LANES).next_power_of_two().trailing_zeros() as u8;
    let list = Shape::List(class);
    if usize::from(class) < LIST_CLASSES && list.words(layout) < layout.bitmap_words {
        return list;
    }
    Shape::Bitmap
}

/// A slot's part in the hash of a set.
fn mix(slot: u16) -> u32 {
    let mixed = (u64::from(slot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 32) as u32
}

/// How many members a record has and their hash, and whether it is as this module would make it.
/// `None` if it names a slot twice or one that there is not.
fn sound<M: Words>(table: &Table<M>, record: Record) -> Option<(u16, u32, bool)> {
    let set = Holders::record(record, None, 0);
    let (mut len, mut hash, mut sound, mut sorted) = (0_usize, 0, true, true);
    let mut seen = [0_u64; MAX_WORDS];
    let mut last = None;
    table.for_each_member(set, |slot| {
        let (word, bit) = (usize::from(slot) / 64, 1 << (slot % 64));
        sound &= usize::from(slot) < table.layout.slots && seen[word % MAX_WORDS] & bit == 0;
        seen[word % MAX_WORDS] |= bit;
        sorted &= last < Some(slot);
        last = Some(slot);
        hash ^= mix(slot);
        len += 1;
    });
    let first = table.layout.arena_word(record.unit);
    let full = |lane: usize| (table.load(first + lane / LANES) >> (lane % LANES * 16)) as u16 != 0;
    let dense = record.shape == Shape::Bitmap || (0..len).all(full);
    let canonical =
        sorted && dense && len > INLINE_LANES && shape_of(&table.layout, len) == record.shape;
    (sound && len > 0).then_some((len as u16, hash, canonical))
}

//! What is in a set, and how it lies in a record.

use super::super::holders::{Holders, INLINE_LANES, Kind, LIST_CLASSES, Record, Shape};
use super::super::layout::{Layout, MAX_SLOTS};
use super::super::memory::Table;
use super::word::Word;
use crate::words::Words;

const LANES: usize = 4;
const MAX_WORDS: usize = MAX_SLOTS / 64;

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

/// A set as it will lie in a record.
pub(super) struct Content {
    pub(super) words: [u64; MAX_WORDS],
    pub(super) shape: Shape,
    pub(super) len: u16,
    /// Slots that are in it again, each time.
    pub(super) again: u16,
    pub(super) hash: u32,
}

/// What is known of the members of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) hash: u32,
    pub(super) len: u16,
    pub(super) again: u16,
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
    pub(super) fn new(layout: &Layout, members: &[u16]) -> Result<Self, NoSet> {
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

    /// What becomes of bits, of so many members with this hash, if they stay bits; `again` is for the slots that count again.
    pub(super) fn of_bits<M: Words>(
        table: &Table<M>,
        set: Holders,
        (len, hash): (u16, u32),
        change: Change,
        again: &mut Vec<u16>,
    ) -> Option<Result<Self, NoSet>> {
        let Kind::Record(record) = set.kind() else { return None };
        if let Shape::List(_) = record.shape {
            return None;
        }
        again.clear();
        table.for_each_again(set, |slot| again.push(slot));
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
}

/// Changes members in ascending order.
pub(super) fn apply(members: &mut Vec<u16>, change: Change) {
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
pub(super) fn lanes(members: &[u16]) -> Holders {
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
pub(super) fn mix(slot: u16) -> u32 {
    let mixed = (u64::from(slot) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 32) as u32
}

/// The facts of a record found in memory, and whether it is as this module would
/// make it. `None` if it names a slot that there is not, or is out of order.
pub(super) fn sound<M: Words>(table: &Table<M>, record: Record) -> Option<(Facts, bool)> {
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
    let facts = Facts { hash, len: len as u16, again: again as u16 };
    (sound && len > 0).then_some((facts, canonical))
}

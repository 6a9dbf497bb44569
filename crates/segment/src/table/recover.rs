//! Taking over a table whose writer stopped between any two stores.
//!
//! The entries are the truth: who holds what. Everything else is derived from them or checked
//! against them, in this order:
//!
//! 1. entries that cannot be (holders out of range, unreachable, a second copy of a key, a record
//!    that overlaps another) are dropped; the overflow counts are counted anew;
//! 2. each slot's recency list is walked forward. A node counts if its entry names the slot as a
//!    holder and it is the first node to say so; others are stepped over;
//! 3. a holder that the walk did not meet is appended as its slot's newest. An undamaged table has
//!    at most one, the holding that was being inserted or refreshed, and newest is where it was
//!    going; so the order is exact;
//! 4. counts are counted, the arena is what was claimed, the rest of it is free.
//!
//! Each repair is again a single store that leaves a usable table, so recovery may die as well.

use super::arena::Cell;
use super::holders::{Holders, Kind, Record, Shape};
use super::layout::{MAX_SLOTS, WAYS};
use super::memory::Table;
use super::recency::{ARENA, Held, NIL, join};
use super::writer::TableWriter;
use crate::words::WordsMut;

/// Buckets between what is validated and what is asked for.
const AHEAD: usize = 4;

/// Nodes of other holders that a walk steps over: one writer leaves at most two behind.
const MAX_STRAYS: usize = 8;

pub(super) fn rebuild<M: WordsMut>(writer: &mut TableWriter<M>) {
    validate_entries(writer);
    let mut linked = Marks::new(writer.table.layout.entries);
    for slot in 0..writer.table.layout.slots as u16 {
        let order = walk(writer, &mut linked, slot);
        relink(&writer.table, slot, &order);
    }
    writer.arena.settle();
    writer.entries.settle(&writer.table);
    append_missed(writer, &mut linked);
    recount(writer);
}

/// A set of entries.
pub(super) struct Marks(Vec<u64>);

impl Marks {
    fn new(entries: usize) -> Self {
        Self(vec![0; entries.div_ceil(64)])
    }

    /// Adds an entry; whether it was not in the set.
    fn mark(&mut self, entry: usize) -> bool {
        let word = &mut self.0[entry / 64];
        let before = *word;
        *word |= 1 << (entry % 64);
        before != *word
    }

    pub(super) fn has(&self, entry: usize) -> bool {
        self.0[entry / 64] >> (entry % 64) & 1 == 1
    }
}

fn validate_entries<M: WordsMut>(writer: &mut TableWriter<M>) {
    for entry in 0..writer.table.layout.entries {
        let holders = writer.table.holders(entry);
        if holders.is_free() {
            continue;
        }
        if !is_sound(&writer.table, holders) {
            drop_entry(writer, entry);
            continue;
        }
        let owner = holders.owner();
        if owner.is_some_and(|owner| !writer.table.is_member(holders, owner)) {
            // The owner was being taken out of the record; somebody else inherits below.
            writer.table.set_holders(entry, holders.with_owner(None));
        }
    }
    let indexed = validate_index(&writer.table);
    for entry in 0..writer.table.layout.entries {
        let holders = writer.table.holders(entry);
        if holders.is_free() {
            continue;
        }
        let found = indexed.has(entry) && writer.table.find(writer.table.key(entry)) == Some(entry);
        let claimed = match holders.kind() {
            Kind::Record(record) => {
                found && writer.arena.claim(Cell::Record(record.shape), record.unit)
            }
            _ => found,
        };
        if !claimed {
            drop_entry(writer, entry);
            writer.table.vacate(entry);
        }
    }
}

/// Clears every way that is not the one way of an entry within reach of its home, and counts the
/// overflows anew. Returns the entries that are indexed.
pub(super) fn validate_index<M: WordsMut>(table: &Table<M>) -> Marks {
    let layout = &table.layout;
    let mut indexed = Marks::new(layout.entries);
    let mut passed = vec![0_u16; layout.buckets];
    for bucket in 0..layout.buckets {
        if bucket + AHEAD < layout.buckets {
            (0..WAYS)
                .filter(|&way| table.tag(bucket + AHEAD, way) != 0)
                .filter_map(|way| table.way(bucket + AHEAD, way))
                .for_each(|entry| table.words.prefetch(layout.key_word(entry)));
        }
        for way in (0..WAYS).filter(|&way| table.tag(bucket, way) != 0) {
            let entry = table.way(bucket, way).filter(|&entry| {
                !table.holders(entry).is_free()
                    && layout.home(table.key(entry)).1 == table.tag(bucket, way)
            });
            let home = entry.map(|entry| layout.home(table.key(entry)).0);
            let away = home.and_then(|home| table.probe(home).position(|at| at == bucket));
            match (entry, home, away) {
                (Some(entry), Some(home), Some(away)) if indexed.mark(entry) => {
                    table.probe(home).take(away).for_each(|at| passed[at] += 1);
                }
                _ => table.set_tag(bucket, way, 0),
            }
        }
    }
    for (bucket, &count) in passed.iter().enumerate() {
        if table.overflow(bucket) != count {
            table.set_overflow(bucket, count);
        }
    }
    indexed
}

fn drop_entry<M: WordsMut>(writer: &mut TableWriter<M>, entry: usize) {
    let version = writer.table.holders(entry).version().wrapping_add(1);
    writer.table.set_holders(entry, Holders::free(version));
    writer.stats.dropped += 1;
}

/// Whether the holders are slots of this table, each named once, in a record inside of the arena.
fn is_sound<M: WordsMut>(table: &Table<M>, holders: Holders) -> bool {
    // The owner field of a record has room for slots that no table has.
    if holders.owner().is_some_and(|owner| usize::from(owner) >= table.layout.slots) {
        return false;
    }
    if let Kind::Record(Record { shape, unit }) = holders.kind() {
        let words = shape.words(&table.layout);
        if matches!(shape, Shape::Counted(_))
            || unit as usize + words.div_ceil(2) > table.layout.units()
        {
            return false;
        }
    }
    let mut seen = [0_u64; MAX_SLOTS / 64];
    let mut sound = true;
    let mut members = 0;
    table.for_each_member(holders, |slot| {
        members += 1;
        let (word, bit) = (usize::from(slot) / 64, 1 << (slot % 64));
        sound &= usize::from(slot) < table.layout.slots && seen[word] & bit == 0;
        if sound {
            seen[word] |= bit;
        }
    });
    sound && members > 0
}

/// The slot's nodes, oldest first, with the arena cells among them claimed.
fn walk<M: WordsMut>(writer: &mut TableWriter<M>, linked: &mut Marks, slot: u16) -> Vec<u32> {
    let mut order = Vec::new();
    let mut strays = 0;
    let (mut node, _) = writer.table.oldest_newest(slot);
    while strays < MAX_STRAYS && in_range(&writer.table, node) {
        match accept(writer, linked, slot, node) {
            Some(node) => order.push(node),
            None => strays += 1,
        }
        node = writer.table.links(node).1;
    }
    order
}

fn in_range<M: WordsMut>(table: &Table<M>, node: u32) -> bool {
    if node & ARENA == 0 {
        return (node as usize) < table.layout.entries;
    }
    ((node & !ARENA) as usize) < table.layout.units()
}

/// The node that stands for the holding that `node` claims to be, the first time it is met.
fn accept<M: WordsMut>(
    writer: &mut TableWriter<M>,
    linked: &mut Marks,
    slot: u16,
    node: u32,
) -> Option<u32> {
    let held = writer.table.held(slot, node);
    if held.slot != slot || held.entry >= writer.table.layout.entries {
        return None;
    }
    let holders = writer.table.holders(held.entry);
    if !writer.table.is_member(holders, slot) {
        return None;
    }
    if holders.owner() == Some(slot) {
        // Also when met as an arena node: the writer died while moving it beside its entry.
        return linked.mark(held.entry).then_some(held.entry as u32);
    }
    let unit = node & !ARENA;
    let fresh = node & ARENA != 0
        && writer.nodes.find(&writer.table, held).is_none()
        && writer.arena.claim(Cell::Node, unit);
    if fresh {
        writer.nodes.insert(held, unit);
    }
    fresh.then_some(node)
}

/// Stores the list's links where they differ, newest first: a forward walk meets nodes only after
/// their own links are right.
fn relink<M: WordsMut>(table: &Table<M>, slot: u16, order: &[u32]) {
    let mut newer = NIL;
    for (index, &node) in order.iter().enumerate().rev() {
        let older = index.checked_sub(1).map_or(NIL, |index| order[index]);
        if table.links(node) != (older, newer) {
            table.set_links(node, older, newer);
        }
        newer = node;
    }
    let ends = join(newer, order.last().copied().unwrap_or(NIL));
    if table.ends(slot) != ends {
        table.set_ends(slot, ends);
    }
}

fn append_missed<M: WordsMut>(writer: &mut TableWriter<M>, linked: &mut Marks) {
    let mut members = Vec::new();
    for entry in 0..writer.table.layout.entries {
        members.clear();
        writer.table.for_each_member(writer.table.holders(entry), |slot| members.push(slot));
        for &slot in &members {
            let holders = writer.table.holders(entry);
            let held = Held { entry, slot };
            if holders.owner() == Some(slot) && linked.has(entry)
                || holders.owner() != Some(slot) && writer.nodes.find(&writer.table, held).is_some()
            {
                continue;
            }
            writer.stats.relinked += 1;
            if holders.owner().is_none() {
                writer.table.set_owner(entry, slot);
            }
            if writer.table.holders(entry).owner() == Some(slot) {
                linked.mark(entry);
                writer.table.append(slot, entry as u32);
                continue;
            }
            match writer.arena.allocate(Cell::Node) {
                Some(unit) => {
                    writer.table.set_held(unit, held);
                    writer.table.append(slot, unit | ARENA);
                    writer.nodes.insert(held, unit);
                }
                // Damage has filled the arena: a holding that cannot be ordered is not kept.
                None => {
                    writer.table.remove_member(&mut writer.arena, entry, slot);
                    if writer.table.holders(entry).is_free() {
                        writer.table.vacate(entry);
                        writer.entries.free(&writer.table, entry);
                    }
                }
            }
        }
        if !members.is_empty() && writer.table.holders(entry).owner().is_none() {
            writer.inherit(entry);
        }
    }
}

fn recount<M: WordsMut>(writer: &mut TableWriter<M>) {
    let table = &writer.table;
    let mut held = vec![0_u32; table.layout.slots];
    let mut blocks = 0;
    for entry in 0..table.layout.entries {
        blocks += usize::from(!table.holders(entry).is_free());
        table.for_each_member(table.holders(entry), |slot| held[usize::from(slot)] += 1);
    }
    for (slot, &count) in held.iter().enumerate() {
        let slot = slot as u16;
        let (before, capacity) = table.count(slot);
        let needed = if count > 0 && capacity == 0 { table.default_capacity() } else { capacity };
        if (before, capacity) != (count, needed) {
            table.set_count(slot, count, needed);
        }
    }
    writer.blocks = blocks;
    writer.held = held.iter().map(|&count| u64::from(count)).sum();
}

//! Taking over a mirror whose writer stopped between any two stores.
//!
//! The entries are the truth. In this order:
//!
//! 1. entries whose holders cannot be, that the index does not lead to, or whose record overlaps
//!    another are dropped; records get as many references as there are entries that name them;
//! 2. the pages marked for aliases are searched: an alias counts if its slot holds its entry and it
//!    is the first of its hash; others are freed;
//! 3. the private indices, the counts per slot and tier, and the regions are made anew;
//! 4. positions that changes have followed become 0;
//! 5. stretches, given up at first, are made anew;
//! 6. what is free is made ready to be used, and the epoch moves twice.
//!
//! Each repair is a single store that leaves a usable mirror, so recovery may die as well.

use super::super::arena::Cell;
use super::super::holders::{Holders, Kind};
use super::super::layout::PAGE_UNITS;
use super::super::memory::Table;
use super::super::recover::validate_index;
use super::spec::{MAX_TIERS, Slot};
use super::word::{FREE, Word};
use super::writer::MirrorWriter;
use crate::words::{Words, WordsMut};

/// Entries between what is worked on and what is asked for.
const AHEAD: usize = 16;

pub(super) fn rebuild<M: WordsMut>(writer: &mut MirrorWriter<M>) {
    writer.table.cut_all();
    validate_entries(writer);
    find_aliases(writer);
    writer.pages.settle();
    index_engines(writer);
    recount(writer);
    for slot in 0..writer.table.layout.slots as u16 {
        if writer.table.is_dirty(slot) {
            writer.table.set_position(slot, 0);
        }
    }
    bury_free(&writer.table);
    orphan(&writer.table);
    writer.table.join(0, writer.table.layout.entries - 1);
    // Whatever was given up before may be used now: readers that still look must notice.
    writer.table.advance();
    writer.table.advance();
}

/// Takes the keys out of entries that were freed without it.
fn bury_free<M: WordsMut>(table: &Table<M>) {
    for entry in 0..table.layout.entries {
        if table.holders(entry).is_free() && table.key(entry) != 0 && !table.is_buried(entry) {
            table.bury(entry);
        }
    }
}

/// Nobody is the child of a block that is gone.
fn orphan<M: WordsMut>(table: &Table<M>) {
    let mut gone = true;
    for entry in 0..table.layout.entries {
        let holders = table.holders(entry);
        if gone && holders.is_child() && !holders.is_free() {
            table.set_holders(entry, holders.child_if(false));
        }
        gone = holders.is_free();
    }
}

fn validate_entries<M: WordsMut>(writer: &mut MirrorWriter<M>) {
    for entry in 0..writer.table.layout.entries {
        let holders = writer.table.holders(entry);
        if !holders.is_free() && !is_possible(&writer.table, holders) {
            drop_entry(writer, entry);
        }
    }
    let indexed = validate_index(&writer.table);
    for entry in 0..writer.table.layout.entries {
        if let Some(ahead) = used(&writer.table, entry + AHEAD) {
            let (layout, key) = (&writer.table.layout, writer.table.key(ahead));
            writer.table.words.prefetch(layout.bucket_word(layout.home(key).0));
        }
        let holders = writer.table.holders(entry);
        if holders.is_free() {
            continue;
        }
        let found = indexed.has(entry) && writer.table.find(writer.table.key(entry)) == Some(entry);
        let claimed = found
            && match holders.kind() {
                Kind::Record(record) => writer.sets.adopt(&writer.table, &mut writer.pages, record),
                _ => true,
            };
        if claimed {
            writer.free.take(entry);
        } else {
            drop_entry(writer, entry);
            writer.table.vacate(entry);
        }
    }
}

fn used<M: Words>(table: &Table<M>, entry: usize) -> Option<usize> {
    (entry < table.layout.entries && !table.holders(entry).is_free()).then_some(entry)
}

/// Whether the word could have been written, as far as that can be said without its record.
fn is_possible<M: Words>(table: &Table<M>, holders: Holders) -> bool {
    match holders.kind() {
        Kind::Free => false,
        Kind::Inline => {
            let mut last = None;
            let rising = |slot| last.replace(slot) <= Some(slot);
            let slots = table.layout.slots;
            holders.lanes().next().is_some()
                && holders.lanes().all(|slot| usize::from(slot) < slots)
                && holders.lanes().all(rising)
        }
        Kind::Record(record) => holders.set() == Holders::record(record, None, 0),
    }
}

fn drop_entry<M: WordsMut>(writer: &mut MirrorWriter<M>, entry: usize) {
    writer.table.set_holders(entry, FREE);
    writer.stats.dropped += 1;
}

fn find_aliases<M: WordsMut>(writer: &mut MirrorWriter<M>) {
    for page in 0..writer.table.layout.pages {
        if !writer.table.has_aliases(page) {
            continue;
        }
        let first = (page * PAGE_UNITS) as u32;
        for unit in first..first + PAGE_UNITS as u32 {
            // A record in a page of aliases: the mark is wrong, since the entries are the truth.
            if !writer.pages.may_claim(Cell::Node, unit) {
                writer.table.mark_aliases(page, false);
                break;
            }
            let Some(alias) = writer.table.alias(unit) else {
                if writer.table.load(writer.table.layout.arena_word(unit) + 1) != 0 {
                    writer.table.free_alias(unit);
                }
                continue;
            };
            let holders = writer.table.holders(alias.entry);
            let known = writer.aliases.find(&writer.table, alias.engine, alias.entry, alias.slot);
            let counts = holders.is_aliased()
                && writer.table.is_member(holders.set(), alias.slot)
                && known.is_none()
                && writer.pages.claim(Cell::Node, unit);
            if counts && writer.aliases.enter(&writer.table, alias, unit) {
                continue;
            }
            if counts {
                writer.pages.unclaim(Cell::Node, unit);
            }
            writer.table.free_alias(unit);
        }
    }
}

fn index_engines<M: WordsMut>(writer: &mut MirrorWriter<M>) {
    for entry in 0..writer.table.layout.entries {
        if let Some(ahead) = used(&writer.table, entry + AHEAD) {
            writer.engines.touch(writer.table.engine(ahead));
        }
        let holders = writer.table.holders(entry);
        if holders.is_free() {
            continue;
        }
        let (table, engine) = (&writer.table, writer.table.engine(entry));
        let twin = writer.engines.find(engine, |other| table.engine(other as usize) == engine);
        for entry in twin.map(|twin| [twin as usize, entry]).into_iter().flatten() {
            let holders = writer.table.holders(entry);
            if !holders.is_twin() {
                writer.table.set_holders(entry, holders.twin());
            }
        }
        // Too many entries of one hash: an entry left out is found by its key only, until all of
        // its holders are cleared. The writer that took them had room for them.
        writer.engines.insert(engine, entry as u32);
    }
}

fn recount<M: WordsMut>(writer: &mut MirrorWriter<M>) {
    let table = &writer.table;
    let mut slots = vec![Slot { held: 0, tiers: 0, fan: 0, clears: 0 }; table.layout.slots];
    let mut counts = [0_u64; MAX_TIERS];
    let mut blocks = 0;
    for entry in 0..table.layout.entries {
        let holders = table.holders(entry);
        if holders.is_free() {
            continue;
        }
        blocks += 1;
        let tier = usize::from(holders.tier());
        let mut last = None;
        table.for_each_member(holders.set(), |slot| {
            if last.replace(slot) == Some(slot) {
                return;
            }
            counts[tier] += 1;
            if let Some(is) = slots.get_mut(usize::from(slot)) {
                is.held += 1;
                is.tiers |= 1 << tier;
                writer.regions.add(slot, entry);
            }
        });
    }
    for (slot, is) in (0..).zip(&slots) {
        let before = table.slot(slot);
        let is = Slot { fan: before.fan, clears: before.clears, ..*is };
        if is != before {
            table.set_slot(slot, is);
        }
    }
    let mut tiers = 0;
    for (tier, &count) in (0..).zip(&counts) {
        if table.tier_count(tier) != count {
            table.set_tier_count(tier, count);
        }
        tiers |= u8::from(count > 0) << tier;
    }
    if table.tiers() != tiers {
        table.set_tiers(tiers);
    }
    writer.blocks = blocks;
    writer.held = counts.iter().sum();
}

//! Reading a mirror run by run.
//!
//! A run is a stretch of consecutive blocks with the same holders in one tier. It is read as a
//! whole: the epoch, the first block (where the last run ended, or through the index), the blocks
//! behind it for as long as they have the same holders, the members of their set, and the epoch again.
//! If that moved by two or more, something read may have been recycled, and the run is read again
//! in a shorter piece; after a few attempts its first block counts as held by nobody. What ends a run
//! is the word of the first block of the next one, which is kept for that run, and so is the epoch
//! before it was looked at.
//!
//! Where blocks were stored as a chain and lie side by side, the [stretches](super::stretch) say how
//! far the run goes: thirty-two blocks cost five loads. Most of them would wait for memory, so what
//! comes next is asked for [ahead](super::scout).

use std::ops::Range;
use std::sync::atomic::Ordering::Acquire;

use super::super::ahead::{GROUP, UNKNOWN};
use super::super::holders::{Holders, Kind, Record, Shape};
use super::super::layout::{Layout, MAX_SLOTS};
use super::super::memory::Table;
use super::scout::{Scout, WORDS};
use super::spec::MAX_TIERS;
use super::stretch;
use super::word::{SEEN, Word};
use super::writer::TIER_MIX;
use crate::words::{Words, prefetch};

/// Blocks read as a whole, at most, on each attempt.
const ATTEMPTS: [usize; 4] = [usize::MAX, 64, 8, 1];

/// Words of a cache line.
const LINE: usize = 8;
/// Keys of a prompt that are asked for where a walk comes to other entries.
const KEYS: usize = 128;
/// Two jumps in so many blocks make a chain that is scattered.
const NEAR: usize = 2;

/// Consecutive blocks with the same holders.
#[derive(Debug)]
pub struct Run<'a> {
    /// Number of the first block.
    pub at: usize,
    /// How many there are.
    pub blocks: usize,
    /// For each tier the slots, as bits.
    holders: [&'a [u64]; MAX_TIERS],
}

/// Where one tier's walk is.
pub(super) struct Walk<'a, M> {
    table: &'a Table<M>,
    tier: u8,
    /// What is mixed into keys of the tier.
    mix: u64,
    /// Where the next block probably is.
    next: u32,
    /// The entry and the word of the next block, as looked at while the run before was read, and the
    /// epoch before that.
    ready: Option<(usize, Holders, u64)>,
    /// Entries of which everything that a walk along them looks at has been asked for.
    asked: Range<usize>,
    scout: Scout,
    /// The last block that was not where the one before led.
    jumped: usize,
    /// Entries that a group of blocks probably has, and the number of its first block.
    hints: [u32; GROUP],
    hinted: usize,
}

/// Words of bits for all slots that there may be.
pub(super) const LARGE: usize = MAX_SLOTS / 64;

/// Slots as bits; `N` words are enough for all slots of the table.
pub(super) type Bits<const N: usize> = [u64; N];

impl<'a> Run<'a> {
    pub(super) fn new(at: usize, blocks: usize, holders: [&'a [u64]; MAX_TIERS]) -> Self {
        Self { at, blocks, holders }
    }

    /// The holders in a tier: a bit per slot, from the lowest of the first word on. Slots beyond the end
    /// hold nothing.
    pub fn bits(&self, tier: usize) -> &[u64] {
        self.holders.get(tier).copied().unwrap_or_default()
    }

    /// Visits every holder, tier by tier: slot and tier.
    pub fn for_each(&self, mut visit: impl FnMut(u16, u8)) {
        for (tier, words) in (0..).zip(&self.holders) {
            for_each_bit(words, |slot| visit(slot, tier));
        }
    }
}

pub(super) fn for_each_bit(words: &[u64], mut visit: impl FnMut(u16)) {
    for (base, &word) in (0..).step_by(64).zip(words) {
        let mut bits = word;
        while bits != 0 {
            visit(base + bits.trailing_zeros() as u16);
            bits &= bits - 1;
        }
    }
}

impl<'a, M: Words> Walk<'a, M> {
    pub(super) fn new(table: &'a Table<M>, tier: u8) -> Self {
        let hints = [UNKNOWN; GROUP];
        Self {
            table,
            tier,
            mix: TIER_MIX[usize::from(tier) % MAX_TIERS],
            next: UNKNOWN,
            ready: None,
            asked: 0..0,
            scout: Scout::default(),
            jumped: usize::MAX,
            hints,
            hinted: usize::MAX,
        }
    }

    pub(super) fn tier(&self) -> u8 {
        self.tier
    }

    /// Whether somebody holds the first block: what most prompts end with. Where it is found the
    /// walk begins.
    #[inline]
    pub(super) fn begins(&mut self, keys: &[u64]) -> bool {
        let found = if keys.is_empty() { None } else { self.look(keys, 0) };
        if let Some((entry, _)) = found {
            self.next = entry as u32;
        }
        found.is_some()
    }

    /// Reads a run that begins with `keys[at]`: how many blocks it has, 0 if nobody holds the first.
    #[inline]
    pub(super) fn run<const N: usize>(
        &mut self,
        keys: &[u64],
        at: usize,
        members: &mut Bits<N>,
    ) -> usize {
        self.read(keys, at, |walk, word| walk.members(word, members))
    }

    /// Reads a run that begins with `keys[at]`, and with `look` what its word refers to. How many
    /// blocks it has, 0 if nobody holds the first. Only what was looked at last belongs to them.
    #[inline]
    pub(super) fn read(
        &mut self,
        keys: &[u64],
        at: usize,
        mut look: impl FnMut(&Self, Holders),
    ) -> usize {
        let mut ready = self.ready.take();
        for limit in ATTEMPTS {
            let epoch = self.table.epoch();
            let first = self.next;
            let end = keys.len().min(at.saturating_add(limit));
            let (found, since) = match ready.take() {
                Some((entry, word, since)) => (Some((entry, word)), since),
                None => (self.look(&keys[..end], at), epoch),
            };
            let (mut blocks, mut next) = (0, None);
            if let Some((entry, word)) = found {
                (blocks, next) = self.follow(&keys[..end], at, entry, word);
                // The record is at least as new as the words that name it.
                self.table.words.fence(Acquire);
                look(self, word);
            }
            if self.table.epoch_again().wrapping_sub(since) < 2 {
                self.ready = next.map(|(entry, word)| (entry, word, epoch));
                return blocks;
            }
            (self.next, self.hinted) = (first, usize::MAX);
        }
        0
    }

    /// How many blocks from `at` on, which has this entry and word, have one set of holders, and the
    /// entry and the word of the next one.
    #[inline]
    fn follow(
        &mut self,
        keys: &[u64],
        at: usize,
        mut entry: usize,
        first: Holders,
    ) -> (usize, Option<(usize, Holders)>) {
        if self.asked.contains(&entry) {
            // Another run where the one before was: there is time to see to what comes behind.
            self.scout.go_on(self.table, self.mix, keys);
        } else {
            self.approach(entry, &keys[at..]);
            self.scout.begin(entry, at);
            self.approach_set(first);
        }
        let mut next = at + 1;
        loop {
            let same = self.same(entry + 1, &keys[next..], first);
            (entry, next) = (entry + same, next + same);
            self.next = entry as u32 + 1;
            if next == keys.len() {
                return (next - at, None);
            }
            // The chain goes on somewhere else, or with other holders, or nowhere.
            match self.look(keys, next) {
                Some((elsewhere, word)) if (word.0 ^ first.0) & SEEN == 0 => {
                    entry = elsewhere;
                    next += 1;
                }
                Some((elsewhere, word)) => {
                    self.approach_set(word);
                    self.next = elsewhere as u32;
                    return (next - at, Some((elsewhere, word)));
                }
                None => return (next - at, None),
            }
        }
    }

    /// How many blocks are found in stretches from `entry` on, behind one with the word `first`.
    ///
    /// The word and the keys are looked at between two looks at the stretch: its blocks had one
    /// set of holders all the while. Keys are chained, so one that is the prompt's makes those
    /// before it the prompt's as well.
    #[inline]
    fn same(&self, entry: usize, keys: &[u64], first: Holders) -> usize {
        let (table, mix) = (self.table, self.mix);
        let mut same = 0;
        while same < keys.len() && entry + same < table.layout.entries {
            let next = entry + same;
            let stretch = table.stretch(next);
            let run = stretch.run(next).min(keys.len() - same);
            let before = table.load(table.layout.holders_word(next - 1));
            if run == 0 || (before ^ first.0) & SEEN != 0 {
                break;
            }
            let ahead = (next | (stretch::ENTRIES - 1)) + WORDS * stretch::ENTRIES;
            if ahead < table.layout.entries {
                table.words.prefetch(table.layout.key_word(ahead));
            }
            if let Some(key) = keys.get(same + WORDS * stretch::ENTRIES) {
                prefetch(key);
            }
            let is = |at: usize| table.key(next + at) == keys[same + at] ^ mix;
            let found = if is(run - 1) { run } else { split(run - 1, is) };
            if table.stretch_again(next) != stretch {
                break;
            }
            same += found;
            if found < run {
                break;
            }
        }
        same
    }

    /// The entry of a block and its word.
    #[inline]
    fn look(&mut self, keys: &[u64], at: usize) -> Option<(usize, Holders)> {
        let key = keys[at] ^ self.mix;
        self.check(self.next, key).or_else(|| self.search(keys, at, key))
    }

    #[inline]
    fn check(&self, entry: u32, key: u64) -> Option<(usize, Holders)> {
        let entry = entry as usize;
        if entry >= self.table.layout.entries {
            return None;
        }
        let word = self.table.holders(entry);
        let held = !word.is_free() && self.table.key(entry) == key && word.tier() == self.tier;
        held.then_some((entry, word))
    }

    #[cold]
    fn search(&mut self, keys: &[u64], at: usize, key: u64) -> Option<(usize, Holders)> {
        // Blocks that do not lie side by side: the next ones will not either.
        let before = std::mem::replace(&mut self.jumped, at);
        if at.checked_sub(before).is_some_and(|blocks| blocks <= NEAR) {
            if at.checked_sub(self.hinted).is_none_or(|ahead| ahead >= GROUP) {
                let mut group = [0; GROUP];
                let ahead = &keys[at..keys.len().min(at + GROUP)];
                group.iter_mut().zip(ahead).for_each(|(stored, &key)| *stored = key ^ self.mix);
                self.hints = self.table.locate(&group[..ahead.len()], UNKNOWN);
                self.hinted = at;
            }
            let hint = self.hints[at - self.hinted];
            if let Some(found) = self.check(hint, key) {
                return Some(found);
            }
        }
        let table = self.table;
        let (home, tag) = table.layout.home(key);
        for bucket in table.probe(home) {
            for entry in table.matches(bucket, tag).filter_map(|way| table.way(bucket, way)) {
                if let Some(found) = self.check(entry as u32, key) {
                    return Some(found);
                }
            }
            if table.overflow(bucket) == 0 {
                break;
            }
        }
        None
    }

    /// Has what a walk along the entries that probably follow looks at on its way.
    #[inline]
    fn approach(&mut self, entry: usize, keys: &[u64]) {
        let end = (entry + keys.len()).min(self.table.layout.entries);
        keys.iter().take(KEYS).step_by(LINE).for_each(prefetch);
        self.asked = entry..end;
        if !self.scout.has_asked_for(entry) {
            self.table.approach(entry, end);
        }
    }

    /// Has the record of a set on its way.
    #[inline]
    fn approach_set(&self, word: Holders) {
        let Kind::Record(record) = word.kind() else { return };
        let layout = &self.table.layout;
        let (first, words) = (layout.arena_word(record.unit), seen_words(layout, record.shape));
        if first + words <= layout.total_words {
            (first..first + words).step_by(LINE).for_each(|word| self.table.words.prefetch(word));
        }
    }

    /// The slots of a set that are among `live` as well: into `both`, with a bit in `less` for each
    /// word in which some are not. Whether there is any.
    #[inline]
    pub(super) fn common<const N: usize>(
        &self,
        word: Holders,
        live: &Bits<N>,
        both: &mut Bits<N>,
        less: &mut [u64; LARGE / 64],
    ) -> bool {
        let layout = &self.table.layout;
        match word.kind() {
            Kind::Record(Record { shape: Shape::Bitmap | Shape::Counted(_), unit })
                if layout.arena_word(unit) + layout.bitmap_words <= layout.total_words =>
            {
                let (bits, rest) = both.split_at_mut(layout.bitmap_words.min(N));
                self.table.words.load_run(layout.arena_word(unit), bits);
                rest.fill(0);
            }
            _ => self.members(word, both),
        }
        let mut any = 0;
        for ((live, both), less) in live.chunks(64).zip(both.chunks_mut(64)).zip(less) {
            *less = 0;
            for ((&live, both), at) in live.iter().zip(both).zip(0..) {
                *both &= live;
                any |= *both;
                *less |= u64::from(*both != live) << at;
            }
        }
        any != 0
    }

    /// Copies the members of a set. Whatever the memory holds, nothing outside is read.
    #[inline]
    fn members<const N: usize>(&self, word: Holders, members: &mut Bits<N>) {
        let layout = &self.table.layout;
        let add = |members: &mut Bits<N>, slot: u16| {
            if let Some(bits) = members.get_mut(usize::from(slot) / 64) {
                *bits |= 1 << (slot % 64);
            }
        };
        let record = match word.kind() {
            Kind::Record(record) => record,
            Kind::Free | Kind::Inline => {
                *members = [0; N];
                return word.set().lanes().for_each(|slot| add(members, slot));
            }
        };
        let (first, words) = (layout.arena_word(record.unit), seen_words(layout, record.shape));
        if first + words > layout.total_words {
            *members = [0; N];
            return;
        }
        match record.shape {
            Shape::Bitmap | Shape::Counted(_) => {
                let (bits, rest) = members.split_at_mut(words.min(N));
                self.table.words.load_run(first, bits);
                rest.fill(0);
            }
            Shape::List(_) => {
                *members = [0; N];
                for word in first..first + words {
                    let lanes = self.table.load(word);
                    for lane in (0..64).step_by(16) {
                        match ((lanes >> lane) as u16).checked_sub(1) {
                            Some(slot) => add(members, slot),
                            None => continue,
                        }
                    }
                }
            }
        }
    }
}

/// How many from the first on are so, of which the last is known not to be.
pub(super) fn split(last: usize, is: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, last);
    while low < high {
        let middle = low.midpoint(high);
        if is(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Words of a record that say who is in the set.
#[inline]
fn seen_words(layout: &Layout, shape: Shape) -> usize {
    match shape {
        Shape::List(_) => shape.words(layout),
        Shape::Bitmap | Shape::Counted(_) => layout.bitmap_words,
    }
}

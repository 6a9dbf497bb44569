//! From a key to its entry: an open-addressing index of one cache line per bucket.
//!
//! ```text
//! word 0      tags of ways 0 to 7, a byte each; 0 = free
//! word 1      tags of ways 8 to 11; above them the overflow count (16 bits)
//! words 2–7   entry numbers, two per word
//! ```
//!
//! Buckets are probed in order from the key's home. An entry's way never changes while it is in the
//! table, so a reader can never miss a key that is there. Each bucket counts the keys that had to
//! pass it because it was full; a probe ends at the first bucket that nobody passed. Deleting
//! therefore needs no tombstone: the counts go down again, and probes are as short as before.
//!
//! A reader takes what it finds here as a hint: only the entry's own key counts
//! ([`cursor`](super::cursor)). The order of stores (number, then tag, then the entry's holders; for
//! deleting the reverse) makes sure that an entry with holders is always indexed.

use std::sync::atomic::Ordering::{Acquire, Release};

use super::holders::Holders;
use super::layout::{MAX_PROBE, WAYS};
use super::memory::Table;
use crate::words::{Words, WordsMut};

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = LOW << 7;
const SECOND_TAGS: u64 = 0xffff_ffff;
const OVERFLOW_SHIFT: u32 = 32;

/// The ways of one bucket whose tag matches; iterates over their entry numbers.
pub(super) struct Matches {
    /// The top bit of each matching tag's byte.
    first: u64,
    second: u64,
}

impl Iterator for Matches {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let (tags, base) =
            if self.first != 0 { (&mut self.first, 0) } else { (&mut self.second, 8) };
        let bit = tags.trailing_zeros();
        *tags &= tags.checked_sub(1)?;
        Some(base + bit as usize / 8)
    }
}

impl<M: Words> Table<M> {
    /// The buckets where a key with this home may be, as long as keys have passed them.
    #[inline]
    pub(super) fn probe(&self, home: usize) -> impl Iterator<Item = usize> {
        let buckets = self.layout.buckets;
        let mut bucket = home;
        (0..MAX_PROBE.min(buckets)).map(move |_| {
            let current = bucket;
            bucket = if current + 1 == buckets { 0 } else { current + 1 };
            current
        })
    }

    /// The bucket's ways with this tag (now and then one with another tag).
    #[inline]
    pub(super) fn matches(&self, bucket: usize, tag: u8) -> Matches {
        let (first, second) = self.tags(bucket);
        let wanted = LOW * u64::from(tag);
        Matches {
            first: zero_bytes(first ^ wanted),
            second: zero_bytes(second ^ wanted) & SECOND_TAGS,
        }
    }

    /// The entry number in a way, or `None` where no entry has that number.
    #[inline]
    pub(super) fn way(&self, bucket: usize, way: usize) -> Option<usize> {
        let word = self.load(self.layout.bucket_word(bucket) + 2 + way / 2);
        let entry = (word >> (way % 2 * 32)) as u32 as usize;
        (entry < self.layout.entries).then_some(entry)
    }

    /// Keys that passed the bucket because it was full when they came, and are still in the table.
    /// At most [`MAX_PROBE`] × [`WAYS`], so 16 bits never saturate.
    #[inline]
    pub(super) fn overflow(&self, bucket: usize) -> u16 {
        (self.words.load(self.layout.bucket_word(bucket) + 1, Acquire) >> OVERFLOW_SHIFT) as u16
    }

    /// The entry of `key`, for the writer: exact, no validation needed.
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        let (home, tag) = self.layout.home(key);
        for bucket in self.probe(home) {
            let entries = self.matches(bucket, tag).filter_map(|way| self.way(bucket, way));
            for entry in entries {
                if self.key(entry) == key && !self.holders(entry).is_free() {
                    return Some(entry);
                }
            }
            if self.overflow(bucket) == 0 {
                break;
            }
        }
        None
    }

    /// A free way in the home bucket of a key that is certainly not in the table. `None` if the key
    /// may be in it, or if the bucket is full.
    #[inline]
    pub(super) fn vacancy(&self, home: usize, tag: u8) -> Option<usize> {
        let (first, second) = self.tags(home);
        let wanted = LOW * u64::from(tag);
        let same = zero_bytes(first ^ wanted) | zero_bytes(second ^ wanted) & SECOND_TAGS;
        if same != 0 || second & !SECOND_TAGS != 0 {
            return None;
        }
        // The lowest bit is that of a byte that is zero.
        let (low, high) = (zero_bytes(first), zero_bytes(second) & SECOND_TAGS);
        match (low, high) {
            (0, 0) => None,
            (0, _) => Some(8 + high.trailing_zeros() as usize / 8),
            _ => Some(low.trailing_zeros() as usize / 8),
        }
    }

    pub(super) fn tag(&self, bucket: usize, way: usize) -> u8 {
        let (first, second) = self.tags(bucket);
        (if way < 8 { first >> (way * 8) } else { second >> ((way - 8) * 8) }) as u8
    }

    #[inline]
    fn tags(&self, bucket: usize) -> (u64, u64) {
        let word = self.layout.bucket_word(bucket);
        (self.words.load(word, Acquire), self.words.load(word + 1, Acquire))
    }
}

impl<M: WordsMut> Table<M> {
    /// Enters `key` at `entry`, which is free, and publishes it with these holders.
    ///
    /// Returns `false` if every bucket within reach is full, which takes hashes chosen for it.
    pub(super) fn occupy(&self, entry: usize, key: u64, holders: Holders) -> bool {
        let (home, tag) = self.layout.home(key);
        let vacancy = self.probe(home).find_map(|bucket| {
            (0..WAYS).find(|&way| self.tag(bucket, way) == 0).map(|way| (bucket, way))
        });
        let Some((bucket, way)) = vacancy else { return false };
        for passed in self.probe(home).take_while(|&passed| passed != bucket) {
            self.set_overflow(passed, self.overflow(passed).saturating_add(1));
        }
        self.set_key(entry, key);
        self.fill(bucket, way, tag, entry, holders);
        true
    }

    /// Indexes an entry that has its key where there is a [`vacancy`](Self::vacancy), and publishes
    /// it with these holders.
    #[inline]
    pub(super) fn fill(&self, bucket: usize, way: usize, tag: u8, entry: usize, holders: Holders) {
        self.set_way(bucket, way, entry);
        self.set_tag(bucket, way, tag);
        self.set_holders(entry, holders);
    }

    /// [`vacate`](Self::vacate), for a key whose home is known.
    #[inline]
    pub(super) fn vacate_at(&self, home: usize, tag: u8, entry: usize) {
        let mut ways = self.matches(home, tag);
        match ways.find(|&way| self.way(home, way) == Some(entry)) {
            Some(way) => self.set_tag(home, way, 0),
            None => self.vacate(entry),
        }
    }

    /// Takes an entry that has just lost its last holder out of the index.
    pub(super) fn vacate(&self, entry: usize) {
        let (home, tag) = self.layout.home(self.key(entry));
        let found = self.probe(home).find_map(|bucket| {
            let mut ways = self.matches(bucket, tag);
            ways.find(|&way| self.way(bucket, way) == Some(entry)).map(|way| (bucket, way))
        });
        let Some((bucket, way)) = found else { return };
        self.set_tag(bucket, way, 0);
        for passed in self.probe(home).take_while(|&passed| passed != bucket) {
            self.set_overflow(passed, self.overflow(passed).saturating_sub(1));
        }
    }

    pub(super) fn set_overflow(&self, bucket: usize, count: u16) {
        let word = self.layout.bucket_word(bucket) + 1;
        let tags = self.load(word) & SECOND_TAGS;
        self.words.store(word, tags | u64::from(count) << OVERFLOW_SHIFT, Release);
    }

    pub(super) fn set_tag(&self, bucket: usize, way: usize, tag: u8) {
        let (word, shift) = (self.layout.bucket_word(bucket) + way / 8, way % 8 * 8);
        let tags = self.load(word) & !(0xff << shift) | u64::from(tag) << shift;
        self.words.store(word, tags, Release);
    }

    fn set_way(&self, bucket: usize, way: usize, entry: usize) {
        let (word, shift) = (self.layout.bucket_word(bucket) + 2 + way / 2, way % 2 * 32);
        self.store(word, self.load(word) & !(0xffff_ffff << shift) | (entry as u64) << shift);
    }
}

/// The top bit of every byte that is zero; above a zero byte also of some that are one.
#[inline]
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
}

#[cfg(test)]
mod tests {
    use super::super::layout::TableSpec;
    use super::*;
    use crate::words::HeapWords;

    #[test]
    fn every_way_is_found_by_its_tag() {
        let spec = TableSpec { slots: 1, blocks: 12, pages: 1, default_capacity: 1 };
        let table = Table::create(HeapWords::new(spec.words().unwrap()), &spec, 0).unwrap();
        for way in 0..WAYS {
            table.set_way(0, way, WAYS - 1 - way);
            table.set_tag(0, way, 200 - way as u8);
        }
        table.set_overflow(0, 0xffff);
        for way in 0..WAYS {
            let found: Vec<_> = table.matches(0, 200 - way as u8).collect();
            assert!(found.contains(&way), "{found:?}");
            assert_eq!(table.way(0, way), Some(WAYS - 1 - way));
            table.set_tag(0, way, 0);
            assert!(!table.matches(0, 200 - way as u8).any(|other| other == way));
        }
        assert_eq!(table.overflow(0), 0xffff);
    }
}

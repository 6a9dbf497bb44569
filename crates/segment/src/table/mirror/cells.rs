//! A private index: from hashes to numbers, in buckets of one cache line.
//!
//! Fifteen cells of 32 bits and an overflow count per bucket. A cell holds a number and, in the bits
//! that numbers of this index do not need, a tag of its hash; zero is free. Keys are not stored: a
//! tag that matches is a candidate, and the caller looks at what it refers to. Buckets count the
//! keys that passed them because they were full, as in the shared index ([`index`](super::super::index)),
//! so nothing is left behind by a removal. Several numbers may have the same hash.
//!
//! 4.9 bytes per number at the load of 7/8.

use super::super::layout::MAX_PROBE;
use crate::words::{ask_for_large_pages, prefetch};

const LINE: usize = 16;
const WAYS: usize = LINE - 1;
/// Loaded to at most 7/8.
pub(super) const LOAD: (usize, usize) = (7, 8);

/// Where a hash is looked for first, and the tag that stands for it there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    bucket: u32,
    tag: u32,
}

#[derive(Debug)]
pub(super) struct Cells {
    /// Allocated zeroed, so untouched parts cost no memory.
    cells: Vec<u32>,
    /// Cells before the first whole cache line.
    skip: usize,
    buckets: usize,
    id_bits: u32,
    seed: u64,
    len: usize,
}

impl Cells {
    /// Room for `capacity` numbers below `ids`, which are at most 2²⁸.
    pub(super) fn new(capacity: usize, ids: usize, seed: u64) -> Self {
        let buckets = (capacity * LOAD.1).div_ceil(LOAD.0 * WAYS).max(1);
        let cells = vec![0_u32; buckets * LINE + LINE - 1];
        ask_for_large_pages(&cells);
        let skip = cells.as_ptr().align_offset(LINE * size_of::<u32>()).min(LINE - 1);
        let id_bits = usize::BITS - ids.leading_zeros();
        Self { cells, skip, buckets, id_bits, seed, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether another number takes the index beyond its load.
    pub(super) fn is_full(&self) -> bool {
        self.len >= self.buckets * WAYS * LOAD.0 / LOAD.1
    }

    /// An index twice as large. `hash` is that of each number.
    pub(super) fn grown(&self, hash: impl Fn(u32) -> u64) -> Self {
        let capacity = self.buckets * WAYS * LOAD.0 / LOAD.1;
        let mut grown = Self::new(capacity * 2, 1 << (self.id_bits - 1), self.seed);
        for bucket in 0..self.buckets {
            for &cell in self.line(bucket)[..WAYS].iter().filter(|&&cell| cell != 0) {
                let id = self.id(cell);
                grown.insert(hash(id), id);
            }
        }
        grown
    }

    /// The first number of this hash that is the wanted one.
    #[inline]
    pub(super) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        self.locate(hash, &mut is).map(|(_, _, id)| id)
    }

    /// Adds a number. `false` if all buckets within reach are full, which takes many numbers with one
    /// hash.
    pub(super) fn insert(&mut self, hash: u64, id: u32) -> bool {
        let (home, tag) = self.place(hash);
        let reach = self.buckets.min(MAX_PROBE);
        let mut bucket = home;
        for distance in 0..reach {
            if let Some(way) = self.line(bucket)[..WAYS].iter().position(|&cell| cell == 0) {
                self.line_mut(bucket)[way] = tag << self.id_bits | id;
                self.len += 1;
                self.pass(home, distance, |count| count + 1);
                return true;
            }
            bucket = self.after(bucket);
        }
        false
    }

    /// Forgets a number. Whether it was there.
    pub(super) fn remove(&mut self, hash: u64, id: u32) -> bool {
        let Some((distance, way, _)) = self.locate(hash, &mut |found| found == id) else {
            return false;
        };
        let (home, _) = self.place(hash);
        let mut bucket = home;
        for _ in 0..distance {
            bucket = self.after(bucket);
        }
        self.line_mut(bucket)[way] = 0;
        self.len -= 1;
        self.pass(home, distance, |count| count.saturating_sub(1));
        true
    }

    /// Loads what a lookup of this hash will need first. The place is for
    /// [`vacancy`](Self::vacancy) and [`remove_at`](Self::remove_at).
    #[inline]
    pub(super) fn touch(&self, hash: u64) -> Place {
        let (bucket, tag) = self.place(hash);
        prefetch(&self.line(bucket)[0]);
        Place { bucket: bucket as u32, tag }
    }

    /// A free cell for a hash that is certainly not in the index. `None` if it may be, or if its
    /// bucket is full.
    #[inline]
    pub(super) fn vacancy(&self, place: Place) -> Option<usize> {
        let line = self.line(place.bucket as usize).first_chunk::<LINE>()?;
        let same = ways(line, |cell| cell >> self.id_bits == place.tag);
        let free = ways(line, |cell| cell == 0);
        (line[WAYS] == 0 && same == 0 && free != 0).then(|| free.trailing_zeros() as usize)
    }

    /// Adds a number where its place has a [`vacancy`](Self::vacancy).
    #[inline]
    pub(super) fn fill(&mut self, place: Place, way: usize, id: u32) {
        let cell = place.tag << self.id_bits | id;
        self.line_mut(place.bucket as usize)[way] = cell;
        self.len += 1;
    }

    /// [`remove`](Self::remove), for a hash whose place is known.
    #[inline]
    pub(super) fn remove_at(&mut self, place: Place, hash: u64, id: u32) -> bool {
        let cell = place.tag << self.id_bits | id;
        let line = self.line_mut(place.bucket as usize);
        let same = line.first_chunk::<LINE>().map_or(0, |line| ways(line, |other| other == cell));
        if same == 0 {
            return self.remove(hash, id);
        }
        line[same.trailing_zeros() as usize] = 0;
        self.len -= 1;
        true
    }

    /// Bytes for the numbers that are in it.
    pub(super) fn bytes(&self) -> usize {
        self.len * LINE * size_of::<u32>() * LOAD.1 / (WAYS * LOAD.0)
    }

    #[inline]
    fn locate(&self, hash: u64, is: &mut impl FnMut(u32) -> bool) -> Option<(usize, usize, u32)> {
        if self.len == 0 {
            return None;
        }
        let (home, tag) = self.place(hash);
        let mut bucket = home;
        for distance in 0..self.buckets.min(MAX_PROBE) {
            let line = self.line(bucket).first_chunk::<LINE>()?;
            let mut matches = ways(line, |cell| cell >> self.id_bits == tag);
            while matches != 0 {
                let way = matches.trailing_zeros() as usize;
                let id = self.id(line[way]);
                if is(id) {
                    return Some((distance, way, id));
                }
                matches &= matches - 1;
            }
            if line[WAYS] == 0 {
                break;
            }
            bucket = self.after(bucket);
        }
        None
    }

    #[inline]
    fn place(&self, hash: u64) -> (usize, u32) {
        let product = u128::from(hash ^ self.seed) * 0x9e37_79b9_7f4a_7c15;
        let mixed = product as u64 ^ (product >> 64) as u64;
        let bucket = ((u128::from(mixed) * self.buckets as u128) >> 64) as usize;
        (bucket, (mixed as u32 & (u32::MAX >> self.id_bits)).max(1))
    }

    fn pass(&mut self, home: usize, distance: usize, change: impl Fn(u32) -> u32) {
        let mut bucket = home;
        for _ in 0..distance {
            let count = &mut self.line_mut(bucket)[WAYS];
            *count = change(*count);
            bucket = self.after(bucket);
        }
    }

    #[inline]
    fn id(&self, cell: u32) -> u32 {
        cell & ((1 << self.id_bits) - 1)
    }

    #[inline]
    fn line(&self, bucket: usize) -> &[u32] {
        &self.cells[self.skip + bucket * LINE..][..LINE]
    }

    #[inline]
    fn line_mut(&mut self, bucket: usize) -> &mut [u32] {
        &mut self.cells[self.skip + bucket * LINE..][..LINE]
    }

    #[inline]
    fn after(&self, bucket: usize) -> usize {
        if bucket + 1 == self.buckets { 0 } else { bucket + 1 }
    }
}

/// A bit for each way whose cell is one of these.
#[inline]
fn ways(line: &[u32; LINE], is: impl Fn(u32) -> bool) -> u32 {
    let mut ways = 0;
    for (way, &cell) in line.iter().enumerate() {
        // In this form it becomes four comparisons of four cells.
        ways |= u32::from(is(cell)).wrapping_neg() & 1 << way;
    }
    ways & ((1 << WAYS) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEPS: usize = if cfg!(miri) { 40 } else { 400 };

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 4 } else { 128 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// Whatever comes and goes, what is in it is found, also after it has grown.
        #[test]
        fn numbers_are_found_while_they_are_in(
            steps in prop::collection::vec((0_u64..40, any::<bool>()), 1..STEPS),
        ) {
            let mut cells = Cells::new(30, 64, 5);
            let mut held: Vec<(u64, u32)> = Vec::new();
            for (next, (hash, add)) in steps.into_iter().enumerate() {
                let id = next as u32 % 64;
                if add && held.len() < 40 && !held.iter().any(|&(_, other)| other == id) {
                    if cells.is_full() {
                        cells = cells.grown(|id| held.iter().find(|held| held.1 == id).unwrap().0);
                    }
                    let place = cells.touch(hash);
                    match cells.vacancy(place) {
                        Some(way) => {
                            prop_assert!(held.iter().all(|&(other, _)| other != hash));
                            cells.fill(place, way, id);
                        }
                        None => prop_assert!(cells.insert(hash, id)),
                    }
                    held.push((hash, id));
                } else if let Some(at) = held.iter().position(|&(other, _)| other == hash) {
                    let (hash, id) = held.remove(at);
                    let place = cells.touch(hash);
                    prop_assert!(cells.remove_at(place, hash, id));
                }
                for &(hash, id) in &held {
                    prop_assert_eq!(cells.find(hash, |found| found == id), Some(id));
                }
                prop_assert_eq!(cells.len(), held.len());
            }
            for (hash, id) in held {
                prop_assert!(cells.remove(hash, id));
            }
            prop_assert!((0..40).all(|hash| cells.find(hash, |_| true).is_none()));
            prop_assert!(cells.cells.iter().all(|&cell| cell == 0));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too slow under Miri, which has nothing to find in it")]
    fn too_many_numbers_of_one_hash_are_refused() {
        let mut cells = Cells::new(10_000, 10_000, 1);
        let taken = (0..10_000).take_while(|&id| cells.insert(7, id)).count();
        assert_eq!(taken, MAX_PROBE * WAYS);
        assert!((0..taken as u32).all(|id| cells.remove(7, id)));
    }
}

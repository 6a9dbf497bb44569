//! The ring protocol, on any words: one producer, one consumer, records of a fixed stride.
//!
//! ```text
//! line 0    records pushed, records dropped      written by the producer
//! line 1    records taken                        written by the consumer
//! then      `capacity` records of `stride` words
//! ```
//!
//! The producer fills the place of the next record and then counts it as pushed, with release: who
//! acquires the count sees the record, and a producer that dies before has pushed nothing. The consumer
//! copies a record out and then counts it as taken, with release: a producer that acquires this count
//! overwrites only what was copied. Each count has one writer, who keeps it for himself as well and
//! never looks at the shared one again.
//!
//! **Trust.** Indices come from a side's own count and the capacity of a validated header, so whatever
//! the other side writes, no access is out of bounds and no loop is longer than the capacity. A count of
//! pushed records that no producer can have left is answered by going on from there. A count of taken
//! ones that no consumer can have left looks like a full ring. Each side repeats
//! its own count when it next drops a record or drains, and thereby undoes what was forged.

use std::sync::atomic::Ordering;

use crate::layout::LINE;
use crate::words::{Words, WordsMut};

/// Most words in a record.
pub const MAX_SAMPLE_WORDS: u32 = 24;

/// Most records that a ring may have room for.
pub const MAX_SAMPLES: u32 = 65_536;

const AT_PUSHED: usize = 0;
const AT_DROPPED: usize = 1;
const AT_TAKEN: usize = LINE;
const AT_RECORDS: usize = 2 * LINE;

/// Where a ring is in its words.
#[derive(Clone, Debug)]
pub(super) struct Ring<W> {
    words: W,
    at: usize,
    stride: usize,
    /// A power of two.
    capacity: u64,
}

impl<W> Ring<W> {
    /// Words that a ring takes.
    pub(super) fn words(stride: u32, capacity: u32) -> usize {
        AT_RECORDS + stride as usize * capacity as usize
    }

    /// The ring from word `at` on: `stride` at most [`MAX_SAMPLE_WORDS`], `capacity` a power of two.
    pub(super) fn new(words: W, at: usize, stride: u32, capacity: u32) -> Self {
        debug_assert!(capacity.is_power_of_two() && stride <= MAX_SAMPLE_WORDS);
        Self { words, at, stride: stride as usize, capacity: capacity.into() }
    }

    /// The place of the record that has this many before it.
    #[inline]
    fn place(&self, before: u64) -> usize {
        // Below the capacity, which is a `u32`.
        let index = (before & (self.capacity - 1)) as usize;
        self.at + AT_RECORDS + index * self.stride
    }
}

impl<W: Words> Ring<W> {
    #[inline]
    fn load(&self, which: usize) -> u64 {
        self.words.load(self.at + which, Ordering::Acquire)
    }
}

impl<W: WordsMut> Ring<W> {
    #[inline]
    fn store(&self, which: usize, count: u64) {
        self.words.store(self.at + which, count, Ordering::Release);
    }
}

/// The side that pushes.
#[derive(Debug)]
pub(super) struct Producer<W> {
    ring: Ring<W>,
    pushed: u64,
    dropped: u64,
}

impl<W: WordsMut> Producer<W> {
    /// The producer of a ring that is still all zero.
    pub(super) fn new(ring: Ring<W>) -> Self {
        Self { ring, pushed: 0, dropped: 0 }
    }

    /// Pushes a record; words that `record` lacks are zero. `false`, counted, where there is no room
    /// or the record is too long.
    #[inline]
    pub(super) fn push(&mut self, record: &[u64]) -> bool {
        let ring = &self.ring;
        let held = self.pushed.wrapping_sub(ring.load(AT_TAKEN));
        if held >= ring.capacity || record.len() > ring.stride {
            self.dropped += 1;
            ring.store(AT_DROPPED, self.dropped);
            // As it is already, unless somebody forged it: then the consumer finds the way back.
            ring.store(AT_PUSHED, self.pushed);
            return false;
        }
        let place = ring.place(self.pushed);
        ring.words.store_run(place, record);
        for offset in record.len()..ring.stride {
            ring.words.store(place + offset, 0, Ordering::Relaxed);
        }
        self.pushed = self.pushed.wrapping_add(1);
        ring.store(AT_PUSHED, self.pushed);
        true
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// The side that drains.
#[derive(Debug)]
pub(super) struct Consumer<W> {
    ring: Ring<W>,
    taken: u64,
}

/// What draining a ring once came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Drained {
    /// Records handed out.
    pub(super) taken: u64,
    /// Whether the counts were such as no producer and no consumer leave.
    pub(super) damaged: bool,
}

impl<W: WordsMut> Consumer<W> {
    /// Goes on where the last consumer of the ring was.
    pub(super) fn new(ring: Ring<W>) -> Self {
        Self { taken: ring.load(AT_TAKEN), ring }
    }

    /// Hands out what the ring holds now: at most as many records as it has room for.
    pub(super) fn drain(&mut self, mut each: impl FnMut(&[u64])) -> Drained {
        let ring = &self.ring;
        let pushed = ring.load(AT_PUSHED);
        let held = pushed.wrapping_sub(self.taken);
        if held > ring.capacity {
            self.taken = pushed;
            ring.store(AT_TAKEN, pushed);
            return Drained { taken: 0, damaged: true };
        }
        // As it is already, unless somebody forged it: then the producer finds the way back.
        ring.store(AT_TAKEN, self.taken);
        let mut buffer = [0; MAX_SAMPLE_WORDS as usize];
        // The stride of a ring is at most as long as the buffer.
        let record = &mut buffer[..ring.stride];
        for _ in 0..held {
            ring.words.load_run(ring.place(self.taken), record);
            self.taken = self.taken.wrapping_add(1);
            // Before it is handed out, so that a record that its receiver cannot survive comes once.
            ring.store(AT_TAKEN, self.taken);
            each(record);
        }
        Drained { taken: held, damaged: false }
    }

    /// Records that the producer has dropped, as it says.
    pub(super) fn dropped(&self) -> u64 {
        self.ring.load(AT_DROPPED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Mortal;
    use crate::words::HeapWords;

    const STRIDE: u32 = 3;
    const CAPACITY: u32 = 4;

    fn words() -> HeapWords {
        // Not at the start, so that a wrong offset shows.
        HeapWords::new(5 + Ring::<()>::words(STRIDE, CAPACITY))
    }

    fn ring<W>(words: W) -> Ring<W> {
        Ring::new(words, 5, STRIDE, CAPACITY)
    }

    fn drain<W: WordsMut>(consumer: &mut Consumer<W>) -> Vec<u64> {
        let mut seen = Vec::new();
        let drained = consumer.drain(|record| {
            assert_eq!(record, [record[0]; STRIDE as usize]);
            seen.push(record[0]);
        });
        assert_eq!(drained, Drained { taken: seen.len() as u64, damaged: false });
        seen
    }

    #[test]
    fn records_come_out_in_order_and_what_finds_no_room_is_counted() {
        let words = words();
        let mut producer = Producer::new(ring(words.clone()));
        let mut consumer = Consumer::new(ring(words));
        for round in 0..5 {
            let first = round * 6;
            let pushed = (first..first + 6).map(|n| producer.push(&[n; 3]));
            assert_eq!(pushed.collect::<Vec<_>>(), [true, true, true, true, false, false]);
            assert_eq!(drain(&mut consumer), (first..first + 4).collect::<Vec<_>>());
            assert_eq!(drain(&mut consumer), []);
        }
        assert_eq!((producer.dropped(), consumer.dropped()), (10, 10));
    }

    #[test]
    fn a_short_record_is_filled_up_and_a_long_one_is_dropped() {
        let words = words();
        let mut producer = Producer::new(ring(words.clone()));
        let mut consumer = Consumer::new(ring(words));
        for _ in 0..4 {
            assert!(producer.push(&[9; 3]));
        }
        drain(&mut consumer);
        assert!(producer.push(&[1]));
        assert!(!producer.push(&[1; 4]));
        let mut seen = Vec::new();
        consumer.drain(|record| seen.push(record.to_vec()));
        assert_eq!(seen, [[1, 0, 0]]);
        assert_eq!(producer.dropped(), 1);
    }

    #[test]
    fn a_producer_may_die_after_any_store() {
        for stores in 0.. {
            let words = words();
            let mortal = Mortal::new(words.clone(), stores);
            let mut producer = Producer::new(ring(mortal.clone()));
            let mut consumer = Consumer::new(ring(words));
            let mut seen = Vec::new();
            for number in 1..=3 {
                producer.push(&[number; 3]);
            }
            seen.extend(drain(&mut consumer));
            for number in 4..=6 {
                producer.push(&[number; 3]);
            }
            seen.extend(drain(&mut consumer));
            // Three stores fill a record and the fourth publishes it.
            assert_eq!(seen, (1..=6.min(stores / 4)).collect::<Vec<_>>());
            if !mortal.is_dead() {
                assert_eq!(stores, 24);
                break;
            }
        }
    }

    #[test]
    fn a_consumer_may_die_after_any_store_and_the_next_one_goes_on() {
        // The first store repeats what is there.
        for stores in 0..=3 {
            let words = words();
            let mut producer = Producer::new(ring(words.clone()));
            for number in 1..=3 {
                assert!(producer.push(&[number; 3]));
            }
            let mortal = Mortal::new(words.clone(), stores);
            drain(&mut Consumer::new(ring(mortal)));
            let mut next = Consumer::new(ring(words));
            assert_eq!(drain(&mut next), (stores.max(1)..=3).collect::<Vec<_>>());
        }
    }

    #[test]
    fn counts_may_go_round() {
        let words = words();
        let start = u64::MAX - 1;
        let mut producer = Producer { ring: ring(words.clone()), pushed: start, dropped: 0 };
        let mut consumer = Consumer { ring: ring(words), taken: start };
        consumer.ring.store(AT_TAKEN, start);
        assert!((1..=4).all(|n| producer.push(&[n; 3])));
        assert!(!producer.push(&[5; 3]));
        assert_eq!(drain(&mut consumer), [1, 2, 3, 4]);
    }

    #[test]
    fn forged_counts_cost_records_and_nothing_else() {
        for (forged, which) in [5, 1 << 32, u64::MAX - 3, u64::MAX]
            .into_iter()
            .flat_map(|count| [(count, AT_PUSHED), (count, AT_TAKEN)])
        {
            let words = words();
            let mut producer = Producer::new(ring(words.clone()));
            let mut consumer = Consumer::new(ring(words.clone()));
            assert!(producer.push(&[1; 3]));
            words.store(5 + which, forged, Ordering::Relaxed);
            for _ in 0..3 {
                let drained = consumer.drain(|_| {});
                assert!(drained.taken <= CAPACITY.into(), "{forged}: {drained:?}");
                producer.push(&[2; 3]);
            }
            consumer.drain(|_| {});
            assert!(producer.push(&[3; 3]));
            assert_eq!(drain(&mut consumer), [3], "{forged} in {which}");
        }
    }
}

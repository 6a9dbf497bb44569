//! One document: two copies of a blob of bytes and a word that says which one counts.
//!
//! ```text
//! line 0          the flip word: the document's generation; its low bit names the copy
//! then, twice     one line [generation, length in bytes, checksum], then the bytes, in whole lines
//! ```
//!
//! **Writing** generation g+1 fills the copy that generation g does not use and then stores g+1 into
//! the flip word. Until that one store readers are served generation g, whose copy is untouched; so a
//! writer that dies after any store leaves a whole document, and its successor starts over with g+1.
//!
//! **Reading** loads the flip word, copies the bytes out, and loads the flip word again: if it has
//! not moved, no store to that copy has been seen. Why: a writer stores into the copy of g only after
//! it published g+1 and passed a release fence. A reader that picks up any such store, and then
//! passes its acquire fence, therefore also sees g+1 or later in the flip word and discards what it
//! read. Writer and reader never wait for each other; a reader gives up after [`TRIES`] attempts.
//!
//! The checksum (xxh3 of the bytes, seeded with the generation) is not needed for any of this. It
//! catches memory that no writer of this crate has left: damage, forgery, a bug.
//!
//! A flip word whose copy carries another generation stands for "nothing published yet": a new file
//! starts at an arbitrary generation with both copies zero.

use std::sync::atomic::Ordering;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::layout::LINE;
use crate::words::{Words, WordsMut};

/// Attempts of a read before it reports that the document does not hold still.
pub(crate) const TRIES: u32 = 3;

const HEADER: usize = 3;
const CHUNK: usize = 64;

/// Where a document is, in words from the start of the memory it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DocumentRegion {
    at: usize,
    capacity: usize,
}

/// The outcome of reading a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Nothing has been published.
    Absent,
    /// No writer of this crate can have left this.
    Damaged,
    /// The document changed during every attempt.
    Unstable,
    /// The document, verified.
    Whole { generation: u64, bytes: Vec<u8> },
}

impl DocumentRegion {
    /// Words that a document of `capacity` bytes takes.
    pub(crate) fn words(capacity: usize) -> usize {
        LINE + 2 * copy_words(capacity)
    }

    pub(crate) fn new(at: usize, capacity: usize) -> Self {
        Self { at, capacity }
    }

    /// Largest document in bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The generation of the newest document, or where counting starts when there is none.
    #[inline]
    pub(crate) fn generation(&self, words: &impl Words) -> u64 {
        words.load(self.at, Ordering::Acquire)
    }

    /// Copies the newest document out.
    pub(crate) fn read(&self, words: &impl Words) -> Reading {
        for _ in 0..TRIES {
            let generation = words.load(self.at, Ordering::Acquire);
            let reading = self.read_copy(words, generation);
            words.fence(Ordering::Acquire);
            if words.load(self.at, Ordering::Relaxed) == generation {
                return reading;
            }
        }
        Reading::Unstable
    }

    /// Reads the copy of `generation`. The answer means nothing unless the flip word stood still.
    fn read_copy(&self, words: &impl Words, generation: u64) -> Reading {
        let at = self.copy_at(generation);
        let mut header = [0; HEADER];
        words.load_run(at, &mut header);
        if header == [0; HEADER] {
            return Reading::Absent;
        }
        let [written, len, checksum] = header;
        let len = match usize::try_from(len) {
            Ok(len) if written == generation && len <= self.capacity => len,
            _ => return Reading::Damaged,
        };
        let bytes = read_bytes(words, at + LINE, len);
        if xxh3_64_with_seed(&bytes, generation) != checksum {
            return Reading::Damaged;
        }
        Reading::Whole { generation, bytes }
    }

    fn copy_at(&self, generation: u64) -> usize {
        let copy = (generation & 1) as usize;
        self.at + LINE + copy * copy_words(self.capacity)
    }

    /// Sets the generation that the first document follows, in memory that is still all zero.
    pub(crate) fn start_at(&self, words: &impl WordsMut, generation: u64) {
        words.store(self.at, generation, Ordering::Release);
    }

    /// Publishes `bytes` as the next generation, which it returns, or `None` where they do not fit.
    pub(crate) fn publish(&self, words: &impl WordsMut, bytes: &[u8]) -> Option<u64> {
        let generation = self.generation(words).wrapping_add(1);
        self.publish_as(words, generation, bytes).then_some(generation)
    }

    /// Publishes `bytes` under a generation of the caller's choice: another one than the present.
    pub(crate) fn publish_as(&self, words: &impl WordsMut, generation: u64, bytes: &[u8]) -> bool {
        if bytes.len() > self.capacity {
            return false;
        }
        // Orders the stores below after the flip to the present generation, for readers that still
        // read the copy of the one before it.
        words.fence(Ordering::Release);
        let at = self.copy_at(generation);
        let checksum = xxh3_64_with_seed(bytes, generation);
        words.store_run(at, &[generation, bytes.len() as u64, checksum]);
        write_bytes(words, at + LINE, bytes);
        words.store(self.at, generation, Ordering::Release);
        true
    }
}

fn copy_words(capacity: usize) -> usize {
    LINE + capacity.div_ceil(8).next_multiple_of(LINE)
}

fn read_bytes(words: &impl Words, at: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len.next_multiple_of(8));
    let mut chunk = [0; CHUNK];
    for first in (0..len.div_ceil(8)).step_by(CHUNK) {
        let part = &mut chunk[..CHUNK.min(len.div_ceil(8) - first)];
        words.load_run(at + first, part);
        bytes.extend(part.iter().flat_map(|word| word.to_le_bytes()));
    }
    bytes.truncate(len);
    bytes
}

fn write_bytes(words: &impl WordsMut, at: usize, bytes: &[u8]) {
    for (offset, part) in bytes.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        words.store(at + offset, u64::from_le_bytes(word), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Mortal;
    use crate::words::HeapWords;

    const CAPACITY: usize = 20;

    fn document() -> (HeapWords, DocumentRegion) {
        // Not at the start, so that a wrong offset shows.
        (HeapWords::new(5 + DocumentRegion::words(CAPACITY)), DocumentRegion::new(5, CAPACITY))
    }

    fn whole(generation: u64, bytes: &[u8]) -> Reading {
        Reading::Whole { generation, bytes: bytes.to_vec() }
    }

    #[test]
    fn every_length_comes_back() {
        let (words, region) = document();
        for len in 0..=CAPACITY {
            let bytes: Vec<u8> = (1..=len as u8).collect();
            let generation = region.publish(&words, &bytes).unwrap();
            assert_eq!(region.read(&words), whole(generation, &bytes));
        }
        assert_eq!(region.publish(&words, &[0; CAPACITY + 1]), None);
        assert_eq!(region.generation(&words), CAPACITY as u64 + 1);
    }

    #[test]
    fn a_start_is_not_a_document() {
        let (words, region) = document();
        region.start_at(&words, 41);
        assert_eq!(region.read(&words), Reading::Absent);
        assert_eq!(region.publish(&words, b"x"), Some(42));
        assert_eq!(region.read(&words), whole(42, b"x"));
    }

    #[test]
    fn a_writer_may_die_after_any_store() {
        for stores in 0.. {
            let (words, region) = document();
            region.publish(&words, b"the first").unwrap();
            let mortal = Mortal::new(words.clone(), stores);
            region.publish(&mortal, b"another of 20 bytes.").unwrap();
            if !mortal.is_dead() {
                assert_eq!(region.read(&words), whole(2, b"another of 20 bytes."));
                assert!(stores > 5, "the model stops inside the publication");
                break;
            }
            assert_eq!(region.read(&words), whole(1, b"the first"));
            assert_eq!(region.publish(&words, b"next"), Some(2));
            assert_eq!(region.read(&words), whole(2, b"next"));
        }
    }

    #[test]
    fn damage_is_noticed() {
        let (words, region) = document();
        region.publish(&words, b"a document").unwrap();
        let at = region.copy_at(1);
        // Generation, length, checksum, bytes.
        for (offset, forged) in [(0, 3), (1, u64::MAX), (1, 4), (2, 1), (LINE, 0)] {
            let kept = words.load(at + offset, Ordering::Relaxed);
            words.store(at + offset, forged, Ordering::Relaxed);
            assert_eq!(region.read(&words), Reading::Damaged, "word {offset}");
            words.store(at + offset, kept, Ordering::Relaxed);
        }
        assert_eq!(region.read(&words), whole(1, b"a document"));
    }
}

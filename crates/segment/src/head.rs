//! The head: the one file whose layout never changes, so that any build can read it.
//!
//! It is 4,096 bytes, and these words of it have a meaning, forever:
//!
//! ```text
//! 0  magic     2  data pointer of even layouts     4  instance of the writer (random at its start)
//! 1  version   3  data pointer of odd layouts      5  heartbeat: CLOCK_BOOTTIME, ns
//!                                                  6  publications so far
//! ```
//!
//! A data pointer packs layout version (16 bits) and id (48 bits) of a data file; 0 is none. Two
//! neighbouring layouts use different pointers, so during an upgrade a writer can serve both, and to
//! switch either is one store. A reader takes the pointer of the layout it knows and validates the
//! file behind it, which states its layout and id itself.

use std::path::Path;
use std::sync::atomic::Ordering;

use crate::error::{Error, expect};
use crate::words::{Words, WordsMut};

/// The name of the head in its directory.
pub(crate) const HEAD_FILE: &str = "head";

/// The length of the head.
pub(crate) const HEAD_WORDS: usize = 512;

/// The largest data file id.
pub(crate) const MAX_DATA_ID: u64 = (1 << LAYOUT_SHIFT) - 1;

const MAGIC: u64 = u64::from_le_bytes(*b"INLNhead");
const VERSION: u64 = 1;
const LAYOUT_SHIFT: u32 = 48;

const AT_MAGIC: usize = 0;
const AT_VERSION: usize = 1;
const AT_POINTERS: usize = 2;
const AT_INSTANCE: usize = 4;
const AT_HEARTBEAT: usize = 5;
const AT_PUBLICATIONS: usize = 6;

/// The words of a head.
#[derive(Clone, Debug)]
pub(crate) struct Head<W>(W);

/// A data pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(crate) layout: u16,
    pub(crate) id: u64,
}

impl<W: Words> Head<W> {
    /// Validates a head.
    pub(crate) fn open(words: W, path: &Path) -> Result<Self, Error> {
        expect(path, "length in words", words.len(), HEAD_WORDS)?;
        expect(path, "magic", words.load(AT_MAGIC, Ordering::Acquire), MAGIC)?;
        expect(path, "head version", words.load(AT_VERSION, Ordering::Relaxed), VERSION)?;
        Ok(Self(words))
    }

    /// The data file of `layout`.
    #[inline]
    pub(crate) fn pointer(&self, layout: u16) -> Option<u64> {
        let pointer = self.pointers()[usize::from(layout % 2)]?;
        (pointer.layout == layout).then_some(pointer.id)
    }

    /// The data files of even and odd layouts.
    #[inline]
    pub(crate) fn pointers(&self) -> [Option<Pointer>; 2] {
        [0, 1].map(|parity| Pointer::unpack(self.0.load(AT_POINTERS + parity, Ordering::Acquire)))
    }

    /// Which writer is, or was, at work.
    pub(crate) fn instance(&self) -> u64 {
        self.0.load(AT_INSTANCE, Ordering::Acquire)
    }

    /// When the writer last said that it is alive, in nanoseconds of `CLOCK_BOOTTIME`.
    pub(crate) fn heartbeat_ns(&self) -> u64 {
        self.0.load(AT_HEARTBEAT, Ordering::Acquire)
    }

    /// How many rows and documents were published, as of the last heartbeat.
    pub(crate) fn publications(&self) -> u64 {
        self.0.load(AT_PUBLICATIONS, Ordering::Acquire)
    }
}

impl<W: WordsMut> Head<W> {
    /// Makes a head of words that are all zero.
    pub(crate) fn create(words: W) -> Self {
        words.store(AT_VERSION, VERSION, Ordering::Relaxed);
        words.store(AT_MAGIC, MAGIC, Ordering::Release);
        Self(words)
    }

    pub(crate) fn set_instance(&self, instance: u64) {
        self.0.store(AT_INSTANCE, instance, Ordering::Release);
    }

    /// Makes `layout`'s data file the one with this id: the store that switches readers over.
    pub(crate) fn set_pointer(&self, layout: u16, id: u64) {
        let word = Pointer { layout, id }.pack();
        self.0.store(AT_POINTERS + usize::from(layout % 2), word, Ordering::Release);
    }

    /// Withdraws the pointer that layouts other than `layout` and its like in parity use.
    pub(crate) fn clear_other_pointer(&self, layout: u16) {
        self.0.store(AT_POINTERS + usize::from((layout + 1) % 2), 0, Ordering::Release);
    }

    pub(crate) fn beat(&self, now_ns: u64, publications: u64) {
        self.0.store(AT_PUBLICATIONS, publications, Ordering::Relaxed);
        self.0.store(AT_HEARTBEAT, now_ns, Ordering::Release);
    }
}

impl Pointer {
    fn pack(self) -> u64 {
        u64::from(self.layout) << LAYOUT_SHIFT | self.id & MAX_DATA_ID
    }

    fn unpack(word: u64) -> Option<Self> {
        // The shift leaves sixteen bits.
        let layout = (word >> LAYOUT_SHIFT) as u16;
        let id = word & MAX_DATA_ID;
        (id != 0).then_some(Self { layout, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::HeapWords;

    #[test]
    fn neighbouring_layouts_have_pointers_of_their_own() {
        let head = Head::create(HeapWords::new(HEAD_WORDS));
        assert_eq!(head.pointer(1), None);
        head.set_pointer(1, 10);
        head.set_pointer(2, MAX_DATA_ID);
        assert_eq!((head.pointer(1), head.pointer(2)), (Some(10), Some(MAX_DATA_ID)));
        head.set_pointer(3, 12);
        assert_eq!((head.pointer(1), head.pointer(3)), (None, Some(12)));
        head.clear_other_pointer(2);
        assert_eq!((head.pointer(2), head.pointer(3)), (Some(MAX_DATA_ID), None));
    }
}

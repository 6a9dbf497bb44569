//! Looking up one block after another.
//!
//! A lookup is a validated read of one entry: load the holders word, check that the entry still
//! has the key, copy the record (if there is one), look at the holders word again. The same version
//! on both looks proves that key and record belonged together all the while
//! ([`holders`](super::holders)); otherwise the lookup starts over, at most twice, and then counts
//! the block as held by nobody. Changes inside a record are single stores, and a list gains a slot under
//! a new version, so the copy is a set of holders, each once, in which each one was true at the moment
//! it was read.
//!
//! Consecutive blocks of a prompt mostly have the same holders, so the cursor says whether they
//! changed, which is one comparison, and callers work only then.

use super::ahead::UNKNOWN;
use super::holders::{Holders, Kind, Shape};
use super::layout::MAX_SLOTS;
use super::memory::Table;
use crate::words::Words;

pub(super) const MAX_WORDS: usize = MAX_SLOTS / 64;

const ATTEMPTS: usize = 3;

pub(super) struct Cursor<'a, M> {
    table: &'a Table<M>,
    /// Where the last block was found.
    entry: u32,
    current: Set,
    other: Set,
}

/// What the block just looked at has to do with the one before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Other holders than before.
    Changed,
    Nobody,
    Same,
}

/// The holders of one block, copied out of the table.
pub(super) struct Set {
    form: Form,
    /// List lanes or bits: two kilobytes on the caller's stack.
    words: [u64; MAX_WORDS],
}

#[derive(Clone, Copy)]
enum Form {
    Nobody,
    /// In the lanes of this word.
    Inline(Holders),
    /// So many words of lanes.
    List(usize),
    /// So many words of bits.
    Bitmap(usize),
}

/// The entry changed hands while it was read.
struct Moved;

impl<'a, M: Words> Cursor<'a, M> {
    pub(super) fn new(table: &'a Table<M>) -> Self {
        Self { table, entry: UNKNOWN, current: Set::nobody(), other: Set::nobody() }
    }

    /// Looks a block up, at `hint` first (an entry, or [`UNKNOWN`]).
    #[inline]
    pub(super) fn look(&mut self, hash: u64, hint: u32) -> Step {
        self.other.form = self.find(hash, hint);
        if self.other.is_nobody() {
            std::mem::swap(&mut self.current, &mut self.other);
            return Step::Nobody;
        }
        if self.current.same(&self.other) {
            return Step::Same;
        }
        std::mem::swap(&mut self.current, &mut self.other);
        Step::Changed
    }

    /// The entry where the last block was found, or [`UNKNOWN`].
    pub(super) fn entry(&self) -> u32 {
        self.entry
    }

    /// Holders of the block looked at last.
    pub(super) fn current(&self) -> &Set {
        &self.current
    }

    /// After [`Step::Changed`] and [`Step::Nobody`]: holders of the block before.
    pub(super) fn previous(&self) -> &Set {
        &self.other
    }

    #[inline]
    fn find(&mut self, hash: u64, hint: u32) -> Form {
        if hint != UNKNOWN
            && let Ok(Some(form)) = self.read(hint as usize, hash)
        {
            return form;
        }
        for _ in 0..ATTEMPTS {
            if let Ok(form) = self.probe(hash) {
                return form;
            }
        }
        Form::Nobody
    }

    fn probe(&mut self, hash: u64) -> Result<Form, Moved> {
        let table = self.table;
        let (home, tag) = table.layout.home(hash);
        for bucket in table.probe(home) {
            for entry in table.matches(bucket, tag).filter_map(|way| table.way(bucket, way)) {
                if table.key(entry) == hash
                    && let Some(form) = self.read(entry, hash)?
                {
                    return Ok(form);
                }
            }
            if table.overflow(bucket) == 0 {
                break;
            }
        }
        Ok(Form::Nobody)
    }

    /// The entry's holders into `other`; `None` if it does not hold `hash`.
    #[inline]
    fn read(&mut self, entry: usize, hash: u64) -> Result<Option<Form>, Moved> {
        let holders = self.table.holders(entry);
        if holders.is_free() || self.table.key(entry) != hash {
            return Ok(None);
        }
        let form = self.copy(holders);
        let again = self.table.holders_again(entry);
        self.entry = entry as u32;
        if holders.same_version(again) { Ok(Some(form)) } else { Err(Moved) }
    }

    #[inline]
    fn copy(&mut self, holders: Holders) -> Form {
        let record = match holders.kind() {
            Kind::Free => return Form::Nobody,
            Kind::Inline => return Form::Inline(holders),
            Kind::Record(record) => record,
        };
        let layout = &self.table.layout;
        let words = record.shape.words(layout);
        let first = layout.arena_word(record.unit);
        // Never beyond the arena while the table is sound; whatever it is, never outside.
        if first + words > layout.total_words {
            return Form::Nobody;
        }
        self.table.words.load_run(first, &mut self.other.words[..words]);
        match record.shape {
            Shape::List(_) => Form::List(words),
            Shape::Bitmap => Form::Bitmap(words),
            Shape::Counted(_) => Form::Nobody,
        }
    }
}

impl Set {
    fn nobody() -> Self {
        Self { form: Form::Nobody, words: [0; MAX_WORDS] }
    }

    pub(super) fn is_nobody(&self) -> bool {
        matches!(self.form, Form::Nobody)
    }

    /// The bits, if the set is a bitmap.
    #[inline]
    pub(super) fn bits(&self) -> Option<&[u64]> {
        match self.form {
            Form::Bitmap(words) => Some(&self.words[..words]),
            _ => None,
        }
    }

    #[inline]
    fn same(&self, other: &Self) -> bool {
        match (self.form, other.form) {
            (Form::Inline(mine), Form::Inline(theirs)) => mine.same_lanes(theirs),
            (Form::List(mine), Form::List(theirs)) | (Form::Bitmap(mine), Form::Bitmap(theirs)) => {
                mine == theirs && self.words[..mine] == other.words[..mine]
            }
            _ => false,
        }
    }

    /// Visits every holder.
    #[inline]
    pub(super) fn for_each(&self, mut visit: impl FnMut(u16)) {
        match self.form {
            Form::Nobody => {}
            Form::Inline(holders) => holders.lanes().for_each(visit),
            Form::List(words) => {
                for &lanes in &self.words[..words] {
                    for lane in 0..4 {
                        if let Some(slot) = ((lanes >> (lane * 16)) as u16).checked_sub(1) {
                            visit(slot);
                        }
                    }
                }
            }
            Form::Bitmap(words) => {
                for (index, &word) in self.words[..words].iter().enumerate() {
                    let mut bits = word;
                    while bits != 0 {
                        visit((index * 64) as u16 + bits.trailing_zeros() as u16);
                        bits &= bits - 1;
                    }
                }
            }
        }
    }
}

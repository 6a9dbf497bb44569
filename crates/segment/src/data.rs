//! One data file: creation, validation, and moving its content to a successor.
//!
//! A data file is complete before anybody is pointed to it, has one size for life, and is never used
//! for anything else afterwards; its id is in its name and in its header.

use std::sync::atomic::Ordering;

use crate::clock::{fresh_generation, fresh_id};
use crate::dir::{Allocation, Directory, words_in};
use crate::document::{DocumentRegion, Reading};
use crate::error::{Error, refused};
use crate::head::MAX_DATA_ID;
use crate::layout::{Document, Layout, Shape};
use crate::mapped::{MappedView, MappedWords};
use crate::slot::{SlotId, SlotState};
use crate::words::WordsMut;

/// A mapped and validated data file.
#[derive(Clone, Debug)]
pub(crate) struct Data<W> {
    pub(crate) id: u64,
    pub(crate) layout: Layout,
    pub(crate) words: W,
}

/// The name of the data file with this id.
pub(crate) fn file_name(id: u64) -> String {
    format!("data-{id}.seg")
}

/// The id in the name of a data file.
pub(crate) fn id_in(name: &str) -> Option<u64> {
    name.strip_prefix("data-")?.strip_suffix(".seg")?.parse().ok()
}

/// An id that no data file in `dir` has, nor probably had.
pub(crate) fn next_id(dir: &Directory, current: Option<u64>) -> Result<u64, Error> {
    let names = dir.names()?;
    let used = names.iter().filter_map(|name| id_in(name)).chain(current).max().unwrap_or(0);
    // A forged name may carry any number; the pointer has 48 bits.
    let id = used.saturating_add(1).max(fresh_id());
    if id > MAX_DATA_ID {
        return Err(refused(&dir.path_of(&file_name(used)), "data id", used, "below 2^48"));
    }
    Ok(id)
}

impl Data<MappedView> {
    /// Opens the data file `id` for reading.
    pub(crate) fn open(dir: &Directory, id: u64) -> Result<Self, Error> {
        let name = file_name(id);
        let path = dir.path_of(&name);
        let file = dir.open_file(&name)?;
        let words = MappedView::of_file(&file, words_in(&file, &path)?)
            .map_err(|e| Error::io("map", &path, e))?;
        let layout = Layout::read(&words, id, &path)?;
        Ok(Self { id, layout, words })
    }
}

impl<W: WordsMut> Data<W> {
    /// Creates the data file `id`, with nothing in it.
    ///
    /// The generations of documents start where no earlier file can have been.
    pub(crate) fn create(
        dir: &Directory,
        id: u64,
        shape: Shape,
        wrap: impl Fn(MappedWords) -> W,
    ) -> Result<(Self, Allocation), Error> {
        let layout = Layout::of(shape)?;
        let name = file_name(id);
        let path = dir.path_of(&name);
        let (file, allocation) = dir.create_file(&name, layout.len as u64 * 8)?;
        let mapped = MappedWords::of_file(&file, layout.len);
        let words = wrap(mapped.map_err(|e| Error::io("map", &path, e))?);
        layout.write(&words, id);
        for kind in Document::ALL {
            layout.document(kind).start_at(&words, fresh_generation());
        }
        Ok((Self { id, layout, words }, allocation))
    }

    /// Opens the data file `id` to go on writing it, provided that a writer can have left it.
    pub(crate) fn open_mut(
        dir: &Directory,
        id: u64,
        wrap: impl Fn(MappedWords) -> W,
    ) -> Result<Self, Error> {
        let name = file_name(id);
        let path = dir.path_of(&name);
        let file = dir.open_file_mut(&name)?;
        let words = MappedWords::of_file(&file, words_in(&file, &path)?)
            .map_err(|e| Error::io("map", &path, e))?;
        let layout = Layout::read(&words, id, &path)?;
        for kind in Document::ALL {
            if layout.document(kind).read(&words) == Reading::Damaged {
                return Err(refused(&path, "document", "damaged", "a valid checksum"));
            }
        }
        Ok(Self { id, layout, words: wrap(words) })
    }

    /// Takes over everything that `old` holds, generations and counts included: this file is new and
    /// has room for it. Rows of another width mean other columns and are left behind.
    pub(crate) fn take_over(&self, old: &Self) {
        for kind in Document::ALL {
            let (from, to) = (old.layout.document(kind), self.layout.document(kind));
            match from.read(&old.words) {
                Reading::Whole { generation, bytes } => {
                    to.publish_as(&self.words, generation, &bytes);
                }
                _ => to.start_at(&self.words, from.generation(&old.words)),
            }
        }
        let shape = old.layout.shape;
        for index in 0..shape.slots {
            if let Some((state, generation)) = old.layout.slots().get(&old.words, index) {
                self.layout.slots().set(&self.words, SlotId { index, generation }, state);
            }
        }
        if shape.row_words == self.layout.shape.row_words {
            let mut row = vec![0; shape.row_words as usize];
            for slot in 0..shape.slots as usize {
                let count = old.layout.rows().published(&old.words, slot);
                if count != 0 && old.layout.rows().read(&old.words, slot, &mut row) {
                    self.layout.rows().publish_as(&self.words, slot, count, &row);
                }
            }
        }
        let ((from, len), (to, room)) = (old.layout.table(), self.layout.table());
        if len == room {
            for offset in 0..len {
                let word = old.words.load(from + offset, Ordering::Relaxed);
                self.words.store(to + offset, word, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn document(&self, kind: Document) -> DocumentRegion {
        self.layout.document(kind)
    }

    /// Marks `id` as the last known assignment of its slot, which somebody may still use. Only for a
    /// new file.
    pub(crate) fn remember_slot(&self, id: SlotId) {
        if id.index < self.layout.shape.slots {
            self.layout.slots().set(&self.words, id, SlotState::Retired);
        }
    }
}

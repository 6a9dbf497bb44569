//! The writing side: the one process that publishes in a directory.
//!
//! [`Writer`] holds the directory's lock for its life, so there is one at a time; the kernel drops the
//! lock however the process ends. It continues with what it finds, after validating it, so that
//! readers notice a restart only by the heartbeat. It may die after any store: each of them leaves
//! files that readers can use and a successor can continue.
//!
//! The writer is generic over its words only so that tests can count its stores and stop it between
//! two of them; everybody else uses the default.

use std::fmt;
use std::fs::File;
use std::path::Path;

use crate::clock::boottime_ns;
use crate::data::{self, Data};
use crate::dir::{Allocation, Directory};
use crate::document::Reading;
use crate::error::Error;
use crate::head::Head;
use crate::layout::{Document, LAYOUT_VERSION, Layout, Shape};
use crate::mapped::MappedWords;
use crate::random::random_u64;
use crate::reader::DocumentBytes;
use crate::recovery::{
    NEW_HEAD_FILE, create_head, first, lock, open_data, open_head, replaceable, successor,
};
use crate::slot::{SlotGeneration, SlotId, SlotState};
use crate::words::WordsMut;

/// How a writer found its directory.
#[derive(Debug)]
pub enum Origin {
    /// There was nothing.
    Created,
    /// It continues with the data file that it found.
    Recovered,
    /// What it found was valid but of another shape; the content was moved to a new data file.
    Moved,
    /// What it found cannot be used, for this reason; it starts with an empty data file.
    Replaced(Error),
}

/// What opening a writer did, for its caller to log.
#[derive(Debug)]
pub struct Opened {
    /// How the directory was found.
    pub origin: Origin,
    /// The room that a new data file took, where one was made.
    pub allocation: Option<Allocation>,
}

/// Publishes documents and rows, and assigns slots.
pub struct Writer<W = MappedWords> {
    dir: Directory,
    head: Head<W>,
    data: Data<W>,
    wrap: Box<dyn Fn(MappedWords) -> W + Send>,
    publications: u64,
    // Held for its lock.
    _lock: File,
}

impl Writer {
    /// Becomes the writer of `path`: creates the directory, or continues with what is in it.
    ///
    /// `shape` is the least that the data file must have room for. A data file found there that has
    /// more keeps it.
    pub fn open_or_create(path: impl AsRef<Path>, shape: Shape) -> Result<(Self, Opened), Error> {
        Self::open_or_create_in(path, shape, |words| words)
    }

    /// The words set aside for a block table, as many as the [`Shape`] says: they are part of the
    /// data file, so ask again after [`grow`](Self::grow).
    pub fn table(&self) -> MappedWords {
        let (at, len) = self.data.layout.table();
        // The layout was validated against the mapping, so the region is inside.
        self.data.words.slice(at, len).unwrap_or_else(|| self.data.words.clone())
    }
}

impl<W: WordsMut> Writer<W> {
    /// As [`open_or_create`](Writer::open_or_create), writing through `wrap` of each mapping.
    pub fn open_or_create_in(
        path: impl AsRef<Path>,
        shape: Shape,
        wrap: impl Fn(MappedWords) -> W + Send + 'static,
    ) -> Result<(Self, Opened), Error> {
        Layout::of(shape)?;
        let dir = Directory::create(path.as_ref())?;
        let lock = lock(&dir)?;
        let (head, mut broken) = match open_head(&dir, &wrap) {
            Ok(head) => (head, None),
            Err(reason) => (create_head(&dir, &wrap)?, Some(replaceable(reason)?)),
        };
        let found = match open_data(&dir, &head, &wrap) {
            Ok(data) => Some(data),
            Err(reason) => {
                // The reason that lies deepest is the one worth telling.
                broken.get_or_insert(replaceable(reason)?);
                None
            }
        };
        let (data, origin, allocation) = match (found, broken) {
            (Some(data), _) if data.layout.shape.union(shape) == data.layout.shape => {
                (data, Origin::Recovered, None)
            }
            (Some(old), _) => {
                let (data, allocation) = successor(&dir, &old, shape, &wrap)?;
                (data, Origin::Moved, Some(allocation))
            }
            (None, reason) => {
                let (data, allocation) = first(&dir, &head, shape, &wrap)?;
                let origin = match reason {
                    Some(reason) if !reason.is_absent() => Origin::Replaced(reason),
                    _ => Origin::Created,
                };
                (data, origin, Some(allocation))
            }
        };
        let mut writer =
            Self { dir, head, data, wrap: Box::new(wrap), publications: 0, _lock: lock };
        writer.head.set_instance(random_u64()?);
        writer.switch()?;
        writer.beat();
        Ok((writer, Opened { origin, allocation }))
    }

    /// Publishes a document and returns its generation.
    pub fn publish_document(&mut self, kind: Document, bytes: &[u8]) -> Result<u64, Error> {
        let region = self.data.document(kind);
        let too_large = || Error::DocumentTooLarge {
            kind,
            len: bytes.len() as u64,
            capacity: region.capacity() as u64,
        };
        let generation = region.publish(&self.data.words, bytes).ok_or_else(too_large)?;
        self.publications += 1;
        Ok(generation)
    }

    /// Publishes the row of `slot`; words that `values` lacks are zero.
    ///
    /// `false`, and nothing published, where there is no such slot or `values` is longer than a row.
    #[inline]
    pub fn publish_row(&mut self, slot: u32, values: &[u64]) -> bool {
        let done = self.data.layout.rows().publish(&self.data.words, slot as usize, values);
        self.publications += u64::from(done);
        done
    }

    /// Moves to a new data file that has room for `shape` as well as for everything there is now, and
    /// removes the old file. Generations go on; readers follow at their next poll.
    ///
    /// A handle from [`table`](Self::table) is one of the old file afterwards. Its words were copied
    /// when the new file has the same number of them, and are zero otherwise.
    pub fn grow(&mut self, shape: Shape) -> Result<Allocation, Error> {
        let (data, allocation) = successor(&self.dir, &self.data, shape, &self.wrap)?;
        self.data = data;
        self.switch()?;
        Ok(allocation)
    }

    /// Says that the writer is alive. Readers judge its age; call it at a fraction of what they allow.
    pub fn beat(&mut self) {
        self.head.beat(boottime_ns(), self.publications);
    }

    /// Assigns the lowest free slot, its row zeroed, or `None` where all are taken.
    pub fn assign_slot(&mut self) -> Option<SlotId> {
        let id = self.data.layout.slots().vacancy(&self.data.words)?;
        // The zero row first: nobody who learns of the assignment sees the predecessor's row.
        self.publish_row(id.index, &[]);
        self.data.layout.slots().set(&self.data.words, id, SlotState::Live);
        Some(id)
    }

    /// Takes a live slot out of use, keeping it from being assigned; `false` where it is not live.
    pub fn retire_slot(&mut self, id: SlotId) -> bool {
        let slots = self.data.layout.slots();
        slots.advance(&self.data.words, id, SlotState::Live, SlotState::Retired)
    }

    /// Makes a retired slot assignable again; `false` where it is not retired.
    ///
    /// The caller states that no live ledger has a claim on it and that every live ledger has accepted
    /// a topology without it: see [`LedgerSet`](crate::LedgerSet).
    pub fn free_slot(&mut self, id: SlotId) -> bool {
        let slots = self.data.layout.slots();
        slots.advance(&self.data.words, id, SlotState::Retired, SlotState::Free)
    }

    /// All slots that were ever assigned, with their states: how a restarted writer's caller learns
    /// which are taken.
    pub fn slots(&self) -> impl Iterator<Item = (SlotId, SlotState)> + '_ {
        (0..self.data.layout.shape.slots).filter_map(|index| {
            let (state, generation) = self.data.layout.slots().get(&self.data.words, index)?;
            (generation != SlotGeneration::NONE).then_some((SlotId { index, generation }, state))
        })
    }

    /// The present content of a document: how a restarted writer's caller learns what is published.
    pub fn document(&self, kind: Document) -> Option<DocumentBytes> {
        match self.data.document(kind).read(&self.data.words) {
            Reading::Whole { generation, bytes } => Some(DocumentBytes { generation, bytes }),
            // Nobody else writes, and damage was refused when the file was opened.
            Reading::Absent | Reading::Damaged | Reading::Unstable => None,
        }
    }

    /// Copies the first `out.len()` words of the present row of `slot`; `false` as for
    /// [`Snapshot::row`](crate::Snapshot::row).
    pub fn row(&self, slot: u32, out: &mut [u64]) -> bool {
        self.data.layout.rows().read(&self.data.words, slot as usize, out)
    }

    /// What the data file has room for.
    pub fn shape(&self) -> Shape {
        self.data.layout.shape
    }

    /// Points readers to the present data file and removes what nobody is pointed to any more.
    fn switch(&mut self) -> Result<(), Error> {
        self.head.set_pointer(LAYOUT_VERSION, self.data.id);
        // This build writes one layout, so it does not keep a file of another one up to date.
        self.head.clear_other_pointer(LAYOUT_VERSION);
        for name in self.dir.names()? {
            let stale = data::id_in(&name).is_some_and(|id| id != self.data.id);
            if stale || name == NEW_HEAD_FILE {
                self.dir.remove(&name)?;
            }
        }
        Ok(())
    }
}

impl<W> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("dir", &self.dir).field("data", &self.data.id).finish()
    }
}

//! The reading side: one watcher that follows the head, and snapshots for everybody else.
//!
//! [`Snapshot`] is one data file, mapped read-only: clone it for every worker. Its methods are
//! wait-free, allocate nothing (except [`document`](Snapshot::document), which copies bytes out) and
//! make no system call. [`SnapshotReader`] belongs to a watcher thread; it owns the head, follows
//! pointer switches, and reopens a directory that was made anew. Whatever it meets, the snapshot that
//! it has stays good: mapped memory outlives the unlinking of its file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::boottime_ns;
use crate::data::Data;
use crate::dir::{Directory, FileIdentity, Owner, words_in};
use crate::document::{Reading, TRIES};
use crate::error::{Error, refused};
use crate::head::{HEAD_FILE, HEAD_WORDS, Head};
use crate::layout::{Document, LAYOUT_VERSION, Shape};
use crate::mapped::MappedView;

/// How often a reader follows a pointer to a file that a switch has removed in the meantime.
const SWITCHES: u32 = 8;

/// The newest data file as of the last [`SnapshotReader::poll`]. Clones share the mapping.
#[derive(Clone, Debug)]
pub struct Snapshot {
    data: Data<MappedView>,
}

/// A document's bytes, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentBytes {
    /// Grows with every publication; the same generation is always the same bytes.
    pub generation: u64,
    /// The bytes as published.
    pub bytes: Vec<u8>,
}

impl Snapshot {
    /// Copies the first `out.len()` words of the newest row of `slot`: all of one publication.
    ///
    /// `false`, with `out` unspecified, where the row cannot be had: the writer overtook each of three
    /// attempts (treat the row as stale), there is no such slot, or rows are shorter than `out`.
    #[inline]
    pub fn row(&self, slot: u32, out: &mut [u64]) -> bool {
        self.data.layout.rows().read(&self.data.words, slot as usize, out)
    }

    /// How often the row of `slot` was published: 0 means that the row is all zero by default.
    #[inline]
    pub fn row_publications(&self, slot: u32) -> u64 {
        self.data.layout.rows().published(&self.data.words, slot as usize)
    }

    /// A number that changes when `kind` is published: one load.
    #[inline]
    pub fn document_generation(&self, kind: Document) -> u64 {
        self.data.layout.document(kind).generation(&self.data.words)
    }

    /// Copies a document out; `None` where none was published yet.
    pub fn document(&self, kind: Document) -> Result<Option<DocumentBytes>, Error> {
        match self.data.layout.document(kind).read(&self.data.words) {
            Reading::Absent => Ok(None),
            Reading::Damaged => {
                let name = crate::data::file_name(self.data.id);
                Err(refused(Path::new(&name), "document", "damaged", "a valid checksum"))
            }
            Reading::Unstable => Err(Error::Unstable { kind, tries: TRIES }),
            Reading::Whole { generation, bytes } => Ok(Some(DocumentBytes { generation, bytes })),
        }
    }

    /// What the data file has room for.
    pub fn shape(&self) -> Shape {
        self.data.layout.shape
    }

    /// The id of the data file: changes with every pointer switch.
    pub fn data_id(&self) -> u64 {
        self.data.id
    }

    /// The words set aside for a block table, as many as the [`Shape`] says.
    pub fn table(&self) -> MappedView {
        let (at, len) = self.data.layout.table();
        // The layout was validated against the mapping, so the region is inside.
        self.data.words.slice(at, len).unwrap_or_else(|| self.data.words.clone())
    }
}

/// Follows one directory.
#[derive(Debug)]
pub struct SnapshotReader {
    path: PathBuf,
    owner: Owner,
    dir: Directory,
    head: Head<MappedView>,
    head_file: FileIdentity,
    snapshot: Snapshot,
}

impl SnapshotReader {
    /// Opens the directory that a writer of the same user publishes in.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_owned(path, Owner::Effective)
    }

    /// Opens a directory whose files belong to `owner`.
    pub fn open_owned(path: impl AsRef<Path>, owner: Owner) -> Result<Self, Error> {
        let path = path.as_ref();
        let dir = Directory::open(path, owner)?;
        let (head, head_file) = open_head(&dir)?;
        let snapshot = open_snapshot(&dir, &head)?;
        Ok(Self { path: path.to_path_buf(), owner, dir, head, head_file, snapshot })
    }

    /// Follows a pointer switch, or a directory made anew; `true` where the snapshot is another one.
    ///
    /// On an error the snapshot is still the one from before and can be used. Costs one `stat` when
    /// nothing changed; call it from a watcher thread, not from a worker.
    pub fn poll(&mut self) -> Result<bool, Error> {
        if self.dir.identity(HEAD_FILE) != Some(self.head_file) {
            *self = Self::open_owned(&self.path, self.owner)?;
            return Ok(true);
        }
        if self.head.pointer(LAYOUT_VERSION) == Some(self.snapshot.data.id) {
            return Ok(false);
        }
        self.snapshot = open_snapshot(&self.dir, &self.head)?;
        Ok(true)
    }

    /// The newest data file as of the last [`poll`](Self::poll); clone it for workers.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Time since the writer last said that it is alive.
    pub fn heartbeat_age(&self) -> Duration {
        Duration::from_nanos(boottime_ns().saturating_sub(self.head.heartbeat_ns()))
    }

    /// Which writer is, or was, at work: random, drawn at its start.
    pub fn writer_instance(&self) -> u64 {
        self.head.instance()
    }

    /// How many rows and documents the writer had published at its last heartbeat, since its start.
    pub fn publications(&self) -> u64 {
        self.head.publications()
    }
}

fn open_head(dir: &Directory) -> Result<(Head<MappedView>, FileIdentity), Error> {
    let path = dir.path_of(HEAD_FILE);
    let file = dir.open_file(HEAD_FILE)?;
    let identity = FileIdentity::of_file(&file).map_err(|e| Error::io("inspect", &path, e))?;
    crate::error::expect(&path, "length in words", words_in(&file, &path)?, HEAD_WORDS)?;
    let words = MappedView::of_file(&file, HEAD_WORDS).map_err(|e| Error::io("map", &path, e))?;
    Ok((Head::open(words, &path)?, identity))
}

fn open_snapshot(dir: &Directory, head: &Head<MappedView>) -> Result<Snapshot, Error> {
    let mut tries = 0;
    loop {
        let Some(id) = head.pointer(LAYOUT_VERSION) else {
            return Err(refused(
                &dir.path_of(HEAD_FILE),
                "data pointer",
                format!("{:?}", head.pointers().map(|p| p.map(|p| p.layout))),
                format!("one of layout {LAYOUT_VERSION}"),
            ));
        };
        tries += 1;
        match Data::open(dir, id) {
            Ok(data) => return Ok(Snapshot { data }),
            // A switch between the two steps removes the file that the pointer named.
            Err(e) if e.is_absent() && tries < SWITCHES => {}
            Err(e) => return Err(e),
        }
    }
}

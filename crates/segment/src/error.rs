//! What can go wrong with files in shared memory, with the evidence.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use crate::layout::Document;

/// A failure of the writer, a reader or a ledger. Protocol operations on memory that is already
/// mapped do not use it: they answer with values.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process, or another part of this one, collects the samples of the directory.
    #[error("{} is locked by another collector", path.display())]
    CollectorLocked {
        /// The lock file.
        path: PathBuf,
    },
    /// A document does not fit into its place; [`Writer::grow`](crate::Writer::grow) makes a larger.
    #[error("document {kind:?} has {len} bytes, its place holds {capacity}")]
    DocumentTooLarge {
        /// The document.
        kind: Document,
        /// Its length in bytes.
        len: u64,
        /// The capacity of its place in bytes.
        capacity: u64,
    },
    /// The operating system refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The volume has less free space than a file needs; nothing was written.
    #[error("{} needs {required} bytes, its volume has {free} free", path.display())]
    NoSpace {
        /// The file that was to be created.
        path: PathBuf,
        /// Its size in bytes.
        required: u64,
        /// Free bytes on the volume.
        free: u64,
    },
    /// A file or directory is not what it has to be: forged, damaged, truncated, of another owner or
    /// of another layout.
    #[error("{} is refused: {field} is {found}, expected {expected}", path.display())]
    Refused {
        /// The file or directory.
        path: PathBuf,
        /// The field that decided.
        field: &'static str,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A requested shape is outside its limits.
    #[error("{field} is {found}, expected {expected}")]
    Shape {
        /// The quantity.
        field: &'static str,
        /// Its limits.
        expected: String,
        /// What was asked for.
        found: u64,
    },
    /// A document changed again and again while it was copied. Reading it later succeeds.
    #[error("document {kind:?} changed during each of {tries} reads")]
    Unstable {
        /// The document.
        kind: Document,
        /// Reads tried.
        tries: u32,
    },
    /// Another writer holds the directory.
    #[error("{} is locked by another writer", path.display())]
    WriterLocked {
        /// The lock file.
        path: PathBuf,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_path_buf(), source: source.into() }
    }

    /// Whether this says that something does not exist.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Refuses `path` unless `found` equals `expected`.
pub(crate) fn expect<T: PartialEq + Display>(
    path: &Path,
    field: &'static str,
    found: T,
    expected: T,
) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(refused(path, field, found, expected))
}

/// The refusal of `path` because of one field.
pub(crate) fn refused(
    path: &Path,
    field: &'static str,
    found: impl Display,
    expected: impl Display,
) -> Error {
    Error::Refused {
        path: path.to_path_buf(),
        field,
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

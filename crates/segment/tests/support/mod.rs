//! What the tests of the files share.
#![allow(dead_code)] // Each test binary uses its own part.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use inlane_segment::{Opened, Shape, Writer};
use tempfile::TempDir;

/// A directory of mode 0700 in memory where there is such a volume.
pub(crate) fn directory() -> TempDir {
    let shm = PathBuf::from("/dev/shm");
    let parent = if shm.is_dir() { shm } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .expect("temporary directory")
}

/// A small shape, so that tests create many files.
pub(crate) fn small() -> Shape {
    Shape { slots: 16, row_words: 8, documents: [256, 256, 64, 64, 64], table_words: 64 }
}

pub(crate) fn open(dir: &Path) -> (Writer, Opened) {
    Writer::open_or_create(dir, small()).expect("writer")
}

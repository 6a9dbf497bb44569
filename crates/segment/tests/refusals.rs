//! What is not as it has to be is refused, by readers and by writers, with an error that names the
//! file, the field, and what was expected.

#![allow(clippy::unwrap_used)] // Helpers of tests fail by panicking too.

mod support;

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use inlane_segment::{Document, Error, Ledger, Origin, Owner, SnapshotReader, Writer};
use support::{directory, open, small};
use xxhash_rust::xxh3::xxh3_64;

/// Words of the head: the data pointer of this layout, which is odd, and that of its neighbours.
const POINTER: u64 = 3;
const OTHER_POINTER: u64 = 2;

/// A directory with a published document, whose writer is gone.
fn published() -> (tempfile::TempDir, PathBuf) {
    let dir = directory();
    let (mut writer, _) = open(dir.path());
    writer.publish_document(Document::Config, b"config").unwrap();
    drop(writer);
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().path();
    let data = fs::read_dir(dir.path())
        .unwrap()
        .map(name)
        .find(|path| path.extension().is_some_and(|extension| extension == "seg"));
    (dir, data.unwrap())
}

fn patch(path: &Path, word: u64, value: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&value.to_le_bytes(), word * 8).unwrap();
}

fn reseal(path: &Path) {
    let header = fs::read(path).unwrap();
    patch(path, 31, xxh3_64(&header[..31 * 8]));
}

fn set_len(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// Asserts that a reader refuses because of `field` of `path`, and that the text says so.
#[track_caller]
fn refused(dir: &Path, path: &Path, field: &str) {
    refusal(&SnapshotReader::open(dir).unwrap_err(), path, field);
}

#[track_caller]
fn refusal(error: &Error, at: &Path, named: &str) {
    let Error::Refused { path, field, expected, found } = error else { panic!("{error}") };
    assert_eq!((path.as_path(), *field), (at, named), "{error}");
    let text = error.to_string();
    for part in [&path.display().to_string(), named, expected, found] {
        assert!(text.contains(part), "{text} lacks {part}");
    }
}

/// Asserts that a writer starts anew because of `field`, and that readers are served again.
#[track_caller]
fn replaced(dir: &Path, path: &Path, field: &str) {
    let (mut writer, opened) = Writer::open_or_create(dir, small()).unwrap();
    let Origin::Replaced(reason) = &opened.origin else { panic!("{opened:?}") };
    refusal(reason, path, field);
    writer.publish_document(Document::Config, b"anew").unwrap();
    let reader = SnapshotReader::open(dir).unwrap();
    assert_eq!(reader.snapshot().document(Document::Config).unwrap().unwrap().bytes, b"anew");
}

#[test]
fn a_head_of_another_kind() {
    for (word, value, field) in [(0, 0, "magic"), (1, 2, "head version")] {
        let (dir, _) = published();
        let head = dir.path().join("head");
        patch(&head, word, value);
        refused(dir.path(), &head, field);
        replaced(dir.path(), &head, field);
    }
    for len in [0, 4088, 8192] {
        let (dir, _) = published();
        let head = dir.path().join("head");
        set_len(&head, len);
        refused(dir.path(), &head, "length in words");
        replaced(dir.path(), &head, "length in words");
    }
    let (dir, _) = published();
    let head = dir.path().join("head");
    set_len(&head, 4095);
    refused(dir.path(), &head, "length");
}

#[test]
fn a_head_that_points_to_another_layout() {
    let (dir, data) = published();
    let head = dir.path().join("head");
    patch(&head, POINTER, (5 << 48) | 5);
    refused(dir.path(), &head, "data pointer");
    replaced(dir.path(), &head, "layout version");
    assert!(!data.exists(), "what nobody is pointed to is removed");
}

/// What a writer of layout 2 left: its pointer, no other, and its data file.
#[test]
fn a_directory_of_the_layout_before() {
    let (dir, data) = published();
    let head = dir.path().join("head");
    let mut reader = SnapshotReader::open(dir.path()).unwrap();
    let id = fs::read(&head).unwrap()[24..30]
        .iter()
        .rev()
        .fold(0, |id, &byte| id << 8 | u64::from(byte));
    patch(&head, POINTER, 0);
    patch(&head, OTHER_POINTER, (2 << 48) | id);
    patch(&data, 1, 2);
    reseal(&data);
    refused(dir.path(), &head, "data pointer");
    refusal(&reader.poll().unwrap_err(), &head, "data pointer");
    replaced(dir.path(), &head, "layout version");
    assert!(!data.exists(), "what nobody is pointed to is removed");
    assert!(reader.poll().unwrap(), "a reader of this layout is served again");
}

#[test]
fn the_pointer_of_another_layout_does_not_disturb() {
    let (dir, data) = published();
    // A newer writer that publishes its layout, 4, beside this one.
    patch(&dir.path().join("head"), OTHER_POINTER, (4 << 48) | 77);
    let newer = dir.path().join("data-77.seg");
    fs::write(&newer, b"of another layout").unwrap();
    let mut reader = SnapshotReader::open(dir.path()).unwrap();
    assert_eq!(reader.snapshot().document(Document::Config).unwrap().unwrap().bytes, b"config");

    // Going back to this build withdraws what it cannot keep up to date.
    let (_writer, opened) = open(dir.path());
    assert!(matches!(opened.origin, Origin::Recovered));
    assert!(!newer.exists() && data.exists());
    assert!(!reader.poll().unwrap());
}

#[test]
fn a_data_file_of_another_kind() {
    for (word, value, sealed, field) in [
        (0, 0, false, "magic"),
        (1, 1, false, "layout version"),
        (1, 4, false, "layout version"),
        (4, 8, false, "header checksum"),
        (31, 8, false, "header checksum"),
        (2, 8, true, "length in words"),
        (3, 8, true, "data id"),
        (4, 0, true, "endpoint slots"),
        (4, 1 << 32, true, "endpoint slots"),
        (4, 32, true, "length in words"),
        (5, 9, true, "words per row"),
        (8, u64::MAX, true, "document capacity"),
        (6, u64::MAX, true, "words of table"),
        (7, 1, true, "header word"),
        (16, 8, true, "header word"),
        (26, 0, true, "header word"),
    ] {
        let (dir, data) = published();
        patch(&data, word, value);
        if sealed {
            reseal(&data);
        }
        refused(dir.path(), &data, field);
        replaced(dir.path(), &data, field);
        assert!(!data.exists());
    }
}

#[test]
fn a_data_file_that_was_truncated() {
    let (dir, data) = published();
    for len in [4096, 256, 128, 0] {
        set_len(&data, len);
        refused(dir.path(), &data, "length in words");
    }
    replaced(dir.path(), &data, "length in words");
}

#[test]
fn a_document_that_was_damaged() {
    let (dir, data) = published();
    let bytes = fs::read(&data).unwrap();
    let at = bytes.windows(6).position(|window| window == b"config").unwrap();
    patch(&data, at as u64 / 8, 1);
    let reader = SnapshotReader::open(dir.path()).unwrap();
    let error = reader.snapshot().document(Document::Config).unwrap_err();
    assert!(matches!(error, Error::Refused { field: "document", .. }), "{error}");
    assert_eq!(reader.snapshot().document(Document::Topology).unwrap(), None);
    replaced(dir.path(), &data, "document");
}

#[test]
fn a_pointer_to_nothing() {
    let (dir, _) = published();
    patch(&dir.path().join("head"), POINTER, (3 << 48) | 1);
    let error = SnapshotReader::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("data-1.seg"), "{error}");
    let (_, opened) = open(dir.path());
    assert!(matches!(opened.origin, Origin::Created), "{opened:?}");
}

#[test]
fn files_that_others_could_write_or_swap() {
    let (dir, data) = published();
    let head = dir.path().join("head");
    for path in [&head, &data] {
        fs::set_permissions(path, Permissions::from_mode(0o620)).unwrap();
        refused(dir.path(), path, "mode");
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(dir.path(), Permissions::from_mode(0o750)).unwrap();
    refused(dir.path(), dir.path(), "mode");
    refusal(&Writer::open_or_create(dir.path(), small()).unwrap_err(), dir.path(), "mode");
    refusal(&Ledger::create(dir.path(), 1).unwrap_err(), dir.path(), "mode");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();

    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&data, &elsewhere).unwrap();
    symlink(&elsewhere, &data).unwrap();
    let error = SnapshotReader::open(dir.path()).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == data), "{error}");
}

#[test]
fn files_of_somebody_else() {
    let (dir, _) = published();
    let other = rustix::process::geteuid().as_raw() + 1;
    let error = SnapshotReader::open_owned(dir.path(), Owner::Uid(other)).unwrap_err();
    refusal(&error, dir.path(), "owner");
    let me = rustix::process::geteuid().as_raw();
    SnapshotReader::open_owned(dir.path(), Owner::Uid(me)).unwrap();
}

#[test]
fn a_head_that_is_no_file() {
    let dir = directory();
    let head = dir.path().join("head");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &head, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    refused(dir.path(), &head, "type");
}

#[test]
fn a_directory_that_is_missing_or_no_directory() {
    let dir = directory();
    let missing = dir.path().join("missing");
    assert!(
        matches!(SnapshotReader::open(&missing), Err(Error::Io { path, .. }) if path == missing)
    );
    assert!(Ledger::create(&missing, 1).is_err());
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(Writer::open_or_create(&file, small()), Err(Error::Io { .. })));
}

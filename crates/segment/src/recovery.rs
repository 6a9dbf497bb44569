//! How a writer comes by its files: what it finds, what it cannot use, and what it makes instead.

use std::fs::File;
use std::io;

use crate::data::{self, Data};
use crate::dir::{Allocation, Directory, try_lock, words_in};
use crate::error::{Error, expect, refused};
use crate::head::{HEAD_FILE, HEAD_WORDS, Head};
use crate::layout::{LAYOUT_VERSION, Shape};
use crate::ledger::LedgerSet;
use crate::mapped::MappedWords;
use crate::words::WordsMut;

/// Held by the one writer.
const LOCK_FILE: &str = "writer.lock";

/// A head that is being made.
pub(crate) const NEW_HEAD_FILE: &str = "head.new";

/// Takes the writer's lock; it lasts as long as the file stays open.
pub(crate) fn lock(dir: &Directory) -> Result<File, Error> {
    let path = dir.path_of(LOCK_FILE);
    let file = dir.lock_file(LOCK_FILE)?;
    if try_lock(&file, &path)? { Ok(file) } else { Err(Error::WriterLocked { path }) }
}

/// Passes on what a new file cures; gives back as an error what it does not.
pub(crate) fn replaceable(reason: Error) -> Result<Error, Error> {
    if reason.is_absent() || matches!(reason, Error::Refused { .. }) {
        Ok(reason)
    } else {
        Err(reason)
    }
}

/// Opens and validates the head.
pub(crate) fn open_head<W: WordsMut>(
    dir: &Directory,
    wrap: impl Fn(MappedWords) -> W,
) -> Result<Head<W>, Error> {
    let path = dir.path_of(HEAD_FILE);
    let file = dir.open_file_mut(HEAD_FILE)?;
    expect(&path, "length in words", words_in(&file, &path)?, HEAD_WORDS)?;
    let words = MappedWords::of_file(&file, HEAD_WORDS).map_err(|e| Error::io("map", &path, e))?;
    Head::open(wrap(words), &path)
}

/// Makes a head under another name and renames it when it is whole.
pub(crate) fn create_head<W: WordsMut>(
    dir: &Directory,
    wrap: impl Fn(MappedWords) -> W,
) -> Result<Head<W>, Error> {
    let path = dir.path_of(NEW_HEAD_FILE);
    dir.remove(NEW_HEAD_FILE)?;
    let (file, _) = dir.create_file(NEW_HEAD_FILE, HEAD_WORDS as u64 * 8)?;
    let words = MappedWords::of_file(&file, HEAD_WORDS).map_err(|e| Error::io("map", &path, e))?;
    let head = Head::create(wrap(words));
    dir.rename(NEW_HEAD_FILE, HEAD_FILE)?;
    Ok(head)
}

/// Opens the data file that the head points to.
pub(crate) fn open_data<W: WordsMut>(
    dir: &Directory,
    head: &Head<W>,
    wrap: impl Fn(MappedWords) -> W,
) -> Result<Data<W>, Error> {
    if let Some(id) = head.pointer(LAYOUT_VERSION) {
        return Data::open_mut(dir, id, wrap);
    }
    let path = dir.path_of(HEAD_FILE);
    match head.pointers().into_iter().flatten().next() {
        Some(other) => Err(refused(&path, "layout version", other.layout, LAYOUT_VERSION)),
        None => Err(Error::io("follow", &path, io::Error::from(io::ErrorKind::NotFound))),
    }
}

/// Creates an empty data file. Slots that a live proxy knows are kept from being assigned, claims or
/// none: until it has accepted a new topology it may decide for their endpoints at any moment.
pub(crate) fn first<W: WordsMut>(
    dir: &Directory,
    head: &Head<W>,
    shape: Shape,
    wrap: impl Fn(MappedWords) -> W,
) -> Result<(Data<W>, Allocation), Error> {
    let pointed = head.pointers().into_iter().flatten().map(|pointer| pointer.id).max();
    let (data, allocation) = Data::create(dir, data::next_id(dir, pointed)?, shape, wrap)?;
    for id in LedgerSet::open_beside(dir.try_clone()?)?.assignments() {
        data.remember_slot(id);
    }
    Ok((data, allocation))
}

/// Creates a data file with the content of `old` and room for `shape` as well.
pub(crate) fn successor<W: WordsMut>(
    dir: &Directory,
    old: &Data<W>,
    shape: Shape,
    wrap: impl Fn(MappedWords) -> W,
) -> Result<(Data<W>, Allocation), Error> {
    let id = data::next_id(dir, Some(old.id))?;
    let (data, allocation) = Data::create(dir, id, old.layout.shape.union(shape), wrap)?;
    data.take_over(old);
    Ok((data, allocation))
}

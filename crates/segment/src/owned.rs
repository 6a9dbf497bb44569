//! Files that one process owns for its life: ledgers and rings of samples.
//!
//! Such a file is made under another name, locked, filled, and only then given its own: a file of that
//! name whose lock nobody holds belonged to a process that is dead. Its name is
//! `<kind>-<pid>-<random>.<extension>`; while it is being made it ends in `.new`.

use std::fs::File;
use std::time::{Duration, SystemTime};

use crate::dir::{Directory, is_abandoned, try_lock};
use crate::error::Error;
use crate::mapped::MappedWords;
use crate::random::random_u64;

/// How old a file that is still being made must be to count as left behind by a dead process: a
/// process creates, locks and renames it within moments.
const MAKING: Duration = Duration::from_secs(60);

/// A file that this process has made and holds locked.
#[derive(Debug)]
pub(crate) struct Owned {
    /// Open for its lock.
    pub(crate) file: File,
    pub(crate) words: MappedWords,
    pub(crate) name: String,
}

/// Makes a file of `len` words; `fill` gets them, all zero, and a random number that names the file.
pub(crate) fn create(
    dir: &Directory,
    kind: &str,
    extension: &str,
    len: usize,
    fill: impl FnOnce(&MappedWords, u64),
) -> Result<Owned, Error> {
    let instance = random_u64()?;
    let stem = format!("{kind}-{}-{instance:016x}", std::process::id());
    let (making, name) = (format!("{stem}.new"), format!("{stem}.{extension}"));
    let path = dir.path_of(&name);
    let (file, _) = dir.create_file(&making, len as u64 * 8)?;
    let made = try_lock(&file, &path).and_then(|_| {
        let words = MappedWords::of_file(&file, len).map_err(|e| Error::io("map", &path, e))?;
        fill(&words, instance);
        dir.rename(&making, &name)?;
        Ok(words)
    });
    match made {
        Ok(words) => Ok(Owned { file, words, name }),
        Err(e) => {
            dir.remove(&making)?;
            Err(e)
        }
    }
}

/// Removes a file that a process died over while it was making it.
pub(crate) fn remove_unfinished(dir: &Directory, name: &str) -> Result<(), Error> {
    let path = dir.path_of(name);
    let Ok(file) = dir.open_file(name) else { return Ok(()) };
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    let age = modified.map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
    if age.is_ok_and(|age| age > MAKING) && is_abandoned(&file, &path)? {
        dir.remove(name)?;
    }
    Ok(())
}

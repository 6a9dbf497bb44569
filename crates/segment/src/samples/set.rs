//! All rings of a directory: the view of the one who collects them.
//!
//! A ring is live while its lock is held. Whether it is, is asked *before* it is drained: what a dead
//! process has pushed does not change any more, so it is drained to the end and its file removed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::file::{self, is_ring, is_unfinished};
use super::ring::{Consumer, Drained};
use crate::dir::{Directory, Owner, is_abandoned, try_lock, words_in};
use crate::error::Error;
use crate::mapped::MappedWords;
use crate::owned::remove_unfinished;

/// Held by the one collector.
const LOCK_FILE: &str = "samples.lock";

/// The rings of one directory.
#[derive(Debug)]
pub struct SampleSet {
    dir: Directory,
    format: u32,
    rings: BTreeMap<String, RingView>,
    unreadable: BTreeMap<String, Error>,
    counters: SampleCounters,
    // Held for its lock.
    _lock: File,
}

#[derive(Debug)]
struct RingView {
    consumer: Consumer<MappedWords>,
    file: File,
    /// Of the producer's count of dropped records, what is in the set's.
    dropped: u64,
}

/// Totals since the set was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleCounters {
    /// Records handed out.
    pub taken: u64,
    /// Records that processes dropped for want of room, before the set was opened included.
    pub dropped: u64,
    /// Times that a ring's counts were such as only foreign writes can bring about.
    pub damaged: u64,
}

impl SampleSet {
    /// Becomes the collector of the records of this format in the directory of a
    /// [`Writer`](crate::Writer), or fails with the lock file that another one holds.
    pub fn open(dir: impl AsRef<Path>, format: u32) -> Result<Self, Error> {
        let dir = Directory::open(dir.as_ref(), Owner::Effective)?;
        let path = dir.path_of(LOCK_FILE);
        let lock = dir.lock_file(LOCK_FILE)?;
        if !try_lock(&lock, &path)? {
            return Err(Error::CollectorLocked { path });
        }
        Ok(Self {
            dir,
            format,
            rings: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            counters: SampleCounters::default(),
            _lock: lock,
        })
    }

    /// Hands out what all rings hold, those of dead processes included, whose files it removes; takes
    /// in rings that have appeared. Answers how many records there were.
    ///
    /// On an error the remaining rings wait for the next call; a ring that cannot be read is no error
    /// but one of [`unreadable`](Self::unreadable).
    pub fn drain(&mut self, mut each: impl FnMut(&[u64])) -> Result<u64, Error> {
        let names = self.dir.names()?;
        self.rings.retain(|name, _| names.contains(name));
        self.unreadable.clear();
        let before = self.counters.taken;
        for name in names {
            if is_ring(&name) {
                self.drain_one(name, &mut each)?;
            } else if is_unfinished(&name) {
                remove_unfinished(&self.dir, &name)?;
            }
        }
        Ok(self.counters.taken - before)
    }

    fn drain_one(&mut self, name: String, each: &mut impl FnMut(&[u64])) -> Result<(), Error> {
        let path = self.dir.path_of(&name);
        let mut ring = match self.rings.remove(&name) {
            Some(ring) => ring,
            None => match self.open_one(&name) {
                Ok(Some(ring)) => ring,
                Ok(None) => return Ok(()),
                Err(e) => return self.pass_over(name, e),
            },
        };
        let dead = is_abandoned(&ring.file, &path)?;
        let Drained { taken, damaged } = ring.consumer.drain(each);
        let dropped = ring.consumer.dropped();
        let counters = &mut self.counters;
        counters.taken += taken;
        counters.damaged += u64::from(damaged);
        counters.dropped = counters.dropped.saturating_add(dropped.saturating_sub(ring.dropped));
        ring.dropped = dropped;
        if dead {
            return self.dir.remove(&name);
        }
        self.rings.insert(name, ring);
        Ok(())
    }

    /// Opens a ring; `None` where it is gone by now.
    fn open_one(&self, name: &str) -> Result<Option<RingView>, Error> {
        let path = self.dir.path_of(name);
        let file = match self.dir.open_file_mut(name) {
            Ok(file) => file,
            Err(e) if e.is_absent() => return Ok(None),
            Err(e) => return Err(e),
        };
        let len = words_in(&file, &path)?;
        let words = MappedWords::of_file(&file, len).map_err(|e| Error::io("map", &path, e))?;
        let ring = file::open(words, self.format, &path)?;
        Ok(Some(RingView { consumer: Consumer::new(ring), file, dropped: 0 }))
    }

    /// Notes a ring that cannot be read, and removes it where its process is dead.
    fn pass_over(&mut self, name: String, error: Error) -> Result<(), Error> {
        let abandoned = match self.dir.open_file(&name) {
            Ok(file) => is_abandoned(&file, &self.dir.path_of(&name))?,
            Err(_) => false,
        };
        if abandoned {
            return self.dir.remove(&name);
        }
        self.unreadable.insert(name, error);
        Ok(())
    }

    /// Totals since the set was opened, as of the last [`drain`](Self::drain).
    pub fn counters(&self) -> SampleCounters {
        self.counters
    }

    /// How many processes have a ring that can be read, as of the last [`drain`](Self::drain).
    pub fn live(&self) -> usize {
        self.rings.len()
    }

    /// Rings of live processes that cannot be read, by file name, with the reason.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.unreadable.iter().map(|(name, error)| (name.as_str(), error))
    }
}

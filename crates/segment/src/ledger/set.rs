//! All live ledgers of a directory, read-only: the view of the control plane, and of other proxies.
//!
//! A ledger is live while its lock is held. [`LedgerSet::refresh`] opens new ones, drops dead ones and
//! removes their files. To prove that a slot may be reused, the control plane publishes a topology
//! without the endpoint, then refreshes and asks until [`LedgerSet::accepted_topology`] has reached
//! that topology and [`LedgerSet::is_idle`] holds for the slot.
//!
//! A live ledger that cannot be read, for instance one of a newer build, proves nothing: as long as
//! there is one, no slot is idle.
//!
//! Cost: a refresh lists the directory and makes one lock attempt per ledger; the sums are one load
//! per ledger and slot.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use super::claims::Counters;
use super::file::{LedgerWords, Refusal};
use super::word::Observed;
use crate::dir::{Directory, Owner, is_abandoned, words_in};
use crate::error::Error;
use crate::mapped::MappedView;
use crate::owned::remove_unfinished;
use crate::slot::{SlotGeneration, SlotId};

/// The live ledgers of one directory.
#[derive(Debug)]
pub struct LedgerSet {
    dir: Directory,
    live: BTreeMap<String, LedgerView>,
    unreadable: BTreeMap<String, Error>,
}

/// One live ledger of another process, or of this one.
#[derive(Debug)]
pub struct LedgerView {
    ledger: LedgerWords<MappedView>,
    file: File,
}

/// What all live ledgers together hold on a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests in flight.
    pub requests: u64,
    /// Tokens of these requests that are still to be processed.
    pub tokens: u64,
}

impl LedgerSet {
    /// Opens the ledgers of a directory of this process's user.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_owned(dir, Owner::Effective)
    }

    /// Opens the ledgers of a directory whose files belong to `owner`.
    pub fn open_owned(dir: impl AsRef<Path>, owner: Owner) -> Result<Self, Error> {
        Self::open_beside(Directory::open(dir.as_ref(), owner)?)
    }

    /// Opens the ledgers of a directory that was checked already.
    pub(crate) fn open_beside(dir: Directory) -> Result<Self, Error> {
        let mut set = Self { dir, live: BTreeMap::new(), unreadable: BTreeMap::new() };
        set.refresh()?;
        Ok(set)
    }

    /// Takes in ledgers that have appeared and lets go of those whose process has died, removing
    /// their files.
    pub fn refresh(&mut self) -> Result<(), Error> {
        let names = self.dir.names()?;
        self.live.retain(|name, _| names.contains(name));
        self.unreadable.clear();
        for name in names.into_iter().filter(|name| name.starts_with("ledger-")) {
            if name.ends_with(".led") {
                self.refresh_one(name)?;
            } else if name.ends_with(".new") {
                remove_unfinished(&self.dir, &name)?;
            }
        }
        Ok(())
    }

    fn refresh_one(&mut self, name: String) -> Result<(), Error> {
        let path = self.dir.path_of(&name);
        let file = match self.live.get(&name) {
            Some(view) => &view.file,
            None => &match self.dir.open_file(&name) {
                Ok(file) => file,
                Err(e) if e.is_absent() => return Ok(()),
                Err(e) => {
                    self.unreadable.insert(name, e);
                    return Ok(());
                }
            },
        };
        if is_abandoned(file, &path)? {
            self.live.remove(&name);
            return self.dir.remove(&name);
        }
        if self.live.contains_key(&name) {
            return Ok(());
        }
        match LedgerView::open(file, &path) {
            Ok(view) => drop(self.live.insert(name, view)),
            Err(e) => drop(self.unreadable.insert(name, e)),
        }
        Ok(())
    }

    /// Whether no process has a request on `slot`, in any assignment, as of the last
    /// [`refresh`](Self::refresh). Never while a live ledger cannot be read.
    pub fn is_idle(&self, slot: u32) -> bool {
        self.unreadable.is_empty()
            && self.live.values().all(|view| view.observe(slot).requests() == 0)
    }

    /// What all processes hold on `slot` in this assignment.
    pub fn load(&self, slot: u32, generation: SlotGeneration) -> Load {
        let words = self.live.values().map(|view| view.observe(slot));
        words.filter(|word| word.generation() == generation).fold(Load::default(), |sum, word| {
            Load {
                requests: sum.requests + u64::from(word.requests()),
                tokens: sum.tokens + u64::from(word.tokens()),
            }
        })
    }

    /// The topology that all processes work with, or `None` where there is no process: the smallest
    /// generation any of them has accepted. 0 while a live ledger cannot be read.
    pub fn accepted_topology(&self) -> Option<u64> {
        if !self.unreadable.is_empty() {
            return Some(0);
        }
        self.live.values().map(LedgerView::accepted_topology).min()
    }

    /// The live ledgers by file name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &LedgerView)> {
        self.live.iter().map(|(name, view)| (name.as_str(), view))
    }

    /// Live ledgers that cannot be read, by file name, with the reason.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, &Error)> {
        self.unreadable.iter().map(|(name, error)| (name.as_str(), error))
    }

    /// The last known assignment of every slot that a live process knows.
    pub(crate) fn assignments(&self) -> Vec<SlotId> {
        let mut known: BTreeMap<u32, SlotGeneration> = BTreeMap::new();
        for view in self.live.values() {
            for index in 0..view.capacity() {
                let word = view.observe(index);
                if word.generation() != SlotGeneration::NONE {
                    let generation = known.entry(index).or_default();
                    *generation = word.generation().max(*generation);
                }
            }
        }
        known.into_iter().map(|(index, generation)| SlotId { index, generation }).collect()
    }
}

impl LedgerView {
    fn open(file: &File, path: &Path) -> Result<Self, Error> {
        let len = words_in(file, path)?;
        let words = MappedView::of_file(file, len).map_err(|e| Error::io("map", path, e))?;
        let file = file.try_clone().map_err(|e| Error::io("open", path, e))?;
        Ok(Self { ledger: LedgerWords::open(words, path)?, file })
    }

    /// What the process holds on `slot`; a slot that its ledger does not have is never assigned.
    pub fn observe(&self, slot: u32) -> Observed {
        self.ledger.claims.observe(slot)
    }

    /// The generation of the configuration that the process works with; 0 before the first.
    pub fn accepted_config(&self) -> u64 {
        self.ledger.accepted_config()
    }

    /// The generation of the topology that the process works with; 0 before the first.
    pub fn accepted_topology(&self) -> u64 {
        self.ledger.accepted_topology()
    }

    /// The last configuration that the process refused.
    pub fn refusal(&self) -> Option<Refusal> {
        self.ledger.refusal()
    }

    /// Totals since the ledger was created.
    pub fn counters(&self) -> Counters {
        self.ledger.claims.counters()
    }

    /// How many slots the ledger has room for.
    pub fn capacity(&self) -> u32 {
        // At most `MAX_SLOTS`, as was checked when it was opened.
        self.ledger.claims.slots() as u32
    }
}

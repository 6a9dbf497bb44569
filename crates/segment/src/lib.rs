//! Shared memory between control plane and proxy: snapshot, ledger, block table.
//!
//! One directory in memory (mode 0700, one owner) holds everything that the two exchange:
//!
//! | File                | Written by        | Holds                                                        |
//! |---------------------|-------------------|--------------------------------------------------------------|
//! | `writer.lock`       | nobody            | the lock that makes a [`Writer`] the only one                |
//! | `head`              | the control plane | which data file counts, and the writer's heartbeat           |
//! | `data-<id>.seg`     | the control plane | documents, rows, endpoint slots, room for a block table      |
//! | `ledger-….led`      | one proxy process | its [claims](ledger) on every slot, and what it has accepted |
//! | `samples-….smp`     | one proxy process | its [observations](samples), on the way to the control plane |
//! | `samples.lock`      | nobody            | the lock that makes a [`SampleSet`] the only one             |
//!
//! **Two tiers.** *Documents* (topology, configuration, objectives, latency model, parameters of the
//! index) are blobs that a watcher thread copies out and compiles once per generation. *Rows* are a fixed number of words per endpoint slot,
//! which workers read for every decision. Nothing on the hot path is a string, an offset or a pointer.
//!
//! **Invariants.**
//!
//! * Every single store of a writer leaves a state that readers can use and a successor can continue:
//!   data has two copies and a word that says which one counts, never an odd counter that a dead
//!   writer leaves behind.
//! * Readers take no lock, make no system call, and retry at most twice.
//! * A file is allocated in full before anybody is pointed to it and never changes its size: a full
//!   volume fails the writer, with an error, and never a reader, with a bus error.
//! * Nothing is trusted: owner, mode, size, layout and checksums are validated, offsets are computed
//!   and not read, and every document is verified after it was copied out.
//! * Shared words are accessed atomically only, through [`Words`](words::Words), so that the same
//!   code runs on mappings, under Miri and in loom's models.
//!
//! **Cost.** A row of one cache line takes 3 to 9 ns to read, 10,000 of them less than 30 µs; a claim
//! and its release 17 ns (one core, uncontended). Bytes: see [`Shape`].
//!
//! ```
//! use inlane_segment::{Document, Ledger, Shape, SnapshotReader, Writer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let dir = dir.path().join("inlane");
//! // The control plane publishes …
//! let (mut writer, opened) = Writer::open_or_create(&dir, Shape::default())?;
//! println!("{opened:?}");
//! let slot = writer.assign_slot().ok_or("no slot is free")?;
//! writer.publish_document(Document::Topology, b"pods: [10.0.0.1:8000]")?;
//! writer.publish_row(slot.index, &[3, 250]);
//!
//! // … and a worker of the proxy reads, scores and books.
//! let reader = SnapshotReader::open(&dir)?;
//! let ledger = Ledger::create(&dir, 1024)?;
//! ledger.adopt(slot.index, slot.generation)?;
//! let mut row = [0; 8];
//! assert!(reader.snapshot().row(slot.index, &mut row));
//! assert_eq!(row[..2], [3, 250]);
//! let observed = ledger.observe(slot.index);
//! let claim = ledger.try_claim(slot.index, slot.generation, observed, 512)?;
//! assert_eq!(ledger.observe(slot.index).requests(), 1);
//! ledger.release(claim);
//! # Ok(())
//! # }
//! ```

mod clock;
mod data;
mod dir;
mod document;
mod error;
mod head;
mod layout;
pub mod ledger;
pub mod mapped;
#[cfg(loom)]
#[cfg(test)]
mod models;
mod owned;
mod random;
mod reader;
mod recovery;
mod row;
pub mod samples;
mod slot;
pub mod table;
#[cfg(test)]
mod testing;
pub mod words;
mod writer;

pub use clock::boottime_ns;
pub use dir::{Allocation, Owner};
pub use error::Error;
pub use layout::{Document, LAYOUT_VERSION, MAX_ROW_WORDS, MAX_SLOTS, Shape};
pub use ledger::{
    Claim, ClaimError, Counters, Ledger, LedgerSet, LedgerView, Load, Observed, Refusal,
};
pub use reader::{DocumentBytes, Snapshot, SnapshotReader};
pub use samples::{SampleCounters, SampleSet, SampleShape, SampleWriter};
pub use slot::{SlotGeneration, SlotId, SlotState};
pub use writer::{Opened, Origin, Writer};

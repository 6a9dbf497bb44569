//! The mirror: which blocks the engines say they hold.
//!
//! The control plane applies the engines' own events, the workers of the proxy look prompts up.
//! One [`MirrorWriter`], any number of [`MirrorReader`]s over the same words; the index, the
//! entries, the arena and the forms of a set of holders are those of the block table ([`super`]).
//! What differs follows from what is mirrored:
//!
//! * **Nothing is evicted here.** Engines evict, and say so. At its budget the mirror takes no new
//!   blocks ([`MirrorWriter::hold`] says how many): what it would have to forget is the front of a
//!   chain that an engine still holds, and everything behind it would be lost with it. There is no
//!   recency list.
//! * **Engines name blocks by hashes of their own**, requests are looked up by keys. The links word
//!   of an entry is the hash of the engine that stored it first, mixed with the tier, and a private
//!   index leads from there to the entry: whoever holds the entry under that hash, once, needs no
//!   more than its place in the entry's set. Everybody else (engines with random seeds, several
//!   hashes for one key, a pair stored twice) has an *alias*, a node of two words in the arena.
//! * **Sets of holders are shared.** Consecutive blocks of a chain have the same holders, and equal
//!   sets are stored once, counted, never changed while more than one block refers to them. Adding
//!   a slot to a run of blocks makes one new record and one store per block, and to a reader blocks
//!   with the same holders have the same word.
//! * **Chains are passed over.** Blocks that were stored as a chain ([`MirrorWriter::hold_chain`]), lie
//!   side by side and have the same holders are a *stretch*: a bit per entry says so, and a
//!   reader compares one key of thirty-two (`stretch.rs`).
//! * **Tiers** are separate entries: the tier is mixed into the stored key, and named by the
//!   holders word. A tier that nobody uses costs nothing.
//!
//! # Why a reader is never wrong
//!
//! Entries and records that were given up are not used again before the *epoch*, a word of the
//! header, has moved twice. A reader looks at the epoch before and after it reads a run of blocks.
//! If it moved by less than two, everything read belonged together: nothing that was in use during
//! the read has been recycled since. Otherwise it reads the run again, in shorter pieces, and after
//! a few attempts takes the next block as held by nobody. The writer moves the epoch when a few
//! thousand pieces have been given up, or when it needs them; a fence after that store and one
//! before the second look order everything between. Keys and words may then be loaded in any order:
//! an entry that is freed loses its key before the epoch moves, so its next holders are never seen
//! beside its old key.
//!
//! # Why the writer may die
//!
//! A block is published by the one store of its holders word, which comes last; it is taken back by
//! the same store, which comes first. [`MirrorWriter::recover`] validates the entries, counts
//! the references of records, finds aliases in the pages that are marked as theirs, and rebuilds the
//! private indices. A publisher whose changes were not followed by
//! [`MirrorWriter::set_position`] has position 0 then: events may have been applied in part.
//!
//! # Bytes and time
//!
//! A block takes 35.4 bytes: 16 for the entry, 8 for the engine's hash, 6.1 for the index, 0.3 for the
//! stretches, 5 for the private one. A further holder takes its share of a record, next to nothing in a chain that
//! several hold (a pair held again takes no more than that); an alias takes 16 and up to 20 of private indices. `tests/mirror_bytes.rs` measures.
//!
//! On two cores that had other work as well, per second of CPU time, the writer takes in 19 to 30
//! million pairs, and lets as many go where an event removes many; with removals one by one it does 8
//! to 22 million of both. A lookup of 128 blocks took 0.2 to 0.8 µs with 10 endpoints, 1.4 µs with 100,
//! 2.3 µs with 1,000; one of 6,250 blocks 1 to 4 µs (`bench/peers`, beside the indices of others). Most
//! of it is spent waiting for memory, so whatever comes next is asked for before it is needed. Taking
//! over a million blocks takes 0.7 s (`examples/mirror.rs`).

mod aliases;
mod cells;
mod content;
mod evict;
mod free;
mod hold;
#[cfg(loom)]
#[cfg(test)]
mod models;
mod pages;
mod pairs;
mod reader;
mod recover;
mod regions;
mod release;
mod runs;
mod scout;
mod sets;
mod spec;
mod store;
mod stretch;
#[cfg(test)]
mod tests;
mod word;
mod writer;

pub use pairs::HeldPair;
pub use reader::MirrorReader;
pub use runs::Run;
pub use spec::{MAX_TIERS, MirrorSpec};
pub use writer::{MirrorStats, MirrorWriter};

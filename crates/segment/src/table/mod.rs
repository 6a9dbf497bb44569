//! The block table: which endpoint holds which prefix block.
//!
//! Blocks are 64-bit hashes, endpoints are slots (up to [`MAX_SLOTS`]). One [`TableWriter`] changes the
//! table, any number of [`TableReader`]s look blocks up meanwhile without a lock, a system call or an
//! allocation. The same structure serves the approximate index of one process ([`PrefixIndex`]: the
//! workers' picks come through a [`PickRing`]) and the precise index that the control plane writes
//! into shared memory; it is generic over the memory ([`Words`](crate::words::Words)).
//!
//! # Layout
//!
//! All state that outlives the writer is in one array of words, sized once ([`TableSpec`]):
//!
//! * a **header** and two words per **slot**: ends of its recency list, held count, capacity;
//! * the **index**, from a hash to its entry: buckets of one cache line with twelve tagged ways;
//! * **entries** of two words, key and holders. Entries are handed out in order, so the blocks of a
//!   chain lie side by side and a reader tries the next entry before it asks the index;
//! * a **links** word per entry, for the recency node of the block's first holder;
//! * the **arena**: recency nodes of further holders (two words), and for blocks with more than three
//!   holders a record of them: a list of 16-bit lanes, or a bitmap where that is no larger.
//!
//! The writer's private state (which cells are free, and a hash index over the arena's nodes) is
//! derived: [`TableWriter::recover`] rebuilds it from the words.
//!
//! # Why a reader is never wrong
//!
//! The holders word carries a version that changes whenever its entry is freed, its record moves, or a
//! list gains a slot. A reader loads it (Acquire), loads the key, copies the record, and after an
//! Acquire fence loads it again. The writer publishes a record by a Release store of the word, and begins to write
//! into a recycled cell only after a Release fence that follows the store which retired it. So:
//!
//! * having seen the word, the reader sees at least the key and the record it was published with;
//! * if any loaded word is newer than that (the cell was recycled), the fences make the second look
//!   see the store that retired the record, the version differs, and the lookup starts over;
//! * changes within a record are single stores of whole lanes or bits, true whenever they are read;
//!   a list lane is filled under a new version, so nobody is met in two lanes of one copy.
//!
//! A lookup tries three times, then takes the block as held by nobody. The version has 16 bits: 65,536
//! changes of one entry within one look would go unnoticed, and cost one request a wrong score.
//! Nothing read is trusted to be in bounds, so damaged memory cannot do more than that either.
//!
//! # Why the writer may die
//!
//! Holders words are the truth and change by single stores. Recency lists lead forward through every
//! node but the one in flight after every store, so a successor restores the exact order
//! (`recover.rs`); index and counts are checked against the entries and corrected.
//!
//! # Recency and budget
//!
//! Every slot has a capacity, fixed at its first use, and evicts its least recent block for a new one.
//! When the table as a whole is full, the endpoint that holds most gives up the oldest 1/64 of what it
//! holds. If that frees nothing of the kind needed, those blocks are given up by all of their holders,
//! or, when the arena is short, one page of recency nodes is emptied. Both are counted
//! ([`TableStats`]).
//!
//! # Bytes and time
//!
//! A block takes 30.1 bytes for its first holder: 16 for the entry, 8 for the links, 6.1 for the index
//! at its limit of 7/8. Each further holder takes 16 for its node, 5.3 for the private index, and 2 to
//! 8 for its lane or bit with the slack of record sizes. Never more than 32 per held block on the
//! whole, private state included (`tests/table_bytes.rs` measures it). What is reserved but not
//! used costs address space in anonymous memory; a file is allocated in full.
//!
//! A block found in the next entry takes 5 to 20 ns whatever the size of the table. One found through
//! the index takes 10 to 30 ns while the caches hold the table and 80 to 125 ns when it is much larger,
//! as several are waited for together; a busy neighbour on the memory bus can double that.
//! Changing the holders of a block costs the writer O(1), or the size of one record when it moves.

mod ahead;
mod arena;
mod cursor;
mod entries;
mod holders;
mod index;
mod layout;
mod live;
mod membership;
mod memory;
mod mirror;
#[cfg(loom)]
#[cfg(test)]
mod models;
mod nodes;
mod prefix;
mod reader;
mod recency;
mod recover;
mod ring;
mod tally;
mod writer;

pub use layout::{DEFAULT_CAPACITY, MAX_SLOTS, TableError, TableSpec};
pub use mirror::{HeldPair, MAX_TIERS, MirrorReader, MirrorSpec, MirrorStats, MirrorWriter, Run};
pub use prefix::{Drained, PrefixError, PrefixIndex, PrefixOwner, PrefixSpec};
pub use reader::TableReader;
pub use ring::{Pick, PickRing};
pub use writer::{TableStats, TableWriter};

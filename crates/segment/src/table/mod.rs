//! The block table.

mod arena;
mod directory;
mod holders;
mod layout;
mod live;
mod membership;
mod memory;
mod nodes;
mod reader;
mod recency;
mod recover;
mod runs;
mod writer;

pub use layout::{DEFAULT_CAPACITY, MAX_SLOTS, TableError, TableSpec};
pub use reader::TableReader;
pub use writer::{TableStats, TableWriter};

//! The block table.

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
mod nodes;
mod prefix;
mod reader;
mod recency;
mod recover;
mod ring;
mod tally;
mod writer;

pub use layout::{DEFAULT_CAPACITY, MAX_SLOTS, TableError, TableSpec};
pub use prefix::{Drained, PrefixError, PrefixIndex, PrefixOwner, PrefixSpec};
pub use reader::TableReader;
pub use ring::{Pick, PickRing};
pub use writer::{TableStats, TableWriter};

//! The `tools` of a chat request, written again as the reference scheduler writes them.
//!
//! The reference decodes `tools` into maps and encodes those with Go's `encoding/json`: no white
//! space, keys sorted by bytes, numbers as doubles, some characters escaped. Sorting needs all
//! members of an object, so this is the one part of a body that is held: as a tree in two flat
//! buffers, bounded by [`Limits::tools_bytes`](crate::Limits::tools_bytes).

mod tree;
mod write;

pub(crate) use tree::Tree;

//! The chain that ties content hashes to a model, a salt and the blocks before them.
//!
//! ```text
//! seed    = xxh64(model ++ salt)
//! hash    = xxh64(content ++ previous hash, 64 bits little endian each)   first: previous = seed
//! ```
//!
//! All with seed 0. The scheme is llm-d-router's, so that hashes agree bit for bit.

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Where the chain of a model starts; `salt` is empty if the request carries none.
pub fn seed(model: &str, salt: &str) -> u64 {
    if salt.is_empty() {
        return xxh64(model.as_bytes(), 0);
    }
    let mut hash = Xxh64::new(0);
    hash.update(model.as_bytes());
    hash.update(salt.as_bytes());
    hash.digest()
}

/// The block hashes of one prompt, from its content hashes and the [`seed`].
///
/// Each hash stands for its block and all blocks before it: equal hashes mean equal prefixes.
pub fn chain(contents: &[u64], seed: u64) -> impl ExactSizeIterator<Item = u64> + '_ {
    let mut previous = seed;
    contents.iter().map(move |content| {
        previous = link(previous, *content);
        previous
    })
}

/// The hash of the block with `content` after the block with hash `previous`.
pub fn link(previous: u64, content: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&content.to_le_bytes());
    bytes[8..].copy_from_slice(&previous.to_le_bytes());
    xxh64(&bytes, 0)
}

//! The chain that ties content hashes to a model, a salt and the blocks before them.

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Where the chain of a model starts; `salt` is empty if the request carries none.
pub fn seed(model: &str, salt: &str) -> u64 {
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
        let mut link = [0; 16];
        link[..8].copy_from_slice(&content.to_le_bytes());
        link[8..].copy_from_slice(&previous.to_le_bytes());
        previous = xxh64(&link, 0);
        previous
    })
}

//! From text to block hashes.
//!
//! A block's *content hash* depends on its tokens alone, so that it can be computed while the body
//! arrives, before model and salt are known; the *chain* over the content hashes, 16 bytes of
//! hashing per block, adds both at the end.

mod blocks;
mod chain;
mod collect;

pub use blocks::{BlockHasher, BlockSize, PromptBlocks};
pub use chain::{chain, link, seed};
pub use collect::{CollectedPrompt, Feature, TokenCollector};

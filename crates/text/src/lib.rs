//! The resumable scanner of inference request bodies.
//!
//! A scheduler must know a request's model, its limits and above all its prompt, or rather the
//! hashes of the prompt's blocks. This crate finds them while the body arrives, in whatever chunks
//! a proxy hands over: no document is built, no text is copied, and when the last chunk has come
//! the hashes are there.
//!
//! ```
//! use std::num::NonZeroU32;
//!
//! use inlane_text::{Api, BlockHasher, BlockSize, Limits, Scanner, chain, seed};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let block = BlockSize::Tokens(NonZeroU32::new(64).ok_or("a block holds tokens")?);
//! let hasher = BlockHasher::new(block, 2048);
//! let mut scanner = Scanner::new(Api::Completions, Limits::default(), hasher);
//!
//! for chunk in [&br#"{"model":"llama","pro"#[..], br#"mpt":"!h"#, br#"i!","stream":true}"#] {
//!     scanner.feed(chunk)?;
//! }
//! let summary = scanner.finish()?;
//! assert_eq!(summary.model, "llama");
//! assert!(summary.stream);
//! let start = seed(summary.model, summary.cache_salt);
//!
//! for prompt in scanner.sink().prompts() {
//!     let hashes: Vec<u64> = chain(prompt.contents, start).collect();
//!     assert_eq!((prompt.tokens, hashes.len()), (1, 1));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is read
//!
//! [`Summary`] lists the fields. The prompt goes to a [`Sink`] in packing order: for completions
//! the text or token ids of each prompt; for chat the JSON of `tools`, then each message's role
//! and text, and its media parts as digests. [`BlockHasher`] is the sink of the request path,
//! [`TokenCollector`] keeps the tokens themselves.
//!
//! `tools` is written as Go's `encoding/json` writes a decoded map, because the hashes are to equal
//! those of schedulers written in Go: keys sorted by bytes, no white space, `<>&` escaped, numbers
//! as doubles in their shortest form.
//!
//! # Order
//!
//! JSON keys come in any order, and of equal keys the last one counts. The scanner assumes the
//! usual order and sends text on at once; where the body turns out to differ (`tools` after
//! `messages`, `content` before `role`, …) [`Scanner::needs_second_pass`] says so, and
//! [`Scanner::second_pass`] visits the body, which a proxy holds anyway, in packing order. Fields
//! and verdict never need it.
//!
//! # Invariants
//!
//! * How a body is split changes nothing: not the result, not the error, not its offset.
//! * A body is accepted exactly if `serde_json` reads it as a `Value` and that value is a request
//!   (invalid UTF-8, lone surrogates, 128 nested containers and numbers beyond a double are
//!   refused). Keys are compared as they are, not case-folded as Go would.
//! * Memory is bounded by [`Limits`] and by the sink; `tools` is the only part of a body that is
//!   held, because its keys must be sorted. A scanner that is reused stops allocating.
//! * Hostile media cannot claim more work than [`Limits::media_tokens`].
//!
//! # Cost
//!
//! One look at each byte: strings 16 bytes at a time, structure byte by byte. ASCII prompts are
//! scanned and hashed at several gigabytes per second, a body of 200 bytes in some hundred
//! nanoseconds; `examples/throughput.rs` measures it.

#![forbid(unsafe_code)]

mod error;
mod hash;
mod json;
mod media;
mod request;
mod sink;
#[cfg(feature = "prompts")]
pub mod template;
#[cfg(feature = "prompts")]
pub mod tokens;
mod tools;

pub use error::{Bounded, Expected, RequestError, ScanError};
pub use hash::{
    BlockHasher, BlockSize, CollectedPrompt, Feature, PromptBlocks, TokenCollector, chain, link,
    seed,
};
pub use request::{
    Api, Edit, FrameRate, ImageRule, Limits, MediaRange, MediaRules, Scanner, Summary,
    VideoEstimate,
};
pub use sink::{Media, Modality, Sink};

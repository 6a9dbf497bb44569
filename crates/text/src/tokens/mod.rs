//! Token ids of requests, made in the process as the engine makes them.
//!
//! [`Models`] holds the models of a directory and follows its changes, a [`Model`] turns a body
//! into [`Tokenized`] prompts, and a [`Pool`] of threads does so for callers that must not wait.
//!
//! # What is not tokenized twice
//!
//! A conversation repeats itself: each turn sends all turns before it. Texts are therefore cut
//! where the tokenizer certainly splits them whatever stands around, and the tokens of each part
//! are kept in a [`TokenCache`] of bounded size. Such places are the added tokens, which chat
//! templates put at every message boundary, and, for byte-level tokenizers whose split pattern is
//! known, the ends of words. The rules are proven from how the library works (`cuts`), tried on
//! random texts whenever a tokenizer is loaded, and given up for a tokenizer that breaks them: the
//! result is always what the whole text gives.
//!
//! # Images
//!
//! A chat may have images where [`Model::knows_images`]: those in data URLs become placeholder
//! tokens and digests, bit for bit as in the engine. Everything else about media is
//! [`PromptError::Media`].
//!
//! # Cost
//!
//! One hash over the text and one look-up per half kilobyte for what is known, tens of
//! microseconds for 100 KB. For the rest, where words may be cut apart, a look-up per word, some
//! milliseconds for 100 KB; else, and for words never met, tokenizing, 50 to 100 ms for 100 KB.
//! The cache takes about two bytes per byte of text.

mod body;
mod cache;
mod check;
mod counters;
mod cuts;
mod encoder;
mod error;
mod files;
mod images;
mod matcher;
mod memo;
mod model;
mod models;
mod pool;
mod prompt;
mod scan;
mod words;

pub use crate::MediaRange;
pub use crate::media::MediaHasher;
pub use cache::TokenCache;
pub use counters::Counters;
pub use encoder::Work;
pub use error::{LoadError, PromptError};
pub use images::Engine;
pub use model::Model;
pub use models::{Change, Models, Source, Watch};
pub use pool::{Full, Job, Outcome, Pool, PoolSize};
pub use prompt::{PromptApi, Side, Tokenized, chat_body};

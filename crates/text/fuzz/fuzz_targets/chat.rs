//! Any chat, with templates of models and of its own, renders or is refused, within its limits.
//!
//! `cargo +nightly fuzz run chat` in this crate's parent. The corpus is also replayed by the
//! ordinary test `chat_corpus`.
#![no_main]

#[path = "../chat.rs"]
mod chat;

libfuzzer_sys::fuzz_target!(|input: &[u8]| chat::chat(input));

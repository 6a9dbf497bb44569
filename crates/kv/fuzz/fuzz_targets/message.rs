//! Any message of an engine is applied or refused.
//!
//! `cargo +nightly fuzz run message` in this crate's parent. The corpus is also replayed by the
//! ordinary test `corpus`.
#![no_main]

#[path = "../message.rs"]
mod message;

libfuzzer_sys::fuzz_target!(|input: &[u8]| message::message(input));

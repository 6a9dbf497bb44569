//! A mirror takes any history, and any damage, without a crash.

#![no_main]

#[path = "../mirror.rs"]
mod mirror;

libfuzzer_sys::fuzz_target!(|input: &[u8]| mirror::mirror(input));

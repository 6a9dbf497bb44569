//! Forged files must be refused or served, never crash a process that opens them.

#![no_main]

#[path = "../exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|input: &[u8]| exercise::files(input));

//! A vLLM-compatible simulator for people without GPUs.

#![forbid(unsafe_code)]

pub mod config;
pub mod engine;
mod ids;
pub mod metrics;
mod random;
pub mod text;

//! A real vLLM behind a real Envoy and a real control plane: what the live test is made of.
//!
//! `scripts/test-vllm.sh` installs vLLM and runs `tests/real_vllm.rs`; nothing here runs without it.

pub mod adapter;
pub mod answer;
pub mod engine;
pub mod holdings;
pub mod recording;
pub mod script;
pub mod table;
pub mod world;

use std::path::PathBuf;

/// The model that is served: configuration, tokenizer and chat template; weights are made up.
pub fn model() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vllm/model"))
}

/// The name that it is served under.
pub const MODEL: &str = "tiny-a";

/// LoRA adapters of it.
pub const ADAPTERS: [&str; 2] = ["sql-adapter", "chat-adapter"];

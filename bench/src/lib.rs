//! What Inlane costs, measured three ways, and what its choices are worth.
//!
//! * [`ops`] names the operations of the request path and of the control plane. `benches/micro.rs`
//!   times them; `inlane-bench-counted` runs each alone, beside its time counts the instructions
//!   and allocations of one call, and holds them against the project's limits.
//! * [`load`] sends whole requests through a plain Envoy and through one with the scheduler, cell by
//!   cell in turn, and charges CPU time from the kernel's accounts: `inlane-bench-macro`.
//! * [`quality`] lets real decisions fill simulated engines in virtual time: `inlane-bench-quality`.
//!
//! `scripts/bench.sh` runs all of it. Nothing here is part of the product.
#![forbid(unsafe_code)]

// The tests of the plugins run them through the same.
#[path = "../../crates/plugins/tests/support/alone.rs"]
mod alone;
pub mod bodies;
pub mod load;
pub mod ops;
pub mod quality;
pub mod rig;

/// A result of setting something up.
pub type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// A real page of vLLM 0.32 under load: 74 KB, 868 lines.
pub const VLLM_PAGE: &[u8] =
    include_bytes!("../../crates/engine/fixtures/vllm-0.32.0-sha256_cbor-20-during-load.txt");

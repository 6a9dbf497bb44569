//! Tests against real parts.

pub mod cases;
pub mod fixtures;
pub mod scenario;
pub mod vllm;

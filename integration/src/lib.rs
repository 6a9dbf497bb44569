//! Tests against real parts.

pub mod cases;
pub mod scenario;

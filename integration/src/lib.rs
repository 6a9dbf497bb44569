//! Tests against real parts.

pub mod cases;

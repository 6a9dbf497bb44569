//! Counting, and the Prometheus page.

pub mod families;
pub mod histogram;
pub mod http;
pub mod page;
pub mod process;
pub mod stats;

//! Pods over real sockets.

mod api;
#[cfg(unix)]
mod binary;
mod cluster;
mod faults;
mod metrics;
mod streaming;
mod support;

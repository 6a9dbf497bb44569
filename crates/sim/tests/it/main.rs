//! Pods over real sockets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod api;
#[cfg(unix)]
mod binary;
mod cluster;
mod events;
mod faults;
mod forms;
mod index;
mod metrics;
mod recorded;
mod streaming;
mod support;

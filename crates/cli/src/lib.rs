//! The `inlane` command, and the lab: all parts of Inlane running together on one machine.
//!
//! [`lab`] starts real simulators, a real control plane and a real Envoy on free loopback ports
//! and ends them by pid. [`demo`] is built on it, and so are the integration tests.
#![forbid(unsafe_code)]

pub mod demo;
pub mod lab;

//! The `inlane` command, and the lab: all parts of Inlane running together on one machine.
//!
//! [`lab`] starts real simulators, a real control plane and a real Envoy on free loopback ports
//! and ends them by pid. [`demo`] is built on it, and so are the integration tests.
//!
//! [`check`] and [`convert`] look at configurations, [`explain`] and [`replay`] at decisions, [`index`]
//! at what engines hold. A crate with plugins of its own calls them with its own registry.
#![forbid(unsafe_code)]

pub mod check;
pub mod convert;
pub mod demo;
pub mod explain;
pub mod index;
pub mod lab;
pub mod replay;

mod paint;
mod records;

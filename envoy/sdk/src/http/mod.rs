//! The HTTP filter extension point.
//!
//! A [`HttpFilterConfig`] is made per configuration on the main thread and shared by all workers; it makes one
//! [`HttpFilter`] per stream, which lives on one worker. [`EnvoyHttpFilter`] is the stream as Envoy shows it.

mod access;
mod action;
mod config;
mod config_hooks;
mod envoy;
mod envoy_impl;
mod filter;
pub(crate) mod hooks;
mod scheduler;
mod slot;
mod span;
#[cfg(test)]
mod tests;
mod visit;

#[cfg(any(test, feature = "mock"))]
pub use config::MockEnvoyHttpFilterConfig;
pub use config::{EnvoyHttpFilterConfig, EnvoyHttpFilterConfigImpl, HttpFilterConfig};
#[cfg(any(test, feature = "mock"))]
pub use envoy::MockEnvoyHttpFilter;
pub use envoy::{ClusterHostCount, EnvoyHttpFilter};
pub use envoy_impl::EnvoyHttpFilterImpl;
pub use filter::HttpFilter;
pub(crate) use hooks::{callout_result, response};
pub(crate) use scheduler::scheduler_handle;
pub use scheduler::{EnvoyHttpFilterConfigScheduler, EnvoyHttpFilterScheduler};
#[cfg(any(test, feature = "mock"))]
pub use scheduler::{MockEnvoyHttpFilterConfigScheduler, MockEnvoyHttpFilterScheduler};
pub use span::{EnvoyChildSpan, EnvoySpan};
pub use visit::EnvoyHttpFilterExt;

//! The bootstrap extension point: a part of the module that lives as long as the server, on the main thread.

mod envoy;
mod envoy_impl;
pub mod hooks;
mod timer;
mod traits;

pub use envoy::{
    EnvoyBootstrapExtension, EnvoyBootstrapExtensionConfig, FILE_WATCHER_EVENT_MODIFIED,
    FILE_WATCHER_EVENT_MOVED_TO,
};
#[cfg(any(test, feature = "mock"))]
pub use envoy::{MockEnvoyBootstrapExtension, MockEnvoyBootstrapExtensionConfig};
pub use timer::{EnvoyBootstrapExtensionConfigScheduler, EnvoyBootstrapExtensionTimer};
pub use traits::{BootstrapExtension, BootstrapExtensionConfig};

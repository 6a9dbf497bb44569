//! Rust SDK for Envoy dynamic modules: one shared object for Envoy 1.38, 1.39 and 1.40.
//!
//! A module implements the traits of this crate ([`HttpFilterConfig`], [`HttpFilter`], [`ClusterConfig`],
//! [`Cluster`], [`ClusterLb`], [`BootstrapExtensionConfig`], [`BootstrapExtension`]), names its constructors in
//! [`declare_all_init_functions!`], and is built as a `cdylib`. Envoy's side is given to it as the `Envoy*` traits, so
//! that everything but the glue can be tested without Envoy (feature `mock`).
//!
//! What this crate takes care of:
//!
//! * **No undefined symbols.** Every function of Envoy is looked up by name once, at load. What an older release lacks
//!   answers as documented at the method (`None`, `false`, an error); an Envoy that is too old is refused with a reason.
//! * **Panics.** None leaves an exported function: a stream whose filter panics is answered with 500, or reset when its
//!   response has begun, and Envoy lives on.
//! * **Known hazards of a release.** Where a call is unsafe in one release, the wrapper refuses it there.
//!
//! The crate has the package name, the library name and the API of the SDK in Envoy's own source tree, for the part that
//! is here; additions of its own are marked "Addition" in their documentation.

// The boundary to Envoy is made of raw pointers; the workspace denies unsafe code everywhere else.
#![allow(unsafe_code)]

pub mod abi;
mod bootstrap;
mod buffer;
mod callout;
mod cluster;
mod completion;
mod guard;
mod host;
mod http;
mod init;
mod log;
mod macros;
mod metrics;
mod process;
mod version;

pub use bootstrap::{
    BootstrapExtension, BootstrapExtensionConfig, EnvoyBootstrapExtension,
    EnvoyBootstrapExtensionConfig, EnvoyBootstrapExtensionConfigScheduler,
    EnvoyBootstrapExtensionTimer, FILE_WATCHER_EVENT_MODIFIED, FILE_WATCHER_EVENT_MOVED_TO,
};
#[cfg(any(test, feature = "mock"))]
pub use bootstrap::{MockEnvoyBootstrapExtension, MockEnvoyBootstrapExtensionConfig};
pub use buffer::{EnvoyBuffer, EnvoyMutBuffer};
pub use callout::{CalloutInit, Headers};
pub use cluster::*;
pub use completion::CompletionCallback;
pub use http::*;
pub use init::{
    NEW_BOOTSTRAP_EXTENSION_CONFIG_FUNCTION, NEW_CLUSTER_CONFIG_FUNCTION,
    NEW_HTTP_FILTER_CONFIG_FUNCTION, NEW_HTTP_FILTER_PER_ROUTE_CONFIG_FUNCTION,
    NewBootstrapExtensionConfigFunction, NewClusterConfigFunction, NewHttpFilterConfigFunction,
    NewHttpFilterPerRouteConfigFunction, ProgramInitFunction,
};
pub use metrics::{
    EnvoyCounterId, EnvoyCounterVecId, EnvoyGaugeId, EnvoyGaugeVecId, EnvoyHistogramId,
    EnvoyHistogramVecId, MetricsResult,
};
pub use process::{
    get_function, get_log_level, get_server_concurrency, get_shared_data, is_log_enabled,
    is_validation_mode, register_function, register_shared_data,
};
pub use version::{EnvoyVersion, envoy_version};

/// What the exported macros expand to; not part of the API.
#[doc(hidden)]
pub mod __private {
    pub use crate::bootstrap::hooks as bootstrap_hooks;
    pub use crate::init::program_init;
    pub use crate::log::write as log;
}

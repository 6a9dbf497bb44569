//! Inlane's Envoy dynamic module: `libinlane.so`.
//!
//! Three parts, found by name in an Envoy configuration:
//!
//! * HTTP filter `scheduler`: reads inference requests, decides which pod serves them, books it;
//! * cluster `pods`: has the pool's endpoints as hosts and sends each attempt where the decision,
//!   or for a retry its ranking, says;
//! * HTTP filter `admin`: `/metrics`, `/healthz`, `/debug/…` on a listener of its own.
//!
//! All parts that name the same segment directory share one [`runtime`]. This crate is glue: what a
//! decision is, the libraries say (`inlane-core`, `inlane-plugins`), where its numbers come from,
//! `inlane-segment` says. A module with plugins of one's own is a crate that depends on this one
//! without default features and calls [`declare_module!`] with its registry.

pub mod admin;
mod clock;
pub mod cluster;
mod entry;
pub mod metrics;
pub mod record;
pub mod runtime;
pub mod scheduler;
pub mod settings;
pub mod stream;
#[cfg(test)]
mod testing;
pub mod worker;

#[doc(hidden)]
pub use entry::{http_filter, pods_cluster, set_registry};
#[doc(hidden)]
pub use envoy_proxy_dynamic_modules_rust_sdk as sdk;

/// Declares the entry point of a module whose plugins are those of a registry.
///
/// ```ignore
/// inlane::declare_module!(|| {
///     let mut registry = inlane_plugins::registry();
///     registry.register(my_plugin::TYPE);
///     registry
/// });
/// ```
#[macro_export]
macro_rules! declare_module {
    ($registry:expr) => {
        fn __inlane_init() -> bool {
            $crate::set_registry($registry)
        }
        $crate::sdk::declare_all_init_functions!(
            __inlane_init,
            http: $crate::http_filter,
            cluster: $crate::pods_cluster,
        );
    };
}

#[cfg(feature = "exports")]
#[allow(unsafe_code, reason = "the entry point is found by its unmangled name")]
mod exports {
    crate::declare_module!(inlane_plugins::registry);
}

//! Five plugins of one's own, and the module that carries them.
//!
//! * `maintenance-filter` drops endpoints that are being worked on, with a reason.
//! * `served-source` and `served-extractor` scrape a number from every engine.
//! * `cache-log-producer` matches prompts by cache events from a source of its own.
//! * `least-served-scorer` scores by that number, and shows a metric of its own.
//!
//! Every plugin is one file; [`registry`] has one line for each. The same registry goes into the
//! module that Envoy loads (below) and into the control plane (`src/bin/own-control.rs`): both load
//! the same configurations.

pub mod cache_log_producer;
pub mod least_served_scorer;
pub mod maintenance_filter;
pub mod served;

use inlane_core::registry::Registry;

/// Inlane's plugins and these.
pub fn registry() -> Registry {
    let mut registry = inlane_plugins::registry();
    registry
        .register(cache_log_producer::TYPE)
        .register(least_served_scorer::TYPE)
        .register(maintenance_filter::TYPE)
        .register(served::SOURCE)
        .register(served::EXTRACTOR);
    registry
}

#[allow(unsafe_code, reason = "Envoy finds the entry point by its unmangled name")]
mod entry {
    inlane::declare_module!(crate::registry);
}

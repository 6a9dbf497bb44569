//! Counting evaluations that had no answer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use inlane_core::exposition::Exposition;
use inlane_core::plugin::Collector;

/// The errors of one instance, as the metrics page shows them.
#[derive(Debug)]
pub(crate) struct Errors {
    plugin_type: &'static str,
    plugin_name: String,
    count: AtomicU64,
}

impl Errors {
    /// Of an instance of that type and name.
    pub(crate) fn of(plugin_type: &'static str, plugin_name: &str) -> Self {
        Self { plugin_type, plugin_name: plugin_name.to_owned(), count: AtomicU64::new(0) }
    }

    /// Adds the errors of one decision.
    pub(crate) fn add(&self, errors: u64) {
        if errors > 0 {
            self.count.fetch_add(errors, Relaxed);
        }
    }
}

impl Collector for Errors {
    fn collect(&self, page: &mut Exposition) {
        page.counter(
            "inlane_cel_errors_total",
            "Evaluations of an expression that had no answer.",
            &[("plugin_type", self.plugin_type), ("plugin_name", &self.plugin_name)],
            self.count.load(Relaxed) as f64,
        );
    }
}

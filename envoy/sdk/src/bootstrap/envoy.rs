//! What Envoy offers to a bootstrap extension, on the main thread.

use crate::bootstrap::{EnvoyBootstrapExtensionConfigScheduler, EnvoyBootstrapExtensionTimer};
use crate::callout::CalloutInit;
use crate::metrics::*;

/// The watched name now names another file.
pub const FILE_WATCHER_EVENT_MOVED_TO: u32 = 1;
/// The watched file was written.
pub const FILE_WATCHER_EVENT_MODIFIED: u32 = 2;

/// The configuration of a bootstrap extension.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[allow(clippy::needless_lifetimes)] // mockall needs the lifetimes of nested references spelt out
pub trait EnvoyBootstrapExtensionConfig {
    /// A handle that wakes this configuration from any thread.
    fn new_scheduler(&self) -> Box<dyn EnvoyBootstrapExtensionConfigScheduler>;
    /// Makes a request; `headers` hold `:method`, `:path` and `host`.
    fn send_http_callout<'a>(
        &mut self,
        cluster_name: &str,
        headers: Vec<(&'a str, &'a [u8])>,
        body: Option<&'a [u8]>,
        timeout_milliseconds: u64,
    ) -> CalloutInit;
    /// Lets Envoy become ready. Must be called exactly once, here or later: until then Envoy takes no traffic.
    fn signal_init_complete(&self);
    /// A one-shot timer.
    fn new_timer(&self) -> Box<dyn EnvoyBootstrapExtensionTimer>;
    /// Watches a file, which must exist, for a mask of the `FILE_WATCHER_EVENT_` constants.
    fn add_file_watch(&self, path: &str, events: u32) -> bool;
    /// Adds a page to the admin port, whose path (before any `?`) is exactly `path_prefix`.
    fn register_admin_handler(
        &self,
        path_prefix: &str,
        help: &str,
        removable: bool,
        mutates_state: bool,
    ) -> bool;
    /// Removes a page that was registered as removable.
    fn remove_admin_handler(&self, path_prefix: &str) -> bool;
    /// Has the cluster hooks called, from `on_server_initialized` on.
    fn enable_cluster_lifecycle(&self) -> bool;
    /// Has the listener hooks called, from `on_server_initialized` on.
    fn enable_listener_lifecycle(&self) -> bool;
    /// Defines a counter.
    fn define_counter(&self, name: &str) -> MetricsResult<EnvoyCounterId>;
    /// Defines a counter with labels.
    fn define_counter_vec<'a>(
        &self,
        name: &str,
        labels: &[&'a str],
    ) -> MetricsResult<EnvoyCounterVecId>;
    /// Defines a gauge.
    fn define_gauge(&self, name: &str) -> MetricsResult<EnvoyGaugeId>;
    /// Defines a gauge with labels.
    fn define_gauge_vec<'a>(
        &self,
        name: &str,
        labels: &[&'a str],
    ) -> MetricsResult<EnvoyGaugeVecId>;
    /// Defines a histogram.
    fn define_histogram(&self, name: &str) -> MetricsResult<EnvoyHistogramId>;
    /// Defines a histogram with labels.
    fn define_histogram_vec<'a>(
        &self,
        name: &str,
        labels: &[&'a str],
    ) -> MetricsResult<EnvoyHistogramVecId>;
    /// Adds to a counter.
    fn increment_counter(&self, id: EnvoyCounterId, value: u64) -> MetricsResult<()>;
    /// Adds to a counter with labels.
    fn increment_counter_vec<'a>(
        &self,
        id: EnvoyCounterVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;
    /// Adds to a gauge.
    fn increase_gauge(&self, id: EnvoyGaugeId, value: u64) -> MetricsResult<()>;
    /// Adds to a gauge with labels.
    fn increase_gauge_vec<'a>(
        &self,
        id: EnvoyGaugeVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;
    /// Subtracts from a gauge.
    fn decrease_gauge(&self, id: EnvoyGaugeId, value: u64) -> MetricsResult<()>;
    /// Subtracts from a gauge with labels.
    fn decrease_gauge_vec<'a>(
        &self,
        id: EnvoyGaugeVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;
    /// Sets a gauge.
    fn set_gauge(&self, id: EnvoyGaugeId, value: u64) -> MetricsResult<()>;
    /// Sets a gauge with labels.
    fn set_gauge_vec<'a>(
        &self,
        id: EnvoyGaugeVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;
    /// Records a value in a histogram.
    fn record_histogram_value(&self, id: EnvoyHistogramId, value: u64) -> MetricsResult<()>;
    /// Records a value in a histogram with labels.
    fn record_histogram_value_vec<'a>(
        &self,
        id: EnvoyHistogramVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;
}

/// The server, seen from a bootstrap extension.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait EnvoyBootstrapExtension {
    /// The value of one of Envoy's counters, by its full name.
    fn get_counter_value(&self, name: &str) -> Option<u64>;
    /// The value of one of Envoy's gauges, by its full name.
    fn get_gauge_value(&self, name: &str) -> Option<u64>;
    /// Count and sum of one of Envoy's histograms, by its full name.
    fn get_histogram_summary(&self, name: &str) -> Option<(u64, f64)>;
}

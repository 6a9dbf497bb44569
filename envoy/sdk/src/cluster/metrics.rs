//! Metrics of a cluster.

use crate::metrics::*;

/// Defines and changes a cluster's metrics.
///
/// Define while the configuration is made. Changes belong to Envoy's threads.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[allow(clippy::needless_lifetimes)] // mockall needs the lifetimes of nested references spelt out
pub trait EnvoyClusterMetrics: Send + Sync {
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

/// Implements the define and change methods over a family of `…_config_{define,increment,…}` functions, for a type with a
/// `raw` pointer.
macro_rules! config_metric_methods {
    (define $($callback:ident: $plain:ident($id:ident), $labelled:ident($vec_id:ident);)*) => {$(
        fn $plain(&self, name: &str) -> MetricsResult<$id> {
            $crate::metrics::define!($callback, self.raw, name, &[] => $id)
        }

        fn $labelled(&self, name: &str, labels: &[&str]) -> MetricsResult<$vec_id> {
            $crate::metrics::define!($callback, self.raw, name, labels => $vec_id)
        }
    )*};
    (change $($callback:ident: $plain:ident($id:ident), $labelled:ident($vec_id:ident);)*) => {$(
        fn $plain(&self, id: $id, value: u64) -> MetricsResult<()> {
            $crate::metrics::change!($callback, self.raw, id, &[], value)
        }

        fn $labelled(&self, id: $vec_id, labels: &[&str], value: u64) -> MetricsResult<()> {
            $crate::metrics::change!($callback, self.raw, id, labels, value)
        }
    )*};
}
pub(crate) use config_metric_methods;

/// The metrics of one cluster configuration.
pub(super) struct ClusterMetrics {
    raw: *mut std::ffi::c_void,
}

// SAFETY: the pointer is only passed back to Envoy, whose metrics may be changed by all of its threads.
unsafe impl Send for ClusterMetrics {}
// SAFETY: as above.
unsafe impl Sync for ClusterMetrics {}

impl ClusterMetrics {
    /// # Safety
    /// `raw` is a cluster configuration that outlives every use of the value.
    pub(super) unsafe fn new(raw: *mut std::ffi::c_void) -> Self {
        Self { raw }
    }
}

impl EnvoyClusterMetrics for ClusterMetrics {
    config_metric_methods! { define
        cluster_config_define_counter: define_counter(EnvoyCounterId), define_counter_vec(EnvoyCounterVecId);
        cluster_config_define_gauge: define_gauge(EnvoyGaugeId), define_gauge_vec(EnvoyGaugeVecId);
        cluster_config_define_histogram: define_histogram(EnvoyHistogramId), define_histogram_vec(EnvoyHistogramVecId);
    }
    config_metric_methods! { change
        cluster_config_increment_counter: increment_counter(EnvoyCounterId), increment_counter_vec(EnvoyCounterVecId);
        cluster_config_increment_gauge: increase_gauge(EnvoyGaugeId), increase_gauge_vec(EnvoyGaugeVecId);
        cluster_config_decrement_gauge: decrease_gauge(EnvoyGaugeId), decrease_gauge_vec(EnvoyGaugeVecId);
        cluster_config_set_gauge: set_gauge(EnvoyGaugeId), set_gauge_vec(EnvoyGaugeVecId);
        cluster_config_record_histogram_value:
            record_histogram_value(EnvoyHistogramId), record_histogram_value_vec(EnvoyHistogramVecId);
    }
}

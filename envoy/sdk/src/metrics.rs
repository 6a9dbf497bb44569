//! Ids of metrics, and the calls that all extension points share.
//!
//! A metric is defined while a configuration is made and changed by its id afterwards. Label values are resolved by Envoy
//! in each call; every combination lives for ever, so keep them few.

use smallvec::SmallVec;

use crate::abi::{
    envoy_dynamic_module_type_metrics_result as Outcome, envoy_dynamic_module_type_module_buffer,
};
use crate::buffer::module;

/// Outcome of defining or changing a metric.
pub type MetricsResult<T> = Result<T, Outcome>;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(pub usize);
    )*};
}

ids! {
    /// A counter without labels.
    EnvoyCounterId;
    /// A counter with labels.
    EnvoyCounterVecId;
    /// A gauge without labels.
    EnvoyGaugeId;
    /// A gauge with labels.
    EnvoyGaugeVecId;
    /// A histogram without labels. Its values are integers: choose a unit that is small enough.
    EnvoyHistogramId;
    /// A histogram with labels. Its values are integers: choose a unit that is small enough.
    EnvoyHistogramVecId;
}

/// Label names or values, lent to Envoy for one call. Eight fit without an allocation.
pub(crate) struct Labels(SmallVec<[envoy_dynamic_module_type_module_buffer; 8]>);

impl Labels {
    pub(crate) fn new(labels: &[&str]) -> Self {
        Self(labels.iter().map(module).collect())
    }

    pub(crate) fn first(&mut self) -> *mut envoy_dynamic_module_type_module_buffer {
        self.0.as_mut_ptr()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// The result of a call that Envoy answered with a number.
pub(crate) fn outcome<T>(raw: u32, value: T) -> MetricsResult<T> {
    match Outcome::from_raw(raw) {
        Some(Outcome::Success) => Ok(value),
        Some(failure) => Err(failure),
        None => Err(Outcome::MetricNotFound),
    }
}

/// What a call is answered with when there is no Envoy.
pub(crate) const ABSENT: u32 = Outcome::MetricNotFound as u32;

/// Defines a metric: `define!(callback, pointer, name, labels => Id)`.
macro_rules! define {
    ($callback:ident, $envoy:expr, $name:expr, $labels:expr => $id:ident) => {{
        let mut labels = $crate::metrics::Labels::new($labels);
        let mut id = 0;
        let raw = $crate::host::call!(
            $callback($envoy, $crate::buffer::module($name), labels.first(), labels.count(), &raw mut id)
                or $crate::metrics::ABSENT
        );
        $crate::metrics::outcome(raw, $id(id))
    }};
}
pub(crate) use define;

/// Changes a metric: `change!(callback, pointer, id, labels, value)`.
macro_rules! change {
    ($callback:ident, $envoy:expr, $id:expr, $labels:expr, $value:expr) => {{
        let mut labels = $crate::metrics::Labels::new($labels);
        let raw = $crate::host::call!(
            $callback($envoy, $id.0, labels.first(), labels.count(), $value)
                or $crate::metrics::ABSENT
        );
        $crate::metrics::outcome(raw, ())
    }};
}
pub(crate) use change;

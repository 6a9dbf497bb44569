//! The bootstrap traits over the real Envoy.

use std::ffi::c_void;

use crate::bootstrap::timer::{BootstrapTimer, for_config};
use crate::bootstrap::{
    EnvoyBootstrapExtension, EnvoyBootstrapExtensionConfig, EnvoyBootstrapExtensionConfigScheduler,
    EnvoyBootstrapExtensionTimer,
};
use crate::buffer::module;
use crate::callout::{CalloutInit, one_shot};
use crate::cluster::config_metric_methods;
use crate::host::{call, read};
use crate::metrics::*;

/// The configuration of a bootstrap extension inside of Envoy.
pub(super) struct ConfigImpl {
    raw: *mut c_void,
}

impl ConfigImpl {
    /// # Safety
    /// `raw` is the configuration of the running hook, and the value is not kept beyond it.
    pub(super) unsafe fn new(raw: *mut c_void) -> Self {
        Self { raw }
    }

    /// Sets the body of the admin answer that the running hook gives.
    pub(super) fn admin_set_response(&self, body: &str) {
        call!(bootstrap_extension_admin_set_response(self.raw, module(body)) or ());
    }
}

impl EnvoyBootstrapExtensionConfig for ConfigImpl {
    fn new_scheduler(&self) -> Box<dyn EnvoyBootstrapExtensionConfigScheduler> {
        Box::new(for_config(self.raw))
    }

    fn send_http_callout(
        &mut self,
        cluster_name: &str,
        headers: Vec<(&str, &[u8])>,
        body: Option<&[u8]>,
        timeout_milliseconds: u64,
    ) -> CalloutInit {
        one_shot!(
            bootstrap_extension_http_callout,
            self.raw,
            cluster_name,
            &headers,
            body,
            timeout_milliseconds
        )
    }

    fn signal_init_complete(&self) {
        call!(bootstrap_extension_config_signal_init_complete(self.raw) or ());
    }

    fn new_timer(&self) -> Box<dyn EnvoyBootstrapExtensionTimer> {
        Box::new(BootstrapTimer::new(self.raw))
    }

    fn add_file_watch(&self, path: &str, events: u32) -> bool {
        call!(
            bootstrap_extension_file_watcher_add_watch(self.raw, module(path), events) or false
        )
    }

    fn register_admin_handler(
        &self,
        path_prefix: &str,
        help: &str,
        removable: bool,
        mutates_state: bool,
    ) -> bool {
        call!(
            bootstrap_extension_register_admin_handler(
                self.raw,
                module(path_prefix),
                module(help),
                removable,
                mutates_state,
            ) or false
        )
    }

    fn remove_admin_handler(&self, path_prefix: &str) -> bool {
        call!(
            bootstrap_extension_remove_admin_handler(self.raw, module(path_prefix)) or false
        )
    }

    fn enable_cluster_lifecycle(&self) -> bool {
        call!(bootstrap_extension_enable_cluster_lifecycle(self.raw) or false)
    }

    fn enable_listener_lifecycle(&self) -> bool {
        call!(bootstrap_extension_enable_listener_lifecycle(self.raw) or false)
    }

    config_metric_methods! { define
        bootstrap_extension_config_define_counter:
            define_counter(EnvoyCounterId), define_counter_vec(EnvoyCounterVecId);
        bootstrap_extension_config_define_gauge: define_gauge(EnvoyGaugeId), define_gauge_vec(EnvoyGaugeVecId);
        bootstrap_extension_config_define_histogram:
            define_histogram(EnvoyHistogramId), define_histogram_vec(EnvoyHistogramVecId);
    }
    config_metric_methods! { change
        bootstrap_extension_config_increment_counter:
            increment_counter(EnvoyCounterId), increment_counter_vec(EnvoyCounterVecId);
        bootstrap_extension_config_increment_gauge: increase_gauge(EnvoyGaugeId), increase_gauge_vec(EnvoyGaugeVecId);
        bootstrap_extension_config_decrement_gauge: decrease_gauge(EnvoyGaugeId), decrease_gauge_vec(EnvoyGaugeVecId);
        bootstrap_extension_config_set_gauge: set_gauge(EnvoyGaugeId), set_gauge_vec(EnvoyGaugeVecId);
        bootstrap_extension_config_record_histogram_value:
            record_histogram_value(EnvoyHistogramId), record_histogram_value_vec(EnvoyHistogramVecId);
    }
}

/// A bootstrap extension inside of Envoy.
pub(super) struct ExtensionImpl {
    raw: *mut c_void,
}

impl ExtensionImpl {
    /// # Safety
    /// `raw` is the extension of the running hook, and the value is not kept beyond it.
    pub(super) unsafe fn new(raw: *mut c_void) -> Self {
        Self { raw }
    }
}

impl EnvoyBootstrapExtension for ExtensionImpl {
    fn get_counter_value(&self, name: &str) -> Option<u64> {
        read!(bootstrap_extension_get_counter_value(self.raw, module(name)) -> u64)
    }

    fn get_gauge_value(&self, name: &str) -> Option<u64> {
        read!(bootstrap_extension_get_gauge_value(self.raw, module(name)) -> u64)
    }

    fn get_histogram_summary(&self, name: &str) -> Option<(u64, f64)> {
        let mut count = 0;
        let mut sum = 0.0;
        call!(
            bootstrap_extension_get_histogram_summary(
                self.raw,
                module(name),
                &raw mut count,
                &raw mut sum,
            ) or false
        )
        .then_some((count, sum))
    }
}

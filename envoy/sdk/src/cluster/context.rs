//! What is known about the request that a host is chosen for.

use std::ffi::c_void;

use crate::abi::*;
use crate::buffer::{EnvoyBuffer, HeaderPair, module};
use crate::cluster::ClusterHost;
use crate::cluster::scheduler::{EnvoyClusterWorkerTimer, WorkerTimer};
use crate::host::{call, read};
use crate::version::at_least_1_39;

/// One attempt of one request, inside `choose_host`.
///
/// A callout shows its own headers here, not those of the stream that makes it, and no filter state.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[allow(clippy::needless_lifetimes)] // mockall needs the lifetimes of returned references spelt out
pub trait ClusterLbContext {
    /// The route's hash of the request, if it has a hash policy.
    fn compute_hash_key(&self) -> Option<u64>;
    /// All request headers.
    fn get_downstream_headers<'a>(&'a self) -> Option<Vec<(EnvoyBuffer<'a>, EnvoyBuffer<'a>)>>;
    /// One value of a request header, and how many values there are.
    fn get_downstream_header<'a>(
        &'a self,
        key: &str,
        index: usize,
    ) -> Option<(EnvoyBuffer<'a>, usize)>;
    /// The server name of the client's TLS connection.
    fn get_downstream_connection_sni<'a>(&'a self) -> Option<EnvoyBuffer<'a>>;
    /// The override host, and whether it is strict.
    fn get_override_host<'a>(&'a self) -> Option<(EnvoyBuffer<'a>, bool)>;
    /// Bytes in the stream's filter state. `None` before 1.39.
    fn get_filter_state_bytes<'a>(&'a self, key: &[u8]) -> Option<EnvoyBuffer<'a>>;
    /// The serialised form of a typed object in the filter state. `None` before 1.39.
    fn get_filter_state_typed<'a>(&'a self, key: &[u8]) -> Option<EnvoyBuffer<'a>>;
    /// Sets bytes in the stream's filter state. False before 1.39.
    fn set_filter_state_bytes(&self, key: &[u8], value: &[u8]) -> bool;
    /// Sets a typed object in the stream's filter state. False before 1.39.
    fn set_filter_state_typed(&self, key: &[u8], value: &[u8]) -> bool;
    /// Sets a number in the stream's metadata. False before 1.39.
    fn set_dynamic_metadata_number(&self, namespace: &str, key: &str, value: f64) -> bool;
    /// Sets a string in the stream's metadata. False before 1.39.
    fn set_dynamic_metadata_string(&self, namespace: &str, key: &str, value: &str) -> bool;
    /// One of a host's statistics; 0 before 1.39.
    ///
    /// # Safety
    /// The host must still be in the cluster: Envoy reads through the pointer.
    unsafe fn get_host_stat(
        &self,
        host: ClusterHost,
        stat: envoy_dynamic_module_type_host_stat,
    ) -> u64;
    /// Whether the route's predicates reject this host. False on 1.38, where hosts must not be read.
    fn should_select_another_host(&self, priority: u32, index: usize) -> bool;
    /// How often the route wants a rejected host to be chosen again. A setting, not progress.
    fn get_host_selection_retry_count(&self) -> u32;
    /// A timer on this worker. `None` before 1.39.
    fn worker_timer_new(&self) -> Option<Box<dyn EnvoyClusterWorkerTimer>>;
}

/// A selection inside of Envoy.
pub(super) struct ClusterLbContextImpl {
    lb: *mut c_void,
    raw: *mut c_void,
}

impl ClusterLbContextImpl {
    /// # Safety
    /// Both are of the running `choose_host`, and the value is not kept beyond it.
    pub(super) unsafe fn new(lb: *mut c_void, raw: *mut c_void) -> Self {
        Self { lb, raw }
    }
}

impl ClusterLbContext for ClusterLbContextImpl {
    fn compute_hash_key(&self) -> Option<u64> {
        read!(cluster_lb_context_compute_hash_key(self.raw) -> u64)
    }

    fn get_downstream_headers(&self) -> Option<Vec<(EnvoyBuffer<'_>, EnvoyBuffer<'_>)>> {
        let count = call!(cluster_lb_context_get_downstream_headers_size(self.raw) or 0);
        let mut headers = vec![HeaderPair::default(); count];
        call!(
            cluster_lb_context_get_downstream_headers(self.raw, headers.as_mut_ptr().cast())
                or false
        )
        .then_some(headers)
    }

    fn get_downstream_header(&self, key: &str, index: usize) -> Option<(EnvoyBuffer<'_>, usize)> {
        let mut value = EnvoyBuffer::default();
        let mut count = 0;
        call!(
            cluster_lb_context_get_downstream_header(
                self.raw,
                module(key),
                (&raw mut value).cast(),
                index,
                &raw mut count,
            ) or false
        )
        .then_some((value, count))
    }

    fn get_downstream_connection_sni(&self) -> Option<EnvoyBuffer<'_>> {
        read!(cluster_lb_context_get_downstream_connection_sni(self.raw) -> EnvoyBuffer<'_>)
    }

    fn get_override_host(&self) -> Option<(EnvoyBuffer<'_>, bool)> {
        let mut host = EnvoyBuffer::default();
        let mut strict = false;
        call!(
            cluster_lb_context_get_override_host(
                self.raw,
                (&raw mut host).cast(),
                &raw mut strict,
            ) or false
        )
        .then_some((host, strict))
    }

    fn get_filter_state_bytes(&self, key: &[u8]) -> Option<EnvoyBuffer<'_>> {
        read!(cluster_lb_context_get_filter_state_bytes(self.raw, module(key)) -> EnvoyBuffer<'_>)
    }

    fn get_filter_state_typed(&self, key: &[u8]) -> Option<EnvoyBuffer<'_>> {
        read!(cluster_lb_context_get_filter_state_typed(self.raw, module(key)) -> EnvoyBuffer<'_>)
    }

    fn set_filter_state_bytes(&self, key: &[u8], value: &[u8]) -> bool {
        call!(
            cluster_lb_context_set_filter_state_bytes(self.raw, module(key), module(value))
                or false
        )
    }

    fn set_filter_state_typed(&self, key: &[u8], value: &[u8]) -> bool {
        call!(
            cluster_lb_context_set_filter_state_typed(self.raw, module(key), module(value))
                or false
        )
    }

    fn set_dynamic_metadata_number(&self, namespace: &str, key: &str, value: f64) -> bool {
        call!(
            cluster_lb_context_set_dynamic_metadata_number(
                self.raw,
                module(namespace),
                module(key),
                value,
            ) or false
        )
    }

    fn set_dynamic_metadata_string(&self, namespace: &str, key: &str, value: &str) -> bool {
        call!(
            cluster_lb_context_set_dynamic_metadata_string(
                self.raw,
                module(namespace),
                module(key),
                module(value),
            ) or false
        )
    }

    unsafe fn get_host_stat(
        &self,
        host: ClusterHost,
        stat: envoy_dynamic_module_type_host_stat,
    ) -> u64 {
        call!(cluster_lb_context_get_host_stat(self.raw, host, stat as u32) or 0)
    }

    fn should_select_another_host(&self, priority: u32, index: usize) -> bool {
        at_least_1_39()
            && call!(
                cluster_lb_context_should_select_another_host(self.lb, self.raw, priority, index)
                    or false
            )
    }

    fn get_host_selection_retry_count(&self) -> u32 {
        call!(cluster_lb_context_get_host_selection_retry_count(self.raw) or 0)
    }

    fn worker_timer_new(&self) -> Option<Box<dyn EnvoyClusterWorkerTimer>> {
        WorkerTimer::new(self.lb).map(|timer| Box::new(timer) as Box<dyn EnvoyClusterWorkerTimer>)
    }
}

//! The hosts of a cluster as one worker sees them.
//!
//! On 1.38 every method answers as if there were no hosts: there Envoy reads the main thread's set without synchronisation, and
//! crashes when hosts change under load.

use std::ffi::c_void;

use crate::abi::*;
use crate::buffer::{EnvoyBuffer, module};
use crate::cluster::ClusterHost;
use crate::host::{call, callbacks, read};
use crate::version::at_least_1_39;

/// The load balancer of one worker. Host indices are within a priority.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[allow(clippy::needless_lifetimes)] // mockall needs the lifetimes of returned references spelt out
pub trait EnvoyClusterLoadBalancer: Send {
    /// The number of healthy hosts.
    fn get_healthy_host_count(&self, priority: u32) -> usize;
    /// The number of hosts.
    fn get_hosts_count(&self, priority: u32) -> usize;
    /// The number of degraded hosts.
    fn get_degraded_hosts_count(&self, priority: u32) -> usize;
    /// The number of priorities.
    fn get_priority_set_size(&self) -> usize;
    /// A healthy host.
    fn get_healthy_host(&self, priority: u32, index: usize) -> Option<ClusterHost>;
    /// A host.
    fn get_host(&self, priority: u32, index: usize) -> Option<ClusterHost>;
    /// Replaces what is in `hosts` by the healthy hosts; one call on 1.40, one per host before.
    fn get_healthy_hosts(&self, priority: u32, hosts: &mut Vec<ClusterHost>) -> bool;
    /// The host with this address.
    fn find_host_by_address(&self, address: &str) -> Option<ClusterHost>;
    /// A host's address.
    fn get_host_address<'a>(&'a self, priority: u32, index: usize) -> Option<EnvoyBuffer<'a>>;
    /// A host's health.
    fn get_host_health(
        &self,
        priority: u32,
        index: usize,
    ) -> Option<envoy_dynamic_module_type_host_health>;
    /// The health of the host with this address.
    fn get_host_health_by_address(
        &self,
        address: &str,
    ) -> Option<envoy_dynamic_module_type_host_health>;
    /// One of a host's statistics.
    fn get_host_stat(
        &self,
        priority: u32,
        index: usize,
        stat: envoy_dynamic_module_type_host_stat,
    ) -> u64;
    /// A host's region, zone and sub-zone.
    fn get_host_locality<'a>(
        &'a self,
        priority: u32,
        index: usize,
    ) -> Option<(EnvoyBuffer<'a>, EnvoyBuffer<'a>, EnvoyBuffer<'a>)>;
    /// A host's weight.
    fn get_host_weight(&self, priority: u32, index: usize) -> u32;
    /// A string in a host's metadata.
    fn get_host_metadata_string<'a>(
        &'a self,
        priority: u32,
        index: usize,
        filter_name: &str,
        key: &str,
    ) -> Option<EnvoyBuffer<'a>>;
    /// A number in a host's metadata.
    fn get_host_metadata_number(
        &self,
        priority: u32,
        index: usize,
        filter_name: &str,
        key: &str,
    ) -> Option<f64>;
    /// A truth value in a host's metadata.
    fn get_host_metadata_bool(
        &self,
        priority: u32,
        index: usize,
        filter_name: &str,
        key: &str,
    ) -> Option<bool>;
    /// In `on_host_membership_update`: the address of an added or removed host.
    fn get_member_update_host_address<'a>(
        &'a self,
        index: usize,
        is_added: bool,
    ) -> Option<EnvoyBuffer<'a>>;
    /// In `on_host_membership_update`: an added or removed host.
    fn get_member_update_host(&self, index: usize, is_added: bool) -> Option<ClusterHost>;
}

/// A load balancer inside of Envoy.
pub(super) struct EnvoyClusterLoadBalancerImpl {
    raw: *mut c_void,
}

// SAFETY: the pointer is only passed back to Envoy; the value is lent to hooks of the balancer's own worker.
unsafe impl Send for EnvoyClusterLoadBalancerImpl {}

impl EnvoyClusterLoadBalancerImpl {
    /// # Safety
    /// `raw` is the balancer of the running hook, and the value is not kept beyond it.
    pub(super) unsafe fn new(raw: *mut c_void) -> Self {
        Self { raw }
    }
}

/// Evaluates to the second part where hosts must not be read.
macro_rules! hosts {
    ($read:expr, or $refused:expr) => {
        if at_least_1_39() { $read } else { $refused }
    };
}

fn present(host: ClusterHost) -> Option<ClusterHost> {
    (!host.is_null()).then_some(host)
}

impl EnvoyClusterLoadBalancer for EnvoyClusterLoadBalancerImpl {
    fn get_healthy_host_count(&self, priority: u32) -> usize {
        hosts!(call!(cluster_lb_get_healthy_host_count(self.raw, priority) or 0), or 0)
    }

    fn get_hosts_count(&self, priority: u32) -> usize {
        hosts!(call!(cluster_lb_get_hosts_count(self.raw, priority) or 0), or 0)
    }

    fn get_degraded_hosts_count(&self, priority: u32) -> usize {
        hosts!(call!(cluster_lb_get_degraded_hosts_count(self.raw, priority) or 0), or 0)
    }

    fn get_priority_set_size(&self) -> usize {
        hosts!(call!(cluster_lb_get_priority_set_size(self.raw) or 0), or 0)
    }

    fn get_healthy_host(&self, priority: u32, index: usize) -> Option<ClusterHost> {
        hosts!(
            present(call!(
                cluster_lb_get_healthy_host(self.raw, priority, index) or std::ptr::null_mut()
            )),
            or None
        )
    }

    fn get_host(&self, priority: u32, index: usize) -> Option<ClusterHost> {
        hosts!(
            present(call!(
                cluster_lb_get_host(self.raw, priority, index) or std::ptr::null_mut()
            )),
            or None
        )
    }

    fn get_healthy_hosts(&self, priority: u32, hosts: &mut Vec<ClusterHost>) -> bool {
        hosts.clear();
        if !at_least_1_39() {
            return false;
        }
        let count = self.get_healthy_host_count(priority);
        if callbacks().cluster_lb_get_healthy_hosts.is_none() {
            hosts.extend((0..count).filter_map(|index| self.get_healthy_host(priority, index)));
            return true;
        }
        hosts.resize(count, std::ptr::null_mut());
        let mut written = 0;
        let complete = call!(
            cluster_lb_get_healthy_hosts(
                self.raw,
                priority,
                hosts.as_mut_ptr(),
                count,
                &raw mut written,
            ) or false
        );
        hosts.truncate(if complete { written } else { 0 });
        complete
    }

    fn find_host_by_address(&self, address: &str) -> Option<ClusterHost> {
        hosts!(
            present(call!(
                cluster_lb_find_host_by_address(self.raw, module(address))
                    or std::ptr::null_mut()
            )),
            or None
        )
    }

    fn get_host_address(&self, priority: u32, index: usize) -> Option<EnvoyBuffer<'_>> {
        hosts!(
            read!(cluster_lb_get_host_address(self.raw, priority, index) -> EnvoyBuffer<'_>),
            or None
        )
    }

    fn get_host_health(
        &self,
        priority: u32,
        index: usize,
    ) -> Option<envoy_dynamic_module_type_host_health> {
        let raw = hosts!(
            call!(cluster_lb_get_host_health(self.raw, priority, index) or u32::MAX),
            or u32::MAX
        );
        envoy_dynamic_module_type_host_health::from_raw(raw)
    }

    fn get_host_health_by_address(
        &self,
        address: &str,
    ) -> Option<envoy_dynamic_module_type_host_health> {
        let raw = hosts!(
            read!(cluster_lb_get_host_health_by_address(self.raw, module(address)) -> u32),
            or None
        )?;
        envoy_dynamic_module_type_host_health::from_raw(raw)
    }

    fn get_host_stat(
        &self,
        priority: u32,
        index: usize,
        stat: envoy_dynamic_module_type_host_stat,
    ) -> u64 {
        hosts!(
            call!(cluster_lb_get_host_stat(self.raw, priority, index, stat as u32) or 0),
            or 0
        )
    }

    fn get_host_locality(
        &self,
        priority: u32,
        index: usize,
    ) -> Option<(EnvoyBuffer<'_>, EnvoyBuffer<'_>, EnvoyBuffer<'_>)> {
        let mut region = EnvoyBuffer::default();
        let mut zone = EnvoyBuffer::default();
        let mut sub_zone = EnvoyBuffer::default();
        hosts!(
            call!(
                cluster_lb_get_host_locality(
                    self.raw,
                    priority,
                    index,
                    (&raw mut region).cast(),
                    (&raw mut zone).cast(),
                    (&raw mut sub_zone).cast(),
                ) or false
            ),
            or false
        )
        .then_some((region, zone, sub_zone))
    }

    fn get_host_weight(&self, priority: u32, index: usize) -> u32 {
        hosts!(call!(cluster_lb_get_host_weight(self.raw, priority, index) or 0), or 0)
    }

    fn get_host_metadata_string(
        &self,
        priority: u32,
        index: usize,
        filter_name: &str,
        key: &str,
    ) -> Option<EnvoyBuffer<'_>> {
        hosts!(
            read!(cluster_lb_get_host_metadata_string(
                self.raw, priority, index, module(filter_name), module(key)
            ) -> EnvoyBuffer<'_>),
            or None
        )
    }

    fn get_host_metadata_number(
        &self,
        priority: u32,
        index: usize,
        filter_name: &str,
        key: &str,
    ) -> Option<f64> {
        hosts!(
            read!(cluster_lb_get_host_metadata_number(
                self.raw, priority, index, module(filter_name), module(key)
            ) -> f64),
            or None
        )
    }

    fn get_host_metadata_bool(
        &self,
        priority: u32,
        index: usize,
        filter_name: &str,
        key: &str,
    ) -> Option<bool> {
        hosts!(
            read!(cluster_lb_get_host_metadata_bool(
                self.raw, priority, index, module(filter_name), module(key)
            ) -> bool),
            or None
        )
    }

    fn get_member_update_host_address(
        &self,
        index: usize,
        is_added: bool,
    ) -> Option<EnvoyBuffer<'_>> {
        hosts!(
            read!(cluster_lb_get_member_update_host_address(self.raw, index, is_added) -> EnvoyBuffer<'_>),
            or None
        )
    }

    fn get_member_update_host(&self, index: usize, is_added: bool) -> Option<ClusterHost> {
        hosts!(
            present(call!(
                cluster_lb_get_member_update_host(self.raw, index, is_added)
                    or std::ptr::null_mut()
            )),
            or None
        )
    }
}

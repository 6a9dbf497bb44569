//! The cluster as Envoy shows it, on the main thread.
//!
//! Adding hosts has a trap per release: a known address is added a second time on 1.38, and on 1.39 the pointers of the new
//! hosts come packed at the front. The wrapper makes one rule of it: known addresses and repetitions are left out before the
//! call, and only new hosts come back.

use std::collections::HashSet;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::abi::*;
use crate::buffer::{EnvoyBuffer, module};
use crate::callout::{CalloutInit, Headers, one_shot};
use crate::cluster::ClusterHost;
use crate::cluster::scheduler::{EnvoyClusterScheduler, for_cluster};
use crate::host::{call, callbacks};

/// A cluster of the module's own. Every method belongs to the main thread.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[allow(clippy::needless_lifetimes)] // mockall needs the lifetimes of nested references spelt out
pub trait EnvoyCluster: Send + Sync {
    /// Adds hosts (`ip:port` or `[ip]:port`, not names) with weights of 1 to 128.
    ///
    /// Returns the hosts that are new, which are fewer than `addresses` when some were there: find the others, and which is
    /// which, with [`find_host_by_address`](Self::find_host_by_address). `None`: nothing was added, because one of the
    /// addresses or weights is not valid.
    fn add_hosts(&self, addresses: &[String], weights: &[u32]) -> Option<Vec<ClusterHost>>;
    /// As `add_hosts`, at a priority.
    fn add_hosts_to_priority(
        &self,
        priority: u32,
        addresses: &[String],
        weights: &[u32],
    ) -> Option<Vec<ClusterHost>>;
    /// As `add_hosts`, with (region, zone, sub-zone) and metadata (filter, key, value) of each host. Every host must have
    /// the same number of metadata triples.
    fn add_hosts_with_locality(
        &self,
        addresses: &[String],
        weights: &[u32],
        localities: &[(String, String, String)],
        metadata: &[Vec<(String, String, String)>],
    ) -> Option<Vec<ClusterHost>>;
    /// As `add_hosts`, with a host name per address for SNI and certificate checks. `None` before 1.40.
    fn add_hosts_with_hostnames(
        &self,
        addresses: &[String],
        hostnames: &[String],
        weights: &[u32],
    ) -> Option<Vec<ClusterHost>>;
    /// Removes hosts; requests in flight finish. Returns how many were there. Take a host out of every table that
    /// `choose_host` reads first.
    fn remove_hosts(&self, hosts: &[ClusterHost]) -> usize;
    /// Sets a host's health.
    fn update_host_health(
        &self,
        host: ClusterHost,
        health: envoy_dynamic_module_type_host_health,
    ) -> bool;
    /// The host with this address.
    fn find_host_by_address(&self, address: &str) -> Option<ClusterHost>;
    /// Tells Envoy that the cluster can be used.
    fn pre_init_complete(&self);
    /// The cluster's name; empty before 1.39.
    fn get_cluster_name(&self) -> String;
    /// A handle that wakes this cluster from any thread. Make it in `on_init` or later: one that is made in `new_cluster`
    /// wakes nobody (seen on 1.38).
    fn new_scheduler(&self) -> Box<dyn EnvoyClusterScheduler>;
    /// Has `on_worker_event` called on each worker. Does nothing before 1.39.
    fn run_on_all_workers(&self, event_id: u64);
    /// Makes a request; `headers` hold `:method`, `:path` and `host`.
    fn send_http_callout<'a>(
        &self,
        cluster_name: &str,
        headers: &'a [(&'a str, &'a [u8])],
        body: Option<&'a [u8]>,
        timeout_milliseconds: u64,
    ) -> CalloutInit;
}

/// A cluster inside of Envoy.
pub(super) struct EnvoyClusterImpl {
    raw: *mut c_void,
    /// While the cluster's `on_init` has it borrowed: whether `pre_init_complete` was called, which makes Envoy come back
    /// for load balancers.
    initialised: Option<AtomicBool>,
}

// SAFETY: the pointer is only passed back to Envoy; that its methods belong to the main thread is the trait's contract.
unsafe impl Send for EnvoyClusterImpl {}
// SAFETY: as above.
unsafe impl Sync for EnvoyClusterImpl {}

/// The lists that go with the addresses, each empty (none) or as long.
#[derive(Clone, Copy, Default)]
struct Extras<'a> {
    hostnames: Option<&'a [String]>,
    localities: &'a [(String, String, String)],
    metadata: &'a [Vec<(String, String, String)>],
}

impl EnvoyClusterImpl {
    /// # Safety
    /// `raw` is the cluster of the running hook, and the value is not kept beyond it.
    pub(super) unsafe fn new(raw: *mut c_void) -> Self {
        Self { raw, initialised: None }
    }

    /// As `new`, holding `pre_init_complete` back until `release`.
    ///
    /// # Safety
    /// As for `new`.
    pub(super) unsafe fn held(raw: *mut c_void) -> Self {
        Self { raw, initialised: Some(AtomicBool::new(false)) }
    }

    /// Makes the call that was held back.
    pub(super) fn release(self) {
        if self.initialised.is_some_and(AtomicBool::into_inner) {
            call!(cluster_pre_init_complete(self.raw) or ());
        }
    }

    fn add(
        &self,
        priority: u32,
        addresses: &[String],
        weights: &[u32],
        extras: Extras<'_>,
    ) -> Option<Vec<ClusterHost>> {
        let count = addresses.len();
        let fits = |length: usize| length == 0 || length == count;
        let triples = extras.metadata.first().map_or(0, Vec::len);
        let valid = weights.len() == count
            && weights.iter().all(|weight| (1..=128).contains(weight))
            && extras.hostnames.is_none_or(|hostnames| hostnames.len() == count)
            && fits(extras.localities.len())
            && fits(extras.metadata.len())
            && extras.metadata.iter().all(|host| host.len() == triples);
        if !valid {
            return None;
        }

        let mut seen = HashSet::new();
        let new: Vec<usize> = (0..count)
            .filter(|&index| {
                let address = addresses[index].as_str();
                seen.insert(address) && self.find_host_by_address(address).is_none()
            })
            .collect();
        if new.is_empty() {
            return Some(Vec::new());
        }

        let lend = |texts: &[String]| -> Vec<_> {
            new.iter().map(|&index| module(&texts[index])).collect()
        };
        let locality = |part: fn(&(String, String, String)) -> &String| -> Vec<_> {
            new.iter()
                .map(|&index| module(extras.localities.get(index).map_or("", |l| part(l))))
                .collect()
        };
        let names = lend(addresses);
        let weights: Vec<u32> = new.iter().map(|&index| weights[index]).collect();
        let (regions, zones, sub_zones) =
            (locality(|l| &l.0), locality(|l| &l.1), locality(|l| &l.2));
        let metadata: Vec<_> = new
            .iter()
            .filter_map(|&index| extras.metadata.get(index))
            .flatten()
            .flat_map(|(filter, key, value)| [module(filter), module(key), module(value)])
            .collect();
        let first_triple = if metadata.is_empty() { std::ptr::null() } else { metadata.as_ptr() };
        let mut hosts: Vec<ClusterHost> = vec![std::ptr::null_mut(); new.len()];

        let added = match extras.hostnames {
            None => call!(
                cluster_add_hosts(
                    self.raw,
                    priority,
                    names.as_ptr(),
                    weights.as_ptr(),
                    regions.as_ptr(),
                    zones.as_ptr(),
                    sub_zones.as_ptr(),
                    first_triple,
                    triples,
                    new.len(),
                    hosts.as_mut_ptr(),
                ) or false
            ),
            Some(hostnames) => {
                let hostnames = lend(hostnames);
                call!(
                    cluster_add_hosts_with_hostnames(
                        self.raw,
                        priority,
                        names.as_ptr(),
                        hostnames.as_ptr(),
                        weights.as_ptr(),
                        regions.as_ptr(),
                        zones.as_ptr(),
                        sub_zones.as_ptr(),
                        first_triple,
                        triples,
                        new.len(),
                        hosts.as_mut_ptr(),
                    ) or false
                )
            }
        };
        hosts.retain(|host| !host.is_null());
        added.then_some(hosts)
    }
}

impl EnvoyCluster for EnvoyClusterImpl {
    fn add_hosts(&self, addresses: &[String], weights: &[u32]) -> Option<Vec<ClusterHost>> {
        self.add(0, addresses, weights, Extras::default())
    }

    fn add_hosts_to_priority(
        &self,
        priority: u32,
        addresses: &[String],
        weights: &[u32],
    ) -> Option<Vec<ClusterHost>> {
        self.add(priority, addresses, weights, Extras::default())
    }

    fn add_hosts_with_locality(
        &self,
        addresses: &[String],
        weights: &[u32],
        localities: &[(String, String, String)],
        metadata: &[Vec<(String, String, String)>],
    ) -> Option<Vec<ClusterHost>> {
        self.add(0, addresses, weights, Extras { localities, metadata, ..Extras::default() })
    }

    fn add_hosts_with_hostnames(
        &self,
        addresses: &[String],
        hostnames: &[String],
        weights: &[u32],
    ) -> Option<Vec<ClusterHost>> {
        callbacks().cluster_add_hosts_with_hostnames?;
        self.add(0, addresses, weights, Extras { hostnames: Some(hostnames), ..Extras::default() })
    }

    fn remove_hosts(&self, hosts: &[ClusterHost]) -> usize {
        call!(cluster_remove_hosts(self.raw, hosts.as_ptr(), hosts.len()) or 0)
    }

    fn update_host_health(
        &self,
        host: ClusterHost,
        health: envoy_dynamic_module_type_host_health,
    ) -> bool {
        call!(cluster_update_host_health(self.raw, host, health as u32) or false)
    }

    fn find_host_by_address(&self, address: &str) -> Option<ClusterHost> {
        let host = call!(
            cluster_find_host_by_address(self.raw, module(address)) or std::ptr::null_mut()
        );
        (!host.is_null()).then_some(host)
    }

    fn pre_init_complete(&self) {
        match &self.initialised {
            Some(called) => called.store(true, Ordering::Relaxed),
            None => call!(cluster_pre_init_complete(self.raw) or ()),
        }
    }

    fn get_cluster_name(&self) -> String {
        let mut name = EnvoyBuffer::default();
        call!(cluster_get_name(self.raw, (&raw mut name).cast()) or ());
        String::from_utf8_lossy(name.as_slice()).into_owned()
    }

    fn new_scheduler(&self) -> Box<dyn EnvoyClusterScheduler> {
        Box::new(for_cluster(self.raw))
    }

    fn run_on_all_workers(&self, event_id: u64) {
        call!(cluster_run_on_all_workers(self.raw, event_id) or ());
    }

    fn send_http_callout(
        &self,
        cluster_name: &str,
        headers: Headers<'_>,
        body: Option<&[u8]>,
        timeout_milliseconds: u64,
    ) -> CalloutInit {
        one_shot!(cluster_http_callout, self.raw, cluster_name, headers, body, timeout_milliseconds)
    }
}

//! The `pods` cluster: the pool's endpoints as hosts of Envoy, without EDS.
//!
//! The main thread adds and removes hosts as the topology says. For each attempt of a stream Envoy
//! asks `balancer` for a host; the stream's record knows the order that the decision gave. Connection
//! pools, circuit breaking and per-host statistics are Envoy's own. Health is not asked: which pods
//! may serve is the topology's matter, and a pod that fails costs an attempt, not a request.

mod balancer;
pub mod hosts;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use envoy_proxy_dynamic_modules_rust_sdk::{
    Cluster, ClusterConfig, ClusterLb, CompletionCallback, EnvoyCluster, EnvoyClusterLoadBalancer,
    EnvoyClusterScheduler, envoy_log_warn,
};
use inlane_segment::MAX_SLOTS;

use crate::runtime::{HostOperations, PodsHosts, Runtime, Wake};
use balancer::Balancer;
use hosts::HostPtr;

/// One configuration of the cluster.
#[derive(Debug)]
pub struct PodsConfig {
    runtime: Option<Arc<Runtime>>,
}

impl PodsConfig {
    /// A configuration; without a runtime (validation mode) the cluster stays empty.
    pub fn new(runtime: Option<Arc<Runtime>>) -> Self {
        Self { runtime }
    }
}

impl ClusterConfig for PodsConfig {
    fn new_cluster(&self, _envoy: &dyn EnvoyCluster) -> Box<dyn Cluster> {
        Box::new(Pods { runtime: self.runtime.clone(), hosts: None })
    }
}

struct Scheduler(Box<dyn EnvoyClusterScheduler>);

impl Wake for Scheduler {
    fn wake(&self) {
        self.0.commit(0);
    }
}

/// One cluster.
struct Pods {
    runtime: Option<Arc<Runtime>>,
    /// From initialisation on.
    hosts: Option<Arc<PodsHosts>>,
}

impl Cluster for Pods {
    fn on_init(&mut self, envoy: &dyn EnvoyCluster) {
        if let Some(runtime) = &self.runtime {
            // Not before now: a scheduler that is made earlier wakes nobody.
            let wake = Box::new(Scheduler(envoy.new_scheduler()));
            let hosts = Arc::new(PodsHosts::new(MAX_SLOTS as usize, wake));
            runtime.clusters.attach(&hosts);
            self.hosts = Some(hosts);
        }
        // Hosts come later: an empty pool is answered, not waited for.
        envoy.pre_init_complete();
    }

    fn on_scheduled(&self, envoy: &dyn EnvoyCluster, _event: u64) {
        if let Some(hosts) = &self.hosts {
            hosts.apply(&Operations(envoy));
        }
    }

    fn new_load_balancer(
        &self,
        _envoy: &dyn EnvoyClusterLoadBalancer,
    ) -> Option<Box<dyn ClusterLb>> {
        let attached = self.runtime.clone().zip(self.hosts.clone());
        Some(Box::new(Balancer::new(attached)))
    }

    fn on_shutdown(&self, _envoy: &dyn EnvoyCluster, done: CompletionCallback) {
        done.done();
    }
}

struct Operations<'a>(&'a dyn EnvoyCluster);

impl HostOperations for Operations<'_> {
    fn find_or_add(&self, address: &str) -> Option<HostPtr> {
        // Envoy 1.38 would add a known address a second time, and newer ones return no pointer for
        // it: look before and after.
        if let Some(host) = self.0.find_host_by_address(address) {
            return Some(host);
        }
        if self.0.add_hosts(&[address.to_owned()], &[1]).is_none() {
            envoy_log_warn!("inlane: Envoy does not take {address} as a host");
            return None;
        }
        self.0.find_host_by_address(address)
    }

    fn remove(&self, address: &str) {
        if let Some(host) = self.0.find_host_by_address(address) {
            self.0.remove_hosts(&[host]);
        }
    }
}

//! What a module implements for a cluster.

use crate::abi::envoy_dynamic_module_type_http_callout_result;
use crate::buffer::EnvoyBuffer;
use crate::cluster::{
    ClusterLbContext, EnvoyAsyncHostSelectionComplete, EnvoyCluster, EnvoyClusterLoadBalancer,
    EnvoyClusterWorkerTimer, HostSelectionResult,
};
use crate::completion::CompletionCallback;

/// One configuration of a cluster, on the main thread.
pub trait ClusterConfig: Send + Sync {
    /// Makes the cluster.
    fn new_cluster(&self, envoy_cluster: &dyn EnvoyCluster) -> Box<dyn Cluster>;
}

/// A cluster. Its hooks run on the main thread, except where a worker is named.
#[allow(unused_variables)]
pub trait Cluster: Send + Sync {
    /// The cluster is being initialised: must lead to [`EnvoyCluster::pre_init_complete`], now or later.
    fn on_init(&mut self, envoy_cluster: &dyn EnvoyCluster);

    /// Makes the load balancer of one worker, on that worker (and one on the main thread). `None`: it has no host to offer.
    ///
    /// On 1.38 this happens again at every change of hosts, so keep state in the cluster.
    fn new_load_balancer(
        &self,
        envoy_lb: &dyn EnvoyClusterLoadBalancer,
    ) -> Option<Box<dyn ClusterLb>>;

    /// A scheduler of this cluster was committed with `event_id`.
    fn on_scheduled(&self, envoy_cluster: &dyn EnvoyCluster, event_id: u64) {}

    /// On each worker, after [`EnvoyCluster::run_on_all_workers`] (1.39 and newer).
    fn on_worker_event(&self, envoy_cluster: &dyn EnvoyCluster, event_id: u64) {}

    /// The server is initialised; workers start now.
    fn on_server_initialized(&self, envoy_cluster: &dyn EnvoyCluster) {}

    /// The server has begun to drain.
    fn on_drain_started(&self, envoy_cluster: &dyn EnvoyCluster) {}

    /// The server shuts down and waits for `completion`.
    fn on_shutdown(&self, envoy_cluster: &dyn EnvoyCluster, completion: CompletionCallback) {}

    /// A callout of this cluster has ended. Headers and body are there on success only.
    fn on_http_callout_done(
        &self,
        envoy_cluster: &dyn EnvoyCluster,
        callout_id: u64,
        result: envoy_dynamic_module_type_http_callout_result,
        response_headers: Option<&[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)]>,
        response_body: Option<&[EnvoyBuffer<'_>]>,
    ) {
    }
}

/// The load balancer of one worker. All hooks run on that worker, and none may block.
#[allow(unused_variables)]
pub trait ClusterLb: Send {
    /// Picks the host of one attempt. Called exactly once per attempt, retries included; count the calls per request,
    /// because the attempt header is late and can be forged.
    fn choose_host(
        &mut self,
        context: Option<&dyn ClusterLbContext>,
        async_completion: Box<dyn EnvoyAsyncHostSelectionComplete>,
    ) -> HostSelectionResult;

    /// Addition: as [`choose_host`](Self::choose_host), for a balancer that always answers at once. Asked first; `None`
    /// leaves the answer to `choose_host`, whose completion handle costs an allocation.
    fn choose_host_now(
        &mut self,
        context: Option<&dyn ClusterLbContext>,
    ) -> Option<HostSelectionResult> {
        None
    }

    /// The cluster's hosts have changed, as this worker sees it.
    fn on_host_membership_update(
        &mut self,
        envoy_lb: &dyn EnvoyClusterLoadBalancer,
        num_hosts_added: usize,
        num_hosts_removed: usize,
    ) {
    }

    /// A timer of this worker has run out (1.39 and newer).
    fn on_worker_timer_fired(
        &mut self,
        envoy_lb: &dyn EnvoyClusterLoadBalancer,
        timer: &dyn EnvoyClusterWorkerTimer,
    ) {
    }
}

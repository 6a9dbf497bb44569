//! The cluster extension point: the module owns the hosts and picks among them.
//!
//! A [`ClusterConfig`] makes a [`Cluster`], which lives on the main thread and changes the hosts there; the cluster makes one
//! [`ClusterLb`] per worker, which is asked once per attempt of each request.
//!
//! On 1.38 a worker that reads hosts through Envoy races with the main thread and can crash the process. The wrapper refuses
//! those calls there ([`EnvoyClusterLoadBalancer`]); what is safe in every release is a table of the module's own: the main
//! thread fills it with the pointers that [`EnvoyCluster::find_host_by_address`] returns after adding, `choose_host` reads
//! nothing else, and an entry is cleared, and a grace waited for, before its host is removed.

mod context;
mod envoy_cluster;
pub(crate) mod hooks;
mod lb;
mod metrics;
mod scheduler;
mod selection;
#[cfg(test)]
mod tests;
mod traits;

pub use context::ClusterLbContext;
#[cfg(any(test, feature = "mock"))]
pub use context::MockClusterLbContext;
pub use envoy_cluster::EnvoyCluster;
#[cfg(any(test, feature = "mock"))]
pub use envoy_cluster::MockEnvoyCluster;
pub use lb::EnvoyClusterLoadBalancer;
#[cfg(any(test, feature = "mock"))]
pub use lb::MockEnvoyClusterLoadBalancer;
pub use metrics::EnvoyClusterMetrics;
#[cfg(any(test, feature = "mock"))]
pub use metrics::MockEnvoyClusterMetrics;
#[cfg(any(test, feature = "mock"))]
pub use scheduler::MockEnvoyClusterScheduler;
pub use scheduler::{EnvoyClusterScheduler, EnvoyClusterWorkerTimer};
#[cfg(any(test, feature = "mock"))]
pub use selection::MockEnvoyAsyncHostSelectionComplete;
pub use selection::{
    AsyncHostSelectionHandle, EnvoyAsyncHostSelectionComplete, HostSelectionResult,
};
pub use traits::{Cluster, ClusterConfig, ClusterLb};

pub(crate) use metrics::config_metric_methods;
pub(crate) use scheduler::milliseconds;

/// A host of the cluster, by Envoy's pointer. Envoy checks one that `choose_host` returns against the cluster and answers
/// 503 when it is no longer there; nothing else checks it.
pub type ClusterHost = crate::abi::envoy_dynamic_module_type_cluster_host_envoy_ptr;

//! Who is in the pool.

pub(crate) mod file;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// An endpoint as discovery finds it: no slot yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) namespace: String,
    /// Unique in the namespace.
    pub(crate) name: String,
    /// The pod behind it.
    pub(crate) pod_name: String,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// Index of the target port.
    pub(crate) rank: u32,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where its metrics are, when that is not where requests go.
    pub(crate) metrics: Option<SocketAddr>,
}

impl Member {
    /// `namespace/name`.
    pub(crate) fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

//! What the control plane hands over to the proxy: documents and rows.
//!
//! Documents ([`Topology`], [`ConfigDocument`]) are JSON, read once per generation away from the
//! request path. Rows ([`MetricsRow`]) are eight 64-bit words per endpoint slot that change with
//! every scrape.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::endpoint::{Endpoint, EndpointSet, Slot};

/// Words of a row.
pub const ROW_WORDS: usize = 8;

/// What happens to a request for which no decision can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum FailureMode {
    /// Answer with an error: the default, as in the InferencePool API.
    #[default]
    FailClose,
    /// Send it to any healthy endpoint.
    FailOpen,
}

/// The pool that a segment describes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pool {
    /// Name of the InferencePool, or of the file-discovered pool.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// What the proxy does without a decision.
    #[serde(default)]
    pub failure_mode: FailureMode,
}

/// One endpoint of the topology document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopologyEndpoint {
    /// Namespace; together with the name the identity.
    pub namespace: String,
    /// Name; unique in the namespace.
    pub name: String,
    /// Name of the pod behind it.
    pub pod_name: String,
    /// IP address.
    pub address: String,
    /// Serving port.
    pub port: u16,
    /// Index of the target port.
    #[serde(default)]
    pub rank: u32,
    /// Pod labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Row and ledger index.
    pub slot: u32,
    /// Generation of the slot's tenancy.
    pub slot_generation: u32,
}

impl TopologyEndpoint {
    /// `namespace/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The topology document: who is in the pool.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Topology {
    /// The pool.
    pub pool: Pool,
    /// Its members, in no particular order.
    pub endpoints: Vec<TopologyEndpoint>,
    /// LoRA adapter names; bit `i` of a row's adapter bitmaps stands for entry `i`.
    #[serde(default)]
    pub adapters: Vec<String>,
}

impl Topology {
    /// The endpoint set of this document.
    pub fn endpoint_set(&self, generation: u64) -> EndpointSet {
        let endpoints = self.endpoints.iter().map(|e| Endpoint {
            id: e.id(),
            namespace: e.namespace.clone(),
            name: e.name.clone(),
            pod_name: e.pod_name.clone(),
            address: e.address.clone(),
            port: e.port,
            host_port: Endpoint::join_host_port(&e.address, e.port),
            rank: e.rank,
            labels: e.labels.clone(),
            slot: Slot { index: e.slot, generation: e.slot_generation },
        });
        EndpointSet::new(generation, endpoints.collect()).with_adapters(self.adapters.clone())
    }
}

/// The configuration document: the user's own bytes, and how to read them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfigDocument {
    /// Where the text came from, for messages; empty for the built-in default.
    pub source: String,
    /// The configuration as the user wrote it; empty = built-in default.
    pub text: String,
    /// Whether plugins of Alpha stability may be used.
    #[serde(default)]
    pub allow_experimental_plugins: bool,
}

/// The scraped numbers of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MetricsRow {
    /// Requests waiting in the engine's queue.
    pub waiting: u32,
    /// Requests running.
    pub running: u32,
    /// KV-cache use, a fraction.
    pub kv_usage: f64,
    /// Boot-time clock in ms at the last scrape that found a value; 0 = never.
    pub scraped_at_ms: u64,
    /// Tokens per engine cache block, 0 = unknown.
    pub cache_block_size: u32,
    /// Engine cache blocks, 0 = unknown.
    pub cache_num_blocks: u32,
    /// Adapters that fit at once, 0 = unknown.
    pub max_active_models: u32,
    /// Adapters running, bits into [`Topology::adapters`].
    pub active_models: u64,
    /// Adapters waiting, bits into [`Topology::adapters`].
    pub waiting_models: u64,
    /// Successful scrapes of this tenancy.
    pub scrapes: u64,
}

impl MetricsRow {
    /// The words of shared memory.
    pub fn to_words(self) -> [u64; ROW_WORDS] {
        let pack = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        [
            pack(self.waiting, self.running),
            self.kv_usage.to_bits(),
            self.scraped_at_ms,
            pack(self.cache_block_size, self.cache_num_blocks),
            u64::from(self.max_active_models),
            self.active_models,
            self.waiting_models,
            self.scrapes,
        ]
    }

    /// Reads the words of shared memory. A KV usage that is no number counts as 0.
    pub fn from_words(words: &[u64; ROW_WORDS]) -> Self {
        let kv_usage = f64::from_bits(words[1]);
        Self {
            waiting: words[0] as u32,
            running: (words[0] >> 32) as u32,
            kv_usage: if kv_usage.is_finite() { kv_usage } else { 0.0 },
            scraped_at_ms: words[2],
            cache_block_size: words[3] as u32,
            cache_num_blocks: (words[3] >> 32) as u32,
            max_active_models: words[4] as u32,
            active_models: words[5],
            waiting_models: words[6],
            scrapes: words[7],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_the_words() {
        let row = MetricsRow {
            waiting: 3,
            running: u32::MAX,
            kv_usage: 0.25,
            scraped_at_ms: 1 << 40,
            cache_block_size: 16,
            cache_num_blocks: 7_000,
            max_active_models: 4,
            active_models: 5,
            waiting_models: 1 << 63,
            scrapes: 9,
        };
        assert_eq!(MetricsRow::from_words(&row.to_words()), row);
        let mut words = row.to_words();
        words[1] = f64::NAN.to_bits();
        assert_eq!(MetricsRow::from_words(&words).kv_usage, 0.0);
    }
}

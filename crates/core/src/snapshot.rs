//! What the control plane hands over to the proxy: documents and rows.
//!
//! Documents ([`Topology`], [`ConfigDocument`]) are JSON, read once per generation away from the
//! request path. Rows ([`MetricsRow`]) are 24 64-bit words per endpoint slot that change with
//! every scrape.
//!
//! ```text
//! word 0  waiting, running      4  models that fit (16 bits), models loaded (16), scrapes (32)
//!      1  KV-cache use, f64     5  adapters running, as bits
//!      2  time of the scrape    6  adapters waiting, as bits
//!      3  block size, blocks    7  models served, as bits
//! 8..16   custom metrics: f64, each exclusive-ored with NaN, so that a row of zeros has none
//! 16, 17  prompt tokens looked up in the prefix cache, and found; 18..24 are zero
//! ```
//!
//! The first eight words are a cache line of their own: who needs no custom metric reads these alone
//! ([`MetricsRow::from_prefix`]). No decision reads the last eight: a row of [`ROW_SCALARS`] words, as
//! older control planes write them, is complete for one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::columns::Scalar;
use crate::config::LoadedConfig;
use crate::endpoint::{Endpoint, EndpointSet, Slot};
use crate::registry::DataKey;

/// Words of a row.
pub const ROW_WORDS: usize = 24;

/// Words of a row that decisions read.
pub const ROW_SCALARS: usize = ROW_PREFIX + MAX_SCALARS;

/// Words of a row without its custom metrics.
pub const ROW_PREFIX: usize = 8;

/// Custom metrics that a row has room for.
pub const MAX_SCALARS: usize = 8;

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
    /// Names of LoRA adapters and models; bit `i` of a row's bitmaps stands for entry `i`.
    #[serde(default)]
    pub adapters: Vec<String>,
    /// Custom metrics; scalar `i` of a row is that of entry `i`. An entry with an empty name is
    /// a place that is not in use.
    #[serde(default)]
    pub scalars: Vec<ScalarKey>,
}

impl Topology {
    /// The document of an endpoint set; what a set does not know of its pool is left out.
    pub fn of(set: &EndpointSet) -> Self {
        let endpoints = set.as_slice().iter().map(|e| TopologyEndpoint {
            namespace: e.namespace.clone(),
            name: e.name.clone(),
            pod_name: e.pod_name.clone(),
            address: e.address.clone(),
            port: e.port,
            rank: e.rank,
            labels: e.labels.clone(),
            slot: e.slot.index,
            slot_generation: e.slot.generation,
        });
        Self {
            endpoints: endpoints.collect(),
            adapters: set.adapters().to_vec(),
            scalars: set.scalars().to_vec(),
            ..Self::default()
        }
    }

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
        EndpointSet::new(generation, endpoints.collect())
            .with_adapters(self.adapters.clone())
            .with_scalars(self.scalars.clone())
    }
}

/// Names a custom metric.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ScalarKey {
    /// The metric.
    pub name: String,
    /// Instance that takes it out of what a source delivers.
    pub producer: String,
}

impl ScalarKey {
    /// Whether this is what `key` means: a key without a producer means whoever reports it.
    pub fn answers(&self, key: &DataKey) -> bool {
        self.name == key.name && (key.producer.is_empty() || key.producer == self.producer)
    }

    /// The custom metrics that have to travel: those that a source of the data layer delivers and
    /// some plugin reads, in the order of the sources.
    ///
    /// # Errors
    /// More than [`MAX_SCALARS`], by name.
    pub fn of(config: &LoadedConfig) -> Result<Vec<Self>, String> {
        let sources = config.data_layer.sources.iter();
        let reporters = sources.flat_map(|s| [s.plugin].into_iter().chain(s.extractors.clone()));
        let mut keys: Vec<Self> = Vec::new();
        for reporter in reporters.filter_map(|plugin| config.plugin(plugin)) {
            for name in &reporter.data.reports {
                let key = Self { name: name.clone(), producer: reporter.name.clone() };
                let read = config.schema.keys::<Scalar>().any(|(wanted, _)| key.answers(wanted));
                if read && !keys.contains(&key) {
                    keys.push(key);
                }
            }
        }
        if keys.len() > MAX_SCALARS {
            let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
            return Err(format!(
                "dataLayer.sources: plugins read {} custom metrics ({}), expected at most \
                 {MAX_SCALARS}",
                keys.len(),
                names.join(", ")
            ));
        }
        Ok(keys)
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

/// With what parameters the keys of the block table in a segment were made: a prompt hashed
/// otherwise finds nothing there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IndexDocument {
    /// Tokens per block.
    pub block_tokens: u32,
    /// How keys are made: `cbor-fnv` or `xxh64`.
    pub algorithm: String,
    /// Seed of the keys.
    pub seed: String,
    /// Names of the tiers, by number.
    pub tiers: Vec<String>,
}

/// The scraped numbers of one endpoint. Two are equal when their words are.
#[derive(Debug, Clone, Copy)]
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
    /// Adapters that fit at once, 0 = unknown. More than 65,535 travel as that.
    pub max_active_models: u32,
    /// Adapters running plus adapters waiting, those without a bit included. More than 65,535
    /// travel as that.
    pub loaded_models: u32,
    /// Adapters running, bits into [`Topology::adapters`].
    pub active_models: u64,
    /// Adapters waiting, bits into [`Topology::adapters`].
    pub waiting_models: u64,
    /// Models that the engine says it serves, bits into [`Topology::adapters`].
    pub served_models: u64,
    /// Successful scrapes of this tenancy; travels modulo 2^32.
    pub scrapes: u64,
    /// Custom metrics, in the order of [`Topology::scalars`]; NaN = absent.
    pub scalars: [f64; MAX_SCALARS],
    /// What the engine has counted about its prefix cache.
    pub cache: CacheCounters,
}

/// What an engine has counted about its prefix cache since it started, in tokens of prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheCounters {
    /// Looked up; 0 = none, or the engine does not say.
    pub queries: u64,
    /// Of those, found.
    pub hits: u64,
}

impl Default for MetricsRow {
    /// The row of an endpoint that nothing is known of: all words are zero.
    fn default() -> Self {
        Self::from_words(&[0; ROW_WORDS])
    }
}

impl PartialEq for MetricsRow {
    fn eq(&self, other: &Self) -> bool {
        self.to_words() == other.to_words()
    }
}

impl MetricsRow {
    /// The words of shared memory.
    pub fn to_words(self) -> [u64; ROW_WORDS] {
        let pack = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let short = |count: u32| count.min(u16::MAX.into());
        let models = short(self.max_active_models) | short(self.loaded_models) << 16;
        let mut words = [0; ROW_WORDS];
        words[..ROW_PREFIX].copy_from_slice(&[
            pack(self.waiting, self.running),
            self.kv_usage.to_bits(),
            self.scraped_at_ms,
            pack(self.cache_block_size, self.cache_num_blocks),
            // The count of scrapes goes round.
            pack(models, self.scrapes as u32),
            self.active_models,
            self.waiting_models,
            self.served_models,
        ]);
        for (word, scalar) in words[ROW_PREFIX..].iter_mut().zip(self.scalars) {
            *word = if scalar.is_finite() { scalar.to_bits() ^ ABSENT } else { 0 };
        }
        words[ROW_SCALARS] = self.cache.queries;
        words[ROW_SCALARS + 1] = self.cache.hits;
        words
    }

    /// Reads the words of shared memory. A KV usage that is no number counts as 0, a custom metric
    /// that is none as absent.
    pub fn from_words(words: &[u64; ROW_WORDS]) -> Self {
        let mut prefix = [0; ROW_PREFIX];
        prefix.copy_from_slice(&words[..ROW_PREFIX]);
        let mut row = Self::from_prefix(&prefix);
        for (scalar, word) in row.scalars.iter_mut().zip(&words[ROW_PREFIX..]) {
            let value = f64::from_bits(word ^ ABSENT);
            *scalar = if value.is_finite() { value } else { f64::NAN };
        }
        row.cache = CacheCounters { queries: words[ROW_SCALARS], hits: words[ROW_SCALARS + 1] };
        row
    }

    /// Reads the first words of shared memory: a row whose custom metrics and counters are absent.
    #[inline]
    pub fn from_prefix(words: &[u64; ROW_PREFIX]) -> Self {
        let kv_usage = f64::from_bits(words[1]);
        let models = words[4] as u32;
        Self {
            waiting: words[0] as u32,
            running: (words[0] >> 32) as u32,
            kv_usage: if kv_usage.is_finite() { kv_usage } else { 0.0 },
            scraped_at_ms: words[2],
            cache_block_size: words[3] as u32,
            cache_num_blocks: (words[3] >> 32) as u32,
            max_active_models: models & u32::from(u16::MAX),
            loaded_models: models >> 16,
            active_models: words[5],
            waiting_models: words[6],
            served_models: words[7],
            scrapes: words[4] >> 32,
            scalars: [f64::NAN; MAX_SCALARS],
            cache: CacheCounters::default(),
        }
    }
}

/// The bits of an absent custom metric.
const ABSENT: u64 = f64::NAN.to_bits();

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> MetricsRow {
        let mut scalars = [f64::NAN; MAX_SCALARS];
        (scalars[0], scalars[1], scalars[7]) = (0.0, -2.5, f64::MAX);
        MetricsRow {
            waiting: 3,
            running: u32::MAX,
            kv_usage: 0.25,
            scraped_at_ms: 1 << 40,
            cache_block_size: 16,
            cache_num_blocks: 7_000,
            max_active_models: 4,
            loaded_models: 65_535,
            active_models: 5,
            waiting_models: 1 << 63,
            served_models: u64::MAX,
            scrapes: u32::MAX.into(),
            scalars,
            cache: CacheCounters { queries: u64::MAX, hits: 3 },
        }
    }

    #[test]
    fn rows_survive_the_words() {
        let (row, mut words) = (row(), row().to_words());
        let back = MetricsRow::from_words(&words);
        assert_eq!(back, row);
        assert_eq!((back.loaded_models, back.max_active_models), (65_535, 4));
        assert_eq!(back.scalars[..2], [0.0, -2.5]);
        assert!(back.scalars[2..7].iter().all(|scalar| scalar.is_nan()));
        words[1] = f64::NAN.to_bits();
        assert_eq!(MetricsRow::from_words(&words).kv_usage, 0.0);
    }

    #[test]
    fn a_row_of_zeros_is_one_that_knows_nothing() {
        let row = MetricsRow::default();
        assert_eq!(row.to_words(), [0; ROW_WORDS]);
        assert!(row.scalars.iter().all(|scalar| scalar.is_nan()));
    }

    #[test]
    fn a_custom_metric_that_is_no_number_is_absent() {
        for value in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let words = MetricsRow { scalars: [value; MAX_SCALARS], ..row() }.to_words();
            assert_eq!(words[ROW_PREFIX..ROW_SCALARS], [0; MAX_SCALARS]);
            let mut forged = words;
            forged[ROW_PREFIX] = value.to_bits() ^ ABSENT;
            assert!(MetricsRow::from_words(&forged).scalars[0].is_nan());
        }
    }

    #[test]
    fn the_first_words_are_a_row_without_custom_metrics() {
        let words = row().to_words();
        let prefix = MetricsRow::from_prefix(words.first_chunk().unwrap());
        let cache = CacheCounters::default();
        assert_eq!(prefix, MetricsRow { scalars: [f64::NAN; MAX_SCALARS], cache, ..row() });
    }

    #[test]
    fn counts_that_do_not_fit_are_cut() {
        let large = MetricsRow { max_active_models: 70_000, loaded_models: 1 << 31, ..row() };
        let back = MetricsRow::from_words(&large.to_words());
        assert_eq!((back.max_active_models, back.loaded_models), (65_535, 65_535));
        let late = MetricsRow { scrapes: 1 << 32 | 7, ..row() };
        assert_eq!(MetricsRow::from_words(&late.to_words()).scrapes, 7);
    }

    #[test]
    fn a_key_without_a_producer_means_whoever_reports_it() {
        let scalar = ScalarKey { name: "m".into(), producer: "p".into() };
        let key = |name: &'static str, producer: &str| DataKey {
            name: name.into(),
            producer: producer.into(),
        };
        assert!(scalar.answers(&key("m", "")) && scalar.answers(&key("m", "p")));
        assert!(!scalar.answers(&key("m", "q")) && !scalar.answers(&key("n", "")));
        assert!(!ScalarKey::default().answers(&key("m", "")));
    }

    #[test]
    fn older_topologies_have_no_custom_metrics() {
        let text = r#"{"pool": {"name": "", "namespace": ""}, "endpoints": []}"#;
        let topology: Topology = serde_json::from_str(text).unwrap();
        assert_eq!(topology, Topology::default());
    }
}

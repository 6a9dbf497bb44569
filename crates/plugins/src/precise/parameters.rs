//! The parameters of `precise-prefix-cache-producer`.

use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use inlane_core::config::GoDuration;
use inlane_core::registry::{Build, BuildError};
use inlane_kv::keys::Algorithm;
use serde::{Deserialize, Deserializer};

use super::keying::Keying;
use super::score::TierWeights;

const DEFAULT_BLOCK_TOKENS: i64 = 16;
const DEFAULT_SPECULATIVE_TTL: Duration = Duration::from_secs(2);

/// How block keys are made.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum HashAlgorithm {
    /// FNV-1a over CBOR.
    #[default]
    #[serde(rename = "cbor-fnv")]
    CborFnv,
    /// xxh64.
    #[serde(rename = "xxh64")]
    Xxh64,
}

impl HashAlgorithm {
    /// The name in configurations.
    pub fn name(self) -> &'static str {
        Algorithm::from(self).name()
    }
}

impl From<HashAlgorithm> for Algorithm {
    fn from(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::CborFnv => Self::CborFnv,
            HashAlgorithm::Xxh64 => Self::Xxh64,
        }
    }
}

/// Whose events are read.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineType {
    /// vLLM.
    #[default]
    Vllm,
    /// SGLang.
    Sglang,
}

/// The parameters as written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    /// How prompts become blocks.
    pub token_processor_config: TokenProcessor,
    /// The index.
    pub indexer_config: Indexer,
    /// The events that fill it.
    pub kv_events_config: KvEvents,
    /// Whether blocks are expected where a request went.
    pub speculative_indexing: bool,
    /// For how long, a Go duration.
    #[serde(rename = "speculativeTTL")]
    speculative_ttl: String,
}

/// How prompts become blocks.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct TokenProcessor {
    block_size_tokens: i64,
    block_size: i64,
    /// Seed of the keys.
    pub hash_seed: String,
    /// How keys are made.
    pub hash_algorithm: HashAlgorithm,
}

/// The index.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Indexer {
    /// Where it is kept.
    pub kv_block_index_config: BlockIndex,
    /// Weights of the tiers; absent = the default.
    kv_cache_backend_configs: Option<Vec<Backend>>,
    tokenizers_pool_config: Option<serde_yaml::Value>,
}

/// Where the index is kept.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct BlockIndex {
    /// In memory.
    pub in_memory_config: Option<InMemory>,
    /// In memory, bounded in bytes.
    pub cost_aware_memory_config: Option<CostAware>,
    /// In Redis or Valkey.
    pub redis_config: Option<Redis>,
    /// Whether the index counts what it does.
    pub enable_metrics: bool,
    /// How often it logs that, in ns; 0 = never.
    pub metrics_logging_interval: i64,
}

impl BlockIndex {
    /// The index in Redis, unless the one that the Go scheduler prefers is there too.
    pub fn redis(&self) -> Option<&Redis> {
        self.redis_config.as_ref().filter(|_| self.cost_aware_memory_config.is_none())
    }
}

/// An index in memory.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct InMemory {
    /// Keys.
    pub size: i64,
    /// Entries per key.
    pub pod_cache_size: i64,
}

impl Default for InMemory {
    fn default() -> Self {
        Self { size: 100_000_000, pod_cache_size: 10 }
    }
}

/// An index in memory, bounded in bytes.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct CostAware {
    /// Bytes, `MB` or `MiB`.
    pub size: String,
}

impl Default for CostAware {
    fn default() -> Self {
        Self { size: "2GiB".into() }
    }
}

/// An index in Redis or Valkey.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Redis {
    /// Where the server is: see [`check`](Self::check).
    pub address: String,
}

impl Redis {
    /// Checks the form of the address: `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, the same with
    /// `valkey://` or without a scheme, `unix:///PATH[?db=DATABASE]`, or nothing for the default.
    ///
    /// # Errors
    /// Why it is none of these, and what would be.
    pub fn check(&self) -> Result<(), String> {
        const EXPECTED: &str = "expected redis://, valkey://, unix:// or HOST:PORT";
        let text = self.address.as_str();
        let wrong = |what: &str| Err(format!("{what}: {EXPECTED}"));
        if text.is_empty() {
            return Ok(());
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("redis", text));
        match scheme {
            "rediss" | "valkeys" => {
                return wrong(&format!(
                    "{scheme}:// is not supported, this build speaks to Redis without TLS"
                ));
            }
            "unix" => {
                let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                let database = pairs.find(|(name, _)| *name == "db").map_or("0", |pair| pair.1);
                return match database.parse::<i64>() {
                    _ if !path.starts_with('/') => wrong("a socket's path begins with /"),
                    Err(_) => wrong(&format!("{database:?} is no number of a database")),
                    Ok(_) => Ok(()),
                };
            }
            "redis" | "valkey" => {}
            _ => return wrong(&format!("{scheme}:// is not known")),
        }
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let database = database.trim_matches('/');
        if !database.is_empty() && database.parse::<i64>().is_err() {
            return wrong(&format!("{database:?} is no number of a database"));
        }
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let (host, port) = match place.strip_prefix('[').and_then(|place| place.split_once(']')) {
            Some((host, after)) if host.parse::<Ipv6Addr>().is_ok() => {
                (host, after.strip_prefix(':').or(after.is_empty().then_some("")))
            }
            Some(_) => ("", None),
            None => {
                place.split_once(':').map_or((place, Some("")), |(host, port)| (host, Some(port)))
            }
        };
        let is_port = |port: &str| port.is_empty() || port.parse::<u16>().is_ok();
        let is_strange = |c: char| c.is_whitespace() || c.is_control() || "<>\\^|[]%".contains(c);
        if host.is_empty() || host.contains(is_strange) {
            return wrong("there is no host");
        }
        if matches!(host, "0.0.0.0" | "::") {
            return wrong("no server can be reached at an address that stands for all");
        }
        match port {
            Some(port) if is_port(port) => Ok(()),
            _ => wrong("the port is none"),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Backend {
    name: String,
    weight: f64,
}

/// The events that fill the index.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct KvEvents {
    /// One endpoint that all engines publish to; empty = none.
    pub zmq_endpoint: String,
    /// Topics to subscribe to, by prefix.
    pub topic_filter: String,
    /// Threads.
    pub concurrency: i64,
    /// Whose events.
    pub engine_type: EngineType,
    /// Whether each endpoint is subscribed to.
    pub discover_pods: bool,
    /// How; `None` = not at all.
    #[serde(deserialize_with = "nullable")]
    pub pod_discovery_config: Option<PodDiscovery>,
}

impl Default for KvEvents {
    fn default() -> Self {
        Self {
            zmq_endpoint: String::new(),
            topic_filter: "kv@".into(),
            concurrency: 4,
            engine_type: EngineType::Vllm,
            discover_pods: true,
            pod_discovery_config: Some(PodDiscovery::default()),
        }
    }
}

/// An explicit null is no discovery; an absent field is the default.
fn nullable<'de, D: Deserializer<'de>>(value: D) -> Result<Option<PodDiscovery>, D::Error> {
    Option::deserialize(value)
}

/// How endpoints are subscribed to.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct PodDiscovery {
    /// Without effect: the pool's endpoints are followed.
    pub pod_label_selector: String,
    /// Without effect, likewise.
    pub pod_namespace: String,
    /// Port of the events of rank 0.
    pub socket_port: i64,
    /// Port of the replay of rank 0.
    pub replay_socket_port: Option<i64>,
}

impl Default for PodDiscovery {
    fn default() -> Self {
        Self {
            pod_label_selector: "llm-d.ai/inference-serving=true".into(),
            pod_namespace: String::new(),
            socket_port: 5_557,
            replay_socket_port: None,
        }
    }
}

impl Parameters {
    /// Checks what decoding cannot.
    ///
    /// # Errors
    /// The field that is not as it should be. `tokenizersPoolConfig` is one of them unless
    /// `tokenizers_allowed`.
    pub fn check(&self, build: &mut Build<'_>, tokenizers_allowed: bool) -> Result<(), BuildError> {
        let (indexer, events) = (&self.indexer_config, &self.kv_events_config);
        self.block_tokens()?;
        self.speculative_ttl()?;
        if indexer.tokenizers_pool_config.is_some() {
            let field = "indexerConfig.tokenizersPoolConfig";
            if !tokenizers_allowed {
                return Err(BuildError::field(field, "is not supported, use a token-producer"));
            }
            build.warn(format!("{field} is deprecated, use a token-producer"));
        }
        let index = &indexer.kv_block_index_config;
        let place = "indexerConfig.kvBlockIndexConfig";
        if let Some(memory) = &index.in_memory_config {
            positive(&format!("{place}.inMemoryConfig.size"), memory.size)?;
            positive(&format!("{place}.inMemoryConfig.podCacheSize"), memory.pod_cache_size)?;
        }
        if let Some(CostAware { size }) = &index.cost_aware_memory_config
            && bytes(size).is_none_or(|bytes| bytes == 0)
        {
            let message = format!("expected a size such as 2GiB, found {size:?}");
            return Err(BuildError::field(format!("{place}.costAwareMemoryConfig.size"), message));
        }
        if let Some(redis) = index.redis() {
            redis.check().map_err(|message| {
                BuildError::field(format!("{place}.redisConfig.address"), message)
            })?;
        }
        for (backend, at) in indexer.kv_cache_backend_configs.iter().flatten().zip(0..) {
            let field = format!("indexerConfig.kvCacheBackendConfigs[{at}]");
            if backend.name.is_empty() {
                return Err(BuildError::field(format!("{field}.name"), "must not be empty"));
            }
            if !backend.weight.is_finite() {
                return Err(BuildError::field(format!("{field}.weight"), "expected a number"));
            }
        }
        positive("kvEventsConfig.concurrency", events.concurrency)?;
        if let Some(pods) = &events.pod_discovery_config {
            let place = "kvEventsConfig.podDiscoveryConfig";
            port(&format!("{place}.socketPort"), pods.socket_port)?;
            if let Some(replay) = pods.replay_socket_port.filter(|&port| port > 0) {
                port(&format!("{place}.replaySocketPort"), replay)?;
            }
        }
        Ok(())
    }

    /// Tokens per block.
    ///
    /// # Errors
    /// The number is negative.
    pub fn block_tokens(&self) -> Result<u32, BuildError> {
        let TokenProcessor { block_size_tokens, block_size, .. } = self.token_processor_config;
        let (field, size) = match block_size_tokens {
            0 => ("blockSize", block_size),
            size => ("blockSizeTokens", size),
        };
        let size = if size == 0 { DEFAULT_BLOCK_TOKENS } else { size };
        u32::try_from(size).map_err(|_| {
            let message = format!("expected a number of tokens, found {size}");
            BuildError::field(format!("tokenProcessorConfig.{field}"), message)
        })
    }

    /// How the keys of blocks are made.
    ///
    /// # Errors
    /// The number of tokens per block is negative.
    pub fn keying(&self) -> Result<Keying, BuildError> {
        let block = NonZeroU32::new(self.block_tokens()?).unwrap_or(NonZeroU32::MIN);
        let TokenProcessor { hash_algorithm, hash_seed, .. } = &self.token_processor_config;
        Ok(Keying::new(*hash_algorithm, hash_seed, block))
    }

    /// For how long blocks are expected where a request went.
    ///
    /// # Errors
    /// The text is no duration.
    pub fn speculative_ttl(&self) -> Result<Duration, BuildError> {
        if self.speculative_ttl.is_empty() {
            return Ok(DEFAULT_SPECULATIVE_TTL);
        }
        let Some(ttl) = GoDuration::parse(&self.speculative_ttl) else {
            let message =
                format!("expected a duration such as 2s, found {:?}", self.speculative_ttl);
            return Err(BuildError::field("speculativeTTL", message));
        };
        let positive = !ttl.negative && !ttl.length.is_zero();
        Ok(if positive { ttl.length } else { DEFAULT_SPECULATIVE_TTL })
    }

    /// The weights of the tiers.
    pub fn weights(&self) -> TierWeights {
        match &self.indexer_config.kv_cache_backend_configs {
            None => TierWeights::default(),
            Some(list) => TierWeights::new(list.iter().map(|b| (b.name.clone(), b.weight))),
        }
    }
}

fn positive(field: &str, value: i64) -> Result<(), BuildError> {
    if value > 0 {
        return Ok(());
    }
    Err(BuildError::field(field, format!("expected a positive integer, found {value}")))
}

fn port(field: &str, value: i64) -> Result<(), BuildError> {
    if (1..=65_535).contains(&value) {
        return Ok(());
    }
    Err(BuildError::field(field, format!("expected a port, found {value}")))
}

/// A size in bytes: decimal with `KB`, `MB`, …, binary with `KiB`, `MiB`, ….
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim().to_ascii_lowercase();
    let (base, unit) = match unit.strip_suffix("ib") {
        Some(unit) => (1_024.0_f64, unit),
        None => (1_000.0, unit.strip_suffix('b').unwrap_or(&unit)),
    };
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == unit)?;
    Some((number * base.powi(i32::try_from(power).ok()?)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_or_binary() {
        assert_eq!(bytes("2GiB"), Some(2 << 30));
        assert_eq!(bytes("1.5 KB"), Some(1_500));
        assert_eq!(bytes("700"), Some(700));
        assert_eq!(bytes("5m"), Some(5_000_000));
        for text in ["", "GiB", "2XB", "-1MB", "1.2.3MB"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }
}

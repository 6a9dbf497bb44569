//! The first form of a configuration: environment variables.
//!
//! The first release (v0.1.0) had no file. For each of its plugins `X`, in the profile that serves
//! requests, `ENABLE_X` set to exactly `true` switched it on and `X_WEIGHT` weighed it;
//! `PREFILL_ENABLE_X` and `PREFILL_X_WEIGHT` did the same where prompts are computed apart, which
//! `PD_ENABLED` switched on. Numbers are integers, and one that is none counts as not set.
//!
//! The variables are turned into a document of today's form. What it means there is exact for the
//! role filters, the load-aware and session-aware scorers, the weights and the threshold of
//! disaggregation. Where today has no such plugin the nearest is taken, with a warning.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_yaml::{Mapping, Value};

use super::convert::to_text;
use super::rewrite::{Rewrite, parameters};

/// Bytes of a prompt that no endpoint has, from which on it is computed apart.
const PD_THRESHOLD: i64 = 100;
/// Bytes of a block of the prefix-aware scorer.
const PREFIX_BLOCK: i64 = 256;
/// Bytes of a block, and blocks of a prompt that count, in the gateway extension's prefix scorer.
const GIE_PREFIX_BLOCK: i64 = 64;
const GIE_PREFIX_BLOCKS: i64 = 128;
/// Bounds of the gateway extension's filters: a low queue; room for a request that may be shed.
const LOW_QUEUE: i64 = 128;
const SHEDDABLE_QUEUE: i64 = 5;
const SHEDDABLE_KV_USAGE: f64 = 0.8;

const REDIS: &str = "KVCACHE_INDEXER_REDIS_ADDR";
const PREFILL_REDIS: &str = "PREFILL_KVCACHE_INDEXER_REDIS_ADDR";
const TOKEN: &str = "HF_TOKEN";
const PD_ENABLED: &str = "PD_ENABLED";

const PREFIX_PRODUCER: &str = "approx-prefix-cache-producer";
const PREFIX_SCORER: &str = "prefix-cache-scorer";

/// A configuration made from environment variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FromEnvironment {
    /// The document, in today's form. It may name plugins of Alpha stability and is meant to be
    /// loaded with these allowed: the variables are older than the distinction.
    pub text: String,
    /// The switches that were found, whatever their value.
    pub switches: Vec<String>,
    /// What was asked for and is left out, as the first release left it out; to be logged as
    /// errors.
    pub errors: Vec<String>,
    /// What is not exactly what it was.
    pub warnings: Vec<String>,
}

/// The plugins that the variables name.
#[derive(Debug, Clone, Copy)]
enum Family {
    KvCacheAware,
    LoadAware,
    PrefixAware,
    SessionAware,
    LeastKvCache,
    LeastQueue,
    LoraAffinity,
    LowQueue,
    SheddableCapacity,
    KvCacheUtilization,
    Queue,
    Prefix,
}

const FAMILIES: [(&str, Family); 12] = [
    ("KVCACHE_AWARE_SCORER", Family::KvCacheAware),
    ("LOAD_AWARE_SCORER", Family::LoadAware),
    ("PREFIX_AWARE_SCORER", Family::PrefixAware),
    ("SESSION_AWARE_SCORER", Family::SessionAware),
    ("GIE_LEAST_KVCACHE_FILTER", Family::LeastKvCache),
    ("GIE_LEAST_QUEUE_FILTER", Family::LeastQueue),
    ("GIE_LORA_AFFINITY_FILTER", Family::LoraAffinity),
    ("GIE_LOW_QUEUE_FILTER", Family::LowQueue),
    ("GIE_SHEDDABLE_CAPACITY_FILTER", Family::SheddableCapacity),
    ("GIE_KVCACHE_UTILIZATION_SCORER", Family::KvCacheUtilization),
    ("GIE_QUEUE_SCORER", Family::Queue),
    ("GIE_PREFIX_SCORER", Family::Prefix),
];

/// A document of today's form that means what the variables mean; `None` when none of the
/// switches (`ENABLE_…`, `PREFILL_ENABLE_…`, `PD_ENABLED`) is set, to whatever value.
pub fn from_environment<K, V>(
    variables: impl IntoIterator<Item = (K, V)>,
) -> Option<FromEnvironment>
where
    K: AsRef<str>,
    V: AsRef<str>,
{
    let read = |(name, value): (K, V)| {
        let name = name.as_ref();
        is_read(name).then(|| (name.to_owned(), value.as_ref().to_owned()))
    };
    let variables: BTreeMap<String, String> = variables.into_iter().filter_map(read).collect();
    if !variables.keys().any(|name| is_switch(name)) {
        return None;
    }
    let mut translation = Translation { variables, ..Translation::default() };
    translation.warn(
        "configuration by environment variables is deprecated: `inlane convert --env` prints the \
         file to use instead"
            .to_owned(),
    );
    Some(translation.run())
}

fn is_switch(name: &str) -> bool {
    let of = |name: &str| FAMILIES.iter().any(|(family, _)| name == *family);
    name == PD_ENABLED
        || name.strip_prefix("PREFILL_").unwrap_or(name).strip_prefix("ENABLE_").is_some_and(of)
}

fn is_read(name: &str) -> bool {
    let weight = name.strip_prefix("PREFILL_").unwrap_or(name).strip_suffix("_WEIGHT");
    is_switch(name)
        || weight.is_some_and(|name| FAMILIES.iter().any(|(family, _)| name == *family))
        || SETTINGS.contains(&name)
}

const SETTINGS: [&str; 10] = [
    REDIS,
    PREFILL_REDIS,
    TOKEN,
    "LOAD_AWARE_SCORER_QUEUE_THRESHOLD",
    "PD_PROMPT_LEN_THRESHOLD",
    "PREFIX_CACHE_HASH_BLOCK_SIZE",
    "PREFIX_CACHE_LRU_CAPACITY",
    "PREFIX_CACHE_LRU_CAPACITY_PER_SERVER",
    "PREFIX_CACHE_MAX_PREFIX_BLOCKS",
    "PREFIX_SCORER_BLOCK_SIZE",
];

#[derive(Debug, Default)]
struct Translation {
    variables: BTreeMap<String, String>,
    new: Rewrite,
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Translation {
    fn run(mut self) -> FromEnvironment {
        let disaggregated = self.is_true(PD_ENABLED);
        let names = if disaggregated { ["decode", "prefill"] } else { ["default", ""] };
        self.new.profile(names[0], "");
        self.add("decode-filter", "decode-filter", Mapping::new(), None);
        self.families("");
        if disaggregated {
            // The decider asks how much of the prompt the decode endpoint has.
            if !self.is_true("ENABLE_PREFIX_AWARE_SCORER") {
                self.prefix_aware(Some(0.0));
            }
            self.new.profile(names[1], "");
            let only = parameters([("llm-d.ai/role", "prefill".into())]);
            let selector = parameters([("matchLabels", Value::Mapping(only))]);
            self.add("label-selector-filter", "prefill-filter", selector, None);
            self.families("PREFILL_");
            self.disaggregate();
        } else if self.variables.keys().any(|name| name.starts_with("PREFILL_ENABLE_")) {
            self.warn("PREFILL_ENABLE_… variables have no effect without PD_ENABLED=true".into());
        }
        let mut text = String::from("# Made from environment variables:\n");
        for name in self.variables.keys() {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "#   {name}");
        }
        text += &to_text(&self.new.finish("").value);
        let switches = self.variables.into_keys().filter(|name| is_switch(name)).collect();
        FromEnvironment { text, switches, errors: self.errors, warnings: self.warnings }
    }

    /// The plugins of the profile that was begun last.
    fn families(&mut self, prefix: &str) {
        for (name, family) in FAMILIES {
            if self.is_true(&format!("{prefix}ENABLE_{name}")) {
                let weight = self.integer(&format!("{prefix}{name}_WEIGHT")).unwrap_or(1);
                // Weights beyond 2⁵³ lose digits that no score could show.
                self.family(name, family, Some(weight as f64));
            }
        }
    }

    fn family(&mut self, name: &str, family: Family, weight: Option<f64>) {
        match family {
            Family::KvCacheAware => self.kv_cache_aware(name, weight),
            Family::LoadAware => {
                let mut threshold = Mapping::new();
                if let Some(value) = self.integer("LOAD_AWARE_SCORER_QUEUE_THRESHOLD") {
                    threshold.insert("threshold".into(), value.into());
                }
                self.add("load-aware-scorer", "load-aware-scorer", threshold, weight);
            }
            Family::PrefixAware => self.prefix_aware(weight),
            Family::SessionAware => {
                let kind = "session-affinity-scorer";
                self.add(kind, kind, Mapping::new(), weight);
            }
            Family::LeastKvCache => {
                self.instead(name, "kv-cache-utilization-scorer", "least-kvcache", weight);
            }
            Family::LeastQueue => self.instead(name, "queue-scorer", "least-queue", weight),
            Family::LoraAffinity => {
                self.instead(name, "lora-affinity-scorer", "lora-affinity", weight);
            }
            Family::LowQueue => {
                self.utilization(name, "low-queue", &[("waiting-queue", LOW_QUEUE.into())], "");
            }
            Family::SheddableCapacity => {
                let bounds = [
                    ("waiting-queue", SHEDDABLE_QUEUE.into()),
                    ("kv-cache-utilization", SHEDDABLE_KV_USAGE.into()),
                ];
                let differs = ", and counts for critical requests too";
                self.utilization(name, "sheddable-capacity", &bounds, differs);
            }
            Family::KvCacheUtilization => {
                let kind = "kv-cache-utilization-scorer";
                self.add(kind, kind, Mapping::new(), weight);
            }
            Family::Queue => self.add("queue-scorer", "queue-scorer", Mapping::new(), weight),
            Family::Prefix => {
                let block = self.positive("PREFIX_CACHE_HASH_BLOCK_SIZE", GIE_PREFIX_BLOCK);
                let blocks = self.positive("PREFIX_CACHE_MAX_PREFIX_BLOCKS", GIE_PREFIX_BLOCKS);
                let mut own = parameters([
                    ("hashBlockSize", block.into()),
                    ("maxPrefixBlocksToMatch", blocks.into()),
                ]);
                let capacity = self.integer("PREFIX_CACHE_LRU_CAPACITY_PER_SERVER");
                let capacity = capacity.or_else(|| self.integer("PREFIX_CACHE_LRU_CAPACITY"));
                if let Some(capacity) = capacity {
                    own.insert("lruCapacityPerServer".into(), capacity.into());
                }
                self.add(PREFIX_SCORER, "gie-prefix-scorer", own, weight);
            }
        }
    }

    /// Blocks are counted in bytes, and all blocks of a prompt count.
    fn prefix_aware(&mut self, weight: Option<f64>) {
        let block = self.positive("PREFIX_SCORER_BLOCK_SIZE", PREFIX_BLOCK);
        let blocks =
            parameters([("blockSizeBytes", block.into()), ("maxPrefixBlocksToMatch", 0.into())]);
        self.new.plugin(PREFIX_PRODUCER, blocks, "");
        self.add(PREFIX_SCORER, PREFIX_SCORER, Mapping::new(), weight);
    }

    fn kv_cache_aware(&mut self, name: &str, weight: Option<f64>) {
        if self.variables.contains_key(PREFILL_REDIS) {
            self.warn(format!("{PREFILL_REDIS} was never read, {REDIS} serves both profiles"));
        }
        let set = |name: &str| self.variables.get(name).filter(|v| !v.is_empty()).cloned();
        let (address, token) = (set(REDIS), set(TOKEN));
        let (Some(address), Some(_)) = (&address, &token) else {
            for (missing, value) in [(REDIS, address), (TOKEN, token)] {
                let text = format!("environment variable {missing} is not set: {name} is left out");
                if value.is_none() && !self.errors.contains(&text) {
                    self.errors.push(text);
                }
            }
            return;
        };
        let producer = "precise-prefix-cache-producer";
        let redis = parameters([("address", address.as_str().into())]);
        let index = parameters([("redisConfig", Value::Mapping(redis))]);
        let indexer = parameters([("kvBlockIndexConfig", Value::Mapping(index))]);
        let precise = parameters([("indexerConfig", Value::Mapping(indexer))]);
        self.new.plugin(producer, precise, "");
        let matches = parameters([("prefixMatchInfoProducerName", producer.into())]);
        self.add(PREFIX_SCORER, "kvcache-aware-scorer", matches, weight);
        self.warn(format!(
            "{name} needs the model's own tokens, and no variable says how to get them: list a \
             token-producer for the model in a configuration file"
        ));
    }

    /// Takes a scorer in place of a filter that kept the best endpoints alone.
    fn instead(&mut self, name: &str, kind: &str, instance: &str, weight: Option<f64>) {
        self.add(kind, instance, Mapping::new(), weight);
        self.warn(format!(
            "{name} has no equal today: a {kind} prefers what the filter kept alone"
        ));
    }

    /// Takes a filter with fixed bounds, which keeps everyone rather than nobody.
    fn utilization(&mut self, name: &str, instance: &str, bounds: &[(&str, Value)], differs: &str) {
        let condition = |(metric, bound): &(&str, Value)| {
            Value::Mapping(parameters([("metric", (*metric).into()), ("maxValue", bound.clone())]))
        };
        let conditions = Value::Sequence(bounds.iter().map(condition).collect());
        let filter = parameters([("conditions", conditions), ("fallbackOnEmpty", true.into())]);
        let kind = "utilization-filter";
        self.add(kind, instance, filter, None);
        self.warn(format!(
            "{name} has no equal today: a {kind} with its bounds is used, which keeps everyone \
             where the filter kept nobody{differs}"
        ));
    }

    fn disaggregate(&mut self) {
        let threshold = self.integer("PD_PROMPT_LEN_THRESHOLD").unwrap_or(PD_THRESHOLD).max(0);
        let decider = "prefix-based-pd-decider";
        let bytes = parameters([("promptBytesThreshold", threshold.into())]);
        self.new.plugin(decider, bytes, "");
        let deciders = parameters([("prefill", decider.into())]);
        let handler = parameters([("deciders", Value::Mapping(deciders))]);
        self.new.plugin("disagg-profile-handler", handler, "");
    }

    fn add(&mut self, kind: &str, name: &str, parameters: Mapping, weight: Option<f64>) {
        self.new.named_plugin(kind, name, parameters, "");
        self.new.entry(name, weight, "");
    }

    fn warn(&mut self, text: String) {
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    fn is_true(&self, name: &str) -> bool {
        self.variables.get(name).is_some_and(|value| value == "true")
    }

    fn integer(&self, name: &str) -> Option<i64> {
        self.variables.get(name)?.parse().ok()
    }

    /// A number that must be positive to make sense.
    fn positive(&self, name: &str, default: i64) -> i64 {
        self.integer(name).filter(|&value| value > 0).unwrap_or(default)
    }
}

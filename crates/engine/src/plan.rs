//! A compiled engine: the names to look for and a filter that rejects other lines early.

use crate::sample::{Field, MAX_CUSTOM};
use crate::spec::MetricSpec;

/// Which series hold an engine's numbers. A spec that is `None` is not read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineSpec {
    /// Name of the engine, as a pod label gives it.
    pub name: String,
    /// Requests waiting.
    pub queued: Option<MetricSpec>,
    /// Requests running.
    pub running: Option<MetricSpec>,
    /// KV-cache use, a fraction.
    pub kv_usage: Option<MetricSpec>,
    /// The family whose labels list the LoRA adapters.
    pub lora: Option<MetricSpec>,
    /// The family whose labels hold the cache geometry.
    pub cache_info: Option<MetricSpec>,
    /// Label of `cache_info` with the tokens per block; empty = none.
    pub cache_block_size_label: String,
    /// Label of `cache_info` with the number of blocks; empty = none.
    pub cache_num_blocks_label: String,
    /// Tokens per block as a value of its own.
    pub cache_block_size: Option<MetricSpec>,
    /// Number of blocks as a value of its own.
    pub cache_num_blocks: Option<MetricSpec>,
    /// Counters of prompt tokens looked up in the prefix cache, by the names that versions of the
    /// engine have for it: all series of all of them are added up.
    pub cache_queries: Vec<MetricSpec>,
    /// Counters of those found, likewise.
    pub cache_hits: Vec<MetricSpec>,
    /// Further metrics by attribute key; those past [`MAX_CUSTOM`] are not read.
    pub custom: Vec<(String, MetricSpec)>,
}

impl EngineSpec {
    /// An engine of which nothing is read.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// The fields that are read, each with its spec, but for the counters of the prefix cache.
    pub fn specs(&self) -> impl Iterator<Item = (Field, &MetricSpec)> {
        let fixed = [
            (Field::Waiting, &self.queued),
            (Field::Running, &self.running),
            (Field::KvUsage, &self.kv_usage),
            (Field::Lora, &self.lora),
            (Field::CacheInfo, &self.cache_info),
            (Field::CacheBlockSize, &self.cache_block_size),
            (Field::CacheNumBlocks, &self.cache_num_blocks),
        ];
        let custom = self.custom.iter().take(MAX_CUSTOM).zip(0..);
        fixed
            .into_iter()
            .filter_map(|(field, spec)| Some((field, spec.as_ref()?)))
            .chain(custom.map(|((_, spec), i)| (Field::Custom(i), spec)))
    }

    /// The counters of the prefix cache.
    pub fn counters(&self) -> impl Iterator<Item = (Field, &MetricSpec)> {
        let queries = self.cache_queries.iter().map(|spec| (Field::CacheQueries, spec));
        queries.chain(self.cache_hits.iter().map(|spec| (Field::CacheHits, spec)))
    }
}

/// An [`EngineSpec`] ready to scan with; shared by all endpoints of that engine.
///
/// Specs of one family share an entry, so that a line is looked up once. The filter is the longest
/// prefix that all names share, and the set of bytes that may follow it: on a vLLM page it leaves
/// one line in twelve for the exact comparison.
#[derive(Debug)]
pub struct Plan {
    engine: EngineSpec,
    families: Vec<Family>,
    targets: Vec<Target>,
    prefix: Vec<u8>,
    next: [bool; 256],
}

/// One metric name and the targets that read it.
#[derive(Debug)]
struct Family {
    name: Vec<u8>,
    targets: Vec<usize>,
}

/// One field and the labels that a series must carry to be it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) field: Field,
    pub(crate) labels: Vec<(String, String)>,
}

impl Plan {
    /// Compiles an engine.
    pub fn new(engine: EngineSpec) -> Self {
        let mut families: Vec<Family> = Vec::new();
        let mut targets = Vec::new();
        for (field, spec) in engine.specs().chain(engine.counters()) {
            let name = spec.name().as_bytes();
            let target = targets.len();
            match families.iter_mut().find(|family| family.name == name) {
                Some(family) => family.targets.push(target),
                None => families.push(Family { name: name.to_vec(), targets: vec![target] }),
            }
            targets.push(Target { field, labels: spec.labels().to_vec() });
        }
        let prefix = common_prefix(&families);
        let mut next = [false; 256];
        for family in &families {
            match family.name.get(prefix.len()) {
                Some(&byte) => next[usize::from(byte)] = true,
                None => NAME_END.iter().for_each(|&byte| next[usize::from(byte)] = true),
            }
        }
        Self { engine, families, targets, prefix, next }
    }

    /// What was compiled.
    pub fn engine(&self) -> &EngineSpec {
        &self.engine
    }

    pub(crate) fn targets(&self) -> &[Target] {
        &self.targets
    }

    pub(crate) fn families(&self) -> usize {
        self.families.len()
    }

    /// The targets that read family number `family`.
    pub(crate) fn targets_of(&self, family: usize) -> &[usize] {
        &self.families[family].targets
    }

    /// Whether a line that starts with a name is of a family of interest: its number, and the line
    /// after the name.
    #[inline]
    pub(crate) fn find<'l>(&self, line: &'l [u8]) -> Option<(usize, &'l [u8])> {
        let tail = line.strip_prefix(self.prefix.as_slice())?;
        if !self.next[usize::from(*tail.first()?)] {
            return None;
        }
        self.families.iter().enumerate().find_map(|(i, family)| {
            let rest = line.strip_prefix(family.name.as_slice())?;
            NAME_END.contains(rest.first()?).then_some((i, rest))
        })
    }
}

/// Bytes that may follow a complete metric name.
const NAME_END: [u8; 3] = *b"{ \t";

fn common_prefix(families: &[Family]) -> Vec<u8> {
    let Some((first, others)) = families.split_first() else {
        return Vec::new();
    };
    let shared =
        |other: &Family| first.name.iter().zip(&other.name).take_while(|(a, b)| a == b).count();
    let length = others.iter().map(shared).min().unwrap_or(first.name.len());
    first.name[..length].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::built_in;

    fn plan(engine: &str) -> Plan {
        Plan::new(built_in().into_iter().find(|e| e.name == engine).unwrap())
    }

    #[test]
    fn lines_are_found_by_whole_name() {
        let plan = plan("vllm");
        assert_eq!(plan.prefix, b"vllm:");
        let found = |line: &str| plan.find(line.as_bytes()).map(|(family, _)| family);
        assert_eq!(found("vllm:num_requests_waiting{a=\"b\"} 1"), Some(0));
        assert_eq!(found("vllm:num_requests_waiting 1"), Some(0));
        assert_eq!(found("vllm:num_requests_waiting_by_reason{} 1"), None);
        assert_eq!(found("vllm:num_requests_waiting"), None);
        assert_eq!(found("vllm:num"), None);
        assert_eq!(found("vllm:"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn specs_of_one_family_share_an_entry() {
        let plan = plan("triton-tensorrt-llm");
        assert_eq!(plan.families(), 2);
        assert_eq!(plan.targets_of(1).len(), 3);
    }

    #[test]
    fn a_name_may_be_the_prefix_of_another() {
        let mut engine = EngineSpec::named("x");
        engine.queued = "ab".parse().ok();
        engine.running = "abc".parse().ok();
        let plan = Plan::new(engine);
        assert_eq!(plan.find(b"ab 1").map(|f| f.0), Some(0));
        assert_eq!(plan.find(b"abc 1").map(|f| f.0), Some(1));
        assert_eq!(plan.find(b"abd 1"), None);
    }

    #[test]
    fn an_engine_without_metrics_matches_nothing() {
        let plan = Plan::new(EngineSpec::named("none"));
        assert_eq!(plan.find(b"anything 1"), None);
    }
}

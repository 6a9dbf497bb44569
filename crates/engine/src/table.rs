//! The engine table: built-in engines, the user's own, and which of them an endpoint is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalog::{DEFAULT_ENGINE, ENGINE_LABEL, LEGACY_ENGINE_LABEL, built_in};
use crate::params::{EngineParams, ExtractorParams};
use crate::plan::{EngineSpec, Plan};
use crate::sample::MAX_CUSTOM;
use crate::spec::{MetricSpec, SpecError};

/// Compiled engines by name, and the rule that chooses among them.
#[derive(Debug, Clone)]
pub struct EngineTable {
    label: String,
    default: Arc<Plan>,
    plans: BTreeMap<String, Arc<Plan>>,
}

impl EngineTable {
    /// Builds the table from plugin parameters.
    pub fn new(params: &ExtractorParams) -> Result<Self, TableError> {
        let or = |text: &str, default: &str| {
            if text.is_empty() { default.to_owned() } else { text.to_owned() }
        };
        let mut engines: BTreeMap<String, EngineSpec> =
            built_in().into_iter().map(|engine| (engine.name.clone(), engine)).collect();
        let mut named = BTreeSet::new();
        for config in &params.engine_configs {
            if config.name.is_empty() {
                return Err(TableError::NoName);
            }
            if config.name == "default" {
                return Err(TableError::ReservedName);
            }
            if !named.insert(config.name.as_str()) {
                return Err(TableError::DuplicateEngine(config.name.clone()));
            }
            let mut own = engine(config)?;
            // Parameters have no names for the counters of the prefix cache: nobody meant to take
            // them away.
            if let Some(replaced) = engines.remove(&config.name) {
                own.cache_queries = replaced.cache_queries;
                own.cache_hits = replaced.cache_hits;
            }
            engines.insert(config.name.clone(), own);
        }
        let plans: BTreeMap<String, Arc<Plan>> =
            engines.into_iter().map(|(name, spec)| (name, Arc::new(Plan::new(spec)))).collect();
        let default = or(&params.default_engine, DEFAULT_ENGINE);
        let default = plans.get(&default).cloned().ok_or(TableError::UnknownDefault(default))?;
        Ok(Self { label: or(&params.engine_label_key, ENGINE_LABEL), default, plans })
    }

    /// The plan for an endpoint with these labels: the engine that its label names, else the
    /// default one.
    pub fn select(&self, labels: &BTreeMap<String, String>) -> &Arc<Plan> {
        let named = labels.get(&self.label).or_else(|| labels.get(LEGACY_ENGINE_LABEL));
        named.and_then(|name| self.plans.get(name)).unwrap_or(&self.default)
    }

    /// The keys of all engines' custom metrics, each once, in order.
    pub fn custom_keys(&self) -> BTreeSet<&str> {
        let engines = self.plans.values().map(|plan| plan.engine());
        engines.flat_map(|engine| engine.custom.iter().map(|(key, _)| key.as_str())).collect()
    }

    /// The plan of an engine by name.
    pub fn get(&self, name: &str) -> Option<&Arc<Plan>> {
        self.plans.get(name)
    }
}

impl Default for EngineTable {
    fn default() -> Self {
        let plans: BTreeMap<String, Arc<Plan>> = built_in()
            .into_iter()
            .map(|spec| (spec.name.clone(), Arc::new(Plan::new(spec))))
            .collect();
        let default = plans
            .get(DEFAULT_ENGINE)
            .cloned()
            .unwrap_or_else(|| Arc::new(Plan::new(EngineSpec::named(DEFAULT_ENGINE))));
        Self { label: ENGINE_LABEL.into(), default, plans }
    }
}

/// Why parameters make no engine table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TableError {
    /// Two entries of one name.
    #[error("duplicate engine name '{0}'")]
    DuplicateEngine(String),
    /// Two custom metrics of one engine share a key.
    #[error("engine '{engine}': duplicate attributeKey '{key}'")]
    DuplicateKey {
        /// The engine.
        engine: String,
        /// The key.
        key: String,
    },
    /// A custom metric has no key.
    #[error("engine '{0}': customMetrics entry without attributeKey")]
    NoKey(String),
    /// An entry has no name.
    #[error("engine name cannot be empty")]
    NoName,
    /// The name `default` is not available.
    #[error("engine name 'default' is reserved, use defaultEngine")]
    ReservedName,
    /// A metric spec does not parse.
    #[error("engine '{engine}': {field}: {source}")]
    Spec {
        /// The engine.
        engine: String,
        /// The parameter.
        field: &'static str,
        /// What is wrong with it.
        source: SpecError,
    },
    /// More custom metrics than a sample can hold.
    #[error("engine '{0}': more than {MAX_CUSTOM} customMetrics")]
    TooManyCustom(String),
    /// `defaultEngine` names no engine.
    #[error("defaultEngine '{0}' is not a known engine")]
    UnknownDefault(String),
}

fn engine(params: &EngineParams) -> Result<EngineSpec, TableError> {
    let parse = |field: &'static str, text: &str| {
        MetricSpec::parse_optional(text).map_err(|source| TableError::Spec {
            engine: params.name.clone(),
            field,
            source,
        })
    };
    if params.custom_metrics.len() > MAX_CUSTOM {
        return Err(TableError::TooManyCustom(params.name.clone()));
    }
    let mut keys = BTreeSet::new();
    let mut custom = Vec::new();
    for metric in &params.custom_metrics {
        if metric.attribute_key.is_empty() {
            return Err(TableError::NoKey(params.name.clone()));
        }
        if !keys.insert(metric.attribute_key.as_str()) {
            return Err(TableError::DuplicateKey {
                engine: params.name.clone(),
                key: metric.attribute_key.clone(),
            });
        }
        if let Some(spec) = parse("metricSpec", &metric.metric_spec)? {
            custom.push((metric.attribute_key.clone(), spec));
        }
    }
    Ok(EngineSpec {
        name: params.name.clone(),
        queued: parse("queuedRequestsSpec", &params.queued_requests_spec)?,
        running: parse("runningRequestsSpec", &params.running_requests_spec)?,
        kv_usage: parse("kvUsageSpec", &params.kv_usage_spec)?,
        lora: parse("loraSpec", &params.lora_spec)?,
        cache_info: parse("cacheInfoSpec", &params.cache_info_spec)?,
        cache_block_size_label: params.cache_block_size_label_name.clone(),
        cache_num_blocks_label: params.cache_num_blocks_label_name.clone(),
        cache_block_size: parse("cacheBlockSizeSpec", &params.cache_block_size_spec)?,
        cache_num_blocks: parse("cacheNumBlocksSpec", &params.cache_num_blocks_spec)?,
        custom,
        ..EngineSpec::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(yaml: &str) -> Result<EngineTable, TableError> {
        EngineTable::new(&serde_yaml::from_str(yaml).unwrap())
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    fn engine_of(table: &EngineTable, pairs: &[(&str, &str)]) -> String {
        table.select(&labels(pairs)).engine().name.clone()
    }

    #[test]
    fn the_label_chooses_and_the_default_catches() {
        let table = EngineTable::default();
        assert_eq!(engine_of(&table, &[]), "vllm");
        assert_eq!(engine_of(&table, &[(ENGINE_LABEL, "sglang")]), "sglang");
        assert_eq!(engine_of(&table, &[(LEGACY_ENGINE_LABEL, "triton")]), "triton");
        assert_eq!(engine_of(&table, &[(ENGINE_LABEL, "unheard-of")]), "vllm");
    }

    #[test]
    fn parameters_rename_the_label_and_the_default() {
        let table = table("{engineLabelKey: e, defaultEngine: sglang}").unwrap();
        assert_eq!(engine_of(&table, &[("e", "vllm")]), "vllm");
        assert_eq!(engine_of(&table, &[(ENGINE_LABEL, "vllm")]), "sglang");
        assert_eq!(engine_of(&table, &[(LEGACY_ENGINE_LABEL, "vllm")]), "vllm");
    }

    #[test]
    fn an_entry_replaces_its_built_in_entirely() {
        let table = table("engineConfigs: [{name: vllm, queuedRequestsSpec: q}]").unwrap();
        let vllm = table.get("vllm").unwrap().engine();
        assert_eq!(vllm.specs().count(), 1);
        assert_eq!(vllm.counters().count(), 5, "what parameters do not name stays");
        assert!(table.get("sglang").is_some());
    }

    #[test]
    fn bad_parameters_are_refused() {
        let spec = |source| TableError::Spec { engine: "a".into(), field: "loraSpec", source };
        for (yaml, error) in [
            ("engineConfigs: [{name: ''}]", TableError::NoName),
            ("engineConfigs: [{name: default}]", TableError::ReservedName),
            ("engineConfigs: [{name: a}, {name: a}]", TableError::DuplicateEngine("a".into())),
            ("defaultEngine: nope", TableError::UnknownDefault("nope".into())),
            ("engineConfigs: [{name: a, loraSpec: '1'}]", spec(SpecError::Name("1".into()))),
            (
                "engineConfigs: [{name: a, customMetrics: [{metricSpec: x}]}]",
                TableError::NoKey("a".into()),
            ),
            (
                "engineConfigs: [{name: a, customMetrics: [{attributeKey: k}, {attributeKey: k}]}]",
                TableError::DuplicateKey { engine: "a".into(), key: "k".into() },
            ),
        ] {
            assert_eq!(table(yaml).unwrap_err(), error, "{yaml}");
        }
        let unknown: Result<ExtractorParams, _> = serde_yaml::from_str("engineLabel: x");
        assert!(unknown.is_err());
    }
}

//! What a configuration wants of tokenizers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use inlane_core::config::{LoadedConfig, PluginInstance};
use inlane_core::registry::TOKENIZED_PROMPT;
use serde_yaml::Value;

use super::{Parameters, UdsBackend, VllmBackend};
use crate::precise;

/// What a configuration wants of tokenizers: see [`of`](Self::of).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wish {
    /// The model whose tokenizer is meant, also for requests to its adapters; `None` = whichever
    /// model the request names.
    pub model: Option<String>,
    /// Tokenizers on this machine that the configuration itself names: a directory, or a
    /// `tokenizer.json` in it.
    pub map: BTreeMap<String, PathBuf>,
    /// Directories of models that the configuration itself names, the most important first.
    pub directories: Vec<PathBuf>,
    /// The server that renders prompts where there is no tokenizer on this machine.
    pub vllm: Option<VllmBackend>,
}

impl Wish {
    /// What `config` wants; `None` when estimated tokens are good enough for it.
    ///
    /// Its first token producer decides: with `modelName` it wants that model's tokens, with
    /// `estimate` none. One without parameters, made because somebody asked for tokens, wants those
    /// of the request's model if a plugin compares them with what engines report: estimated tokens
    /// would never match there. `tokenizersPoolConfig` of the deprecated scorer counts as a
    /// producer's `modelName` and says where tokenizers lie.
    pub fn of(config: &LoadedConfig) -> Option<Self> {
        let makes_tokens = |plugin: &&PluginInstance| {
            plugin.data.produces.iter().any(|key| key.name == TOKENIZED_PROMPT)
        };
        let producer = config.plugins.iter().find(makes_tokens)?;
        let parameters: Parameters = producer.params.decode().ok()?;
        if parameters.estimate.is_some() {
            return None;
        }
        let mut wish = Self::default();
        let precise = [precise::producer::TYPE.name, precise::scorer::TYPE.name];
        let mut wanted = false;
        for plugin in config.plugins.iter().filter(|plugin| precise.contains(&plugin.type_name)) {
            wanted = true;
            let indexer = plugin.params.raw().and_then(|value| value.get("indexerConfig"));
            if let Some(pool) = indexer.and_then(|value| value.get("tokenizersPoolConfig")) {
                wish.read_pool(pool);
            }
        }
        if parameters.model_name.is_empty() {
            return wanted.then_some(wish);
        }
        let Parameters { model_name, vllm, uds_tokenizer_config, .. } = parameters;
        wish.model = Some(model_name);
        if let Some(UdsBackend { model_tokenizer_map, .. }) = uds_tokenizer_config {
            let places = model_tokenizer_map.into_iter();
            wish.map.extend(places.map(|(model, place)| (model, place.into())));
        } else {
            wish.vllm = Some(vllm.unwrap_or_default());
        }
        Some(wish)
    }

    /// Reads `tokenizersPoolConfig`: its model, and what lies on this machine. Everything else of it
    /// (downloads, threads, the older prefix store) has its place in the module's settings or none.
    fn read_pool(&mut self, pool: &Value) {
        let text = |value: Option<&Value>| {
            value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        if self.model.is_none() {
            self.model = text(pool.get("modelName"));
        }
        let part = |name: &str| pool.get(name).filter(|part| part.is_mapping());
        for holder in [Some(pool), part("local"), part("uds")].into_iter().flatten() {
            let places = holder.get("modelTokenizerMap").and_then(Value::as_mapping);
            for (model, place) in places.into_iter().flatten() {
                if let (Some(model), Some(place)) = (text(Some(model)), text(Some(place))) {
                    self.map.entry(model).or_insert_with(|| place.into());
                }
            }
        }
        for (name, field) in [("local", "autoDiscoveryDir"), ("hf", "tokenizersCacheDir")] {
            let directory = part(name).and_then(|part| text(part.get(field))).map(PathBuf::from);
            self.directories.extend(directory);
        }
        self.directories.dedup();
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::config::load;
    use inlane_core::registry::KeptState;
    use inlane_core::snapshot::ConfigDocument;

    use super::*;

    fn wish(plugins: &str) -> Option<Wish> {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}"
        );
        let document = ConfigDocument { text, ..Default::default() };
        let config = load(&document, &crate::registry(), &KeptState::default());
        Wish::of(&config.unwrap_or_else(|e| panic!("{e}")))
    }

    const PRECISE: &str = "- {type: precise-prefix-cache-producer}\n";

    #[test]
    fn estimated_tokens_suffice_where_nobody_compares_them_with_engines() {
        assert_eq!(wish("- {type: queue-scorer}"), None);
        assert_eq!(wish("- {type: approx-prefix-cache-producer}"), None);
        assert_eq!(wish("- {type: token-producer}"), None);
        let estimate = "- {type: token-producer, parameters: {estimate: {}}}\n";
        assert_eq!(wish(&format!("{PRECISE}{estimate}")), None);
    }

    #[test]
    fn a_precise_producer_wants_the_tokens_of_the_requests_model() {
        assert_eq!(wish(PRECISE), Some(Wish::default()));
        let bare = "- {type: token-producer}\n";
        assert_eq!(wish(&format!("{bare}{PRECISE}")), Some(Wish::default()));
    }

    #[test]
    fn a_model_name_is_wanted_whoever_reads_its_tokens() {
        for (kind, parameters) in [
            ("token-producer", "{modelName: m}"),
            ("tokenizer", "{modelName: m, vllm: {url: 'http://localhost:8000'}}"),
        ] {
            let wish = wish(&format!("- {{type: {kind}, parameters: {parameters}}}")).unwrap();
            assert_eq!(wish.model.as_deref(), Some("m"));
            assert_eq!(wish.vllm, Some(VllmBackend::default()), "{kind}");
        }
        let socket =
            "{modelName: m, udsTokenizerConfig: {modelTokenizerMap: {m: /t/tokenizer.json}}}";
        let wish = wish(&format!("- {{type: token-producer, parameters: {socket}}}")).unwrap();
        let map = BTreeMap::from([("m".to_owned(), PathBuf::from("/t/tokenizer.json"))]);
        assert_eq!((wish.vllm, wish.map), (None, map));
    }

    #[test]
    fn the_deprecated_scorer_says_where_tokenizers_lie() {
        let pool = "{modelName: m, workersCount: 5, \
            hf: {enabled: true, tokenizersCacheDir: /mnt/tokenizers}, \
            local: {autoDiscoveryDir: /mnt/models, modelTokenizerMap: {a: /a, b: 7}}}";
        let scorer = format!(
            "- {{type: precise-prefix-cache-scorer, \
             parameters: {{indexerConfig: {{tokenizersPoolConfig: {pool}}}}}}}"
        );
        let wish = wish(&scorer).unwrap();
        assert_eq!(wish.model.as_deref(), Some("m"));
        assert_eq!(wish.map, BTreeMap::from([("a".to_owned(), PathBuf::from("/a"))]));
        assert_eq!(wish.directories, ["/mnt/models", "/mnt/tokenizers"].map(PathBuf::from));
        assert_eq!(wish.vllm, None);
    }
}

//! `token-producer`: promises that prompts are tokenized.
//!
//! A prompt is tokenized before the decision, and packed into blocks while its body arrives; there
//! is nothing left to do here per request, and nothing that could fail: a request without tokens
//! is one, not a producer's failure. What remains is the configuration: the data key that consumers
//! ask for, what is wanted of tokenizers ([`Wish`]) and how media are estimated ([`Estimate`]).
//! Whoever reads bodies asks for both.

mod estimate;
mod wish;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use inlane_core::columns::Columns;
use inlane_core::config::{GoDuration, LoadedConfig};
use inlane_core::decision::PluginError;
use inlane_core::plugin::{DataProducer, Producing, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use inlane_core::state::CycleState;
use serde::Deserialize;

pub use estimate::Estimate;
use estimate::EstimateParameters;
pub use wish::Wish;

/// The type `token-producer`.
pub const TYPE: PluginType = PluginType::new("token-producer", build)
    .deprecated_names(&["tokenizer"])
    .default_producer_of(&[TOKENIZED_PROMPT]);

/// All parameters. At most one backend may be given.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    /// Model whose tokenizer is asked for; alone it means the `vllm` backend.
    pub model_name: String,
    /// Tokens are estimated, four bytes each.
    pub estimate: Option<EstimateParameters>,
    /// A vLLM server renders prompts.
    pub vllm: Option<VllmBackend>,
    /// A tokenizer behind a Unix socket. Deprecated.
    pub uds_tokenizer_config: Option<UdsBackend>,
}

/// A vLLM server that renders prompts to token ids.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct VllmBackend {
    /// Where it listens.
    pub url: String,
    /// How long a text prompt may take.
    pub timeout: GoDuration,
    /// How long a multimodal prompt may take.
    pub mm_timeout: GoDuration,
}

/// A tokenizer behind a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UdsBackend {
    /// The socket, or with `useTCP` an address.
    #[serde(rename = "socketFile")]
    pub socket_file: String,
    /// Whether it listens on TCP.
    #[serde(rename = "useTCP")]
    pub use_tcp: bool,
    /// Where each model's tokenizer lies.
    #[serde(rename = "modelTokenizerMap")]
    pub model_tokenizer_map: BTreeMap<String, String>,
}

impl Default for UdsBackend {
    fn default() -> Self {
        Self {
            socket_file: "/tmp/tokenizer/tokenizer-uds.socket".into(),
            use_tcp: false,
            model_tokenizer_map: BTreeMap::new(),
        }
    }
}

impl Default for VllmBackend {
    fn default() -> Self {
        Self {
            url: "http://localhost:8000".into(),
            timeout: GoDuration { negative: false, length: Duration::from_secs(5) },
            mm_timeout: GoDuration { negative: false, length: Duration::from_secs(30) },
        }
    }
}

impl Parameters {
    fn validate(&self) -> Result<(), BuildError> {
        let named = !self.model_name.is_empty();
        let remote =
            usize::from(self.vllm.is_some()) + usize::from(self.uds_tokenizer_config.is_some());
        let backends = remote.max(usize::from(named)) + usize::from(self.estimate.is_some());
        if backends > 1 || remote > 1 {
            return Err(BuildError::new(
                "only one of 'estimate', 'vllm', or 'udsTokenizerConfig' may be set",
            ));
        }
        if remote > 0 && !named {
            return Err(BuildError::field("modelName", "must be set with this backend"));
        }
        let map = self.uds_tokenizer_config.as_ref().map(|uds| &uds.model_tokenizer_map);
        if map.is_some_and(|map| !map.is_empty() && !map.contains_key(&self.model_name)) {
            let text = format!("has no tokenizer for the model {}", self.model_name);
            return Err(BuildError::field("udsTokenizerConfig.modelTokenizerMap", text));
        }
        self.estimate.as_ref().map_or(Ok(()), |estimate| estimate.validate("estimate"))
    }
}

/// How media are estimated under `config`: as its first token producer says.
pub fn estimate(config: &LoadedConfig) -> Estimate {
    let makes_tokens = |key: &inlane_core::registry::DataKey| key.name == TOKENIZED_PROMPT;
    let mut producers = config.plugins.iter().filter(|p| p.data.produces.iter().any(makes_tokens));
    producers.next().map(|producer| estimate_of(&producer.params)).unwrap_or_default()
}

/// How media are estimated by an instance with these parameters, which have been accepted.
pub fn estimate_of(params: &Params) -> Estimate {
    let parameters: Result<Parameters, _> = params.decode();
    parameters.ok().and_then(|p| p.estimate).map(Estimate::from).unwrap_or_default()
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    parameters.validate()?;
    if parameters.uds_tokenizer_config.is_some() {
        build.warn(
            "udsTokenizerConfig is deprecated: only tokenizers on this machine that its \
             modelTokenizerMap names are used, in process",
        );
    }
    build.produce_key(TOKENIZED_PROMPT);
    Ok(Roles::default().producer(Arc::new(TokenProducer)))
}

#[derive(Debug)]
struct TokenProducer;

impl DataProducer for TokenProducer {
    fn produce(
        &self,
        _cx: &Producing<'_>,
        _columns: &mut Columns,
        _state: &mut CycleState,
    ) -> Result<(), PluginError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn estimates_without_configuration() {
        let mut world = World::new(0);
        for parameters in ["", "{}", "{estimate: {}}"] {
            let built = world.build("token-producer", parameters).unwrap();
            assert!(built.warnings.is_empty());
            assert_eq!(built.data.produces[0].to_string(), "TokenizedPrompt/token-producer");
        }
    }

    #[test]
    fn the_socket_is_deprecated() {
        let mut world = World::new(0);
        for (parameters, warnings) in [
            ("{modelName: m}", 0),
            ("{modelName: m, vllm: {url: 'http://r:8000', timeout: 1.5s, mmTimeout: 1m}}", 0),
            ("{modelName: m, udsTokenizerConfig: {socketFile: /tmp/s}}", 1),
            ("{modelName: m, udsTokenizerConfig: {useTCP: true, modelTokenizerMap: {m: /t}}}", 1),
        ] {
            let built = world.build("tokenizer", parameters).unwrap();
            assert_eq!(built.warnings.len(), warnings, "{:?}", built.warnings);
        }
    }

    #[test]
    fn one_backend_at_most() {
        let mut world = World::new(0);
        for parameters in [
            "{modelName: m, estimate: {}}",
            "{modelName: m, vllm: {}, estimate: {}}",
            "{modelName: m, vllm: {}, udsTokenizerConfig: {}}",
            "{vllm: {}}",
            "{udsTokenizerConfig: {}}",
            "{modelName: m, vllm: {timeout: 5}}",
            "{modelName: m, vllm: {uri: x}}",
            "{model: m}",
            "{modelName: m, udsTokenizerConfig: {socket: /tmp/s}}",
            "{modelName: m, udsTokenizerConfig: {modelTokenizerMap: {other: /t}}}",
        ] {
            assert!(world.build("token-producer", parameters).is_err(), "{parameters}");
        }
    }
}

//! What a configuration says about KV-cache events.

use inlane_core::config::LoadedConfig;
use inlane_core::snapshot::IndexDocument;
use inlane_plugins::precise::parameters::{EngineType, HashAlgorithm, Parameters};
use inlane_plugins::precise::producer;

use super::redis::Address;

/// What the precise producer of a configuration asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KvSettings {
    /// How keys are made.
    pub(crate) keys: Keys,
    pub(crate) engine: EngineType,
    /// Where engines connect to, if they do.
    pub(crate) central: Option<String>,
    /// Prefix of the topics.
    pub(crate) filter: String,
    /// Ports of rank 0 of every endpoint, for events and replays, if endpoints are connected to.
    pub(crate) ports: Option<(u16, Option<u16>)>,
    /// The shared index beside the local one.
    pub(crate) redis: Option<Address>,
}

/// How keys are made: with another one of these, keys are others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) block_tokens: u32,
    pub(crate) algorithm: HashAlgorithm,
    pub(crate) seed: String,
}

impl Keys {
    /// The document that tells readers, with the tiers that there are.
    pub(crate) fn document(&self, tiers: Vec<String>) -> IndexDocument {
        let algorithm = match self.algorithm {
            HashAlgorithm::CborFnv => "cbor-fnv",
            HashAlgorithm::Xxh64 => "xxh64",
        };
        let (block_tokens, algorithm) = (self.block_tokens, algorithm.to_owned());
        IndexDocument { block_tokens, algorithm, seed: self.seed.clone(), tiers }
    }

    /// Whether a table of this document has these keys.
    pub(crate) fn are_of(&self, document: &IndexDocument) -> bool {
        *document == self.document(document.tiers.clone())
    }
}

impl KvSettings {
    /// Reads the settings; `None` where nobody needs events.
    ///
    /// # Errors
    /// Parameters that cannot be read.
    pub(crate) fn read(config: &LoadedConfig) -> Result<Option<Self>, String> {
        let mut found: Option<Self> = None;
        for plugin in config.plugins.iter().filter(|p| p.type_name == producer::TYPE.name) {
            let failed = |error: &dyn std::fmt::Display| {
                format!("failed to read plugin '{}': {error}", plugin.name)
            };
            let parameters: Parameters = plugin.params.decode().map_err(|e| failed(&e))?;
            let settings = Self::of(&parameters).map_err(|e| failed(&e))?;
            match &found {
                None => found = Some(settings),
                // Its producer finds nothing and says so.
                Some(first) if *first != settings => tracing::warn!(
                    plugin = plugin.name,
                    "there is one index, with the parameters of the first precise producer: this \
                     one differs"
                ),
                Some(_) => {}
            }
        }
        Ok(found)
    }

    fn of(parameters: &Parameters) -> Result<Self, String> {
        let Parameters { token_processor_config: tokens, kv_events_config: events, .. } =
            parameters;
        let index = &parameters.indexer_config.kv_block_index_config;
        let port = |port: i64| u16::try_from(port).ok().filter(|&port| port > 0);
        let pods = events.pod_discovery_config.as_ref().filter(|_| events.discover_pods);
        let ports = pods.and_then(|pods| {
            Some((port(pods.socket_port)?, pods.replay_socket_port.and_then(port)))
        });
        Ok(Self {
            keys: Keys {
                block_tokens: parameters.block_tokens().map_err(|e| e.to_string())?,
                algorithm: tokens.hash_algorithm,
                seed: tokens.hash_seed.clone(),
            },
            engine: events.engine_type,
            central: Some(events.zmq_endpoint.clone()).filter(|url| !url.is_empty()),
            filter: events.topic_filter.clone(),
            ports,
            redis: index
                .redis()
                .map(|redis| Address::parse(&redis.address).map_err(|e| e.to_string()))
                .transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::config::load;
    use inlane_core::registry::KeptState;
    use inlane_core::snapshot::ConfigDocument;

    use super::*;

    fn read(plugins: &str) -> Option<KvSettings> {
        try_read(plugins).unwrap()
    }

    fn try_read(plugins: &str) -> Result<Option<KvSettings>, String> {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{{type: \
             token-producer}}, {plugins}]\n"
        );
        let document =
            ConfigDocument { text, allow_experimental_plugins: true, ..ConfigDocument::default() };
        let loaded = load(&document, &inlane_plugins::registry(), &KeptState::default());
        KvSettings::read(&loaded.map_err(|error| error.to_string())?)
    }

    #[test]
    fn without_a_precise_producer_there_is_nothing_to_do() {
        assert_eq!(read("{type: queue-scorer}"), None);
    }

    #[test]
    fn defaults_connect_to_every_endpoint() {
        for plugin in ["precise-prefix-cache-producer", "precise-prefix-cache-scorer"] {
            let found = read(&format!("{{type: {plugin}}}")).unwrap();
            assert_eq!(found.ports, Some((5_557, None)), "{plugin}");
            assert_eq!((found.central, found.redis), (None, None));
            assert_eq!((found.keys.block_tokens, found.filter.as_str()), (16, "kv@"));
        }
    }

    #[test]
    fn a_shared_index_that_cannot_be_reached_is_refused() {
        let error = try_read(
            "{type: precise-prefix-cache-producer, name: p, parameters: {indexerConfig: \
             {kvBlockIndexConfig: {redisConfig: {address: 'rediss://r:1'}}}}}",
        );
        let error = error.unwrap_err();
        assert!(
            error.contains("redisConfig.address: ") && error.contains("rediss:// is not"),
            "{error}"
        );
    }

    #[test]
    fn everything_can_be_said() {
        let found = read(
            "{type: precise-prefix-cache-producer, parameters: {tokenProcessorConfig: \
             {blockSizeTokens: 64, hashSeed: s, hashAlgorithm: xxh64}, kvEventsConfig: \
             {zmqEndpoint: 'tcp://*:5557', engineType: sglang, podDiscoveryConfig: {socketPort: \
             5558, replaySocketPort: 5560}}, indexerConfig: {kvBlockIndexConfig: {redisConfig: \
             {address: 'r:1'}}}}}",
        )
        .unwrap();
        assert_eq!(found.central.as_deref(), Some("tcp://*:5557"));
        assert_eq!((found.ports, found.engine), (Some((5_558, Some(5_560))), EngineType::Sglang));
        assert_eq!(found.redis.as_ref().map(Address::shown), Some("r:1"));
        let document = found.keys.document(vec!["gpu".into()]);
        assert_eq!((document.block_tokens, document.algorithm.as_str()), (64, "xxh64"));
        assert!(found.keys.are_of(&document));
        assert!(!found.keys.are_of(&IndexDocument::default()));
        let both = read(
            "{type: precise-prefix-cache-producer, parameters: {indexerConfig: {kvBlockIndexConfig: \
             {redisConfig: {}, costAwareMemoryConfig: {}}}}}",
        );
        assert_eq!(both.unwrap().redis, None);
        for off in ["discoverPods: false", "podDiscoveryConfig: null"] {
            let parameters = format!("parameters: {{kvEventsConfig: {{{off}}}}}");
            let found = read(&format!("{{type: precise-prefix-cache-producer, {parameters}}}"));
            assert_eq!(found.unwrap().ports, None, "{off}");
        }
    }
}

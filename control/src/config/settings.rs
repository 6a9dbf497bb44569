//! What the configuration says about discovery and scraping.

use std::path::PathBuf;
use std::time::Duration;

use inlane_core::config::{LoadedConfig, PluginInstance};
use inlane_core::effect::PluginIx;
use inlane_engine::EngineTable;
use inlane_plugins::{core_metrics_extractor, file_discovery, metrics_data_source};
use serde_yaml::Value;

/// The shortest scrape interval.
pub(crate) const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// The control plane's part of a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where endpoints come from.
    pub(crate) discovery: Option<FileDiscovery>,
    /// How to scrape; `None`: not at all.
    pub(crate) scraping: Option<Scraping>,
}

/// An endpoints file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileDiscovery {
    /// The file.
    pub(crate) path: PathBuf,
    /// Whether to follow changes of it.
    pub(crate) watch: bool,
}

/// How to scrape.
#[derive(Debug, Clone)]
pub(crate) struct Scraping {
    /// Path of the page, with a leading slash.
    pub(crate) path: String,
    /// Port of the page where it is not the serving port.
    pub(crate) port: Option<u16>,
    /// The source's own interval.
    pub(crate) interval: Option<Duration>,
    /// The engines.
    pub(crate) engines: EngineTable,
    /// What `engines` was built from.
    extractor: Option<Value>,
}

impl Settings {
    /// Reads the settings from a loaded configuration.
    ///
    /// # Errors
    /// What a proxy could use and this control plane cannot do.
    pub(crate) fn read(config: &LoadedConfig) -> Result<Self, String> {
        let discovery = config.data_layer.discovery.map(|ix| discovery(instance(config, ix)?));
        Ok(Self { discovery: discovery.transpose()?, scraping: scraping(config)? })
    }

    /// Takes over the engines of `earlier` where they are the same, so that nobody has to tell
    /// equal ones from the identical.
    pub(crate) fn keep_engines(&mut self, earlier: &Self) {
        if let (Some(new), Some(old)) = (&mut self.scraping, &earlier.scraping)
            && new.extractor == old.extractor
        {
            new.engines = old.engines.clone();
        }
    }
}

fn instance(config: &LoadedConfig, ix: PluginIx) -> Result<&PluginInstance, String> {
    config.plugin(ix).ok_or_else(|| format!("no plugin has the index {ix}"))
}

fn discovery(plugin: &PluginInstance) -> Result<FileDiscovery, String> {
    if plugin.type_name != file_discovery::TYPE.name {
        let (name, of) = (&plugin.name, plugin.type_name);
        return Err(format!("discovery: plugin \"{name}\" of type '{of}' is not supported"));
    }
    let params = file_discovery::Parameters::read(&plugin.params)
        .map_err(|e| failed(plugin, &e.to_string()))?;
    Ok(FileDiscovery { path: params.path.into(), watch: params.watch_file })
}

fn scraping(config: &LoadedConfig) -> Result<Option<Scraping>, String> {
    let typed = |ix: PluginIx, name: &str| config.plugin(ix).filter(|p| p.type_name == name);
    let found = config.data_layer.sources.iter().find_map(|source| {
        let plugin = typed(source.plugin, metrics_data_source::TYPE.name)?;
        let extractor = source
            .extractors
            .iter()
            .find_map(|&ix| typed(ix, core_metrics_extractor::TYPE.name))?;
        Some((plugin, extractor))
    });
    let Some((source, extractor)) = found else {
        return Ok(None);
    };
    let params = metrics_data_source::Parameters::read(&source.params)
        .map_err(|e| failed(source, &e.to_string()))?;
    if params.scheme != metrics_data_source::Scheme::Http {
        return Err(failed(source, "only scheme http is supported for scraping"));
    }
    let engines = core_metrics_extractor::engine_table(&extractor.params)
        .map_err(|e| failed(extractor, &e.to_string()))?;
    Ok(Some(Scraping {
        interval: params.interval(),
        path: params.path,
        port: params.port,
        engines,
        extractor: extractor.params.raw().cloned(),
    }))
}

fn failed(plugin: &PluginInstance, message: &str) -> String {
    format!("failed to create plugin '{}' (type: {}): {message}", plugin.name, plugin.type_name)
}

/// The interval between two scrapes of an endpoint: the base tick is the smaller of the configured
/// one and the source's own, never below [`SHORTEST_INTERVAL`]; the source fires every so many
/// ticks, rounded, at least one.
pub(crate) fn effective_interval(refresh: Duration, source: Option<Duration>) -> Duration {
    let Some(source) = source.filter(|source| !source.is_zero()) else {
        return refresh.max(SHORTEST_INTERVAL);
    };
    let base = refresh.min(source).max(SHORTEST_INTERVAL);
    let ticks = (source.as_secs_f64() / base.as_secs_f64()).round().clamp(1.0, 1e6);
    base * ticks as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use inlane_core::config::load;
    use inlane_core::registry::KeptState;
    use inlane_core::snapshot::ConfigDocument;

    use super::*;

    const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

    fn read(text: &str) -> Result<Settings, String> {
        let document = ConfigDocument { text: format!("{HEAD}{text}"), ..Default::default() };
        let loaded = load(&document, &inlane_plugins::registry(), &KeptState::default());
        Settings::read(&loaded.map_err(|e| e.to_string())?)
    }

    fn engine(scraping: &Scraping) -> String {
        scraping.engines.select(&BTreeMap::new()).engine().name.clone()
    }

    #[test]
    fn without_a_word_the_defaults_hold() {
        let settings = read("plugins: [{type: queue-scorer}]").unwrap();
        assert_eq!(settings.discovery, None);
        let scraping = settings.scraping.unwrap();
        assert_eq!((scraping.path.as_str(), scraping.port), ("/metrics", None));
        assert_eq!(engine(&scraping), "vllm");
    }

    #[test]
    fn declared_plugins_are_read() {
        let text = "plugins:\n\
             - {type: metrics-data-source, parameters: {path: /m, port: 9, interval: 1s}}\n\
             - {type: core-metrics-extractor, parameters: {defaultEngine: sglang}}";
        let scraping = read(text).unwrap().scraping.unwrap();
        assert_eq!((scraping.path.as_str(), scraping.port), ("/m", Some(9)));
        assert_eq!(scraping.interval, Some(Duration::from_secs(1)));
        assert_eq!(engine(&scraping), "sglang");
    }

    #[test]
    fn discovery_is_read() {
        let text = "plugins: [{type: file-discovery, name: d, parameters: {path: /e, watchFile: true}}]\n\
                    dataLayer: {discovery: {pluginRef: d}}";
        let expected = FileDiscovery { path: "/e".into(), watch: true };
        assert_eq!(read(text).unwrap().discovery, Some(expected));
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let text = "plugins: [{type: metrics-data-source, parameters: {scheme: https}}]";
        assert!(read(text).map(drop).unwrap_err().contains("scheme http"));
    }

    #[test]
    fn equal_engines_stay_identical() {
        let text = "plugins: [{type: core-metrics-extractor, parameters: {defaultEngine: sglang}}]";
        let plan = |settings: &Settings| {
            let engines = &settings.scraping.as_ref().unwrap().engines;
            Arc::clone(engines.select(&BTreeMap::new()))
        };
        let first = read(text).unwrap();
        let mut second = read(text).unwrap();
        assert!(!Arc::ptr_eq(&plan(&first), &plan(&second)));
        second.keep_engines(&first);
        assert!(Arc::ptr_eq(&plan(&first), &plan(&second)));
        let mut other = read("plugins: [{type: queue-scorer}]").unwrap();
        other.keep_engines(&first);
        assert_eq!(engine(other.scraping.as_ref().unwrap()), "vllm");
    }

    #[test]
    fn intervals_follow_the_tick_rule() {
        let ms = Duration::from_millis;
        assert_eq!(effective_interval(ms(50), None), ms(50));
        assert_eq!(effective_interval(ms(10), None), ms(50));
        assert_eq!(effective_interval(ms(50), Some(ms(120))), ms(100));
        assert_eq!(effective_interval(ms(1_000), Some(ms(200))), ms(200));
        assert_eq!(effective_interval(ms(50), Some(ms(1))), ms(50));
        assert_eq!(effective_interval(ms(200), Some(ms(0))), ms(200));
    }
}

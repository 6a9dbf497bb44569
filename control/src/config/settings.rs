//! What the configuration says about discovery and scraping.

use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use inlane_core::config::{DataSource, LoadedConfig, PluginInstance};
use inlane_core::effect::PluginIx;
use inlane_core::plugin::Scheme;
use inlane_core::snapshot::ScalarKey;
use inlane_plugins::{core_metrics_extractor, file_discovery, metrics_data_source, multicluster};

use crate::discovery::file::Entries;
use crate::kv::KvSettings;
use crate::latency;
use crate::scrape::source::{Engines, Reader, Source};

/// The shortest scrape interval.
pub(crate) const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);

/// The control plane's part of a configuration.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where endpoints come from.
    pub(crate) discovery: Option<FileDiscovery>,
    /// What to scrape, in order; empty: nothing.
    pub(crate) sources: Vec<Rc<Source>>,
    /// Custom metrics that travel.
    pub(crate) scalars: Vec<ScalarKey>,
    /// Whether latencies are predicted, and so have to be learned.
    pub(crate) predicts_latency: bool,
    /// The KV-cache events that are wanted, if any.
    pub(crate) events: Option<KvSettings>,
}

/// An endpoints file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileDiscovery {
    /// The file.
    pub(crate) path: PathBuf,
    /// Whether to follow changes of it.
    pub(crate) watch: bool,
    /// What its entries are.
    pub(crate) entries: Entries,
}

impl Settings {
    /// Reads the settings from a loaded configuration.
    ///
    /// # Errors
    /// What a proxy could use and this control plane cannot do.
    pub(crate) fn read(config: &LoadedConfig) -> Result<Self, String> {
        let discovery = config.data_layer.discovery.map(|ix| discovery(instance(config, ix)?));
        let sources = config.data_layer.sources.iter();
        let sources = sources.filter_map(|source| source_of(config, source).transpose());
        Ok(Self {
            discovery: discovery.transpose()?,
            sources: sources.map(|source| source.map(Rc::new)).collect::<Result<_, _>>()?,
            scalars: ScalarKey::of(config)?,
            predicts_latency: config.plugins.iter().any(|p| p.type_name == latency::PRODUCER),
            events: KvSettings::read(config)?,
        })
    }

    /// Takes over the sources of `earlier` that are the same, so that nobody has to tell equal
    /// ones from the identical.
    pub(crate) fn keep_sources(&mut self, earlier: &Self) {
        for source in &mut self.sources {
            let same = earlier.sources.iter().find(|known| known.identity == source.identity);
            if let Some(known) = same {
                *source = Rc::clone(known);
            }
        }
    }

    /// How long each source waits between two scrapes of an endpoint when nothing slows it down.
    pub(crate) fn intervals(&self, refresh: Duration) -> Vec<Duration> {
        let own: Vec<_> = self.sources.iter().map(|source| source.interval).collect();
        effective_intervals(refresh, &own)
    }
}

fn instance(config: &LoadedConfig, ix: PluginIx) -> Result<&PluginInstance, String> {
    config.plugin(ix).ok_or_else(|| format!("no plugin has the index {ix}"))
}

fn discovery(plugin: &PluginInstance) -> Result<FileDiscovery, String> {
    let entries = match plugin.type_name {
        of if of == file_discovery::TYPE.name => Entries::Pods,
        of if of == multicluster::file_discovery::TYPE.name => Entries::Clusters,
        of => {
            let name = &plugin.name;
            return Err(format!("discovery: plugin \"{name}\" of type '{of}' is not supported"));
        }
    };
    let params = file_discovery::Parameters::read(&plugin.params)
        .map_err(|e| failed(plugin, &e.to_string()))?;
    Ok(FileDiscovery { path: params.path.into(), watch: params.watch_file, entries })
}

/// What to fetch from a source and how to read it; `None` where there is nothing to fetch, or
/// nothing that reads it.
fn source_of(config: &LoadedConfig, source: &DataSource) -> Result<Option<Source>, String> {
    let plugin = instance(config, source.plugin)?;
    let (path, port, interval, scheme) = if plugin.type_name == metrics_data_source::TYPE.name {
        let params = metrics_data_source::Parameters::read(&plugin.params)
            .map_err(|e| failed(plugin, &e.to_string()))?;
        let interval = params.interval();
        let scheme = match params.scheme {
            metrics_data_source::Scheme::Http => Scheme::Http,
            metrics_data_source::Scheme::Https => Scheme::Https,
        };
        (params.path, params.port, interval, scheme)
    } else if let Some(scraper) = &plugin.roles.scraper {
        (scraper.path().to_owned(), scraper.port(), scraper.interval(), scraper.scheme())
    } else {
        return Ok(None);
    };
    if scheme != Scheme::Http {
        return Err(failed(plugin, "only scheme http is supported for scraping"));
    }
    let identity = |p: &PluginInstance| (p.name.clone(), p.type_name, p.params.raw().cloned());
    let mut read = Source {
        source_type: plugin.type_name,
        path,
        port,
        interval,
        engines: None,
        extractors: Vec::new(),
        identity: vec![identity(plugin)],
    };
    for &ix in &source.extractors {
        let extractor = instance(config, ix)?;
        read.identity.push(identity(extractor));
        let (producer, extractor_type) = (extractor.name.clone(), extractor.type_name);
        if extractor_type == core_metrics_extractor::TYPE.name {
            let table = core_metrics_extractor::engine_table(&extractor.params)
                .map_err(|e| failed(extractor, &e.to_string()))?;
            read.engines.get_or_insert(Engines { producer, extractor_type, table });
        } else if let Some(plugin) = extractor.roles.extractor.clone() {
            let reports = extractor.data.reports.clone();
            read.extractors.push(Reader { producer, extractor_type, extractor: plugin, reports });
        }
    }
    Ok((read.engines.is_some() || !read.extractors.is_empty()).then_some(read))
}

fn failed(plugin: &PluginInstance, message: &str) -> String {
    format!("failed to create plugin '{}' (type: {}): {message}", plugin.name, plugin.type_name)
}

/// The intervals of sources between two scrapes of an endpoint: the base tick is the smallest of
/// the configured one and the sources' own, never below [`SHORTEST_INTERVAL`]; a source fires every
/// so many ticks, rounded, at least one.
pub(crate) fn effective_intervals(refresh: Duration, own: &[Option<Duration>]) -> Vec<Duration> {
    let own = || own.iter().map(|source| source.filter(|own| !own.is_zero()));
    let base = own().flatten().fold(refresh, Duration::min).max(SHORTEST_INTERVAL);
    let interval = |own: Option<Duration>| {
        let ticks = own.map_or(1.0, |own| own.as_secs_f64() / base.as_secs_f64());
        base * ticks.round().clamp(1.0, 1e6) as u32
    };
    own().map(interval).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use inlane_core::config::load;
    use inlane_core::endpoint::Endpoint;
    use inlane_core::plugin::{Extraction, Extractor, Part, Roles, Scraper};
    use inlane_core::registry::{KeptState, PluginType};
    use inlane_core::snapshot::ConfigDocument;

    use super::*;

    const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

    fn read(text: &str) -> Result<Settings, String> {
        let text = format!("{HEAD}{text}");
        let allow_experimental_plugins = true;
        let document = ConfigDocument { text, allow_experimental_plugins, ..Default::default() };
        let mut registry = inlane_plugins::registry();
        registry.register(PluginType::new("reader", |build, params| {
            for name in params.decode::<BTreeMap<String, Vec<String>>>()?.values().flatten() {
                build.scalar(name, "");
            }
            Ok(Roles::default())
        }));
        registry.register(PluginType::new("pages", |_, _| {
            Ok(Roles::default().part(Part::DataSource).scraper(Arc::new(Pages)))
        }));
        registry.register(PluginType::new("words", |build, _| {
            build.report("words");
            Ok(Roles::default().part(Part::Extractor).extractor(Arc::new(Words)))
        }));
        let loaded = load(&document, &registry, &KeptState::default());
        Settings::read(&loaded.map_err(|e| e.to_string())?)
    }

    struct Pages;

    impl Scraper for Pages {
        fn path(&self) -> &str {
            "/pages"
        }

        fn port(&self) -> Option<u16> {
            Some(9_400)
        }

        fn interval(&self) -> Option<Duration> {
            Some(Duration::from_secs(1))
        }
    }

    struct Words;

    impl Extractor for Words {
        fn begin(&self, _: &Endpoint) -> Box<dyn Extraction> {
            panic!("nothing is read here")
        }
    }

    /// A core extractor that reports as many custom metrics, `m0` and so on.
    fn reporting(count: usize) -> String {
        let metric = |n: usize| format!("{{attributeKey: m{n}, metricSpec: x{n}}}");
        let metrics: Vec<_> = (0..count).map(metric).collect();
        format!(
            "plugins:\n- {{type: core-metrics-extractor, parameters: {{engineConfigs: [{{name: e, \
             customMetrics: [{}]}}]}}}}\n",
            metrics.join(", ")
        )
    }

    #[test]
    fn custom_metrics_travel_when_somebody_reads_them() {
        let text =
            format!("{}- {{type: reader, parameters: {{of: [m1, m7, nobody]}}}}", reporting(40));
        let scalars = read(&text).unwrap().scalars;
        let names: Vec<_> = scalars.iter().map(|key| key.name.as_str()).collect();
        assert_eq!(names, ["m1", "m7"]);
        assert!(scalars.iter().all(|key| key.producer == "core-metrics-extractor"));

        let all: Vec<_> = (0..9).map(|n| format!("m{n}")).collect();
        let text = format!(
            "{}- {{type: reader, parameters: {{of: [{}]}}}}",
            reporting(40),
            all.join(", ")
        );
        let error = read(&text).map(drop).unwrap_err();
        assert!(error.contains("9 custom metrics (m0, m1"), "{error}");
        assert!(error.contains("expected at most 8"), "{error}");
    }

    #[test]
    fn every_source_with_pages_is_scraped() {
        let text = "plugins:\n- type: metrics-data-source\n- type: core-metrics-extractor\n\
             - {type: pages, name: mine}\n- {type: pages, name: idle}\n- type: words\n\
             - {type: reader, parameters: {of: [words]}}\n\
             dataLayer: {sources: [{pluginRef: idle}, {pluginRef: mine, extractors: [{pluginRef: \
             words}]}, {pluginRef: metrics-data-source, extractors: [{pluginRef: \
             core-metrics-extractor}]}]}";
        let settings = read(text).unwrap();
        let [mine, core] = &settings.sources[..] else { panic!("{:?}", settings.sources) };
        assert_eq!(
            (mine.source_type, mine.path.as_str(), mine.port),
            ("pages", "/pages", Some(9_400))
        );
        assert_eq!(mine.extractors[0].reports, ["words"]);
        assert!(mine.engines.is_none() && core.engines.is_some());
        assert_eq!(
            settings.scalars,
            [ScalarKey { name: "words".into(), producer: "words".into() }]
        );
        let ms = Duration::from_millis;
        assert_eq!(settings.intervals(ms(50)), [ms(1_000), ms(50)]);
    }

    fn engine(source: &Source) -> String {
        let engines = source.engines.as_ref().unwrap();
        engines.table.select(&BTreeMap::new()).engine().name.clone()
    }

    #[test]
    fn without_a_word_the_defaults_hold() {
        let settings = read("plugins: [{type: queue-scorer}]").unwrap();
        assert_eq!(settings.discovery, None);
        let [source] = &settings.sources[..] else { panic!() };
        assert_eq!((source.path.as_str(), source.port), ("/metrics", None));
        assert_eq!(engine(source), "vllm");
        assert_eq!(settings.scalars, []);
    }

    #[test]
    fn declared_plugins_are_read() {
        let text = "plugins:\n\
             - {type: metrics-data-source, parameters: {path: /m, port: 9, interval: 1s}}\n\
             - {type: core-metrics-extractor, parameters: {defaultEngine: sglang}}";
        let settings = read(text).unwrap();
        let [source] = &settings.sources[..] else { panic!() };
        assert_eq!((source.path.as_str(), source.port), ("/m", Some(9)));
        assert_eq!(source.interval, Some(Duration::from_secs(1)));
        assert_eq!(engine(source), "sglang");
    }

    #[test]
    fn discovery_is_read() {
        let text = "plugins: [{type: file-discovery, name: d, parameters: {path: /e, watchFile: true}}]\n\
                    dataLayer: {discovery: {pluginRef: d}}";
        let (path, entries) = ("/e".into(), Entries::Pods);
        let expected = FileDiscovery { path, watch: true, entries };
        assert_eq!(read(text).unwrap().discovery, Some(expected));
        let clusters = text.replace("file-discovery", "multicluster-file-discovery");
        let found = read(&clusters).unwrap().discovery.unwrap();
        assert_eq!(found.entries, Entries::Clusters);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let text = "plugins: [{type: metrics-data-source, parameters: {scheme: https}}]";
        assert!(read(text).map(drop).unwrap_err().contains("scheme http"));
    }

    #[test]
    fn equal_sources_stay_identical() {
        let text = "plugins: [{type: core-metrics-extractor, parameters: {defaultEngine: sglang}}]";
        let first = read(text).unwrap();
        let mut second = read(text).unwrap();
        assert!(!Rc::ptr_eq(&first.sources[0], &second.sources[0]));
        second.keep_sources(&first);
        assert!(Rc::ptr_eq(&first.sources[0], &second.sources[0]));
        let mut other = read("plugins: [{type: queue-scorer}]").unwrap();
        other.keep_sources(&first);
        assert_eq!(engine(&other.sources[0]), "vllm");
    }

    #[test]
    fn intervals_follow_the_tick_rule() {
        let ms = Duration::from_millis;
        let one = |refresh, own| effective_intervals(refresh, &[own])[0];
        assert_eq!(one(ms(50), None), ms(50));
        assert_eq!(one(ms(10), None), ms(50));
        assert_eq!(one(ms(50), Some(ms(120))), ms(100));
        assert_eq!(one(ms(1_000), Some(ms(200))), ms(200));
        assert_eq!(one(ms(50), Some(ms(1))), ms(50));
        assert_eq!(one(ms(200), Some(ms(0))), ms(200));
        let several = [None, Some(ms(100)), Some(ms(1_030))];
        assert_eq!(effective_intervals(ms(200), &several), [ms(100), ms(100), ms(1_000)]);
    }
}

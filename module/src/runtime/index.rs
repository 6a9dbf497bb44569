//! The index of engines' caches on its way to the plugins that match prompts precisely.
//!
//! The control plane keeps the index in the segment's table, and says in a document how it was written.
//! The watcher thread opens a reader once per data file and document and hands it to every
//! producer, including those that a later configuration brings. Workers never wait for that: a producer
//! swaps a pointer, and reads the mapped memory itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use envoy_proxy_dynamic_modules_rust_sdk::envoy_log_warn;
use inlane_core::config::LoadedConfig;
use inlane_core::snapshot::IndexDocument;
use inlane_plugins::precise::PreciseSource;
use inlane_plugins::precise::parameters::Parameters;
use inlane_plugins::precise::producer;
use inlane_segment::mapped::MappedView;
use inlane_segment::table::MirrorReader;
use inlane_segment::{Document, Snapshot};

use super::Runtime;

/// How long a control plane may take to begin with the index of a configuration.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the watcher remembers of the index.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// Generation of the document that was read.
    seen: Option<u64>,
    followed: Option<(MirrorReader<MappedView>, IndexDocument)>,
    /// Since when a producer has waited for an index.
    missing_since: Option<Instant>,
    /// What has been said about producers.
    warned: BTreeSet<String>,
}

impl Index {
    /// Another segment, or another data file of the same.
    pub(super) fn start_over(&mut self) {
        self.seen = None;
    }

    /// Opens what is new, and hands it to the plugins, also where `plugins_changed`.
    ///
    /// # Errors
    /// A document or table that cannot be used. It is looked at again until it can.
    pub(super) fn follow(
        &mut self,
        runtime: &Runtime,
        snapshot: &Snapshot,
        config: Option<&LoadedConfig>,
        plugins_changed: bool,
    ) -> Result<(), String> {
        let generation = snapshot.document_generation(Document::Index);
        let opened = match self.seen == Some(generation) {
            true => Ok(false),
            false => self.open(snapshot),
        };
        if plugins_changed {
            self.warned.clear();
            self.missing_since = None;
        }
        if plugins_changed || opened == Ok(true) {
            for (_, source) in runtime.kept.all::<PreciseSource>() {
                source.engines().follow(self.followed.clone());
            }
            config.into_iter().for_each(|config| self.warn_of_differences(config));
        }
        self.warn_of_nothing(runtime);
        opened.map(drop)
    }

    /// Whether something else is followed than before.
    fn open(&mut self, snapshot: &Snapshot) -> Result<bool, String> {
        let fail = |error: &dyn std::fmt::Display| format!("index of cached blocks: {error}");
        let Some(document) = snapshot.document(Document::Index).map_err(|e| fail(&e))? else {
            // What was followed was another directory's, where nobody writes any more.
            self.seen = Some(snapshot.document_generation(Document::Index));
            return Ok(self.followed.take().is_some());
        };
        let facts: IndexDocument = serde_json::from_slice(&document.bytes).map_err(|e| fail(&e))?;
        let mirror = MirrorReader::open(snapshot.table()).map_err(|e| fail(&e))?;
        self.seen = Some(document.generation);
        self.followed = Some((mirror, facts));
        Ok(true)
    }

    /// Producers that cannot read the index find nothing, which looks like cold caches.
    fn warn_of_differences(&mut self, config: &LoadedConfig) {
        let Some((_, index)) = &self.followed else { return };
        let shadow = config.shadow.as_ref().map(|shadow| &shadow.config.plugins);
        for plugin in config.plugins.iter().chain(shadow.into_iter().flatten()) {
            if plugin.type_name != producer::TYPE.name {
                continue;
            }
            let Ok(parameters) = plugin.params.decode::<Parameters>() else { continue };
            let Ok(keying) = parameters.keying() else { continue };
            let Some(difference) = keying.difference(index) else { continue };
            let warning =
                format!("plugin '{}' finds no block of any prompt: {difference}", plugin.name);
            if self.warned.insert(warning.clone()) {
                envoy_log_warn!("inlane: {warning}");
            }
        }
    }

    /// Says once per configuration that producers wait for an index in vain.
    fn warn_of_nothing(&mut self, runtime: &Runtime) {
        if self.followed.is_some() || self.warned.contains("") {
            return;
        }
        let sources = runtime.kept.all::<PreciseSource>();
        if !sources.iter().any(|(_, source)| !source.is_attached()) {
            return;
        }
        let now = Instant::now();
        if now.duration_since(*self.missing_since.get_or_insert(now)) >= PATIENCE {
            self.warned.insert(String::new());
            envoy_log_warn!(
                "inlane: there is a precise-prefix-cache-producer, but the control plane keeps no \
                 index of cached blocks: it finds no block of any prompt"
            );
        }
    }
}

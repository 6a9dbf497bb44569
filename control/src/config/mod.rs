//! The scheduler's configuration on its way to the proxy.
//!
//! The control plane loads a configuration the way a proxy would, so that a bad one is refused
//! before a proxy sees it, takes out what concerns itself ([`settings`]), and publishes the user's
//! own bytes. After a refusal the last good one stays in force.

pub(crate) mod settings;

use std::path::PathBuf;

use inlane_core::config::{FromEnvironment, load};
use inlane_core::registry::{KeptState, Registry};
use inlane_core::snapshot::ConfigDocument;

use self::settings::Settings;
use crate::watch::{Change, FileWatch};

/// Longest configuration that is read, in bytes. The loader refuses what is longer than its bound.
const MAX_BYTES: usize = 1024 * 1024;

/// Where the configuration comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// The built-in default.
    BuiltIn,
    /// A file, followed.
    File(PathBuf),
    /// Text of the command line.
    Text(String),
    /// Environment variables of the first release.
    Environment(FromEnvironment),
}

/// A configuration that may be published.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) document: ConfigDocument,
    pub(crate) settings: Settings,
}

/// Reads and judges configurations.
pub(crate) struct Configurator {
    registry: Registry,
    allow_experimental_plugins: bool,
    source: Source,
    watch: Option<FileWatch>,
}

impl Configurator {
    /// Reads from `source`; `registry` has the plugin types that a proxy knows.
    pub(crate) fn new(registry: Registry, source: Source, allow_experimental: bool) -> Self {
        let watch = match &source {
            Source::File(path) => Some(FileWatch::new(path.clone(), MAX_BYTES)),
            Source::BuiltIn | Source::Text(_) | Source::Environment(_) => None,
        };
        // The variables are older than the distinction.
        let allow_experimental_plugins =
            allow_experimental || matches!(source, Source::Environment(_));
        Self { registry, allow_experimental_plugins, source, watch }
    }

    /// The configuration to start with.
    pub(crate) fn first(&mut self) -> Result<Accepted, String> {
        match (&mut self.watch, &self.source) {
            (Some(watch), _) => {
                let bytes = watch.first().map_err(|e| unreadable(watch, &e))?;
                let name = watch.path().display().to_string();
                self.read(name, bytes)
            }
            (None, Source::Text(text)) => self.read("--config-text".into(), text.clone().into()),
            (None, Source::Environment(FromEnvironment { text, errors, warnings, .. })) => {
                for error in errors {
                    tracing::error!("{error}");
                }
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                self.read("environment variables".into(), text.clone().into())
            }
            (None, _) => self.read(String::new(), Vec::new()),
        }
    }

    /// What has come since, if anything.
    pub(crate) fn next(&mut self) -> Option<Result<Accepted, String>> {
        let watch = self.watch.as_mut()?;
        Some(match watch.look()? {
            Change::Content(bytes) => {
                let name = watch.path().display().to_string();
                self.read(name, bytes)
            }
            Change::Lost(error) => Err(unreadable(watch, &error)),
        })
    }

    fn read(&self, source: String, bytes: Vec<u8>) -> Result<Accepted, String> {
        let text = String::from_utf8(bytes).map_err(|_| {
            format!("{source}: failed to decode configuration: the text is not UTF-8")
        })?;
        self.judge(ConfigDocument {
            source,
            text,
            allow_experimental_plugins: self.allow_experimental_plugins,
        })
    }

    /// Loads a document as a proxy would.
    pub(crate) fn judge(&self, document: ConfigDocument) -> Result<Accepted, String> {
        let loaded = load(&document, &self.registry, &KeptState::default())
            .map_err(|e| format!("failed to load the configuration - {e}"))?;
        for warning in &loaded.warnings {
            tracing::warn!(source = document.source, "{warning}");
        }
        let settings = Settings::read(&loaded)?;
        Ok(Accepted { document, settings })
    }
}

fn unreadable(watch: &FileWatch, error: &std::io::Error) -> String {
    format!("failed to load config from a file '{}' - {error}", watch.path().display())
}

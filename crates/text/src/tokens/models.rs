//! The models of a directory, followed as it changes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{fmt, io};

use arc_swap::ArcSwap;

use super::cache::TokenCache;
use super::error::LoadError;
use super::files::{Place, Stamp};
use super::images::Engine;
use super::model::Model;
use super::scan;

/// Where models are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Searched for [`file`](Self::file). A model's name is its directory's path relative to this
    /// one, or `ORG/NAME` in a hub cache (`models--ORG--NAME/snapshots/HASH`); a tokenizer in this
    /// very directory has the directory's own name.
    pub directory: Option<PathBuf>,
    /// Name of the tokenizer's file.
    pub file: String,
    /// Models by name: directories, or paths of tokenizer files. They win over what is found.
    pub map: BTreeMap<String, PathBuf>,
    /// What the engines of a model were started with, by its name.
    pub engines: BTreeMap<String, Engine>,
}

impl Source {
    /// Models in `directory`, each with its `tokenizer.json`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Some(directory.into()), ..Self::default() }
    }

    /// What the environment says: `LOCAL_TOKENIZER_DIR`, where models are, and
    /// `LOCAL_TOKENIZER_FILENAME`, what their tokenizer is called. No directory if it says
    /// nothing.
    pub fn from_env() -> Self {
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let default = Self::default();
        Self {
            directory: text("LOCAL_TOKENIZER_DIR").map(PathBuf::from),
            file: text("LOCAL_TOKENIZER_FILENAME").unwrap_or(default.file),
            map: default.map,
            engines: default.engines,
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        let (map, engines) = (BTreeMap::new(), BTreeMap::new());
        Self { directory: None, file: "tokenizer.json".to_owned(), map, engines }
    }
}

/// What a look at the directory changed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A model could not be loaded; where it was loaded before, its old state still serves.
    Failed {
        /// Its name.
        name: String,
        /// What is wrong.
        error: LoadError,
        /// Whether an old state serves.
        serving: bool,
    },
    /// A model is new, or was replaced.
    Loaded {
        /// Its name.
        name: String,
    },
    /// A model is new, but its chat template is broken: chats with it have no tokens.
    Partly {
        /// Its name.
        name: String,
        /// What is wrong with the template.
        why: String,
    },
    /// A model is gone.
    Removed {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { name, error, serving: true } => {
                write!(f, "model {name}: keeping the state before: {error}")
            }
            Self::Failed { name, error, serving: false } => write!(f, "model {name}: {error}"),
            Self::Loaded { name } => write!(f, "model {name}: loaded"),
            Self::Partly { name, why } => write!(f, "model {name}: loaded without template: {why}"),
            Self::Removed { name } => write!(f, "model {name}: removed"),
        }
    }
}

/// The models at hand. [`get`](Self::get) takes no lock.
#[derive(Debug)]
pub struct Models {
    source: Source,
    cache: Arc<TokenCache>,
    table: ArcSwap<HashMap<String, Arc<Model>>>,
    /// What was tried last, by name. Held during a look at the directory.
    tried: Mutex<HashMap<String, (Place, Stamp)>>,
}

/// Looks at a directory from time to time, until it is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Models {
    /// No models yet: see [`refresh`](Self::refresh) and [`watch`](Self::watch).
    pub fn new(source: Source, cache: Arc<TokenCache>) -> Self {
        Self { source, cache, table: ArcSwap::default(), tried: Mutex::default() }
    }

    /// The model of this name.
    pub fn get(&self, name: &str) -> Option<Arc<Model>> {
        self.table.load().get(name).cloned()
    }

    /// Names of all models, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self.table.load().keys().cloned().collect();
        names.sort();
        names
    }

    /// The cache that all models share.
    pub fn cache(&self) -> &Arc<TokenCache> {
        &self.cache
    }

    /// Looks at the directory and loads what is new or has changed. What was refused once is tried
    /// again when its files change. Blocks while it loads: a second per large model.
    pub fn refresh(&self) -> Vec<Change> {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let places = scan::places(&self.source);
        let mut table = HashMap::clone(&self.table.load());
        let mut changes = Vec::new();
        tried.retain(|name, _| places.contains_key(name));
        table.retain(|name, _| {
            let stays = places.contains_key(name);
            if !stays {
                changes.push(Change::Removed { name: name.clone() });
            }
            stays
        });
        for (name, place) in places {
            let state = (place.clone(), place.stamp());
            if tried.get(&name) == Some(&state) {
                continue;
            }
            let before = table.get(&name).map(Arc::as_ref);
            let engine = self.source.engines.get(&name).cloned().unwrap_or_default();
            let cache = Arc::clone(&self.cache);
            let loaded = Model::load_from(&name, &place, cache, &engine, before);
            // Files that changed meanwhile are looked at again next time.
            if place.stamp() == state.1 {
                tried.insert(name.clone(), state);
            }
            changes.push(match loaded {
                Ok(model) => {
                    let why = model.template_error().map(str::to_owned);
                    table.insert(name.clone(), Arc::new(model));
                    match why {
                        Some(why) => Change::Partly { name, why },
                        None => Change::Loaded { name },
                    }
                }
                Err(error) => Change::Failed { serving: before.is_some(), name, error },
            });
        }
        self.table.store(Arc::new(table));
        changes
    }

    /// Starts a thread that looks at the directory at once and then every `every`, and says what
    /// has changed.
    ///
    /// # Errors
    /// A thread that does not start.
    pub fn watch(
        self: &Arc<Self>,
        every: Duration,
        report: impl Fn(Change) + Send + 'static,
    ) -> io::Result<Watch> {
        let stop = Arc::new(AtomicBool::new(false));
        let (models, stopped) = (Arc::clone(self), Arc::clone(&stop));
        let run = move || {
            while !stopped.load(Relaxed) {
                models.refresh().into_iter().for_each(&report);
                thread::park_timeout(every);
            }
        };
        let thread = thread::Builder::new().name("inlane-models".to_owned()).spawn(run)?;
        Ok(Watch { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Its panic ended it: nothing is left to stop.
            drop(thread.join());
        }
    }
}

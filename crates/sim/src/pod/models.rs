//! The models a pod serves: one base model under several names, and LoRA adapters.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;
use serde::Serialize;

use super::unix_time;
use crate::{
    config::{Config, lora::LoraModule},
    engine::{
        events,
        hash::{self, Hashing, Root},
    },
};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Models {
    /// The names of the base model; the first one is the one shown. Never empty.
    names: Vec<Arc<str>>,
    path: String,
    max_model_len: u32,
    hashing: Hashing,
    root: Root,
    adapters: RwLock<Vec<Adapter>>,
    /// Adapters loaded so far.
    loaded: AtomicU64,
}

#[derive(Clone, Debug)]
struct Adapter {
    name: Arc<str>,
    /// From 1, in the order of loading.
    id: u64,
    path: Arc<str>,
    root: Root,
}

/// What a request's model name stands for.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    /// The name that answers carry.
    pub(crate) name: Arc<str>,
    /// The adapter, unless it is the base model.
    pub(crate) adapter: Option<events::Adapter>,
    /// Start of its block keys.
    pub(crate) root: Root,
}

impl Models {
    pub(super) fn new(config: &Config, seed: u64) -> Self {
        let hashing = config.hashing(seed);
        let given = config.served_model_name.iter().map(|name| Arc::from(name.as_str()));
        let mut names: Vec<Arc<str>> = given.collect();
        if names.is_empty() {
            names.push(Arc::from(config.model.as_str()));
        }
        let models = Self {
            root: hashing.root(&names[0], None),
            path: config.model.clone(),
            max_model_len: config.max_model_len,
            hashing,
            adapters: RwLock::default(),
            loaded: AtomicU64::new(0),
            names,
        };
        for module in &config.lora_modules {
            models.load(module);
        }
        models
    }

    /// The name shown in answers and metrics.
    pub(crate) fn display(&self) -> &str {
        &self.names[0]
    }

    /// The model called `name`.
    pub(crate) fn find(&self, name: &str) -> Option<Served> {
        if self.names.iter().any(|known| **known == *name) {
            let name = Arc::clone(&self.names[0]);
            return Some(Served { name, adapter: None, root: self.root.clone() });
        }
        let adapters = self.adapters.read();
        let adapter = adapters.iter().find(|adapter| *adapter.name == *name)?;
        let name = Arc::clone(&adapter.name);
        Some(Served {
            adapter: Some(events::Adapter { name: Arc::clone(&name), id: adapter.id }),
            name,
            root: adapter.root.clone(),
        })
    }

    /// Adds or replaces an adapter.
    pub(crate) fn load(&self, module: &LoraModule) {
        let (name, path): (Arc<str>, Arc<str>) =
            (Arc::from(module.name.as_str()), Arc::from(module.path.as_str()));
        let id = self.loaded.fetch_add(1, Ordering::Relaxed) + 1;
        let hashed = hash::Adapter { name: Arc::clone(&name), path: Arc::clone(&path), id };
        let root = self.hashing.root(&self.names[0], Some(hashed));
        let adapter = Adapter { name, id, path, root };
        let mut adapters = self.adapters.write();
        adapters.retain(|known| known.name != adapter.name);
        adapters.push(adapter);
    }

    /// Forgets an adapter, if it is known.
    pub(crate) fn unload(&self, name: &str) {
        self.adapters.write().retain(|adapter| *adapter.name != *name);
    }

    pub(crate) fn has_adapters(&self) -> bool {
        !self.adapters.read().is_empty()
    }

    /// The answer of `/v1/models`.
    pub(crate) fn list(&self) -> ModelList {
        let card = |id: &str, root: &str, parent: Option<&str>| ModelCard {
            id: id.to_owned(),
            object: "model",
            created: unix_time().as_secs(),
            owned_by: "vllm",
            root: root.to_owned(),
            parent: parent.map(str::to_owned),
            max_model_len: self.max_model_len,
        };
        let mut data: Vec<_> = self.names.iter().map(|name| card(name, &self.path, None)).collect();
        let adapters = self.adapters.read();
        data.extend(adapters.iter().map(|a| card(&a.name, &a.path, Some(self.display()))));
        ModelList { object: "list", data }
    }
}

/// The models as the API lists them.
#[derive(Debug, Serialize)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelCard>,
}

#[derive(Debug, Serialize)]
struct ModelCard {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: String,
    parent: Option<String>,
    max_model_len: u32,
}

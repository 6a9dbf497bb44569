//! The registry: plugin type names and what is behind them.
//!
//! A plugin file exports one [`PluginType`]; one line registers it. Building an instance happens
//! while a configuration is loaded, with a [`Build`] in hand that knows the instance's name,
//! connects data keys, declares per-cycle state and keeps state that outlives a reload.

use std::any::Any;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::columns::{Attribute, Col, Scalar};
use crate::config::as_go;
use crate::effect::PluginIx;
use crate::plugin::Roles;
use crate::state::{CycleData, StateLayout, StateSlot};

/// How settled a plugin is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stability {
    /// Needs `--allow-experimental-plugins`.
    Alpha,
    /// For everyone.
    Beta,
}

/// The data key of tokenized prompts; a fact of the request, not a column.
pub const TOKENIZED_PROMPT: &str = "TokenizedPrompt";

/// Data keys of the engine's metrics; the producer is `core-metrics-extractor`.
pub mod metric_keys {
    /// Requests waiting.
    pub const WAITING: &str = "WaitingQueueSize";
    /// Requests running.
    pub const RUNNING: &str = "RunningRequestsSize";
    /// KV-cache use.
    pub const KV_USAGE: &str = "KVCacheUsagePercent";
    /// Block size and number of blocks.
    pub const CACHE_INFO: &str = "CacheInfo";
    /// LoRA adapters, running and waiting, and the models served.
    pub const ADAPTERS: &str = "ActiveModels";
}

/// Instance name under which metric keys are produced.
pub const CORE_METRICS_EXTRACTOR: &str = "core-metrics-extractor";

/// A parameter that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}{message}", field.as_ref().map(|f| format!("{f}: ")).unwrap_or_default())]
pub struct BuildError {
    /// Path of the field below `parameters`, when one is to blame.
    pub field: Option<String>,
    /// What was expected, and what was found.
    pub message: String,
}

impl BuildError {
    /// An error about the plugin as a whole.
    pub fn new(message: impl Into<String>) -> Self {
        Self { field: None, message: message.into() }
    }

    /// An error about one field.
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: Some(field.into()), message: message.into() }
    }
}

/// The `parameters` of a plugin instance, still raw.
#[derive(Debug, Clone, Default)]
pub struct Params(Option<serde_yaml::Value>);

impl Params {
    /// Wraps the raw value; `None` and null = no parameters.
    pub fn new(value: Option<serde_yaml::Value>) -> Self {
        Self(value.filter(|v| !v.is_null()))
    }

    /// Whether the configuration gives parameters.
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }

    /// The raw value.
    pub fn raw(&self) -> Option<&serde_yaml::Value> {
        self.0.as_ref()
    }

    /// Decodes into `T`, whose `Default` stands for absent parameters. `T` should deny unknown
    /// fields. As in Go, `null` stands for absent where `T` refuses it, whole numbers may be
    /// written as `2.0`, and the case of keys does not matter.
    ///
    /// # Errors
    /// The field that does not fit, and what was expected.
    pub fn decode<T: DeserializeOwned + Default>(&self) -> Result<T, BuildError> {
        match &self.0 {
            None => Ok(T::default()),
            Some(value) => as_go::decode(value).map_err(|fault| BuildError {
                field: Some(fault.path).filter(|path| !path.is_empty()),
                message: fault.message,
            }),
        }
    }
}

/// State that outlives a configuration reload, found again by key.
///
/// A prefix index or a session table must not start empty because an unrelated line of the
/// configuration changed.
#[derive(Default, Clone)]
pub struct KeptState(Arc<Mutex<HashMap<String, Arc<dyn Any + Send + Sync>>>>);

impl fmt::Debug for KeptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(states.keys()).finish()
    }
}

impl KeptState {
    /// The state under `key`, made with `make` when it is new or of another type.
    pub fn get_or<T: Any + Send + Sync>(&self, key: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let Ok(state) = self.try_get_or(key, || Ok::<_, Infallible>(make()));
        state
    }

    /// Like [`get_or`](Self::get_or), for a state that may fail to be made.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_get_or<T: Any + Send + Sync, E>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = states.get(key).and_then(|s| Arc::clone(s).downcast().ok()) {
            return Ok(found);
        }
        let made = Arc::new(make()?);
        states.insert(key.to_owned(), Arc::<T>::clone(&made));
        Ok(made)
    }

    /// The states of type `T`, by key.
    pub fn all<T: Any + Send + Sync>(&self) -> Vec<(String, Arc<T>)> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<_> = states
            .iter()
            .filter_map(|(k, s)| Some((k.clone(), Arc::clone(s).downcast::<T>().ok()?)))
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Forgets states that only this store still refers to.
    pub fn release_unused(&self) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|_, state| Arc::strong_count(state) > 1);
    }
}

/// A data key: an attribute type and the instance that produces it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DataKey {
    /// Type name of the data; of a custom metric its own name.
    pub name: Cow<'static, str>,
    /// Instance name of the producer; empty = whoever.
    pub producer: String,
}

impl fmt::Display for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.producer)
    }
}

/// A producer that another instance wants to exist, because its own parameters configure it.
#[derive(Debug, Clone)]
pub struct NewProducer {
    /// Registered type.
    pub type_name: &'static str,
    /// Name of the instance; left alone when the configuration already has one of that name.
    pub name: String,
    /// Its parameters.
    pub params: Params,
}

/// What an instance produces and consumes.
#[derive(Debug, Clone, Default)]
pub struct DataUse {
    /// Producers to make along with the instance.
    pub creates: Vec<NewProducer>,
    /// Keys it writes.
    pub produces: Vec<DataKey>,
    /// Keys it cannot work without.
    pub requires: Vec<DataKey>,
    /// Keys it uses when they are there.
    pub uses: Vec<DataKey>,
    /// Custom metrics that it takes out of what a source delivers, by name.
    pub reports: Vec<String>,
}

/// Column indices given out so far, per data key. Shared by all instances of a configuration.
#[derive(Debug, Default)]
pub struct Schema {
    columns: BTreeMap<(&'static str, DataKey), u16>,
    per_kind: BTreeMap<&'static str, u16>,
    /// The per-cycle states declared.
    pub states: StateLayout,
}

impl Schema {
    /// The column of that producer, made on first use.
    pub fn column<T: Attribute>(&mut self, producer: &str) -> Col<T> {
        self.named_column(Cow::Borrowed(T::KEY), producer)
    }

    /// The column of a custom metric, made on first use.
    pub fn scalar(&mut self, name: &str, producer: &str) -> Col<Scalar> {
        self.named_column(Cow::Owned(name.to_owned()), producer)
    }

    fn named_column<T: Attribute>(&mut self, name: Cow<'static, str>, producer: &str) -> Col<T> {
        let key = DataKey { name, producer: producer.to_owned() };
        let next = self.per_kind.entry(T::KEY).or_default();
        let index = *self.columns.entry((T::KEY, key)).or_insert_with(|| {
            let index = *next;
            *next += 1;
            index
        });
        Col::at(index)
    }

    /// The column of that producer, when one was made.
    pub fn find<T: Attribute>(&self, producer: &str) -> Option<Col<T>> {
        let key = DataKey { name: Cow::Borrowed(T::KEY), producer: producer.to_owned() };
        self.columns.get(&(T::KEY, key)).copied().map(Col::at)
    }

    /// All columns of one kind with the names of their producers.
    pub fn columns<T: Attribute>(&self) -> impl Iterator<Item = (&str, Col<T>)> {
        self.keys::<T>().map(|(key, col)| (key.producer.as_str(), col))
    }

    /// All columns of one kind with their keys.
    pub fn keys<T: Attribute>(&self) -> impl Iterator<Item = (&DataKey, Col<T>)> {
        let of_kind = self.columns.iter().filter(|((kind, _), _)| *kind == T::KEY);
        of_kind.map(|((_, key), &index)| (key, Col::at(index)))
    }
}

/// What an instance may know of the others while it is built.
pub trait Peers {
    /// The roles of an instance that the type's [`references`](PluginType::references) name.
    fn roles(&self, name: &str) -> Option<&Roles>;
    /// Names of the instances of a type that the configuration declares, built or not.
    fn of_type(&self, type_name: &str) -> Vec<&str>;
}

/// The workbench of one instance while it is built.
pub struct Build<'a> {
    name: &'a str,
    type_name: &'static str,
    instance: PluginIx,
    schema: &'a mut Schema,
    kept: &'a KeptState,
    peers: Option<&'a dyn Peers>,
    data: DataUse,
    warnings: Vec<String>,
}

impl fmt::Debug for Build<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Build")
            .field("name", &self.name)
            .field("type_name", &self.type_name)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

impl<'a> Build<'a> {
    /// A workbench for the instance `name` of type `type_name`.
    pub fn new(
        name: &'a str,
        type_name: &'static str,
        instance: PluginIx,
        schema: &'a mut Schema,
        kept: &'a KeptState,
    ) -> Self {
        let (data, warnings) = Default::default();
        Self { name, type_name, instance, schema, kept, peers: None, data, warnings }
    }

    /// Lets the instance know of others.
    #[must_use]
    pub fn among(mut self, peers: &'a dyn Peers) -> Self {
        self.peers = Some(peers);
        self
    }

    /// The roles of another instance, which the type's [`references`](PluginType::references) must
    /// name.
    ///
    /// # Errors
    /// There is no such instance; `field` is the parameter that names it.
    pub fn refer(&self, field: &str, name: &str) -> Result<&'a Roles, BuildError> {
        self.peers.and_then(|peers| peers.roles(name)).ok_or_else(|| {
            let text = format!("a plugin has a dependency on the unregistered plugin {name}");
            BuildError::field(field, text)
        })
    }

    /// Names of the instances of a type that the configuration declares.
    pub fn declared(&self, type_name: &str) -> Vec<&'a str> {
        self.peers.map(|peers| peers.of_type(type_name)).unwrap_or_default()
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        self.name
    }

    /// The type name that the configuration used, an alias perhaps.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Index of the instance, for effects and random streams.
    pub fn instance(&self) -> PluginIx {
        self.instance
    }

    /// A column that must be there. An empty `producer` means `default_producer`.
    pub fn require<T: Attribute>(&mut self, producer: &str, default_producer: &str) -> Col<T> {
        let producer = if producer.is_empty() { default_producer } else { producer };
        self.require_key(T::KEY, producer);
        self.schema.column(producer)
    }

    /// A column that is used when it is there. An empty `producer` means `default_producer`.
    pub fn optional<T: Attribute>(&mut self, producer: &str, default_producer: &str) -> Col<T> {
        let producer = if producer.is_empty() { default_producer } else { producer };
        self.use_key(T::KEY, producer);
        self.schema.column(producer)
    }

    /// The column of a custom metric, absent where nobody reports it. An empty `producer` means
    /// whoever reports it.
    pub fn scalar(&mut self, name: &str, producer: &str) -> Col<Scalar> {
        let key = DataKey { name: name.to_owned().into(), producer: producer.to_owned() };
        self.data.uses.push(key);
        self.schema.scalar(name, producer)
    }

    /// The column that this instance fills, published under its own name.
    pub fn produce<T: Attribute>(&mut self) -> Col<T> {
        self.produce_key(T::KEY);
        self.schema.column(self.name)
    }

    /// Declares a key without a column as required.
    pub fn require_key(&mut self, name: &'static str, producer: &str) {
        self.data.requires.push(DataKey { name: name.into(), producer: producer.to_owned() });
    }

    /// Declares a key without a column as used when it is there.
    pub fn use_key(&mut self, name: &'static str, producer: &str) {
        self.data.uses.push(DataKey { name: name.into(), producer: producer.to_owned() });
    }

    /// Declares a key without a column as produced by this instance.
    pub fn produce_key(&mut self, name: &'static str) {
        self.data.produces.push(DataKey { name: name.into(), producer: self.name.to_owned() });
    }

    /// Declares a custom metric that this instance takes out of what a source delivers.
    pub fn report(&mut self, name: &str) {
        let (name, producer) = (name.to_owned(), self.name.to_owned());
        self.data.produces.push(DataKey { name: name.clone().into(), producer });
        self.data.reports.push(name);
    }

    /// Asks for a producer `name` of type `type_name` to be made with `params`, unless the
    /// configuration has an instance of that name.
    pub fn create_producer(
        &mut self,
        type_name: &'static str,
        name: impl Into<String>,
        params: Params,
    ) {
        self.data.creates.push(NewProducer { type_name, name: name.into(), params });
    }

    /// Declares per-cycle state.
    pub fn cycle_state<T: CycleData>(&mut self) -> StateSlot<T> {
        let owner = format!("{}/{}", self.type_name, self.name);
        self.schema.states.declare(&owner)
    }

    /// State that outlives a reload. The key is the instance's type and name, and `variant`,
    /// which should hold the parameters that the state depends on.
    pub fn kept_state<T: Any + Send + Sync>(
        &self,
        variant: &str,
        make: impl FnOnce() -> T,
    ) -> Arc<T> {
        self.kept.get_or(&self.state_key(variant), make)
    }

    /// Like [`kept_state`](Self::kept_state), for a state that may fail to be made.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_kept_state<T: Any + Send + Sync, E>(
        &self,
        variant: &str,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        self.kept.try_get_or(&self.state_key(variant), make)
    }

    fn state_key(&self, variant: &str) -> String {
        format!("{}/{}/{variant}", self.type_name, self.name)
    }

    /// Says something that the user should know and may ignore; logged once per load.
    pub fn warn(&mut self, message: impl Into<String>) {
        self.warnings.push(message.into());
    }

    /// What was declared, when building is over.
    pub fn finish(self) -> (DataUse, Vec<String>) {
        (self.data, self.warnings)
    }
}

/// A plugin type.
#[derive(Debug, Clone, Copy)]
pub struct PluginType {
    /// Name in the configuration.
    pub name: &'static str,
    /// Older names that still load, each with a warning.
    pub deprecated_names: &'static [&'static str],
    /// How settled it is.
    pub stability: Stability,
    /// Data key names for which an instance of this type, without parameters and named like the
    /// type, is made when something requires them and nothing produces them.
    pub default_producer_of: &'static [&'static str],
    /// Names of the instances that `parameters` refer to: these are built first, wherever they
    /// stand in the configuration.
    pub references: fn(&Params) -> Vec<String>,
    /// Builds an instance.
    pub build: BuildFn,
}

/// Builds an instance of a type.
pub type BuildFn = fn(&mut Build<'_>, &Params) -> Result<Roles, BuildError>;

impl PluginType {
    /// A settled type that goes by one name and refers to no other instance.
    pub const fn new(name: &'static str, build: BuildFn) -> Self {
        Self {
            name,
            deprecated_names: &[],
            stability: Stability::Beta,
            default_producer_of: &[],
            references: |_| Vec::new(),
            build,
        }
    }

    /// The same with older names.
    #[must_use]
    pub const fn deprecated_names(self, deprecated_names: &'static [&'static str]) -> Self {
        Self { deprecated_names, ..self }
    }

    /// The same, for those who allow experimental plugins.
    #[must_use]
    pub const fn alpha(self) -> Self {
        Self { stability: Stability::Alpha, ..self }
    }

    /// The same as the default producer of data keys of these names.
    #[must_use]
    pub const fn default_producer_of(self, keys: &'static [&'static str]) -> Self {
        Self { default_producer_of: keys, ..self }
    }

    /// The same with a way to find the instances that parameters refer to.
    #[must_use]
    pub const fn references(self, references: fn(&Params) -> Vec<String>) -> Self {
        Self { references, ..self }
    }
}

/// All plugin types that a configuration may name.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    types: BTreeMap<&'static str, PluginType>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a type under its name and its deprecated names. A later registration of the same
    /// name wins, so that users may replace a plugin.
    pub fn register(&mut self, plugin: PluginType) -> &mut Self {
        for name in std::iter::once(&plugin.name).chain(plugin.deprecated_names) {
            self.types.insert(name, plugin);
        }
        self
    }

    /// The type of that name: the name as registered, and the type.
    pub fn get(&self, name: &str) -> Option<(&'static str, PluginType)> {
        self.types.get_key_value(name).map(|(k, v)| (*k, *v))
    }

    /// All names with their types, ordered.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &PluginType)> {
        self.types.iter().map(|(k, v)| (*k, v))
    }

    /// The type that produces `key` by default: it must produce that name, and be called like the
    /// key's producer.
    pub fn default_producer(&self, key: &DataKey) -> Option<PluginType> {
        let (_, plugin) = self.get(&key.producer)?;
        (plugin.name == key.producer && plugin.default_producer_of.contains(&&*key.name))
            .then_some(plugin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_state_survives_and_is_released() {
        let kept = KeptState::default();
        let first = kept.get_or("a", || Mutex::new(1));
        *first.lock().unwrap() = 5;
        assert_eq!(*kept.get_or("a", || Mutex::new(1)).lock().unwrap(), 5);
        assert_eq!(kept.all::<Mutex<i32>>().len(), 1);
        drop(first);
        kept.release_unused();
        assert!(kept.all::<Mutex<i32>>().is_empty());
    }

    #[test]
    fn a_default_producer_answers_to_its_own_name_only() {
        let mut registry = Registry::new();
        let plugin = PluginType::new("p", |_, _| Ok(Roles::default()));
        registry.register(plugin.deprecated_names(&["old-p"]).default_producer_of(&["K"]));
        let key = |producer: &str| DataKey { name: "K".into(), producer: producer.into() };
        assert!(registry.default_producer(&key("p")).is_some());
        assert!(registry.default_producer(&key("old-p")).is_none());
        assert!(registry.default_producer(&key("mine")).is_none());
        assert_eq!(registry.get("old-p").map(|(n, t)| (n, t.name)), Some(("old-p", "p")));
    }
}

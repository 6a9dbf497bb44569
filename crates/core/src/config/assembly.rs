//! The assembly: plugin instances while a configuration is being loaded.

use std::collections::{BTreeSet, HashMap};

use crate::cycle::guard::isolate;
use crate::decision::PluginError;
use crate::effect::PluginIx;
use crate::plugin::Roles;
use crate::registry::{Build, BuildError, KeptState, Params, Peers, Registry, Schema, Stability};

use super::document::PluginSpec;
use super::error::Fault;
use super::hint;
use super::loaded::{Origin, PluginInstance};

/// More instances than this are a mistake, and indices stay small.
const MAX_PLUGINS: usize = 4_096;

pub(crate) struct Assembly<'a> {
    registry: &'a Registry,
    kept: &'a KeptState,
    pub(crate) schema: Schema,
    pub(crate) plugins: Vec<PluginInstance>,
    /// Where in the document each instance stands; empty for those that do not.
    paths: Vec<String>,
    by_name: HashMap<String, PluginIx>,
    /// Type and name of every instance that the configuration lists.
    declared: Vec<(String, String)>,
    pub(crate) warnings: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// What an instance under construction may see of the assembly.
struct View<'a> {
    plugins: &'a [PluginInstance],
    by_name: &'a HashMap<String, PluginIx>,
    declared: &'a [(String, String)],
}

impl Peers for View<'_> {
    fn roles(&self, name: &str) -> Option<&Roles> {
        self.plugins.get(usize::from(*self.by_name.get(name)?)).map(|p| &p.roles)
    }

    fn of_type(&self, type_name: &str) -> Vec<&str> {
        let same = self.declared.iter().filter(|(t, _)| t == type_name);
        same.map(|(_, name)| name.as_str()).collect()
    }
}

impl<'a> Assembly<'a> {
    pub(crate) fn new(registry: &'a Registry, kept: &'a KeptState) -> Self {
        Self {
            registry,
            kept,
            schema: Schema::default(),
            plugins: Vec::new(),
            paths: Vec::new(),
            by_name: HashMap::new(),
            declared: Vec::new(),
            warnings: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// An empty assembly with the same types and the same state to keep.
    pub(crate) fn beside(&self) -> Self {
        Self::new(self.registry, self.kept)
    }

    /// Adds a warning, once.
    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<(PluginIx, &PluginInstance)> {
        let plugin = *self.by_name.get(name)?;
        Some((plugin, &self.plugins[usize::from(plugin)]))
    }

    /// The instance name nearest to one that does not exist.
    pub(crate) fn nearest(&self, name: &str) -> Option<String> {
        hint::nearest(name, self.plugins.iter().map(|p| p.name.as_str()))
    }

    /// Instances with their indices.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (PluginIx, &PluginInstance)> {
        (0..).zip(&self.plugins)
    }

    /// Builds the instances that the configuration lists, an instance that refers to others after
    /// these. All names and types are checked before the first one is built.
    pub(crate) fn declare(&mut self, specs: &[PluginSpec]) -> Result<(), Fault> {
        let mut names = BTreeSet::new();
        for (spec, i) in specs.iter().zip(0..) {
            let path = format!("plugins[{i}]");
            let name = if spec.name.is_empty() { &spec.type_name } else { &spec.name };
            if spec.type_name.is_empty() {
                return Err(Fault::at(path, format!("plugin '{name}' is missing a type")));
            }
            if !names.insert(name) {
                return Err(Fault::at(path, format!("duplicate plugin name '{name}'")));
            }
            self.check_type(&spec.type_name, &path)?;
        }
        let instance_name = |spec: &PluginSpec| {
            if spec.name.is_empty() { spec.type_name.clone() } else { spec.name.clone() }
        };
        self.declared =
            specs.iter().map(|spec| (spec.type_name.clone(), instance_name(spec))).collect();
        for i in self.build_order(specs)? {
            let spec = &specs[i];
            let path = format!("plugins[{i}]");
            let params = params_of(spec);
            self.add(&spec.type_name, &instance_name(spec), params, Origin::Declared, &path)?;
        }
        Ok(())
    }

    /// The order in which declared instances are built: that of the file, except that an instance
    /// comes after those that it refers to.
    fn build_order(&self, specs: &[PluginSpec]) -> Result<Vec<usize>, Fault> {
        let index = |name: &str| self.declared.iter().position(|(_, known)| known == name);
        let mut needs: Vec<Vec<usize>> = Vec::with_capacity(specs.len());
        for (spec, i) in specs.iter().zip(0..) {
            let references = self.registry.get(&spec.type_name).map(|(_, p)| p.references);
            let names = references.map(|names| names(&params_of(spec))).unwrap_or_default();
            let mut found = Vec::with_capacity(names.len());
            for name in names {
                let Some(at) = index(&name) else {
                    let known = self.declared.iter().map(|(_, name)| name.as_str());
                    let text = format!(
                        "failed to build plugin dependency graph: a plugin has a dependency on the \
                         unregistered plugin {name}"
                    );
                    return Err(
                        Fault::at(format!("plugins[{i}]"), text).hint(hint::nearest(&name, known))
                    );
                };
                found.push(at);
            }
            needs.push(found);
        }
        let (mut order, mut left) = (Vec::new(), (0..specs.len()).collect::<BTreeSet<_>>());
        while !left.is_empty() {
            let ready = left.iter().find(|&&i| needs[i].iter().all(|need| !left.contains(need)));
            let Some(&next) = ready else {
                let names: Vec<&str> = left.iter().map(|&i| self.declared[i].1.as_str()).collect();
                let text = format!(
                    "failed to build plugin dependency graph: {} refer to each other",
                    names.join(", ")
                );
                return Err(Fault::at("plugins", text));
            };
            left.remove(&next);
            order.push(next);
        }
        Ok(order)
    }

    fn check_type(&self, type_name: &str, path: &str) -> Result<(), Fault> {
        if self.registry.get(type_name).is_some() {
            return Ok(());
        }
        let text = format!("plugin type '{type_name}' is not registered");
        let nearest = hint::nearest(type_name, self.registry.iter().map(|(name, _)| name));
        let path = if path.is_empty() { String::new() } else { format!("{path}.type") };
        Err(Fault::at(path, text).hint(nearest))
    }

    /// Builds one instance.
    pub(crate) fn add(
        &mut self,
        type_name: &str,
        name: &str,
        params: Params,
        origin: Origin,
        path: &str,
    ) -> Result<PluginIx, Fault> {
        if self.by_name.contains_key(name) {
            return Err(Fault::at(path, format!("duplicate plugin name '{name}'")));
        }
        self.check_type(type_name, path)?;
        let Some((type_name, plugin)) = self.registry.get(type_name) else {
            return Err(Fault::at(path, "not registered"));
        };
        let instance = match PluginIx::try_from(self.plugins.len()) {
            Ok(instance) if self.plugins.len() < MAX_PLUGINS => instance,
            _ => return Err(Fault::at(path, format!("more than {MAX_PLUGINS} plugins"))),
        };
        if type_name != plugin.name {
            let text = format!("plugin type '{type_name}' is deprecated, use '{}'", plugin.name);
            self.warn(text);
        }
        let view =
            View { plugins: &self.plugins, by_name: &self.by_name, declared: &self.declared };
        let mut build =
            Build::new(name, type_name, instance, &mut self.schema, self.kept).among(&view);
        let built = isolate(|| Ok((plugin.build)(&mut build, &params)));
        let (data, warnings) = build.finish();
        let roles = match built {
            Ok(built) => built,
            Err(PluginError::Failed(text) | PluginError::Panicked(text)) => {
                Err(BuildError::new(format!("panicked: {text}")))
            }
        };
        let roles = roles.map_err(|error| {
            let field = error.field.filter(|_| !path.is_empty());
            let at = field.map(|f| format!("{path}.parameters.{f}"));
            let hint = hint::for_unknown_field(&error.message);
            let text =
                format!("failed to create plugin '{name}' (type: {type_name}): {}", error.message);
            Fault::at(at.unwrap_or_else(|| path.to_owned()), text).hint(hint)
        })?;
        for text in warnings {
            self.warn(format!("plugin '{name}': {text}"));
        }
        self.by_name.insert(name.to_owned(), instance);
        self.paths.push(path.to_owned());
        self.plugins.push(PluginInstance {
            name: name.to_owned(),
            type_name,
            stability: plugin.stability,
            origin,
            roles,
            data,
            params,
        });
        Ok(instance)
    }

    /// The instance of that name, made without parameters when it is missing and the type of that
    /// name is registered.
    pub(crate) fn find_or_inject(&mut self, name: &str) -> Result<Option<PluginIx>, Fault> {
        if let Some((plugin, _)) = self.find(name) {
            return Ok(Some(plugin));
        }
        if self.registry.get(name).is_none() {
            return Ok(None);
        }
        self.add(name, name, Params::default(), Origin::Injected, "").map(Some)
    }

    /// Makes the producers that instances ask for, and default producers of required data that
    /// nobody produces, until nothing is missing.
    pub(crate) fn create_producers(&mut self) -> Result<(), Fault> {
        let mut asked = 0;
        loop {
            while let Some(plugin) = self.plugins.get(asked) {
                let path = self.paths[asked].clone();
                for new in plugin.data.creates.clone() {
                    if self.find(&new.name).is_none() {
                        let origin = Origin::AutoCreated;
                        self.add(new.type_name, &new.name, new.params, origin, &path)?;
                    }
                }
                asked += 1;
            }
            if !self.create_defaults()? {
                return Ok(());
            }
        }
    }

    /// One round of default producers; answers whether any was made. A key without a default is
    /// an error even when a producer made in the same round would have brought it along: such a
    /// producer must be listed, as the reference has it.
    fn create_defaults(&mut self) -> Result<bool, Fault> {
        let produced: BTreeSet<_> = self.plugins.iter().flat_map(|p| &p.data.produces).collect();
        let mut wanted: Vec<(&'static str, String)> = Vec::new();
        for (plugin, path) in self.plugins.iter().zip(&self.paths) {
            for key in plugin.data.requires.iter().filter(|key| !produced.contains(key)) {
                let Some(default) = self.registry.default_producer(key) else {
                    let consumer = &plugin.name;
                    let text = format!(
                        "no default producer found for missing data key {key}, consumed by \
                         {consumer}"
                    );
                    return Err(Fault::at(path, text));
                };
                if wanted.iter().all(|(name, _)| *name != default.name) {
                    wanted.push((default.name, path.clone()));
                }
            }
        }
        for (name, path) in &wanted {
            self.add(name, name, Params::default(), Origin::AutoCreated, path)?;
        }
        Ok(!wanted.is_empty())
    }

    /// Refuses instances of Alpha stability.
    pub(crate) fn check_stability(&self) -> Result<(), Fault> {
        let alpha = self.plugins.iter().zip(&self.paths);
        match alpha.into_iter().find(|(plugin, _)| plugin.stability == Stability::Alpha) {
            None => Ok(()),
            Some((PluginInstance { name, type_name, .. }, path)) => {
                let text = format!(
                    "plugin '{name}' (type: '{type_name}') has Alpha stability level, but command \
                     line flag --allow-experimental-plugins is not set"
                );
                Err(Fault::at(path, text))
            }
        }
    }

    /// Notes data that instances would use and nobody produces.
    pub(crate) fn note_missing_options(&mut self) {
        let produced: BTreeSet<_> = self.plugins.iter().flat_map(|p| &p.data.produces).collect();
        for plugin in &self.plugins {
            for key in plugin.data.uses.iter().filter(|key| !produced.contains(key)) {
                let name = &plugin.name;
                self.notes.push(format!("plugin '{name}': nobody produces the optional {key}"));
            }
        }
    }
}

fn params_of(spec: &PluginSpec) -> Params {
    Params::new(spec.parameters.clone().map(serde_yaml::Value::Mapping))
}

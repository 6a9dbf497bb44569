//! Plugins built one by one, outside a configuration, for cases that look at a plugin alone.

use std::sync::Arc;

use inlane_core::effect::PluginIx;
use inlane_core::endpoint::EndpointSet;
use inlane_core::plugin::{Roles, Settled};
use inlane_core::registry::{
    Build, BuildError, DataUse, KeptState, Params, Peers, Registry, Schema,
};

use inlane_plugins::prefix::PrefixIndex;

use super::schema::PluginSpec;

/// A workbench with the instances of a case.
pub(super) struct Bench<'a> {
    registry: &'a Registry,
    kept: KeptState,
    pub(super) schema: Schema,
    pub(super) instances: Vec<Instance>,
}

/// One instance.
pub(super) struct Instance {
    pub(super) name: String,
    type_name: String,
    pub(super) params: Params,
    pub(super) roles: Roles,
    pub(super) data: DataUse,
}

/// The instances built before another one.
struct Earlier<'a>(&'a [Instance]);

impl Peers for Earlier<'_> {
    fn roles(&self, name: &str) -> Option<&Roles> {
        self.0.iter().find(|i| i.name == name).map(|i| &i.roles)
    }

    fn of_type(&self, type_name: &str) -> Vec<&str> {
        let same = self.0.iter().filter(|i| i.type_name == type_name);
        same.map(|i| i.name.as_str()).collect()
    }
}

impl<'a> Bench<'a> {
    pub(super) fn new(registry: &'a Registry) -> Self {
        let (kept, schema) = (KeptState::default(), Schema::default());
        Self { registry, kept, schema, instances: Vec::new() }
    }

    /// Builds an instance and the producers that it brings along.
    pub(super) fn build(&mut self, spec: &PluginSpec) -> Result<usize, String> {
        let parameters = spec.parameters.as_ref().map(serde_yaml::to_value);
        let params = Params::new(parameters.transpose().map_err(|e| e.to_string())?);
        let at = self.make(&spec.type_name, spec.name(), &params)?;
        for new in self.instances[at].data.creates.clone() {
            if self.find(&new.name).is_err() {
                self.make(new.type_name, &new.name, &new.params)?;
            }
        }
        Ok(at)
    }

    fn make(&mut self, type_name: &str, name: &str, params: &Params) -> Result<usize, String> {
        let (registered, plugin) = self
            .registry
            .get(type_name)
            .ok_or_else(|| format!("plugin type '{type_name}' is not registered"))?;
        let at = self.instances.len();
        let instance = PluginIx::try_from(at).map_err(|e| e.to_string())?;
        let earlier = Earlier(&self.instances);
        let build = Build::new(name, registered, instance, &mut self.schema, &self.kept);
        let mut build = build.among(&earlier);
        let roles = (plugin.build)(&mut build, params);
        let roles = roles.map_err(|e: BuildError| format!("{type_name}: {e}"))?;
        let (data, _warnings) = build.finish();
        self.instances.push(Instance {
            name: name.into(),
            type_name: type_name.into(),
            params: params.clone(),
            roles,
            data,
        });
        Ok(at)
    }

    /// The instance of that name; without a name, the first one.
    pub(super) fn find(&self, name: &str) -> Result<usize, String> {
        if name.is_empty() && !self.instances.is_empty() {
            return Ok(0);
        }
        let found = self.instances.iter().position(|i| i.name == name);
        found.ok_or_else(|| format!("the case has no plugin '{name}'"))
    }

    /// What the instances settle for a pool.
    pub(super) fn settled(&self, endpoints: &EndpointSet) -> Settled {
        let mut settled = Settled::default();
        for (instance, plugin) in self.instances.iter().zip(0..) {
            if let Some(role) = &instance.roles.per_topology {
                settled.set(plugin, role.settle(endpoints));
            }
        }
        settled
    }

    /// The kept states of a type.
    pub(super) fn kept<T: std::any::Any + Send + Sync>(&self) -> Vec<Arc<T>> {
        self.kept.all::<T>().into_iter().map(|(_, state)| state).collect()
    }

    /// Does at once what the owners of the indexes would do soon.
    pub(super) fn settle(&self) {
        settle(&self.kept);
    }
}

/// Applies the picks that wait in prefix indexes.
pub(super) fn settle(kept: &KeptState) {
    for (_, index) in kept.all::<PrefixIndex>() {
        while index.drain() > 0 {}
    }
}

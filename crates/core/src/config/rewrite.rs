//! Older forms, written anew in today's form.
//!
//! A rewriter adds plugins and profile entries here and says for each where in the old text it
//! stands, so that an error found in the new document can name the place that the user knows.

use serde_yaml::{Mapping, Value};

use crate::plugin::Roles;

use super::error::Fault;
use super::loaded::LoadedConfig;
use super::{API_VERSION, KIND};

/// A document in today's form that was made of an older one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rewritten {
    /// The document.
    pub(crate) value: Value,
    /// Path in the document, path in the older one.
    places: Vec<(String, String)>,
    /// Plugins that the older form lists as filters or scorers, and where.
    listed: Vec<(String, Slot, String)>,
}

/// What an older form lists a plugin as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Filter,
    Scorer,
}

impl Slot {
    fn fits(self, roles: &Roles) -> bool {
        match self {
            Self::Filter => roles.filter.is_some(),
            Self::Scorer => roles.scorer.is_some(),
        }
    }
}

impl Rewritten {
    /// Checks that plugins are what they are listed as; in today's form nobody says.
    pub(crate) fn check_slots(&self, config: &LoadedConfig) -> Result<(), Fault> {
        for (name, slot, place) in &self.listed {
            let plugin = config.find(name).map(|(_, plugin)| plugin);
            if plugin.is_some_and(|plugin| !slot.fits(&plugin.roles)) {
                let text = match slot {
                    Slot::Filter => format!("plugin '{name}' is no filter"),
                    Slot::Scorer => format!("plugin '{name}' is no scorer"),
                };
                return Err(Fault::at(place, text));
            }
        }
        Ok(())
    }

    /// Where the older form has what stands at `path`; empty when nowhere in particular.
    pub(crate) fn original(&self, path: &str) -> &str {
        let covers = |of: &str| match path.strip_prefix(of) {
            Some(rest) => rest.is_empty() || rest.starts_with(['.', '[']),
            None => false,
        };
        let nearest = self.places.iter().filter(|(new, _)| covers(new));
        nearest.max_by_key(|(new, _)| new.len()).map_or("", |(_, old)| old)
    }
}

/// A document in the making.
#[derive(Debug, Default)]
pub(crate) struct Rewrite {
    plugins: Vec<Value>,
    names: Vec<String>,
    profiles: Vec<(String, Vec<Value>)>,
    places: Vec<(String, String)>,
    listed: Vec<(String, Slot, String)>,
}

impl Rewrite {
    /// Whether a plugin of that name was added.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.iter().any(|n| n == name)
    }

    /// Adds a plugin that is called like its type.
    pub(crate) fn plugin(&mut self, type_name: &str, parameters: Mapping, place: &str) {
        self.named_plugin(type_name, type_name, parameters, place);
    }

    /// Adds a plugin, unless there is one of that name.
    pub(crate) fn named_plugin(
        &mut self,
        type_name: &str,
        name: &str,
        parameters: Mapping,
        place: &str,
    ) {
        if self.has(name) {
            return;
        }
        let mut plugin = Mapping::new();
        plugin.insert("type".into(), type_name.into());
        if name != type_name {
            plugin.insert("name".into(), name.into());
        }
        if !parameters.is_empty() {
            plugin.insert("parameters".into(), Value::Mapping(parameters));
        }
        self.places.push((format!("plugins[{}]", self.plugins.len()), place.to_owned()));
        self.plugins.push(Value::Mapping(plugin));
        self.names.push(name.to_owned());
    }

    /// Begins a profile.
    pub(crate) fn profile(&mut self, name: &str, place: &str) {
        let path = format!("schedulingProfiles[{}]", self.profiles.len());
        self.places.push((format!("{path}.name"), format!("{place}.name")));
        self.places.push((path, place.to_owned()));
        self.profiles.push((name.to_owned(), Vec::new()));
    }

    /// Adds a plugin to the profile that was begun last.
    pub(crate) fn entry(&mut self, plugin: &str, weight: Option<f64>, place: &str) {
        let index = self.profiles.len().saturating_sub(1);
        let Some((_, entries)) = self.profiles.last_mut() else { return };
        let path = format!("schedulingProfiles[{index}].plugins[{}]", entries.len());
        let mut entry = Mapping::new();
        entry.insert("pluginRef".into(), plugin.into());
        if let Some(weight) = weight {
            self.places.push((format!("{path}.weight"), format!("{place}.weight")));
            entry.insert("weight".into(), number(weight));
        }
        self.places.push((path, place.to_owned()));
        entries.push(Value::Mapping(entry));
    }

    /// Says that the older form lists a plugin as something.
    pub(crate) fn list(&mut self, plugin: &str, slot: Slot, place: &str) {
        self.listed.push((plugin.to_owned(), slot, place.to_owned()));
    }

    /// The document. `place` is where the older form has its profiles.
    pub(crate) fn finish(mut self, place: &str) -> Rewritten {
        let profiles = std::mem::take(&mut self.profiles).into_iter().map(|(name, entries)| {
            let mut profile = Mapping::new();
            profile.insert("name".into(), name.into());
            profile.insert("plugins".into(), Value::Sequence(entries));
            Value::Mapping(profile)
        });
        let mut document = Mapping::new();
        document.insert("apiVersion".into(), API_VERSION.into());
        document.insert("kind".into(), KIND.into());
        document.insert("plugins".into(), Value::Sequence(std::mem::take(&mut self.plugins)));
        document.insert("schedulingProfiles".into(), Value::Sequence(profiles.collect()));
        for section in ["plugins", "schedulingProfiles"] {
            self.places.push((section.to_owned(), place.to_owned()));
        }
        let Self { places, listed, .. } = self;
        Rewritten { value: Value::Mapping(document), places, listed }
    }
}

/// A weight as a person would write it: without a fraction where there is none.
fn number(weight: f64) -> Value {
    // Whole numbers of this size are exact in both types.
    if weight.fract() == 0.0 && weight.abs() < 1e15 {
        return (weight as i64).into();
    }
    weight.into()
}

/// A mapping of parameters.
pub(crate) fn parameters<const N: usize>(entries: [(&str, Value); N]) -> Mapping {
    entries.into_iter().map(|(key, value)| (key.into(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten() -> Rewritten {
        let mut rewrite = Rewrite::default();
        rewrite.plugin("a-filter", Mapping::new(), "old[0]");
        rewrite.named_plugin("a-scorer", "mine", parameters([("x", 1.into())]), "old[1]");
        rewrite.plugin("a-filter", Mapping::new(), "old[2]");
        rewrite.profile("p", "old");
        rewrite.entry("a-filter", None, "old[0]");
        rewrite.entry("mine", Some(2.0), "old[1]");
        rewrite.entry("mine", Some(0.5), "old[3]");
        rewrite.finish("old")
    }

    #[test]
    fn a_document_reads_as_if_written_by_hand() {
        let text = serde_yaml::to_string(&rewritten().value).unwrap();
        assert_eq!(
            text,
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: a-filter
- type: a-scorer
  name: mine
  parameters:
    x: 1
schedulingProfiles:
- name: p
  plugins:
  - pluginRef: a-filter
  - pluginRef: mine
    weight: 2
  - pluginRef: mine
    weight: 0.5
"
        );
    }

    #[test]
    fn places_of_the_older_form_are_found_again() {
        let rewritten = rewritten();
        for (path, place) in [
            ("plugins", "old"),
            ("plugins[1].parameters.x", "old[1]"),
            ("plugins[10]", "old"),
            ("schedulingProfiles[0].name", "old.name"),
            ("schedulingProfiles[0].plugins[2].weight", "old[3].weight"),
            ("schedulingProfiles[0].plugins[1].pluginRef", "old[1]"),
            ("dataLayer", ""),
        ] {
            assert_eq!(rewritten.original(path), place, "{path}");
        }
    }
}

//! The oldest form of a configuration, laid out like kube-scheduler's:
//!
//! ```yaml
//! profiles:
//! - name: default
//!   plugins:
//!     filter:
//!       enabled: [{name: decode-filter}]
//!     score:
//!       enabled: [{name: prefix-cache-scorer, weight: 100}]
//! ```
//!
//! It names plugin types only. It is rewritten into the current form, every type declared once,
//! and loads with one warning.

use serde::Deserialize;
use serde_yaml::Value;

use crate::registry::Registry;

use super::document::{Document, PluginSpec, ProfileSpec, WeightedRef};
use super::error::Fault;
use super::{hint, source};

/// Whether a document is of this form: it says no `kind` and has `profiles`.
pub(crate) fn is_kube_style(value: &Value) -> bool {
    value.get("kind").is_none() && value.get("profiles").is_some()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KubeDocument {
    profiles: Vec<KubeProfile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KubeProfile {
    #[serde(default)]
    name: String,
    #[serde(default)]
    plugins: KubePlugins,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KubePlugins {
    filter: KubeList,
    score: KubeList,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KubeList {
    enabled: Vec<KubePlugin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KubePlugin {
    name: String,
    #[serde(default)]
    weight: Option<f64>,
}

/// Rewrites the document.
pub(crate) fn rewrite(value: Value, registry: &Registry) -> Result<Document, Fault> {
    let old: KubeDocument = source::decode(value, "")?;
    let mut new = Document::default();
    for (profile, i) in old.profiles.iter().zip(0..) {
        let mut spec = ProfileSpec { name: profile.name.clone(), plugins: Vec::new() };
        let lists = [("filter", &profile.plugins.filter), ("score", &profile.plugins.score)];
        for (kind, list) in lists {
            for (plugin, j) in list.enabled.iter().zip(0..) {
                let KubePlugin { name, weight } = plugin;
                if registry.get(name).is_none() {
                    let path = format!("profiles[{i}].plugins.{kind}.enabled[{j}].name");
                    let nearest = hint::nearest(name, registry.iter().map(|(name, _)| name));
                    let text = format!("plugin type '{name}' is not registered");
                    return Err(Fault::at(path, text).hint(nearest));
                }
                if new.plugins.iter().all(|p| p.type_name != *name) {
                    let type_name = name.clone();
                    new.plugins.push(PluginSpec { type_name, ..PluginSpec::default() });
                }
                spec.plugins.push(WeightedRef { plugin_ref: name.clone(), weight: *weight });
            }
        }
        new.scheduling_profiles.push(spec);
    }
    Ok(new)
}

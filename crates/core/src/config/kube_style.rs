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
//! It names plugin types only, one instance of each. It is rewritten into today's form: every
//! type declared once, the best score picked. What it takes for granted is added:
//!
//! * `predicted-latency-scorer` was one plugin and is two today.
//! * Profiles named `decode` and `prefill` (and `encode`) mean disaggregated serving. The form
//!   has no room for conditions, so a profile that is there is used whenever there is work for it.
//! * `disabled` lists take defaults away in kube-scheduler; here are none to take away.

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use crate::registry::Registry;

use super::error::Fault;
use super::rewrite::{Rewrite, Rewritten, Slot, parameters};
use super::{hint, source};

const PREDICTED_LATENCY: &str = "predicted-latency-scorer";
const PREDICTED_LATENCY_PARTS: [&str; 2] = ["predicted-latency-producer", "latency-scorer"];

const DISAGG_HANDLER: &str = "disagg-profile-handler";
/// Profile beside `decode`, which is also what the handler calls its decider, and the decider
/// that agrees whenever there is work.
const STAGES: [(&str, &str); 2] =
    [("prefill", "always-disagg-pd-decider"), ("encode", "always-disagg-multimodal-decider")];
const DECODE: &str = "decode";

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
    disabled: Vec<KubePlugin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KubePlugin {
    name: String,
    #[serde(default)]
    weight: Option<f64>,
}

/// Rewrites the document; warnings go to `warn`.
pub(crate) fn rewrite(
    value: Value,
    registry: &Registry,
    mut warn: impl FnMut(String),
) -> Result<Rewritten, Fault> {
    let old: KubeDocument = source::decode(value, "")?;
    let mut new = Rewrite::default();
    for (profile, i) in old.profiles.iter().zip(0..) {
        let place = format!("profiles[{i}]");
        new.profile(&profile.name, &place);
        let KubePlugins { filter, score } = &profile.plugins;
        let lists = [("filter", Slot::Filter, filter), ("score", Slot::Scorer, score)];
        for (kind, slot, list) in lists {
            for (plugin, j) in list.enabled.iter().zip(0..) {
                let place = format!("{place}.plugins.{kind}.enabled[{j}]");
                add(plugin, slot, &place, registry, &mut new, &mut warn)?;
            }
            if !list.disabled.is_empty() {
                warn(format!(
                    "{place}.plugins.{kind}.disabled has no effect: nothing is enabled by default"
                ));
            }
        }
    }
    let names: Vec<&str> = old.profiles.iter().map(|p| p.name.as_str()).collect();
    disaggregate(&names, registry, &mut new)?;
    Ok(new.finish("profiles"))
}

fn add(
    plugin: &KubePlugin,
    slot: Slot,
    place: &str,
    registry: &Registry,
    new: &mut Rewrite,
    warn: &mut impl FnMut(String),
) -> Result<(), Fault> {
    let KubePlugin { name, weight } = plugin;
    if name == PREDICTED_LATENCY && registry.get(name).is_none() {
        for part in PREDICTED_LATENCY_PARTS {
            check(part, place, registry)?;
            new.plugin(part, Mapping::new(), place);
            new.entry(part, weight.filter(|_| part == "latency-scorer"), place);
        }
        let [producer, scorer] = PREDICTED_LATENCY_PARTS;
        warn(format!("{PREDICTED_LATENCY} is deprecated, use {producer} and {scorer}"));
        return Ok(());
    }
    check(name, &format!("{place}.name"), registry)?;
    new.list(name, slot, &format!("{place}.name"));
    new.plugin(name, Mapping::new(), place);
    new.entry(name, *weight, place);
    Ok(())
}

fn check(name: &str, place: &str, registry: &Registry) -> Result<(), Fault> {
    if registry.get(name).is_some() {
        return Ok(());
    }
    let nearest = hint::nearest(name, registry.iter().map(|(name, _)| name));
    Err(Fault::at(place, format!("plugin type '{name}' is not registered")).hint(nearest))
}

/// Adds the handler of disaggregated serving where the profiles are its stages.
fn disaggregate(names: &[&str], registry: &Registry, new: &mut Rewrite) -> Result<(), Fault> {
    let is_stage = |name: &str| name == DECODE || STAGES.iter().any(|(stage, _)| *stage == name);
    if names.len() < 2 || has_faults(names) {
        return Ok(());
    }
    if !names.contains(&DECODE) || !names.iter().all(|name| is_stage(name)) {
        let text = "no profile handler configured: several profiles need one, and this form has \
                    one only for profiles named decode, prefill and encode";
        return Err(Fault::at("profiles", text));
    }
    let mut deciders = Mapping::new();
    for (stage, decider) in STAGES.iter().filter(|(stage, _)| names.contains(stage)) {
        check(decider, "profiles", registry)?;
        new.plugin(decider, Mapping::new(), "profiles");
        deciders.insert((*stage).into(), (*decider).into());
    }
    check(DISAGG_HANDLER, "profiles", registry)?;
    let deciders = parameters([("deciders", Value::Mapping(deciders))]);
    new.plugin(DISAGG_HANDLER, deciders, "profiles");
    Ok(())
}

/// Whether the names have faults that are reported later, and better.
fn has_faults(names: &[&str]) -> bool {
    (1..).zip(names).any(|(next, name)| name.is_empty() || names[next..].contains(name))
}

#[cfg(test)]
mod tests {
    use crate::plugin::Roles;
    use crate::registry::PluginType;

    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::new();
        let names = [
            "decode-filter",
            "queue-scorer",
            DISAGG_HANDLER,
            STAGES[0].1,
            STAGES[1].1,
            PREDICTED_LATENCY_PARTS[0],
            PREDICTED_LATENCY_PARTS[1],
        ];
        for name in names {
            registry.register(PluginType::new(name, |_, _| Ok(Roles::default())));
        }
        registry
    }

    fn rewritten(text: &str) -> (String, Vec<String>) {
        let mut warnings = Vec::new();
        let value = serde_yaml::from_str(text).unwrap();
        let new = rewrite(value, &registry(), |w| warnings.push(w)).unwrap();
        (serde_yaml::to_string(&new.value["plugins"]).unwrap(), warnings)
    }

    #[test]
    fn stages_of_disaggregated_serving_get_their_handler() {
        let (plugins, warnings) = rewritten(
            "profiles: [{name: prefill}, {name: decode, plugins: {filter: {enabled: [{name: decode-filter}]}}}]",
        );
        assert_eq!(
            plugins,
            "- type: decode-filter
- type: always-disagg-pd-decider
- type: disagg-profile-handler
  parameters:
    deciders:
      prefill: always-disagg-pd-decider
"
        );
        assert!(warnings.is_empty(), "{warnings:?}");
        let (all, _) = rewritten("profiles: [{name: prefill}, {name: decode}, {name: encode}]");
        assert!(all.contains("encode: always-disagg-multimodal-decider"), "{all}");
        assert_eq!(rewritten("profiles: [{name: decode}]").0, "[]\n");
    }

    #[test]
    fn other_profiles_have_no_handler() {
        for names in ["prefill}, {name: encode", "a}, {name: decode"] {
            let text = format!("profiles: [{{name: {names}}}]");
            let value = serde_yaml::from_str(&text).unwrap();
            let fault = rewrite(value, &registry(), drop).unwrap_err();
            assert!(fault.message.starts_with("no profile handler configured"), "{fault:?}");
        }
    }

    #[test]
    fn predicted_latency_becomes_its_two_parts() {
        let text = "profiles:\n- name: p\n  plugins:\n    score:\n      \
                    enabled: [{name: predicted-latency-scorer, weight: 3}]\n      disabled: [{name: '*'}]\n";
        let (plugins, warnings) = rewritten(text);
        assert_eq!(plugins, "- type: predicted-latency-producer\n- type: latency-scorer\n");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }
}

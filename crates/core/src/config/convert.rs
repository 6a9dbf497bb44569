//! Any accepted form in, today's form out.

use serde_yaml::{Mapping, Value};

use crate::registry::Registry;

use super::documents::{Documents, LegacyPool};
use super::error::ConfigError;
use super::source::Source;
use super::{API_VERSION, DEFAULT_CONFIG, DEPRECATED_API_VERSION, check_kind, kube_style};

/// How a configuration is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Today's form.
    Current,
    /// Today's form with deprecated spellings.
    Deprecated,
    /// The form with `profiles`.
    KubeStyle,
}

impl Form {
    /// What to call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "today's form",
            Self::Deprecated => "today's form with deprecated spellings",
            Self::KubeStyle => "the older form with `profiles`",
        }
    }
}

/// A configuration in today's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// The document. One that was in today's form already is left as it was, comments included.
    pub text: String,
    /// What it was converted from.
    pub form: Form,
    /// The pool that stood beside it.
    pub pool: Option<LegacyPool>,
    /// What could not be carried over as it was.
    pub warnings: Vec<String>,
}

/// Writes a configuration in today's form. Deprecated spellings become the current ones;
/// deprecated *parameters* of plugins stay, because only the plugin knows what they mean.
///
/// The document is not checked further than the conversion needs: load the result.
///
/// # Errors
/// A text that is no configuration at all, or an older form with a mistake.
pub fn convert(source: &str, text: &str, registry: &Registry) -> Result<Converted, ConfigError> {
    let text = if text.trim().is_empty() { DEFAULT_CONFIG } else { text };
    let source = Source::new(source, text);
    let Documents { config, index, pool } = Documents::read(&source)?;
    let source = source.document(index);
    let mut warnings = Vec::new();
    if kube_style::is_kube_style(&config) {
        let rewritten = kube_style::rewrite(config, registry, |warning| warnings.push(warning))
            .map_err(|fault| source.locate(fault))?;
        let text = to_text(&rewritten.value);
        return Ok(Converted { text, form: Form::KubeStyle, pool, warnings });
    }
    check_kind(&config).map_err(|fault| source.locate(fault))?;
    let mut new = config.clone();
    if let Value::Mapping(document) = &mut new {
        modernise(document, registry);
    }
    let form = if new == config { Form::Current } else { Form::Deprecated };
    let text = match (form, &pool) {
        (Form::Current, None) => text.to_owned(),
        _ => to_text(&new),
    };
    Ok(Converted { text, form, pool, warnings })
}

pub(crate) fn to_text(value: &Value) -> String {
    // What was read from a text can be written as one.
    serde_yaml::to_string(value).unwrap_or_default()
}

/// Moves deprecated fields to their new places, where those are free, and renames plugin types.
fn modernise(document: &mut Mapping, registry: &Registry) {
    if document.get("apiVersion").and_then(Value::as_str) == Some(DEPRECATED_API_VERSION) {
        document.insert("apiVersion".into(), API_VERSION.into());
    }
    if let Some(detector) = document.remove("saturationDetector").filter(|d| !d.is_null()) {
        in_section(document, "flowControl", |section| {
            if section.get("saturationDetector").is_none_or(Value::is_null) {
                section.insert("saturationDetector".into(), detector);
            }
        });
    }
    if let Some(parser) = document.remove("parser").filter(|p| !p.is_null()) {
        let named = parser.get("pluginRef").and_then(Value::as_str).is_some_and(|r| !r.is_empty());
        in_section(document, "requestHandler", |section| {
            let listed = section.get("parsers").and_then(Value::as_sequence);
            if named && listed.is_none_or(Vec::is_empty) {
                section.insert("parsers".into(), Value::Sequence(vec![parser]));
            }
        });
    }
    let shadow = document.get_mut("shadow").and_then(|shadow| shadow.get_mut("config"));
    if let Some(Value::Mapping(shadow)) = shadow {
        modernise(shadow, registry);
    }
    let plugins = document.get_mut("plugins").and_then(Value::as_sequence_mut);
    for plugin in plugins.into_iter().flatten().filter_map(Value::as_mapping_mut) {
        rename_type(plugin, registry);
    }
}

/// Changes the section of that name, made where it is missing.
fn in_section(document: &mut Mapping, name: &str, change: impl FnOnce(&mut Mapping)) {
    let section = document.entry(name.into()).or_insert(Value::Null);
    if section.is_null() {
        *section = Value::Mapping(Mapping::new());
    }
    if let Value::Mapping(section) = section {
        change(section);
    }
}

/// Gives a plugin the current name of its type. Its own name stays what it was.
fn rename_type(plugin: &mut Mapping, registry: &Registry) {
    let Some(old) = plugin.get("type").and_then(Value::as_str).map(str::to_owned) else { return };
    let Some((_, registered)) = registry.get(&old) else { return };
    if registered.name == old {
        return;
    }
    plugin.insert("type".into(), registered.name.into());
    let named = plugin.get("name").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    if !named {
        plugin.insert("name".into(), old.into());
    }
}

#[cfg(test)]
mod tests {
    use crate::plugin::Roles;
    use crate::registry::PluginType;

    use super::*;

    fn registry() -> Registry {
        let mut registry = Registry::new();
        let filter = PluginType::new("new-filter", |_, _| Ok(Roles::default()));
        registry.register(filter.deprecated_names(&["old-filter"]));
        registry
    }

    fn converted(text: &str) -> Converted {
        convert("c", text, &registry()).unwrap()
    }

    #[test]
    fn todays_form_is_left_alone() {
        let text = "# mine\napiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
        assert_eq!(converted(text).text, text);
        assert_eq!(converted(text).form, Form::Current);
        assert_eq!(converted(" ").text, DEFAULT_CONFIG);
    }

    #[test]
    fn deprecated_spellings_become_current_ones() {
        let new = converted(
            "apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: old-filter}, {type: old-filter, name: b}, {type: other}]
parser: {pluginRef: p}
saturationDetector: {pluginRef: d}
flowControl: {maxBytes: 4Gi}
",
        );
        assert_eq!(new.form, Form::Deprecated);
        assert_eq!(
            new.text,
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: new-filter
  name: old-filter
- type: new-filter
  name: b
- type: other
flowControl:
  maxBytes: 4Gi
  saturationDetector:
    pluginRef: d
requestHandler:
  parsers:
  - pluginRef: p
"
        );
    }

    #[test]
    fn a_shadow_is_modernised_with_the_rest() {
        let new = converted(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
shadow: {fraction: 0.1, config: {plugins: [{type: old-filter}]}}
",
        );
        assert!(
            new.text.contains("    - type: new-filter\n      name: old-filter\n"),
            "{}",
            new.text
        );
    }

    #[test]
    fn what_has_its_new_place_already_wins() {
        let new = converted(
            "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
parser: {pluginRef: p}
saturationDetector: {pluginRef: d}
flowControl: {saturationDetector: {pluginRef: e}}
requestHandler: {parsers: [{pluginRef: q}]}
",
        );
        assert!(new.text.contains("pluginRef: e") && new.text.contains("pluginRef: q"));
        assert!(!new.text.contains("pluginRef: d") && !new.text.contains("pluginRef: p\n"));
    }

    #[test]
    fn other_documents_are_refused() {
        assert!(convert("c", "kind: Pod", &registry()).is_err());
        assert!(convert("c", "profiles: [{plugin: x}]", &registry()).is_err());
    }
}

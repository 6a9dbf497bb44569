//! The documents of a text: the configuration, and perhaps the pool that early guides put before
//! it.
//!
//! ```yaml
//! apiVersion: inference.gateway.io/v1alpha1
//! kind: InferencePool
//! metadata: {name: my-model-pool}
//! spec:
//!   targetModel: llama-70b
//!   selector: {matchLabels: {model: llama-70b}}
//! ---
//! profiles: …
//! ```
//!
//! No Kubernetes cluster ever knew that group and version. The pool is read and kept, with a
//! warning that shows the object a cluster knows; nothing else may stand beside a configuration.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::convert::to_text;
use super::error::{ConfigError, Fault};
use super::rewrite::parameters;
use super::source::{self, Source};

const POOL_VERSION: &str = "inference.gateway.io/v1alpha1";
const POOL_KIND: &str = "InferencePool";
/// What a cluster knows.
const POOL_VERSION_NOW: &str = "inference.networking.k8s.io/v1";
/// Where model servers and pickers usually listen.
const TARGET_PORT: u16 = 8000;
const PICKER_PORT: u16 = 9002;

/// A pool as early guides wrote it. What a cluster serves is an InferencePool of
/// `inference.networking.k8s.io/v1`, which has no model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyPool {
    /// Name.
    pub name: String,
    /// Namespace; empty where the document names none.
    pub namespace: String,
    /// The model that the pool is meant for; empty where the document names none.
    pub target_model: String,
    /// Labels of the pods that belong to it.
    pub match_labels: BTreeMap<String, String>,
}

impl LegacyPool {
    /// The pool as a cluster knows it, for its owner to complete: port and picker are guesses.
    pub fn manifest(&self) -> String {
        let mut metadata = parameters([("name", self.name.as_str().into())]);
        if !self.namespace.is_empty() {
            metadata.insert("namespace".into(), self.namespace.as_str().into());
        }
        let labels = self.match_labels.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into()));
        let labels: Mapping = labels.collect();
        let number = |port: u16| Value::Mapping(parameters([("number", port.into())]));
        let picker = [("name", format!("{}-epp", self.name).into()), ("port", number(PICKER_PORT))];
        let spec = [
            ("selector", Value::Mapping(parameters([("matchLabels", Value::Mapping(labels))]))),
            ("targetPorts", Value::Sequence(vec![number(TARGET_PORT)])),
            ("endpointPickerRef", Value::Mapping(parameters(picker))),
        ];
        to_text(&Value::Mapping(parameters([
            ("apiVersion", POOL_VERSION_NOW.into()),
            ("kind", POOL_KIND.into()),
            ("metadata", Value::Mapping(metadata)),
            ("spec", Value::Mapping(parameters(spec))),
        ])))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PoolDocument {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    metadata: Metadata,
    spec: PoolSpec,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PoolSpec {
    #[serde(default)]
    target_model: String,
    selector: Selector,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

/// What a text holds.
#[derive(Debug)]
pub(crate) struct Documents {
    /// The configuration.
    pub(crate) config: Value,
    /// Which document of the text it is.
    pub(crate) index: usize,
    /// The pool beside it.
    pub(crate) pool: Option<LegacyPool>,
}

impl Documents {
    /// Reads a text.
    pub(crate) fn read(source: &Source<'_>) -> Result<Self, ConfigError> {
        let documents = source.values()?;
        if let [(index, _)] = documents[..] {
            let (_, config) = documents.into_iter().next().unwrap_or_default();
            if is_pool(&config) {
                let text = format!(
                    "failed to decode configuration: the text has an {POOL_KIND} of {POOL_VERSION} \
                     and no configuration; the pool of a cluster is {POOL_KIND} of \
                     {POOL_VERSION_NOW} with targetPorts and endpointPickerRef"
                );
                return Err(source.document(index).locate(Fault::at("apiVersion", text)));
            }
            return Ok(Self { config, index, pool: None });
        }
        let (mut pool, mut config) = (None, None);
        for (index, value) in documents {
            let here = source.document(index);
            if is_pool(&value) && pool.is_none() {
                pool = Some(read_pool(value).map_err(|fault| here.locate(fault))?);
            } else if config.is_none() && !is_pool(&value) {
                config = Some((value, index));
            } else {
                return Err(here.locate(one_too_many(&value)));
            }
        }
        let (config, index) = config.unwrap_or_default();
        Ok(Self { config, index, pool })
    }

    /// What is to be said about the pool.
    pub(crate) fn pool_warning(&self) -> Option<String> {
        let pool = self.pool.as_ref()?;
        Some(format!(
            "{POOL_KIND} '{}' of {POOL_VERSION} is deprecated and no cluster knows it: apply an \
             {POOL_KIND} of {POOL_VERSION_NOW} with selector, targetPorts and endpointPickerRef; \
             targetModel is no longer part of a pool",
            pool.name
        ))
    }
}

fn is_pool(value: &Value) -> bool {
    let is = |field: &str, text: &str| value.get(field).and_then(Value::as_str) == Some(text);
    is("kind", POOL_KIND) && is("apiVersion", POOL_VERSION)
}

fn read_pool(value: Value) -> Result<LegacyPool, Fault> {
    let PoolDocument { metadata, spec, .. } = source::decode(value, "").map_err(|fault| Fault {
        message: format!("failed to decode the {POOL_KIND}: {}", fault.message),
        ..fault
    })?;
    Ok(LegacyPool {
        name: metadata.name,
        namespace: metadata.namespace,
        target_model: spec.target_model,
        match_labels: spec.selector.match_labels,
    })
}

fn one_too_many(value: &Value) -> Fault {
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let what = match (field("kind"), field("apiVersion")) {
        ("", _) => "another document".to_owned(),
        (kind, version) => format!("kind \"{kind}\" of \"{version}\""),
    };
    let text = format!(
        "failed to decode configuration: expected one configuration, beside it at most one \
         {POOL_KIND} of {POOL_VERSION}; found {what}"
    );
    Fault::at("", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = "\
apiVersion: inference.gateway.io/v1alpha1
kind: InferencePool
metadata:
  name: my-model-pool
  labels: {a: b}
spec:
  targetModel: llama-70b
  selector:
    matchLabels:
      model: llama-70b
";

    fn read(text: &str) -> Result<Documents, String> {
        Documents::read(&Source::new("c", text)).map_err(|e| e.to_string())
    }

    #[test]
    fn a_pool_may_stand_before_or_after_the_configuration() {
        for text in
            [format!("{POOL}---\nprofiles: []\n"), format!("---\nprofiles: []\n---\n{POOL}---\n")]
        {
            let documents = read(&text).unwrap();
            assert!(documents.config.get("profiles").is_some());
            let warning = documents.pool_warning().unwrap();
            assert!(warning.contains("inference.networking.k8s.io/v1 with selector"), "{warning}");
            let pool = documents.pool.unwrap();
            assert_eq!((&*pool.name, &*pool.target_model), ("my-model-pool", "llama-70b"));
            assert_eq!(pool.match_labels["model"], "llama-70b");
            let manifest: Value = serde_yaml::from_str(&pool.manifest()).unwrap();
            assert_eq!(manifest["spec"]["selector"]["matchLabels"]["model"], "llama-70b");
            assert_eq!(manifest["spec"]["targetPorts"][0]["number"], 8000);
        }
    }

    #[test]
    fn anything_else_beside_a_configuration_is_refused_with_its_place() {
        for (text, start, part) in [
            (POOL.to_owned(), "c:1:1: apiVersion: ", "and no configuration"),
            (
                "a: 1\n---\nkind: Service\napiVersion: v1\n".to_owned(),
                "c:3:1: ",
                "found kind \"Service\" of \"v1\"",
            ),
            (format!("{POOL}---\n{POOL}---\na: 1\n"), "c:12:1: ", "at most one InferencePool"),
            (
                format!("a: 1\n---\n{}", POOL.replace("targetModel", "targetModl")),
                "c:9:3: spec.targetModl: ",
                "did you mean 'targetModel'?",
            ),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.starts_with(start) && error.contains(part), "{error}");
        }
    }

    #[test]
    fn empty_documents_do_not_count() {
        assert!(read("---\n---\na: 1\n---\n").is_ok_and(|d| d.index == 1));
        assert!(read("").is_ok_and(|d| d.config.is_null()));
    }
}

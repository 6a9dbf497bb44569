//! The older forms of a configuration: environment variables, profiles with a pool before them.
#![allow(clippy::unwrap_used, reason = "a test may fail this way")]

mod common;

use common::{Control, Scene, eventually};

const VARIABLES: &[(&str, &str)] = &[
    ("ENABLE_LOAD_AWARE_SCORER", "true"),
    ("LOAD_AWARE_SCORER_WEIGHT", "3"),
    ("ENABLE_KVCACHE_AWARE_SCORER", "true"),
    ("HF_TOKEN", "secret"),
];

#[test]
fn variables_of_the_first_release_are_published_as_a_document_of_todays_form() {
    let scene = Scene::new();
    scene.endpoints(&[]);
    let endpoints = scene.path("endpoints.yaml");
    let args = ["--endpoints-file", endpoints.to_str().unwrap()];
    let control = Control::start_with(&scene.segment(), &args, VARIABLES);
    let mut reader = scene.reader();
    let (_, document) = eventually("a configuration", || reader.config());
    assert_eq!(document.source, "environment variables");
    assert!(document.allow_experimental_plugins);
    let weighed = "  - pluginRef: load-aware-scorer\n    weight: 3\n";
    assert!(document.text.contains(weighed), "{}", document.text);
    assert!(!document.text.contains("secret"));
    let missing = "environment variable KVCACHE_INDEXER_REDIS_ADDR is not set: \
                   KVCACHE_AWARE_SCORER is left out";
    assert_eq!(control.logged(missing).unwrap()["level"], "error");
}

#[test]
fn variables_and_a_file_together_are_refused() {
    let scene = Scene::new();
    scene.endpoints(&[]);
    let config = scene.write("config.yaml", "");
    let args = ["--config-file", config.to_str().unwrap()];
    let control = Control::start_with(&scene.segment(), &args, VARIABLES);
    let log = control.log_text();
    assert!(log.contains("--config-file cannot be combined with"), "{log}");
    assert!(log.contains("ENABLE_KVCACHE_AWARE_SCORER, ENABLE_LOAD_AWARE_SCORER"), "{log}");
}

#[test]
fn a_file_of_the_oldest_form_is_published_as_it_is() {
    let scene = Scene::new();
    scene.endpoints(&[]);
    let text = "apiVersion: inference.gateway.io/v1alpha1
kind: InferencePool
metadata: {name: my-model-pool}
spec: {targetModel: llama-70b, selector: {matchLabels: {model: llama-70b}}}
---
profiles:
- name: default
  plugins:
    filter: {enabled: [{name: decode-filter}]}
    score: {enabled: [{name: prefix-cache-scorer, weight: 100}, {name: load-aware-scorer, weight: 50}]}
";
    let config = scene.write("config.yaml", text);
    let control = scene.start(&["--config-file", config.to_str().unwrap()]);
    let mut reader = scene.reader();
    let (_, document) = eventually("a configuration", || reader.config());
    assert_eq!(document.text, text);
    let log = control.log_text();
    for warning in [
        "InferencePool 'my-model-pool' of inference.gateway.io/v1alpha1",
        "the form with `profiles`",
    ] {
        assert!(log.contains(warning), "{log}");
    }
}

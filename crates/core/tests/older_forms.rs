//! The older forms of a configuration file: the layout of kube-scheduler, and a pool beside it.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use inlane_core::config::{Form, LoadedConfig, convert, load};
use inlane_core::registry::KeptState;
use inlane_core::snapshot::ConfigDocument;

use support::{registry, try_text};

/// The two examples of the first component summary, in one file.
const SUMMARY: &str = "\
apiVersion: inference.gateway.io/v1alpha1
kind: InferencePool
metadata:
  name: my-model-pool
spec:
  targetModel: llama-70b
  selector:
    matchLabels:
      model: llama-70b
---
profiles:
  - name: default
    plugins:
      filter:
        enabled:
          - name: decode-filter
      score:
        enabled:
          - name: prefix-cache-scorer
            weight: 100
          - name: queue-scorer
            weight: 50
";

fn loaded(text: &str) -> LoadedConfig {
    try_text(text).unwrap()
}

#[test]
fn a_file_with_a_pool_and_profiles_loads() {
    let config = loaded(SUMMARY);
    let profile = &config.profiles[0];
    assert_eq!(profile.name, "default");
    assert_eq!(config.plugin(profile.filters[0]).unwrap().name, "decode-filter");
    let scorers: Vec<_> = profile
        .scorers
        .iter()
        .map(|s| (config.plugin(s.plugin).unwrap().name.as_str(), s.weight))
        .collect();
    assert_eq!(scorers, [("prefix-cache-scorer", 100.0), ("queue-scorer", 50.0)]);
    assert_eq!(config.plugin(profile.picker).unwrap().name, "max-score-picker");
    let pool = config.pool.unwrap();
    assert_eq!(
        (pool.name.as_str(), pool.match_labels["model"].as_str()),
        ("my-model-pool", "llama-70b")
    );
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings[0].contains("InferencePool of inference.networking.k8s.io/v1"));
}

#[test]
fn a_converted_file_loads_to_the_same_pipeline_without_a_warning() {
    let old = loaded(SUMMARY);
    let converted = convert("c", SUMMARY, &registry()).unwrap();
    assert_eq!(converted.form, Form::KubeStyle);
    assert_eq!(converted.pool.as_ref().map(|p| p.target_model.as_str()), Some("llama-70b"));
    let new = loaded(&converted.text);
    assert_eq!(old.profiles, new.profiles);
    assert_eq!(old.producers, new.producers);
    let names = |c: &LoadedConfig| c.plugins.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&old), names(&new));
    assert!(new.warnings.is_empty(), "{:?}", new.warnings);
}

#[test]
fn experimental_plugins_need_no_leave() {
    let text =
        "profiles: [{name: p, plugins: {score: {enabled: [{name: session-affinity-scorer}]}}}]";
    assert_eq!(loaded(text).profiles[0].scorers.len(), 1);
    let converted = convert("c", text, &registry()).unwrap().text;
    assert!(try_text(&converted).unwrap_err().contains("Alpha stability level"));
    let document =
        ConfigDocument { text: converted, allow_experimental_plugins: true, ..Default::default() };
    assert!(load(&document, &registry(), &KeptState::default()).is_ok());
}

#[test]
fn errors_name_the_place_in_the_older_form() {
    for (text, expected) in [
        (
            "profiles:\n- name: p\n- name: p\n",
            "c.yaml:3:3: profiles[1].name: schedulingProfiles[1] has duplicate name 'p'",
        ),
        (
            "profiles:\n- plugins: {}\n",
            "c.yaml:2:3: profiles[0]: schedulingProfiles[0] is missing a name",
        ),
        (
            "profiles:\n- name: p\n  plugins:\n    score:\n      enabled:\n      - {name: queue-scorer, weight: .nan}\n",
            "c.yaml:6:30: profiles[0].plugins.score.enabled[0].weight: weight must be a finite number, got NaN",
        ),
        (
            "profiles:\n- name: p\n  plugins:\n    filter:\n      enabled:\n      - name: queue-scorer\n",
            "c.yaml:6:9: profiles[0].plugins.filter.enabled[0].name: plugin 'queue-scorer' is no filter",
        ),
        (
            "profiles:\n- name: p\n  plugins: {score: {enabled: [{name: decode-filter}]}}\n",
            "c.yaml:3:32: profiles[0].plugins.score.enabled[0].name: plugin 'decode-filter' is no scorer",
        ),
        (
            "profiles: [{name: a}, {name: b}]",
            "c.yaml:1:1: profiles: no profile handler configured: several profiles need one, and \
             this form has one only for profiles named decode, prefill and encode",
        ),
    ] {
        assert_eq!(try_text(text).unwrap_err(), expected);
    }
    let second = SUMMARY.replace("decode-filter", "decode-fitler");
    assert_eq!(
        try_text(&second).unwrap_err(),
        "c.yaml:16:13: profiles[0].plugins.filter.enabled[0].name: plugin type 'decode-fitler' is \
         not registered; did you mean 'decode-filter'?"
    );
}

//! Configuration documents that load: the examples of the format, defaults, warnings.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use inlane_core::config::{LoadedConfig, Origin, load};
use inlane_core::plugin::Part;
use inlane_core::registry::KeptState;
use inlane_core::snapshot::ConfigDocument;

use support::{config, registry, try_config, try_text};

fn names(config: &LoadedConfig, plugins: &[u16]) -> Vec<String> {
    plugins.iter().map(|&ix| config.plugins[usize::from(ix)].name.clone()).collect()
}

fn all_names(config: &LoadedConfig) -> Vec<&str> {
    config.plugins.iter().map(|p| p.name.as_str()).collect()
}

#[test]
fn nothing_at_all_is_the_default() {
    for text in ["", "  \n"] {
        let document = ConfigDocument { text: text.into(), ..Default::default() };
        let config = load(&document, &registry(), &KeptState::default()).unwrap();
        assert_eq!(config.profiles.len(), 1);
        let profile = &config.profiles[0];
        assert_eq!(profile.name, "default");
        let scorers: Vec<_> = profile.scorers.iter().map(|s| (s.plugin, s.weight)).collect();
        assert_eq!(scorers, [(0, 2.0), (1, 2.0), (2, 3.0)]);
        assert_eq!(names(&config, &[profile.picker]), ["max-score-picker"]);
        assert_eq!(names(&config, &[config.handler]), ["single-profile-handler"]);
        assert_eq!(
            names(&config, &config.producers),
            ["token-producer", "approx-prefix-cache-producer"]
        );
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
}

#[test]
fn v1_everything_is_injected() {
    let config = config("plugins:\n- type: queue-scorer\n- type: kv-cache-utilization-scorer\n");
    let declared = |o: Origin| config.plugins.iter().filter(|p| p.origin == o).count();
    assert_eq!((declared(Origin::Declared), declared(Origin::AutoCreated)), (2, 0));
    assert_eq!(
        all_names(&config)[2..],
        [
            "max-score-picker",
            "single-profile-handler",
            "metrics-data-source",
            "core-metrics-extractor"
        ]
    );
    let profile = &config.profiles[0];
    assert!(profile.scorers.iter().all(|s| s.weight == 1.0));
    assert_eq!(config.data_layer.sources.len(), 1);
    assert_eq!(
        names(&config, &config.data_layer.sources[0].extractors),
        ["core-metrics-extractor"]
    );
}

#[test]
fn v2_prefix_aware() {
    let config = config(
        "
plugins:
- type: approx-prefix-cache-producer
- type: prefix-cache-scorer
- type: queue-scorer
- type: decode-filter
- type: max-score-picker
- type: single-profile-handler
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: decode-filter
  - pluginRef: prefix-cache-scorer
    weight: 2
  - pluginRef: queue-scorer
    weight: 1
  - pluginRef: max-score-picker
",
    );
    let profile = &config.profiles[0];
    assert_eq!(names(&config, &profile.filters), ["decode-filter"]);
    let scorers: Vec<_> = profile.scorers.iter().map(|s| s.plugin).collect();
    assert_eq!(names(&config, &scorers), ["prefix-cache-scorer", "queue-scorer"]);
    // The declared producer is the one that is used; its tokens come from a default one.
    assert_eq!(
        names(&config, &config.producers),
        ["token-producer", "approx-prefix-cache-producer"]
    );
    assert_eq!(config.find("token-producer").unwrap().1.origin, Origin::AutoCreated);
}

#[test]
fn v7_without_kubernetes() {
    let config = config(
        "
plugins:
- name: my-endpoints
  type: file-discovery
  parameters: {path: /etc/epp/endpoints.yaml, watchFile: true}
- type: queue-scorer
dataLayer:
  discovery: {pluginRef: my-endpoints}
",
    );
    let discovery = config.plugin(config.data_layer.discovery.unwrap()).unwrap();
    assert_eq!(discovery.name, "my-endpoints");
    assert_eq!(discovery.params.raw().unwrap()["path"].as_str(), Some("/etc/epp/endpoints.yaml"));
}

#[test]
fn v8_deprecated_spellings() {
    let config = try_text(
        "
apiVersion: inference.networking.x-k8s.io/v1alpha1
kind: EndpointPickerConfig
plugins:
- name: maxScore
  type: max-score-picker
- type: openai-parser
- type: tokenizer
- {type: tokenizer, name: second}
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: maxScore
saturationDetector: {pluginRef: utilization-detector}
parser: {pluginRef: openai-parser}
featureGates: [\"flowControl=false\"]
",
    )
    .unwrap();
    let warned = |part: &str| config.warnings.iter().filter(|w| w.contains(part)).count();
    for part in [
        "apiVersion inference.networking.x-k8s.io/v1alpha1 is deprecated",
        "saturationDetector is deprecated",
        "parser is deprecated",
        "plugin type 'tokenizer' is deprecated, use 'token-producer'",
    ] {
        assert_eq!(warned(part), 1, "{part}: {:?}", config.warnings);
    }
    assert_eq!(config.warnings.len(), 4);
    assert_eq!(names(&config, &config.parsers), ["openai-parser"]);
    assert_eq!(names(&config, &[config.profiles[0].picker]), ["maxScore"]);
}

#[test]
fn v9_metrics_off() {
    let config = config(
        "
plugins:
- type: random-picker
- type: endpoint-notification-source
dataLayer:
  injectDefaults: false
  sources:
  - pluginRef: endpoint-notification-source
",
    );
    assert_eq!(config.data_layer.sources.len(), 1);
    assert!(config.find("metrics-data-source").is_none());
    let nothing = try_config("dataLayer: {injectDefaults: false}").unwrap_err();
    assert!(nothing.contains("data layer enabled but no data sources configured"), "{nothing}");
}

#[test]
fn json_is_read_too() {
    let config = try_text(
        r#"{"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig",
            "plugins": [{"type": "queue-scorer", "name": "q😀"}],
            "schedulingProfiles": [{"name": "p", "plugins": [{"pluginRef": "q😀", "weight": -1}]}]}"#,
    )
    .unwrap();
    assert_eq!(config.profiles[0].scorers[0].weight, -1.0);
}

#[test]
fn null_is_absent() {
    let config = config(
        "plugins:\nschedulingProfiles: null\nfeatureGates:\ndataLayer:\n  sources:\nparser: null\n",
    );
    assert_eq!(config.profiles[0].name, "default");
    assert!(config.profiles[0].scorers.is_empty());
}

#[test]
fn plugins_without_a_slot_in_a_profile_are_ignored() {
    let config = config(
        "
plugins: [{type: openai-parser}, {type: queue-scorer}, {type: random-picker}]
schedulingProfiles:
- name: default
  plugins: [{pluginRef: openai-parser, weight: 3}, {pluginRef: queue-scorer}, {pluginRef: queue-scorer}]
",
    );
    assert_eq!(config.profiles[0].scorers.len(), 2);
    // The declared picker is used where a profile names none.
    assert_eq!(names(&config, &[config.profiles[0].picker]), ["random-picker"]);
}

#[test]
fn alpha_plugins_load_when_allowed() {
    let document = ConfigDocument {
        text: "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n\
               plugins: [{type: session-affinity-scorer}]\n"
            .into(),
        allow_experimental_plugins: true,
        ..Default::default()
    };
    assert!(load(&document, &registry(), &KeptState::default()).is_ok());
}

#[test]
fn flow_control_needs_its_gate() {
    let fragment =
        "flowControl:\n  maxRequests: \"-1\"\n  priorityBands: [{orderingPolicyRef: ghost}]\n";
    let off = config(fragment);
    assert!(off.flow_control.is_none());
    assert_eq!(off.warnings, ["flowControl is ignored: its feature gate is off"]);
    assert!(config("flowControl: {enableEviction: true}").warnings.is_empty());
    assert!(
        config("flowControl: {saturationDetector: {pluginRef: utilization-detector}}")
            .warnings
            .is_empty()
    );
}

#[test]
fn v6_flow_control() {
    let config = config(
        "
featureGates: [flowControl]
plugins:
- type: queue-scorer
- type: slo-deadline-ordering-policy
flowControl:
  maxBytes: 4Gi
  maxRequests: 20k
  defaultRequestTTL: 30s
  noEndpointRequestTTL: 10m
  defaultNegativePriorityBand: {maxRequests: \"50\"}
  priorityBands:
  - priority: 100
    maxRequests: \"500\"
    orderingPolicyRef: slo-deadline-ordering-policy
  - priority: 0
    maxBytes: 512Mi
    maxRequests: 0
",
    );
    let flow = config.flow_control.unwrap();
    assert_eq!((flow.max_bytes, flow.max_requests), (Some(4 << 30), Some(20_000)));
    assert_eq!(flow.default_request_ttl, Some(Duration::from_secs(30)));
    assert_eq!(flow.no_endpoint_request_ttl, Some(Duration::from_secs(600)));
    assert_eq!(flow.default_negative_band.max_requests, 50);
    assert_eq!(flow.default_band.max_requests, 5_000);
    assert_eq!(flow.bands[0].ordering_policy, "slo-deadline-ordering-policy");
    assert_eq!(flow.bands[0].fairness_policy, "global-strict-fairness-policy");
    assert_eq!((flow.bands[1].max_bytes, flow.bands[1].max_requests), (512 << 20, 5_000));
    assert_eq!(flow.saturation_detector, "utilization-detector");
}

#[test]
fn a_ttl_of_zero_never_expires_and_the_empty_pool_follows() {
    let ttl = |fields: &str| {
        let config = config(&format!("featureGates: [flowControl]\nflowControl: {{{fields}}}"));
        let flow = config.flow_control.unwrap();
        (flow.default_request_ttl, flow.no_endpoint_request_ttl)
    };
    let seconds = |s| Some(Duration::from_secs(s));
    assert_eq!(ttl(""), (seconds(60), seconds(60)));
    assert_eq!(ttl("defaultRequestTTL: 0s"), (None, None));
    assert_eq!(ttl("defaultRequestTTL: 5s"), (seconds(5), seconds(5)));
    assert_eq!(ttl("noEndpointRequestTTL: 0s"), (seconds(60), None));
}

#[test]
fn producers_follow_their_data() {
    let config = config(
        "
plugins:
- {type: linked-producer, name: last, parameters: {requires: [middle], uses: [ghost]}}
- {type: linked-producer, name: middle, parameters: {requires: [first], uses: [wished]}}
- {type: linked-producer, name: first, parameters: {uses: [last]}}
- {type: linked-producer, name: wished}
",
    );
    // `first` would like to come after `last`, which needs it: the need wins.
    assert_eq!(names(&config, &config.producers), ["wished", "first", "middle", "last"]);
    assert_eq!(config.notes, ["plugin 'last': nobody produces the optional Link/ghost"]);
}

#[test]
fn a_plugin_may_bring_its_own_producer() {
    let config = config("plugins: [{type: prefix-cache-scorer, parameters: {own: mine}}]");
    let (_, mine) = config.find("mine").unwrap();
    assert_eq!(
        (mine.type_name, mine.origin),
        ("approx-prefix-cache-producer", Origin::AutoCreated)
    );
    assert!(config.find("approx-prefix-cache-producer").is_none());
    assert_eq!(names(&config, &config.producers), ["token-producer", "mine"]);

    // One that is declared is left alone.
    let declared = support::config(
        "plugins: [{type: prefix-cache-scorer, parameters: {own: mine}}, \
         {type: approx-prefix-cache-producer, name: mine}]",
    );
    assert_eq!(declared.find("mine").unwrap().1.origin, Origin::Declared);
}

#[test]
fn a_source_under_another_name_does_not_replace_the_default_one() {
    let config = config(
        "
plugins: [{type: metrics-data-source, name: mine}]
dataLayer: {sources: [{pluginRef: mine}]}
",
    );
    let sources: Vec<u16> = config.data_layer.sources.iter().map(|s| s.plugin).collect();
    assert_eq!(names(&config, &sources), ["mine", "metrics-data-source"]);
    assert!(config.plugins.iter().filter(|p| p.roles.plays(Part::DataSource)).count() == 2);
}

#[test]
fn parsers_end_with_the_fallback_and_types_come_once() {
    let config = config(
        "
plugins: [{type: openai-parser, name: mine}]
requestHandler:
  parsers:
  - pluginRef: mine
  - pluginRef: openai-parser
  - pluginRef: passthrough-parser
  - pluginRef: mine
",
    );
    assert_eq!(names(&config, &config.parsers), ["mine", "passthrough-parser"]);
    assert_eq!(
        config.warnings,
        [
            "parser 'openai-parser' is skipped: a second parser of type openai-parser",
            "parser 'mine' is skipped: passthrough-parser before it takes every request",
        ]
    );
}

#[test]
fn several_pickers_and_no_choice_are_warned_about() {
    let config = config(
        "
plugins: [{type: random-picker}, {type: max-score-picker}]
schedulingProfiles: [{name: p}]
",
    );
    assert_eq!(names(&config, &[config.profiles[0].picker]), ["random-picker"]);
    assert!(config.warnings[0].contains("several are declared"), "{:?}", config.warnings);
}

#[test]
fn the_oldest_form_builds_the_same_pipeline() {
    let old = try_text(
        "
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
        weight: 50.5
",
    )
    .unwrap();
    let new = config(
        "
plugins: [{type: decode-filter}, {type: prefix-cache-scorer}, {type: queue-scorer}]
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: decode-filter
  - {pluginRef: prefix-cache-scorer, weight: 100}
  - {pluginRef: queue-scorer, weight: 50.5}
",
    );
    assert_eq!(old.profiles, new.profiles);
    assert_eq!(all_names(&old), all_names(&new));
    assert_eq!(old.producers, new.producers);
    assert_eq!(old.warnings.len(), 1, "{:?}", old.warnings);

    let unknown = "profiles:\n- name: p\n  plugins: {score: {enabled: [{name: que-scorer}]}}\n";
    let error = try_text(unknown).unwrap_err();
    assert_eq!(
        error,
        "c.yaml:3:32: profiles[0].plugins.score.enabled[0].name: plugin type 'que-scorer' is not \
         registered; did you mean 'queue-scorer'?"
    );
    assert!(try_text("profiles: [{plugin: x}]").unwrap_err().contains("unknown field `plugin`"));
    // With a kind it is the current form, which has no such field.
    assert!(try_config("profiles: []").unwrap_err().contains("unknown field `profiles`"));
}

#[test]
fn a_shadow_is_a_configuration_of_its_own() {
    let config = config(
        "
plugins: [{type: queue-scorer}]
shadow:
  fraction: 0.25
  config:
    plugins: [{type: kv-cache-utilization-scorer}, {type: queue-scorer}]
",
    );
    let shadow = config.shadow.unwrap();
    assert_eq!(shadow.fraction, 0.25);
    assert_eq!(shadow.config.profiles[0].scorers.len(), 2);
    assert_eq!(config.profiles[0].scorers.len(), 1);
}

#[test]
fn faults_of_a_shadow_name_their_place() {
    let error = |shadow: &str| {
        try_config(&format!("plugins: [{{type: queue-scorer}}]\nshadow: {shadow}")).unwrap_err()
    };
    let unknown = error("{config: {plugins: [{type: ghost}]}}");
    assert!(unknown.contains("shadow.config.plugins[0].type"), "{unknown}");
    assert!(unknown.starts_with("c.yaml:4:"), "{unknown}");
    let fraction = error("{fraction: 2, config: {plugins: []}}");
    assert!(fraction.contains("shadow.fraction"), "{fraction}");
    assert!(error("{}").contains("shadow.config"));
    let nested = error("{config: {shadow: {config: {}}}}");
    assert!(nested.contains("no shadow of its own"), "{nested}");
}

//! Configuration documents: the valid and invalid examples, defaults, warnings, error places.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use inlane_core::config::{LoadedConfig, Origin, load};
use inlane_core::plugin::Part;
use inlane_core::registry::KeptState;
use inlane_core::rng::Rng;
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

/// The fragment, the place `line:column` in the text with its two header lines, the path, and a
/// part of the message.
type Invalid = (&'static str, &'static str, &'static str, &'static str);

const INVALID: &[Invalid] = &[
    // I1 to I9
    (
        "plugins: [\"testing 1 2 3\"]",
        "3:11",
        "plugins[0]",
        "failed to decode configuration: invalid type: string",
    ),
    ("plugin: []", "3:1", "plugin", "unknown field `plugin`"),
    ("plugins: [{parameters: {a: 1}}]", "3:11", "plugins[0]", "plugin '' is missing a type"),
    ("plugins: [{name: n}]", "3:11", "plugins[0]", "plugin 'n' is missing a type"),
    (
        "plugins: [{type: no-such-plugin}]",
        "3:12",
        "plugins[0].type",
        "plugin type 'no-such-plugin' is not registered",
    ),
    (
        "plugins: [{name: s, type: queue-scorer}, {name: s, type: queue-scorer}]",
        "3:42",
        "plugins[1]",
        "duplicate plugin name 's'",
    ),
    (
        "plugins: [{type: prefix-cache-scorer, parameters: {prefixMatch: 5}}]",
        "3:52",
        "plugins[0].parameters.prefixMatch",
        "failed to create plugin 'prefix-cache-scorer' (type: prefix-cache-scorer): unknown field `prefixMatch`",
    ),
    (
        "plugins: [{type: broken, parameters: {role: build}}]",
        "3:11",
        "plugins[0]",
        "failed to create plugin 'broken' (type: broken): panicked: broken while building",
    ),
    (
        "featureGates: [dataLayer]",
        "3:16",
        "featureGates[0]",
        "feature gate 'dataLayer' is unknown or unregistered",
    ),
    (
        "featureGates: [\"flowControl=qwerty\"]",
        "3:16",
        "featureGates[0]",
        "is not a valid value for the feature gate flowControl",
    ),
    // I10 to I17
    (
        "plugins: [{type: queue-scorer}]\nschedulingProfiles: [{plugins: [{pluginRef: queue-scorer}]}]",
        "4:22",
        "schedulingProfiles[0]",
        "schedulingProfiles[0] is missing a name",
    ),
    (
        "schedulingProfiles: [{name: p, plugins: [{weight: 10}]}]",
        "3:42",
        "schedulingProfiles[0].plugins[0]",
        "schedulingProfiles[p].plugins[0] is missing a 'pluginRef'",
    ),
    (
        "schedulingProfiles: [{name: p, plugins: [{pluginRef: ghost}]}]",
        "3:43",
        "schedulingProfiles[0].plugins[0].pluginRef",
        "schedulingProfiles[p] references undefined plugin 'ghost'",
    ),
    (
        "schedulingProfiles: [{name: default}, {name: default}]",
        "3:40",
        "schedulingProfiles[1].name",
        "schedulingProfiles[1] has duplicate name 'default'",
    ),
    (
        "plugins: [{type: max-score-picker}, {type: random-picker}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: max-score-picker}, {pluginRef: random-picker}]}]",
        "4:73",
        "schedulingProfiles[0].plugins[1]",
        "failed to set 'random-picker' as picker, already have a registered picker plugin 'max-score-picker'",
    ),
    (
        "plugins: [{name: a, type: single-profile-handler}, {name: b, type: single-profile-handler}]",
        "3:1",
        "plugins",
        "multiple profile handlers found ('a', 'b'); only one is allowed",
    ),
    (
        "schedulingProfiles: [{name: a}, {name: b}]",
        "3:1",
        "schedulingProfiles",
        "no profile handler configured",
    ),
    (
        "plugins: [{type: single-profile-handler}]\nschedulingProfiles: [{name: a}, {name: b}]",
        "4:1",
        "schedulingProfiles",
        "SingleProfileHandler cannot support multiple scheduling profiles",
    ),
    // I18 to I26
    (
        "plugins: [{type: max-score-picker}]\nrequestHandler: {parsers: [{pluginRef: max-score-picker}]}",
        "4:29",
        "requestHandler.parsers[0].pluginRef",
        "the plugin \"max-score-picker\" is not a parser plugin",
    ),
    (
        "requestHandler:\n  parsers:\n  - pluginRef: wrongParser",
        "5:5",
        "requestHandler.parsers[0].pluginRef",
        "plugin type 'wrongParser' not found in registry",
    ),
    (
        "flowControl: {saturationDetector: {pluginRef: ghost}}",
        "3:36",
        "flowControl.saturationDetector.pluginRef",
        "saturation detector references undefined plugin 'ghost'",
    ),
    (
        "plugins: [{type: queue-scorer}]\nflowControl: {saturationDetector: {pluginRef: queue-scorer}}",
        "4:36",
        "flowControl.saturationDetector.pluginRef",
        "plugin 'queue-scorer' is not a saturation detector",
    ),
    (
        "featureGates: [flowControl]\nflowControl: {priorityBands: [{priority: 1, orderingPolicyRef: ghost}]}",
        "4:45",
        "flowControl.priorityBands[0].orderingPolicyRef",
        "plugin \"ghost\" not found",
    ),
    (
        "featureGates: [flowControl]\nplugins: [{type: queue-scorer}]\nflowControl: {priorityBands: [{priority: 1, orderingPolicyRef: queue-scorer}]}",
        "5:45",
        "flowControl.priorityBands[0].orderingPolicyRef",
        "plugin \"queue-scorer\" does not implement OrderingPolicy",
    ),
    (
        "featureGates: [flowControl]\nflowControl: {maxRequests: \"-1\"}",
        "4:15",
        "flowControl.maxRequests",
        "maxRequests must be non-negative, got -1",
    ),
    (
        "featureGates: [flowControl]\nflowControl: {priorityBands: [{priority: 5}, {priority: 5}]}",
        "4:47",
        "flowControl.priorityBands[1].priority",
        "duplicate priority level 5",
    ),
    (
        "featureGates: [flowControl]\nflowControl: {defaultRequestTTL: -1s}",
        "4:15",
        "flowControl.defaultRequestTTL",
        "DefaultRequestTTL cannot be negative",
    ),
    (
        "flowControl: {defaultRequestTTL: 30}",
        "3:15",
        "flowControl.defaultRequestTTL",
        "failed to decode configuration: invalid type: integer `30`, expected a duration",
    ),
    // I27 to I35
    (
        "plugins: [{type: queue-scorer}]\ndataLayer: {sources: [{pluginRef: queue-scorer}]}",
        "4:24",
        "dataLayer.sources[0].pluginRef",
        "skipping unknown datasource plugin type queue-scorer/queue-scorer",
    ),
    (
        "dataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}]}]}",
        "3:24",
        "dataLayer.sources[0].pluginRef",
        "the plugin metrics-data-source is not a DataSource",
    ),
    (
        "plugins: [{type: metrics-data-source}]\ndataLayer: {sources: [{pluginRef: metrics-data-source, extractors: [{pluginRef: ghost}]}]}",
        "4:70",
        "dataLayer.sources[0].extractors[0].pluginRef",
        "the plugin ghost is not registered",
    ),
    (
        "plugins: [{type: session-affinity-scorer}]",
        "3:11",
        "plugins[0]",
        "plugin 'session-affinity-scorer' (type: 'session-affinity-scorer') has Alpha stability level, but command line flag --allow-experimental-plugins is not set",
    ),
    (
        "dataLayer: {discovery: {pluginRef: ghost}}",
        "3:25",
        "dataLayer.discovery.pluginRef",
        "discovery: no plugin found with name \"ghost\"",
    ),
    (
        "plugins: [{type: queue-scorer}]\ndataLayer: {discovery: {pluginRef: queue-scorer}}",
        "4:25",
        "dataLayer.discovery.pluginRef",
        "discovery: plugin \"queue-scorer\" does not implement EndpointDiscovery",
    ),
    ("metadata: {name: x}", "3:1", "metadata", "unknown field `metadata`"),
    (
        "plugins: []\nplugins: []",
        "1:1",
        "",
        "failed to decode configuration: duplicate entry with key \"plugins\"",
    ),
    (
        "plugins: [{type: queue-scorer}, {type: endpoint-notification-source}]\ndataLayer: {injectDefaults: false, sources: [{pluginRef: endpoint-notification-source}]}",
        "3:11",
        "plugins[0]",
        "no default producer found for missing data key WaitingQueueSize/core-metrics-extractor, consumed by queue-scorer",
    ),
    // Data keys
    (
        "plugins: [{type: token-load-scorer}]",
        "3:11",
        "plugins[0]",
        "no default producer found for missing data key UncachedRequestTokensDataKey/inflight-load-producer, consumed by token-load-scorer",
    ),
    (
        "plugins: [{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerName: nope}}]",
        "3:11",
        "plugins[0]",
        "no default producer found for missing data key PrefixCacheMatchInfoDataKey/nope, consumed by prefix-cache-scorer",
    ),
    (
        "plugins: [{type: linked-producer, name: a, parameters: {requires: [b]}}, {type: linked-producer, name: b, parameters: {requires: [c]}}, {type: linked-producer, name: c, parameters: {requires: [b]}}]",
        "3:1",
        "plugins",
        "data dependency cycle: b -> c -> b",
    ),
    // Types
    (
        "schedulingProfiles: [{name: p, plugins: [{pluginRef: q, weight: \"2\"}]}]",
        "3:57",
        "schedulingProfiles[0].plugins[0].weight",
        "invalid type: string \"2\", expected f64",
    ),
    (
        "plugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorer, weight: .nan}]}]",
        "4:68",
        "schedulingProfiles[0].plugins[0].weight",
        "weight must be a finite number",
    ),
    (
        "plugins: [{type: queue-scorer, name: 7}]",
        "3:32",
        "plugins[0].name",
        "invalid type: integer `7`, expected a string",
    ),
    (
        "plugins: [{type: queue-scorer, parameters: 7}]",
        "3:32",
        "plugins[0].parameters",
        "expected a YAML mapping",
    ),
    ("plugins: {type: queue-scorer}", "3:1", "plugins", "expected a sequence"),
];

#[test]
fn invalid_examples_name_the_place_and_the_reason() {
    for (fragment, place, path, message) in INVALID {
        let error = try_config(fragment).unwrap_err();
        let colon = if path.is_empty() { "" } else { ": " };
        let start = format!("c.yaml:{place}: {path}{colon}");
        assert!(error.starts_with(&start), "{fragment}\n  got      {error}\n  expected {start}");
        assert!(error.contains(message), "{fragment}\n  got      {error}\n  expected {message}");
    }
}

#[test]
fn other_kinds_of_documents_are_refused() {
    for (text, part) in [
        (
            "apiVersion: inference.gateway.io/v1alpha1\nkind: EndpointPickerConfig",
            "c.yaml:1:1: apiVersion",
        ),
        ("apiVersion: llm-d.ai/v1alpha1\nkind: Pod", "c.yaml:2:1: kind"),
        (
            "kind: EndpointPickerConfig",
            "no kind \"EndpointPickerConfig\" is registered for version \"\"",
        ),
        ("[]", "failed to decode"),
        ("just text", "failed to decode"),
        ("a: [1", "failed to decode"),
        ("a: 1\n---\nb: 2\n", "failed to decode"),
    ] {
        let error = try_text(text).unwrap_err();
        assert!(error.contains(part), "{text}\n  got {error}");
    }
}

#[test]
fn near_names_are_suggested() {
    for (fragment, hint) in [
        ("plugins: [{type: que-scorer}]", "queue-scorer"),
        ("plugin: []", "plugins"),
        ("schedulingProfile: []", "schedulingProfiles"),
        (
            "plugins: [{type: queue-scorer}]\nschedulingProfiles: [{name: p, plugins: [{pluginRef: queue-scorrer}]}]",
            "queue-scorer",
        ),
        (
            "plugins: [{type: prefix-cache-scorer, parameters: {prefixMatchInfoProducerNam: x}}]",
            "prefixMatchInfoProducerName",
        ),
        ("featureGates: [flowcontrol]", "flowControl"),
    ] {
        let error = try_config(fragment).unwrap_err();
        assert!(error.ends_with(&format!("did you mean '{hint}'?")), "{error}");
    }
    assert!(!try_config("plugins: [{type: zzz}]").unwrap_err().contains("did you mean"));
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

/// Loads documents that were damaged at random. Errors are fine, and some must come; a panic, a
/// hang or a place outside the text is not.
#[test]
fn damaged_documents_never_panic() {
    let documents = [
        inlane_core::config::DEFAULT_CONFIG,
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\n\
         plugins: [{type: file-discovery, name: &x f}, {type: queue-scorer, parameters: {}}]\n\
         dataLayer: {discovery: {pluginRef: *x}}\nflowControl: {maxBytes: 4Gi, defaultRequestTTL: 1m}\n",
        "{\"apiVersion\": \"llm-d.ai/v1alpha1\", \"kind\": \"EndpointPickerConfig\", \"plugins\": \
         [{\"type\": \"queue-scorer\"}]}",
        "profiles:\n- name: p\n  plugins: {score: {enabled: [{name: queue-scorer}]}}\n",
    ];
    let pieces = [
        "", " ", "\n", ":", "-", "{", "}", "[", "]", "&a", "*a", "!t", "\t", "'", "\"", "#", "|",
        ">", "0", "~", "é", "<<", "? ",
    ];
    let mut rng = Rng::new(11);
    let (mut loaded, mut refused) = (0, 0);
    for round in 0..6_000 {
        let mut text = documents[round % documents.len()].to_owned();
        for _ in 0..=rng.below(3) {
            let at = |rng: &mut Rng| {
                (0..4)
                    .map(|_| rng.below(text.len() as u32 + 1) as usize)
                    .find(|&at| text.is_char_boundary(at))
                    .unwrap_or(0)
            };
            let (start, length) = (at(&mut rng), rng.below(4) as usize);
            let end = (start..=(start + length).min(text.len()))
                .rfind(|&at| text.is_char_boundary(at))
                .unwrap_or(start);
            text.replace_range(start..end, pieces[rng.below(pieces.len() as u32) as usize]);
        }
        let lines = text.lines().count();
        let document = ConfigDocument { source: "c".into(), text, ..Default::default() };
        match load(&document, &registry(), &KeptState::default()) {
            Ok(_) => loaded += 1,
            Err(error) => {
                refused += 1;
                assert!(error.location.is_none_or(|l| l.line <= lines + 1), "{error}");
            }
        }
    }
    assert!(loaded > 20 && refused > 1_000, "{loaded} loaded, {refused} refused");
}

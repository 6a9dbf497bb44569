//! Configuration documents that do not load: what is said, and about which place in the text.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use inlane_core::config::load;
use inlane_core::registry::KeptState;
use inlane_core::rng::Rng;
use inlane_core::snapshot::ConfigDocument;

use support::{registry, try_config, try_text};

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
        "apiVersion: inference.gateway.io/v1alpha1\nkind: InferencePool\nmetadata: {name: p}\n\
         spec: {selector: {matchLabels: {a: b}}}\n---\nprofiles: [{name: p}]\n",
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

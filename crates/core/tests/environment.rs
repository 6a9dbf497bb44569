//! The form of a configuration that is environment variables.
#![allow(clippy::unwrap_used, reason = "tests")]

use inlane_core::config::{FromEnvironment, from_environment};

const REDIS: &str = "KVCACHE_INDEXER_REDIS_ADDR";
const PREFILL_REDIS: &str = "PREFILL_KVCACHE_INDEXER_REDIS_ADDR";
const TOKEN: &str = "HF_TOKEN";

fn made(variables: &[(&str, &str)]) -> FromEnvironment {
    from_environment(variables.iter().copied()).unwrap()
}

fn body(made: &FromEnvironment) -> String {
    let lines = made.text.lines().skip_while(|l| l.starts_with('#')).skip(2);
    lines.map(|l| format!("{l}\n")).collect()
}

#[test]
fn without_a_switch_there_is_no_configuration() {
    for variables in [
        &[][..],
        &[("HF_TOKEN", "x"), ("LOAD_AWARE_SCORER_WEIGHT", "3")],
        &[("ENABLE_OTHER_SCORER", "true"), ("PD_PROMPT_LEN_THRESHOLD", "1")],
    ] {
        assert_eq!(from_environment(variables.iter().copied()), None, "{variables:?}");
    }
    let switched = made(&[("PREFILL_ENABLE_GIE_QUEUE_SCORER", ""), ("HF_TOKEN", "x")]);
    assert_eq!(switched.switches, ["PREFILL_ENABLE_GIE_QUEUE_SCORER"]);
}

#[test]
fn only_the_text_true_is_on_and_only_integers_are_weights() {
    for (value, weight, expected) in [
        ("true", "7", Some("7")),
        ("true", "-2", Some("-2")),
        ("true", "2.5", Some("1")),
        ("true", "", Some("1")),
        ("True", "7", None),
        ("1", "7", None),
        ("true ", "7", None),
    ] {
        let text = body(&made(&[
            ("ENABLE_LOAD_AWARE_SCORER", value),
            ("LOAD_AWARE_SCORER_WEIGHT", weight),
            ("LOAD_AWARE_SCORER_QUEUE_THRESHOLD", "many"),
        ]));
        let scorer =
            expected.map(|w| format!("  - pluginRef: load-aware-scorer\n    weight: {w}\n"));
        let plugin = if expected.is_some() { "- type: load-aware-scorer\n" } else { "" };
        assert_eq!(
            text,
            format!(
                "plugins:\n- type: decode-filter\n{plugin}schedulingProfiles:\n\
                     - name: default\n  plugins:\n  - pluginRef: decode-filter\n{}",
                scorer.unwrap_or_default()
            )
        );
    }
}

#[test]
fn scorers_without_disaggregation_make_one_profile() {
    let made = made(&[
        ("ENABLE_SESSION_AWARE_SCORER", "true"),
        ("SESSION_AWARE_SCORER_WEIGHT", "4"),
        ("ENABLE_PREFIX_AWARE_SCORER", "true"),
        ("PREFIX_AWARE_SCORER_WEIGHT", "2"),
        ("ENABLE_LOAD_AWARE_SCORER", "true"),
        ("LOAD_AWARE_SCORER_QUEUE_THRESHOLD", "64"),
        ("PREFILL_ENABLE_LOAD_AWARE_SCORER", "true"),
        ("PD_ENABLED", "yes"),
    ]);
    assert_eq!(
        body(&made),
        "plugins:
- type: decode-filter
- type: load-aware-scorer
  parameters:
    threshold: 64
- type: approx-prefix-cache-producer
  parameters:
    blockSizeBytes: 256
    maxPrefixBlocksToMatch: 0
- type: prefix-cache-scorer
- type: session-affinity-scorer
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: decode-filter
  - pluginRef: load-aware-scorer
    weight: 1
  - pluginRef: prefix-cache-scorer
    weight: 2
  - pluginRef: session-affinity-scorer
    weight: 4
"
    );
    assert!(made.warnings[1].contains("no effect without PD_ENABLED=true"));
    assert!(made.text.contains("\n#   PD_ENABLED\n"), "{}", made.text);
}

#[test]
fn disaggregation_makes_two_profiles_and_counts_bytes() {
    let made = made(&[
        ("PD_ENABLED", "true"),
        ("PD_PROMPT_LEN_THRESHOLD", "10"),
        ("PREFIX_SCORER_BLOCK_SIZE", "128"),
        ("ENABLE_LOAD_AWARE_SCORER", "true"),
        ("PREFILL_ENABLE_LOAD_AWARE_SCORER", "true"),
        ("PREFILL_LOAD_AWARE_SCORER_WEIGHT", "3"),
    ]);
    assert_eq!(
        body(&made),
        "plugins:
- type: decode-filter
- type: load-aware-scorer
- type: approx-prefix-cache-producer
  parameters:
    blockSizeBytes: 128
    maxPrefixBlocksToMatch: 0
- type: prefix-cache-scorer
- type: label-selector-filter
  name: prefill-filter
  parameters:
    matchLabels:
      llm-d.ai/role: prefill
- type: prefix-based-pd-decider
  parameters:
    promptBytesThreshold: 10
- type: disagg-profile-handler
  parameters:
    deciders:
      prefill: prefix-based-pd-decider
schedulingProfiles:
- name: decode
  plugins:
  - pluginRef: decode-filter
  - pluginRef: load-aware-scorer
    weight: 1
  - pluginRef: prefix-cache-scorer
    weight: 0
- name: prefill
  plugins:
  - pluginRef: prefill-filter
  - pluginRef: load-aware-scorer
    weight: 3
"
    );
    let threshold = |value: &str| {
        let text = from_environment([("PD_ENABLED", "true"), ("PD_PROMPT_LEN_THRESHOLD", value)]);
        let text = text.unwrap().text;
        text.lines()
            .find_map(|l| l.trim().strip_prefix("promptBytesThreshold: "))
            .map(str::to_owned)
    };
    for (value, expected) in [("", "100"), ("ten", "100"), ("-5", "0"), ("0", "0")] {
        assert_eq!(threshold(value).as_deref(), Some(expected), "{value}");
    }
}

/// The shell example of the first architecture page.
#[test]
fn all_four_scorers_serve_prefill() {
    let mut variables = vec![("PD_ENABLED", "true"), (REDIS, "r:6379"), (TOKEN, "t")];
    variables.extend([
        ("PREFILL_ENABLE_SESSION_AWARE_SCORER", "true"),
        ("PREFILL_SESSION_AWARE_SCORER_WEIGHT", "1"),
        ("PREFILL_ENABLE_KVCACHE_AWARE_SCORER", "true"),
        ("PREFILL_KVCACHE_AWARE_SCORER_WEIGHT", "1"),
        ("PREFILL_ENABLE_LOAD_AWARE_SCORER", "true"),
        ("PREFILL_LOAD_AWARE_SCORER_WEIGHT", "1"),
        ("PREFILL_ENABLE_PREFIX_AWARE_SCORER", "true"),
        ("PREFILL_PREFIX_AWARE_SCORER_WEIGHT", "1"),
    ]);
    let made = made(&variables);
    let (_, prefill) = made.text.split_once("- name: prefill\n").unwrap();
    assert_eq!(
        prefill,
        "  plugins:
  - pluginRef: prefill-filter
  - pluginRef: kvcache-aware-scorer
    weight: 1
  - pluginRef: load-aware-scorer
    weight: 1
  - pluginRef: prefix-cache-scorer
    weight: 1
  - pluginRef: session-affinity-scorer
    weight: 1
"
    );
    assert!(made.text.contains("redisConfig:\n          address: r:6379\n"), "{}", made.text);
    assert!(made.errors.is_empty());
}

#[test]
fn values_cannot_change_the_document() {
    let address = "a: b\n- {c: #\"'";
    let made = made(&[("ENABLE_KVCACHE_AWARE_SCORER", "true"), (REDIS, address), (TOKEN, "t")]);
    let document: serde_yaml::Value = serde_yaml::from_str(&made.text).unwrap();
    let index = &document["plugins"][1]["parameters"]["indexerConfig"]["kvBlockIndexConfig"];
    assert_eq!(index["redisConfig"]["address"], address);
}

#[test]
fn the_kv_cache_scorer_is_left_out_where_a_variable_is_missing() {
    for (set, missing) in [
        (&[(REDIS, "r"), (TOKEN, "")][..], &[TOKEN][..]),
        (&[(PREFILL_REDIS, "r"), (TOKEN, "t")], &[REDIS]),
        (&[], &[REDIS, TOKEN]),
    ] {
        let mut variables = vec![
            ("PD_ENABLED", "true"),
            ("ENABLE_KVCACHE_AWARE_SCORER", "true"),
            ("PREFILL_ENABLE_KVCACHE_AWARE_SCORER", "true"),
        ];
        variables.extend(set);
        let made = made(&variables);
        let expected: Vec<String> = missing
            .iter()
            .map(|m| {
                format!("environment variable {m} is not set: KVCACHE_AWARE_SCORER is left out")
            })
            .collect();
        assert_eq!(made.errors, expected);
        assert!(!made.text.contains("precise"));
    }
}

#[test]
fn filters_of_the_gateway_extension_become_their_nearest_kin() {
    for (name, expected) in [
        ("GIE_LEAST_KVCACHE_FILTER", "type: kv-cache-utilization-scorer\n  name: least-kvcache"),
        ("GIE_LEAST_QUEUE_FILTER", "type: queue-scorer\n  name: least-queue"),
        ("GIE_LORA_AFFINITY_FILTER", "type: lora-affinity-scorer\n  name: lora-affinity"),
        ("GIE_LOW_QUEUE_FILTER", "metric: waiting-queue\n      maxValue: 128"),
        ("GIE_SHEDDABLE_CAPACITY_FILTER", "metric: kv-cache-utilization\n      maxValue: 0.8"),
    ] {
        let made = made(&[(&format!("ENABLE_{name}"), "true")]);
        assert!(made.text.contains(expected), "{}", made.text);
        assert!(made.warnings[1].starts_with(&format!("{name} has no equal today")));
    }
    let text = made(&[
        ("ENABLE_GIE_PREFIX_SCORER", "true"),
        ("PREFIX_CACHE_MAX_PREFIX_BLOCKS", "0"),
        ("PREFIX_CACHE_LRU_CAPACITY", "500"),
    ])
    .text;
    assert!(
        text.contains(
            "hashBlockSize: 64\n    maxPrefixBlocksToMatch: 128\n    lruCapacityPerServer: 500"
        ),
        "{text}"
    );
}

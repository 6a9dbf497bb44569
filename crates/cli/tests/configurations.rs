//! `inlane check` and `inlane convert` on the examples of the format and on the older forms.
//!
//! Pages are compared with files; `BLESS=1` writes them anew.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use inlane_cli::check::Checked;
use inlane_cli::convert::{of_environment, of_text};
use inlane_core::snapshot::ConfigDocument;
use serde_json::Value;

const KUBE_STYLE: &str = "\
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
      - name: load-aware-scorer
        weight: 50
";

/// The layout of kube-scheduler with the stages of disaggregated serving.
const STAGES: &str = "\
profiles:
- name: decode
  plugins:
    filter: {enabled: [{name: decode-filter}]}
    score: {enabled: [{name: load-aware-scorer, weight: 1}]}
- name: prefill
  plugins:
    filter: {enabled: [{name: prefill-filter}]}
    score: {enabled: [{name: load-aware-scorer, weight: 1}]}
- name: encode
  plugins:
    filter: {enabled: [{name: encode-filter}]}
";

const SHADOW: &str = "\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: queue-scorer
shadow:
  fraction: 0.125
  config:
    plugins:
    - type: running-requests-size-scorer
    - type: tokenizer
";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The valid examples, apart from those whose plugins do not exist yet.
fn examples() -> Vec<(String, String)> {
    let read = |i: u32| {
        let name = format!("V{i}");
        let path = here(&format!("../plugins/tests/configurations/{name}.yaml"));
        (name, std::fs::read_to_string(path).unwrap())
    };
    let exists = |(name, text): &(String, String)| match checked(name, text) {
        Err(error) => {
            assert!(
                error.ends_with("is not registered") || error.contains("did you mean"),
                "{error}"
            );
            false
        }
        Ok(_) => true,
    };
    (1..=9).map(read).filter(exists).collect()
}

fn checked(name: &str, text: &str) -> Result<Checked, String> {
    let document = ConfigDocument {
        source: name.into(),
        text: text.into(),
        allow_experimental_plugins: false,
    };
    Checked::new(&document, &inlane_plugins::registry())
}

fn compare(name: &str, text: &str) {
    let path = here(&format!("tests/pages/{name}.txt"));
    let found = checked(name, text).unwrap().text();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "{name}: expected\n{expected}\nfound\n{found}\nBLESS=1 accepts what was found"
    );
}

fn inlane(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inlane"));
    command.args(args).env_clear().envs(variables.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn the_pages_of_the_examples_are_these() {
    for (name, text) in examples() {
        compare(&name, &text);
    }
    compare("kube-style", KUBE_STYLE);
    compare("default", "");
    compare("shadow", SHADOW);
    compare("stages", STAGES);
}

#[test]
fn every_form_converts_to_an_equal_pipeline_and_no_further() {
    let registry = inlane_plugins::registry();
    let others = [("kube-style", KUBE_STYLE), ("shadow", SHADOW), ("stages", STAGES)];
    let others = others.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let texts = examples().into_iter().chain(others);
    for (name, text) in texts {
        // That both load to the same pipeline is checked by the conversion itself.
        let once = of_text(&name, &text, &registry).unwrap();
        let twice = of_text("converted", &once.text, &registry).unwrap();
        assert_eq!(once.text, twice.text, "{name}");
        assert!(twice.warnings.iter().all(|w| !w.contains("deprecated")), "{:?}", twice.warnings);
    }
}

#[test]
fn a_pool_beside_the_configuration_becomes_a_comment() {
    let converted = of_text("c", KUBE_STYLE, &inlane_plugins::registry()).unwrap();
    let text = converted.text;
    assert!(text.contains("#   apiVersion: inference.networking.k8s.io/v1\n"), "{text}");
    assert!(text.contains("#         model: llama-70b\n"), "{text}");
    assert_eq!(converted.warnings, ["InferencePool 'my-model-pool' is a comment in the result"]);
}

#[test]
fn environment_variables_convert_to_a_file() {
    let variables = [
        ("ENABLE_LOAD_AWARE_SCORER", "true"),
        ("ENABLE_PREFIX_AWARE_SCORER", "true"),
        ("PREFIX_AWARE_SCORER_WEIGHT", "2"),
        ("ENABLE_KVCACHE_AWARE_SCORER", "true"),
    ];
    let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let registry = inlane_plugins::registry();
    let converted = of_environment(owned, &registry).unwrap();
    assert_eq!(converted.errors.len(), 2, "{:?}", converted.errors);
    let again = of_text("c", &converted.text, &registry).unwrap();
    assert_eq!(again.text, converted.text);

    let output = inlane(&["convert", "--env"], &variables);
    assert!(output.status.success());
    assert_eq!(text(&output.stdout), converted.text);
    assert!(text(&output.stderr).contains("KVCACHE_INDEXER_REDIS_ADDR is not set"));
    let nothing = inlane(&["convert", "--env"], &[("HF_TOKEN", "x")]);
    assert_eq!(nothing.status.code(), Some(1));
}

/// Every switch on, alone and with all others, in both profiles: whatever the variables make is a
/// configuration that loads, as soon as its plugins exist.
#[test]
fn whatever_variables_make_loads() {
    let registry = inlane_plugins::registry();
    let names = [
        "KVCACHE_AWARE_SCORER",
        "LOAD_AWARE_SCORER",
        "PREFIX_AWARE_SCORER",
        "SESSION_AWARE_SCORER",
        "GIE_LEAST_KVCACHE_FILTER",
        "GIE_LEAST_QUEUE_FILTER",
        "GIE_LORA_AFFINITY_FILTER",
        "GIE_LOW_QUEUE_FILTER",
        "GIE_SHEDDABLE_CAPACITY_FILTER",
        "GIE_KVCACHE_UTILIZATION_SCORER",
        "GIE_QUEUE_SCORER",
        "GIE_PREFIX_SCORER",
    ];
    let alone = names.iter().map(|name| vec![*name]);
    for on in alone.chain([vec![], names.to_vec()]) {
        for disaggregated in ["true", "false"] {
            let switch =
                |prefix: &str, name: &&str| (format!("{prefix}ENABLE_{name}"), "true".into());
            let mut variables = vec![
                ("PD_ENABLED".to_owned(), disaggregated.to_owned()),
                ("KVCACHE_INDEXER_REDIS_ADDR".to_owned(), "redis:6379".to_owned()),
                ("HF_TOKEN".to_owned(), "x".to_owned()),
            ];
            for prefix in ["", "PREFILL_"] {
                variables.extend(on.iter().map(|name| switch(prefix, name)));
            }
            match of_environment(variables, &registry) {
                Ok(converted) => assert!(converted.errors.is_empty()),
                Err(error) => assert!(error.contains("is not registered"), "{on:?}: {error}"),
            }
        }
    }
}

#[test]
fn a_bad_configuration_ends_in_status_one_and_its_place() {
    let bad = here("../plugins/tests/configurations/I12.yaml");
    let bad = bad.to_str().unwrap();
    for command in ["check", "convert"] {
        let output = inlane(&[command, bad], &[]);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        let error = text(&output.stderr);
        assert!(error.contains("I12.yaml:5:"), "{error}");
        assert!(error.contains("references undefined plugin 'ghost'"), "{error}");
    }
    let output = inlane(&["check", "--json", bad], &[]);
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["ok"]), (Some(1), &Value::Bool(false)));
    let missing = inlane(&["check", "/nowhere/config.yaml"], &[]);
    assert!(
        text(&missing.stderr).contains("failed to load config from a file '/nowhere/config.yaml'")
    );
    assert_eq!(inlane(&["check"], &[]).status.code(), Some(2));
    assert_eq!(inlane(&["convert", "--env", bad], &[]).status.code(), Some(2));
}

#[test]
fn json_has_the_whole_pipeline() {
    let good = here("../plugins/tests/configurations/V2.yaml");
    let output = inlane(&["check", "--json", good.to_str().unwrap()], &[]);
    assert!(output.status.success());
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let profile = &json["pipeline"]["profiles"][0];
    assert_eq!(profile["filters"][0], "decode-filter");
    assert_eq!(profile["scorers"][0]["weight"], 2.0);
    assert_eq!(profile["picker"], "max-score-picker");
    let plugins = json["pipeline"]["plugins"].as_array().unwrap();
    let tokens = plugins.iter().find(|p| p["name"] == "token-producer").unwrap();
    assert_eq!(tokens["origin"], "auto-created");
}

#[test]
fn the_guide_shows_what_is_printed() {
    let guide = std::fs::read_to_string(here("../../docs/configuration.md")).unwrap();
    let block = |kind: &str| {
        let (_, rest) = guide.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let page = checked("config.yaml", &block("yaml")).unwrap().text();
    assert_eq!(block("console"), format!("$ inlane check config.yaml\n{page}"));
}

#[test]
fn help_names_the_commands() {
    let help = inlane(&["--help"], &[]);
    for command in ["check", "convert", "demo"] {
        assert!(text(&help.stdout).contains(command));
    }
}

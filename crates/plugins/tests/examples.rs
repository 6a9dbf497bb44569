//! The examples of the configuration format, each a file: `V…` load, `I…` do not.
//!
//! The first line of an invalid one says where the error is and what it says. The valid ones are
//! looked at more closely by the tests of `inlane check`, which print what they amount to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use inlane_core::config::{ConfigError, LoadedConfig, load};
use inlane_core::registry::KeptState;
use inlane_core::snapshot::ConfigDocument;

/// An example: its name, its text, and what loading it gave.
struct Example {
    name: String,
    text: String,
    loaded: Result<LoadedConfig, ConfigError>,
}

impl Example {
    fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let document = ConfigDocument {
            source: format!("{name}.yaml"),
            text: text.clone(),
            ..ConfigDocument::default()
        };
        let loaded = load(&document, &inlane_plugins::registry(), &KeptState::default());
        Self { name, text, loaded }
    }
}

fn paths() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations");
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    paths.sort();
    paths
}

fn examples(kind: char) -> Vec<Example> {
    let examples = paths().into_iter().map(|path| Example::read(&path));
    examples.filter(|e| e.name.starts_with(kind)).collect()
}

/// Two of the 37 invalid ones are flags; two others are shown twice.
#[test]
fn no_example_is_missing() {
    assert_eq!(paths().len(), 9 + 37 - 2 + 2);
}

#[test]
fn valid_examples_load() {
    for Example { name, loaded, .. } in examples('V') {
        let config = loaded.unwrap_or_else(|error| panic!("{error}"));
        let deprecated = config.warnings.iter().filter(|w| w.contains("deprecated")).count();
        assert_eq!(deprecated, if name == "V8" { 3 } else { 0 }, "{name}: {:?}", config.warnings);
    }
}

#[test]
fn invalid_examples_say_where_and_why() {
    for Example { name, text, loaded } in examples('I') {
        let expected = text.lines().next().and_then(|line| line.strip_prefix("# Error at "));
        let (place, message) = expected.unwrap().split_once(": ").unwrap();
        let error = loaded.map(drop).unwrap_err();
        let found = if error.path.is_empty() { "the document" } else { &error.path };
        assert_eq!(found, place, "{error}");
        assert!(error.message.contains(message), "{error}\n  expected {message}");
        assert!(error.location.is_some_and(|at| at.line > 1), "{error}");
        assert!(error.to_string().starts_with(&format!("{name}.yaml:")), "{error}");
    }
}

#[test]
fn near_names_are_suggested() {
    let document = |text: &str| ConfigDocument {
        text: format!("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n{text}"),
        ..ConfigDocument::default()
    };
    for (text, hint) in [
        ("plugins: [{type: prefix-cahce-scorer}]", "prefix-cache-scorer"),
        ("plugins: [{type: queue-scorer}, {type: max-scor-picker}]", "max-score-picker"),
        ("plugins: [{type: prefix-cache-scorer, parameters: {lruCapacity: 1}}]", ""),
        ("pluginz: []", "plugins"),
    ] {
        let error = load(&document(text), &inlane_plugins::registry(), &KeptState::default());
        let hinted = error.map(drop).unwrap_err().hint.unwrap_or_default();
        assert_eq!(hinted, hint, "{text}");
    }
}

//! Models are found by name and followed as their files change.
#![cfg(all(feature = "prompts", unix))]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use inlane_text::tokens::{Change, Models, PromptApi, PromptError, Source, TokenCache};
use tempfile::TempDir;

const CHAT: &[u8] = br#"{"messages":[{"role":"user","content":"Hello"}]}"#;
const GREETING: &str = "{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}";

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vllm/model")
}

/// Puts the recorded model into a new directory.
fn put(dir: &Path) {
    fs::create_dir_all(dir).expect("a directory");
    for file in ["tokenizer.json", "tokenizer_config.json", "config.json", "chat_template.jinja"] {
        fs::copy(recorded().join(file), dir.join(file)).expect("copied");
    }
}

/// Replaces a file as careful writers do, so that its stamp changes whatever the clock does.
fn replace(path: &Path, content: &str) {
    let new = path.with_extension("new");
    fs::write(&new, content).expect("written");
    fs::rename(new, path).expect("renamed");
}

fn models(source: Source) -> Models {
    Models::new(source, Arc::new(TokenCache::new(1 << 20)))
}

fn loaded(name: &str) -> Change {
    Change::Loaded { name: name.to_owned() }
}

fn chat(models: &Models, name: &str) -> Result<Vec<u32>, PromptError> {
    let model = models.get(name).expect("the model");
    model.tokenize_at(PromptApi::Chat, CHAT, 0).map(|tokenized| tokenized.prompts[0].clone())
}

fn dir() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

#[test]
fn a_model_is_named_by_its_place() {
    let root = dir();
    let hub = root.path().join("hub/models--meta--Tiny-3");
    for path in ["plain", "team/tuned", "hub/models--meta--Tiny-3/snapshots/aaa"] {
        put(&root.path().join(path));
    }
    let elsewhere = dir();
    put(elsewhere.path());
    let mut source = Source::new(root.path());
    source.map.insert("alias".into(), elsewhere.path().to_owned());
    source.map.insert("plain".into(), elsewhere.path().join("tokenizer.json"));
    let found = models(source);
    assert_eq!(found.refresh().len(), 4);
    assert_eq!(found.names(), ["alias", "meta/Tiny-3", "plain", "team/tuned"]);
    assert!(chat(&found, "meta/Tiny-3").is_ok());
    assert!(found.get("tuned").is_none());
    assert_eq!(found.refresh(), []);

    // Of two snapshots the one that the branch names counts.
    put(&hub.join("snapshots/bbb"));
    fs::create_dir(hub.join("refs")).expect("a directory");
    fs::write(hub.join("snapshots/bbb/chat_template.jinja"), GREETING).expect("written");
    fs::write(hub.join("refs/main"), "bbb\n").expect("written");
    assert_eq!(found.refresh(), [loaded("meta/Tiny-3")]);
    assert_eq!(chat(&found, "meta/Tiny-3").map(|ids| ids[0]), Ok(1));
}

#[test]
fn a_tokenizer_in_the_directory_itself_has_its_name() {
    let root = dir();
    put(&root.path().join("tiny"));
    let found = models(Source::new(root.path().join("tiny")));
    assert_eq!(found.refresh(), [loaded("tiny")]);
}

#[test]
fn a_broken_state_leaves_the_one_before_and_says_why() {
    let root = dir();
    let model = root.path().join("m");
    put(&model);
    let found = models(Source::new(root.path()));
    found.refresh();
    let before = chat(&found, "m");

    replace(&model.join("chat_template.jinja"), "{% for %}");
    let changes = found.refresh();
    assert!(
        matches!(changes.as_slice(), [Change::Failed { name, serving: true, .. }] if name == "m"),
        "{changes:?}"
    );
    assert_eq!(chat(&found, "m"), before);
    assert_eq!(found.refresh(), [], "one state is reported once");

    replace(&model.join("tokenizer.json"), "{");
    let changes = found.refresh();
    let [Change::Failed { error, serving: true, .. }] = changes.as_slice() else {
        panic!("{changes:?}");
    };
    assert!(error.path.ends_with("m/tokenizer.json"));
    assert_eq!(chat(&found, "m"), before);

    put(&model);
    replace(&model.join("chat_template.jinja"), GREETING);
    assert_eq!(found.refresh(), [loaded("m")]);
    assert_ne!(chat(&found, "m"), before);

    fs::remove_dir_all(&model).expect("removed");
    assert_eq!(found.refresh(), [Change::Removed { name: "m".into() }]);
    assert!(found.get("m").is_none());
}

#[test]
fn a_model_that_comes_with_a_broken_template_serves_completions() {
    let root = dir();
    let model = root.path().join("m");
    put(&model);
    replace(&model.join("chat_template.jinja"), "{{ unclosed");
    let found = models(Source::new(root.path()));
    let changes = found.refresh();
    assert!(matches!(changes.as_slice(), [Change::Partly { .. }]), "{changes:?}");
    let serving = found.get("m").expect("the model");
    let completion = serving.tokenize(PromptApi::Completions, br#"{"prompt":"a"}"#);
    assert_eq!(completion.map(|tokenized| tokenized.prompts), Ok(vec![vec![0, 70]]));
    assert!(matches!(chat(&found, "m"), Err(PromptError::Template(_))));

    fs::remove_file(model.join("chat_template.jinja")).expect("removed");
    assert_eq!(found.refresh(), [loaded("m")]);
    assert_eq!(chat(&found, "m"), Err(PromptError::NoTemplate));
}

#[test]
fn a_mounted_config_map_is_followed_through_its_links() {
    let root = dir();
    let mount = root.path().join("models/tiny");
    put(&mount.join("..2026_01"));
    symlink("..2026_01", mount.join("..data")).expect("a link");
    for file in fs::read_dir(mount.join("..2026_01")).expect("files").flatten() {
        let name = file.file_name();
        symlink(Path::new("..data").join(&name), mount.join(name)).expect("a link");
    }
    let found = models(Source::new(root.path().join("models")));
    assert_eq!(found.refresh(), [loaded("tiny")]);

    put(&mount.join("..2026_02"));
    fs::write(mount.join("..2026_02/chat_template.jinja"), GREETING).expect("written");
    symlink("..2026_02", mount.join("..new")).expect("a link");
    fs::rename(mount.join("..new"), mount.join("..data")).expect("switched");
    let before = chat(&found, "tiny");
    assert_eq!(found.refresh(), [loaded("tiny")]);
    assert_ne!(chat(&found, "tiny"), before);
}

#[test]
fn links_that_run_in_a_circle_end() {
    let root = dir();
    put(&root.path().join("m"));
    symlink(root.path(), root.path().join("m/again")).expect("a link");
    let found = models(Source::new(root.path()));
    found.refresh();
    assert!(found.get("m").is_some());
}

#[test]
fn what_is_no_model_is_refused_with_its_file() {
    let root = dir();
    let mut source = Source::new(root.path());
    source.map.insert("gone".into(), root.path().join("nowhere"));
    fs::create_dir(root.path().join("odd")).expect("a directory");
    fs::write(root.path().join("odd/tokenizer.json"), r#"{"model":{"type":"BPE"}}"#)
        .expect("written");
    let changes = models(source).refresh();
    assert_eq!(changes.len(), 2);
    for change in changes {
        let Change::Failed { error, serving: false, .. } = change else { panic!("{change}") };
        assert!(error.path.ends_with("tokenizer.json"), "{error}");
    }
}

#[test]
fn a_watch_reports_what_changes_and_ends() {
    let root = dir();
    let found = Arc::new(models(Source::new(root.path())));
    let (sender, changes) = mpsc::channel();
    let watch = found.watch(Duration::from_millis(5), move |change| drop(sender.send(change)));
    let watch = watch.expect("a thread");
    let staged = dir();
    put(staged.path());
    symlink(staged.path(), root.path().join("m")).expect("a link");
    assert_eq!(changes.recv_timeout(Duration::from_secs(60)), Ok(loaded("m")));
    assert!(found.get("m").is_some());
    drop(watch);
    assert!(changes.recv().is_err(), "the thread is gone");
}

//! Chats with images: the blocks that a real vLLM 0.32 stored for them are those that are looked up
//! for the tokens made here, and a real Envoy decides on these tokens. Recordings: `fixtures/media`.

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use inlane_cli::lab::{Bootstrap, Lab, Plan};
use inlane_core::request::{Media, Prompt, Request};
use inlane_integration::scenario::{Scenario, config};
use inlane_kv::event::{EngineType, decode};
use inlane_kv::frames::Message;
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_kv::literal::LiteralMirror;
use inlane_kv::{Applier, Limits};
use inlane_plugins::precise::keying::Keying;
use inlane_plugins::precise::parameters::HashAlgorithm;
use inlane_text::tokens::{Model, PromptApi, TokenCache, Tokenized};
use serde_json::Value;

const MODEL: &str = "qwen2_5_vl";
/// Tokens of a block there.
const BLOCK: NonZeroU32 = NonZeroU32::new(32).expect("not zero");

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/media")
}

fn lines(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(recorded().join(name)).expect("recordings");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The model's files and its tokenizer, in one directory.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = |path: &Path| {
        let to = directory.path().join(path.file_name().expect("a name"));
        fs::copy(path, to).expect("a copy");
    };
    copy(&recorded().join("tokenizer.json"));
    for entry in fs::read_dir(recorded().join("models").join(MODEL)).expect("a model") {
        copy(&entry.expect("a file").path());
    }
    directory
}

fn model() -> Model {
    let cache = Arc::new(TokenCache::new(1 << 20));
    Model::load(MODEL, directory().path(), cache).expect("a model")
}

/// The recorded chats: what they are, their bodies with the images in them, their tokens.
fn chats() -> impl Iterator<Item = (String, String, usize)> {
    let images = fs::read(recorded().join("images.json")).expect("images");
    let images: serde_json::Map<String, Value> = serde_json::from_slice(&images).expect("JSON");
    lines(&format!("{MODEL}.jsonl")).into_iter().map(move |case| {
        let mut body = case["request"].to_string();
        for (name, url) in &images {
            body = body.replace(&format!("\"image:{name}\""), &url.to_string());
        }
        let tokens = case["token_ids"].as_array().map_or(0, Vec::len);
        (case["note"].as_str().expect("a note").to_owned(), body, tokens)
    })
}

/// The index after all messages of the engine.
fn index() -> LiteralMirror {
    let hasher = Hasher::new(Algorithm::CborFnv, "", BLOCK);
    let mut applier = Applier::new(hasher, [], Limits::default());
    let mut mirror = LiteralMirror::default();
    for message in lines("events.jsonl") {
        let frames: Vec<Vec<u8>> = message["frames_hex"]
            .as_array()
            .expect("frames")
            .iter()
            .map(|frame| hex(frame.as_str().expect("text")))
            .collect();
        let message = Message::live(&frames).expect("a message");
        let batch = decode(message.payload, EngineType::Vllm).expect("a batch");
        let applied = applier.apply(&mut mirror, 0, MODEL, &batch);
        assert_eq!(applied.skipped, 0);
    }
    mirror
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks_exact(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).expect("text"), 16).expect("hex"))
        .collect()
}

/// The keys under which a request is looked up.
fn keys(tokenized: &Tokenized) -> Vec<u64> {
    let media: Vec<Media<'_>> = tokenized
        .media
        .iter()
        .map(|range| Media {
            modality: &range.modality,
            hash: &range.hash,
            prompt: range.prompt,
            offset: range.offset,
            length: range.length,
        })
        .collect();
    let prompts = [Prompt::Tokens(&tokenized.prompts[0])];
    let request =
        Request { target_model: MODEL, prompts: &prompts, media: &media, ..Default::default() };
    let mut keys = Vec::new();
    Keying::new(HashAlgorithm::CborFnv, "", BLOCK).keys(&request, 0, &mut keys);
    keys
}

#[test]
fn the_blocks_of_chats_with_images_are_found_in_the_engines_events() {
    let (model, mirror) = (model(), index());
    let (mut blocks, mut with_images) = (0, 0);
    for (note, body, _) in chats() {
        let Ok(tokenized) = model.tokenize_at(PromptApi::Chat, body.as_bytes(), 0) else {
            continue;
        };
        let keys = keys(&tokenized);
        let held = mirror.longest_prefix(0, 0, &keys);
        assert_eq!(held, keys.len(), "{note}");
        blocks += held;
        with_images += usize::from(held > 0);
        // Another image in the same place is another prompt.
        let mut other = tokenized;
        other.media.iter_mut().for_each(|range| range.hash.replace_range(..1, "z"));
        assert_eq!(mirror.longest_prefix(0, 0, &self::keys(&other)), 0, "{note}");
    }
    assert!(blocks >= 70 && with_images > 25, "{blocks} blocks of {with_images} chats");
}

#[test]
fn chats_with_images_are_decided_on_with_the_engines_tokens() {
    let profile = config::profile(&[("max-score-picker", 0)]);
    let config = config::declare(&profile, &format!("token-producer {{modelName: {MODEL}}}"));
    let files = directory();
    let map = format!("map: {{{MODEL}: {}}}, timeout: 30s", files.path().display());
    let settings = format!("decisionBudget: 10s\ntokenizers: {{{map}}}");
    let bootstrap = Bootstrap { settings, ..Bootstrap::default() };
    let pod_args = ["--served-model-name", MODEL].map(str::to_owned).to_vec();
    let plan = Plan { pods: 1, pod_args, config, bootstrap, ..Plan::default() };
    let mut lab = Scenario::of(Lab::prepare(plan).expect("a lab"));
    lab.add_pod().expect("a pod");
    lab.begin().expect("a start");
    let loaded = || lab.metric("inlane_tokenize_models", "") == 1.0;
    lab.wait_until("the model", Duration::from_secs(30), loaded).expect("a model");

    let left = ["bmp", "tiff", "turned by xmp"];
    let mut missed = 0;
    for (place, (note, body, tokens)) in chats().enumerate().filter(|(place, _)| place % 2 == 0) {
        // The simulator takes no list of texts.
        if note == "bare texts" {
            continue;
        }
        let id = format!("chat-{place}");
        let headers = [("x-request-id", &*id)];
        let answer = lab.client().post("/v1/chat/completions", &headers, body.as_bytes());
        assert_eq!(answer.expect("an answer").status, 200, "{note}");
        let decision = lab.decision(&id).expect("a decision");
        if left.contains(&&*note) {
            assert_eq!(decision["step"], "precise-missed", "{note}");
            missed += 1;
        } else {
            assert_eq!(decision["step"], "full", "{note}");
            assert_eq!(decision["prompt_tokens"], tokens, "{note}");
        }
    }
    assert!(missed > 0);
    let failures = lab.metric("inlane_tokenize_failures_total", "reason=\"media\"");
    assert_eq!(failures, f64::from(missed));
    lab.end();
}

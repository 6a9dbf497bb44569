//! Chats with images against the recordings of a real vLLM: `fixtures/media`.
#![cfg(feature = "prompts")]

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use inlane_kv::event::{EngineType, decode};
use inlane_kv::extras::{Extras, Item};
use inlane_kv::frames::Message;
use inlane_kv::keys::{Algorithm, Hasher};
use inlane_kv::literal::LiteralMirror;
use inlane_kv::{Applier, Limits};
use inlane_text::tokens::{
    Engine, MediaHasher, Model, PromptApi, PromptError, TokenCache, Tokenized,
};
use serde_json::Value;

fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/media")
}

fn json(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// The model's files and the tokenizer that all models share, in one directory.
fn directory(model: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let from = recorded().join("models").join(model);
    for entry in fs::read_dir(from).expect("a model") {
        let path = entry.expect("a file").path();
        fs::copy(&path, directory.path().join(path.file_name().expect("a name"))).expect("a copy");
    }
    let tokenizer = recorded().join("tokenizer.json");
    fs::copy(tokenizer, directory.path().join("tokenizer.json")).expect("a copy");
    directory
}

fn load(model: &str, engine: &Engine) -> Model {
    let cache = Arc::new(TokenCache::new(1 << 20));
    Model::load_for(model, directory(model).path(), cache, engine).expect("a model")
}

/// Puts the images in whose names stand in a request.
fn fill(value: &mut Value, images: &Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, images)),
        Value::Object(members) => members.values_mut().for_each(|item| fill(item, images)),
        Value::String(text) => {
            if let Some(name) = text.strip_prefix("image:") {
                *value = images[name].clone();
            }
        }
        _ => {}
    }
}

fn tokenize(model: &Model, request: &Value) -> Result<Tokenized, PromptError> {
    model.tokenize_at(PromptApi::Chat, request.to_string().as_bytes(), 0)
}

/// Images of kinds that are left to the engine.
const LEFT: [&str; 3] = ["bmp", "tiff", "turned by xmp"];

fn check(model: &str) -> usize {
    let loaded = load(model, &Engine::default());
    assert!(loaded.knows_images(), "{model}");
    let images = json(&recorded().join("images.json"));
    let lines = fs::read_to_string(recorded().join(format!("{model}.jsonl"))).expect("recordings");
    let mut equal = 0;
    for line in lines.lines() {
        let mut case: Value = serde_json::from_str(line).expect("JSON");
        let note = format!("{model}: {}", case["note"]);
        fill(&mut case["request"], &images);
        let made = tokenize(&loaded, &case["request"]);
        if case["status"] != 200 {
            // What the engine refuses has no blocks, whatever is made of it here.
            continue;
        }
        if LEFT.contains(&case["note"].as_str().expect("a note")) {
            assert_eq!(made, Err(PromptError::Media), "{note}");
            continue;
        }
        let made = made.unwrap_or_else(|error| panic!("{note}: {error}"));
        let ids: Vec<u32> = serde_json::from_value(case["token_ids"].take()).expect("ids");
        assert_eq!(made.prompts, [ids], "{note}");
        let hashes: Vec<String> = serde_json::from_value(case["mm_hashes"].take()).expect("hashes");
        let places: Vec<(u64, u64)> =
            serde_json::from_value(case["mm_placeholders"].take()).expect("places");
        let media = &made.media;
        assert_eq!(media.iter().map(|m| m.hash.clone()).collect::<Vec<_>>(), hashes, "{note}");
        let made: Vec<_> = media.iter().map(|range| (range.offset, range.length)).collect();
        assert_eq!(made, places, "{note}");
        assert!(media.iter().all(|range| range.modality == "image" && range.prompt == 0));
        equal += 1;
    }
    equal
}

#[test]
fn qwen_2_vl_equals_the_engine() {
    assert!(check("qwen2_vl") >= 45);
}

#[test]
fn qwen_2_5_vl_equals_the_engine() {
    assert!(check("qwen2_5_vl") >= 45);
}

#[test]
fn a_template_of_one_text_equals_the_engine() {
    assert!(check("qwen2_5_vl_line") >= 40);
}

#[test]
fn qwen_3_vl_equals_the_engine() {
    assert!(check("qwen3_vl") >= 45);
}

#[test]
fn llava_with_clip_equals_the_engine() {
    assert!(check("llava_clip") >= 40);
}

#[test]
fn llava_with_siglip_equals_the_engine() {
    assert!(check("llava_siglip") >= 40);
}

#[test]
fn pixtral_equals_the_engine() {
    assert!(check("pixtral") >= 40);
}

#[test]
fn mistral_3_equals_the_engine() {
    assert!(check("mistral3") >= 40);
}

#[test]
fn gemma_3_equals_the_engine() {
    assert!(check("gemma3") >= 40);
}

fn chat(parts: &str) -> Value {
    let body = format!(r#"{{"messages":[{{"role":"user","content":[{parts}]}}]}}"#);
    serde_json::from_str(&body).expect("JSON")
}

#[test]
fn what_cannot_be_known_has_no_tokens() {
    let model = load("qwen2_5_vl", &Engine::default());
    for part in [
        r#"{"type":"image_url","image_url":{"url":"https://host/a.png"}}"#,
        r#"{"type":"image_url","image_url":{"url":"https://host/a.png"},"uuid":"u"}"#,
        r#"{"type":"image_url","image_url":null,"uuid":"u"}"#,
        r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}"#,
        r#"{"type":"video_url","video_url":{"url":"data:video/mp4;base64,AAAA"}}"#,
        r#"{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}"#,
    ] {
        assert_eq!(tokenize(&model, &chat(part)), Err(PromptError::Media), "{part}");
    }
    let images = json(&recorded().join("images.json"));
    let mut request = chat(r#"{"type":"image_url","image_url":{"url":"image:png"}}"#);
    fill(&mut request, &images);
    assert!(tokenize(&model, &request).is_ok());
    request["truncate_prompt_tokens"] = 1000.into();
    assert_eq!(tokenize(&model, &request), Err(PromptError::Media));
}

#[test]
fn the_engines_start_enters_the_digest() {
    let images = json(&recorded().join("images.json"));
    let mut request = chat(r#"{"type":"image_url","image_url":{"url":"image:png"}}"#);
    fill(&mut request, &images);
    let digest = |engine: &Engine| {
        let mut made = tokenize(&load("qwen2_5_vl", engine), &request).expect("tokens");
        made.media.pop().expect("an image").hash
    };
    let usual = digest(&Engine::default());
    let named = Engine { model: Some("qwen2_5_vl".to_owned()), ..Engine::default() };
    assert_eq!(digest(&named), usual);
    let path = Engine { model: Some("/models/qwen".to_owned()), ..Engine::default() };
    assert_ne!(digest(&path), usual);
    // vLLM's own function over the same bytes.
    let vectors = json(&recorded().join("digests.json"));
    for (hasher, name) in [
        (MediaHasher::Blake3, "blake3"),
        (MediaHasher::Sha256, "sha256"),
        (MediaHasher::Sha512, "sha512"),
    ] {
        assert_eq!(MediaHasher::of_name(name), Some(hasher));
        let engine = Engine { model: Some("/models/qwen".to_owned()), media_hasher: hasher };
        assert_eq!(digest(&engine), vectors[name], "{name}");
    }
}

/// Tokens of a block of the recorded engine.
const BLOCK: NonZeroU32 = NonZeroU32::new(32).expect("not zero");

fn hasher() -> Hasher {
    Hasher::new(Algorithm::CborFnv, "", BLOCK)
}

/// The index after all messages of the engine.
fn stored() -> LiteralMirror {
    let mut applier = Applier::new(hasher(), [], Limits::default());
    let mut mirror = LiteralMirror::default();
    let messages = fs::read_to_string(recorded().join("events.jsonl")).expect("events");
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).expect("JSON");
        let frames = message["frames_hex"].as_array().expect("frames").iter();
        let frames: Vec<Vec<u8>> = frames.map(|frame| hex(frame.as_str().expect("text"))).collect();
        let message = Message::live(&frames).expect("a message");
        let batch = decode(message.payload, EngineType::Vllm).expect("a batch");
        let applied = applier.apply(&mut mirror, 0, "qwen2_5_vl", &batch);
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
    let place = |place: u64| u32::try_from(place).expect("a place");
    let items: Vec<Item<'_>> = tokenized
        .media
        .iter()
        .map(|range| Item {
            start: place(range.offset),
            end: place(range.offset + range.length),
            identifier: &range.hash,
        })
        .collect();
    let mut keys = Vec::new();
    let hasher = hasher();
    let start = hasher.start("qwen2_5_vl");
    hasher.extend(start, &tokenized.prompts[0], &Extras::new(&items, None), &mut keys);
    keys
}

#[test]
fn the_blocks_of_chats_with_images_are_found_in_the_engines_events() {
    let (model, mirror) = (load("qwen2_5_vl", &Engine::default()), stored());
    let images = json(&recorded().join("images.json"));
    let (mut blocks, mut chats) = (0, 0);
    let lines = fs::read_to_string(recorded().join("qwen2_5_vl.jsonl")).expect("recordings");
    for line in lines.lines() {
        let mut case: Value = serde_json::from_str(line).expect("JSON");
        fill(&mut case["request"], &images);
        let Ok(mut made) = tokenize(&model, &case["request"]) else { continue };
        let keys = keys(&made);
        let held = mirror.longest_prefix(0, 0, &keys);
        assert_eq!(held, keys.len(), "{}", case["note"]);
        blocks += held;
        chats += usize::from(held > 0);
        // Another image in the same place is another prompt.
        made.media.iter_mut().for_each(|range| range.hash.insert(0, 'x'));
        assert_eq!(mirror.longest_prefix(0, 0, &self::keys(&made)), 0, "{}", case["note"]);
    }
    assert_eq!((blocks, chats), (70, 27));
}

//! Every recorded rendering of a vLLM.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{ChatApi, ChatTemplate, ContentFormat};

fn fixtures() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/vllm")).to_owned()
}

#[test]
fn recorded_chats_render_to_the_recorded_texts() {
    let dir = fixtures();
    let config = std::fs::read(dir.join("model/tokenizer_config.json")).unwrap();
    let cases = std::fs::read_to_string(dir.join("chat_cases.jsonl")).unwrap();
    let mut failed = Vec::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let file = case["template"].as_str().unwrap();
        let template = std::fs::read_to_string(dir.join(file)).unwrap();
        let template = ChatTemplate::from_parts(&template, &config).unwrap();
        // The line itself keeps the order and the numbers of the request.
        let start = line.find("\"request\": ").unwrap() + 11;
        let end = line.find(", \"status\": ").unwrap();
        let rendered = template.render(ChatApi::Chat, &line.as_bytes()[start..end], 0);
        let problem = match (&rendered, case["status"].as_u64()) {
            (Ok(rendered), Some(200)) => {
                let format = match case["content_format"].as_str() {
                    Some("openai") => ContentFormat::Parts,
                    _ => ContentFormat::Text,
                };
                let expected = case["rendered"].as_str();
                let same = expected.is_none_or(|expected| rendered.text == expected);
                !same || template.content_format() != Some(format)
            }
            (Err(_), Some(400)) => false,
            _ => true,
        };
        if problem {
            failed.push(format!("{}: {rendered:?}\n{}", case["id"], case["rendered"]));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

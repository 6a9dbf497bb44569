//! The requests of the live test.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{ADAPTERS, MODEL};
use crate::fixtures::steps::{self, Answered};

/// One request.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it is called in the table.
    pub name: String,
    /// Path.
    pub path: String,
    /// Body: JSON.
    pub body: String,
}

impl Step {
    /// A request to `/v1/completions`, with more fields than model, prompt and length.
    pub fn completion(name: &str, prompt: impl Into<Value>, more: Value) -> Self {
        let body = json!({"model": MODEL, "prompt": prompt.into(), "max_tokens": 4});
        Self::with(name, "/v1/completions", body, more)
    }

    /// A request to `/v1/chat/completions`.
    pub fn chat(name: &str, messages: &[Value], more: Value) -> Self {
        let body = json!({"model": MODEL, "messages": messages, "max_tokens": 4});
        Self::with(name, "/v1/chat/completions", body, more)
    }

    fn with(name: &str, path: &str, mut body: Value, more: Value) -> Self {
        body["temperature"] = json!(0);
        body["ignore_eos"] = json!(true);
        body["return_token_ids"] = json!(true);
        if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
            body.extend(more);
        }
        Self { name: name.into(), path: path.into(), body: body.to_string() }
    }

    /// The body with nothing for a chat template, which is otherwise as it was sent: a proxy does
    /// not take templates from clients.
    pub fn without_template(&self) -> String {
        let fields: HashMap<&str, &RawValue> = serde_json::from_str(&self.body).unwrap_or_default();
        match fields.get("chat_template") {
            Some(template) => self.body.replacen(template.get(), "null", 1),
            None => self.body.clone(),
        }
    }

    /// A field of the body.
    pub fn field(&self, name: &str) -> Value {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body[name].clone()
    }
}

/// The requests of a recorded run that were answered with 200, as they were sent.
///
/// # Errors
/// A file that cannot be read.
pub fn recorded(run: &Path) -> io::Result<Vec<Step>> {
    let text = fs::read_to_string(run.join("steps.jsonl"))?;
    let mut steps = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let line: steps::Step<'_> = serde_json::from_str(line)?;
        if let Some(Answered { id, path, body, .. }) = line.answered() {
            steps.push(Step { name: id, path, body: body.to_owned() });
        }
    }
    Ok(steps)
}

/// So many words, others for every seed.
pub fn words(seed: u64, count: usize) -> String {
    const WORDS: [&str; 24] = [
        "counting",
        "tokens",
        "and",
        "the",
        "holds",
        "blocks",
        "to",
        "stay",
        "that",
        "request",
        "scheduler",
        "already",
        "running",
        "each",
        "routes",
        "prefix",
        "quick",
        "warm",
        "cached",
        "pods",
        "queues",
        "other",
        "gateway",
        "longest",
    ];
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        WORDS[(state >> 33) as usize % WORDS.len()]
    };
    (0..count).map(|_| word()).collect::<Vec<_>>().join(" ")
}

/// A conversation: a system prompt, then so many questions and answers, and a last question.
pub fn talk(seed: u64, turns: usize) -> Vec<Value> {
    let mut messages = vec![json!({"role": "system", "content": words(seed, 60)})];
    for turn in 0..turns as u64 {
        messages.push(json!({"role": "user", "content": words(seed * 100 + turn, 12)}));
        messages.push(json!({"role": "assistant", "content": words(seed * 200 + turn, 12)}));
    }
    messages.push(json!({"role": "user", "content": words(seed * 300 + turns as u64, 8)}));
    messages
}

/// What a chat may call.
pub fn tools() -> Value {
    json!({"tools": [{"type": "function", "function": {
        "name": "get_weather", "description": "Weather for a city",
        "parameters": {"type": "object", "required": ["city"], "properties": {
            "city": {"type": "string"}, "unit": {"enum": ["C", "F"], "default": "C"},
        }},
    }}]})
}

/// Everything that gives a prompt other blocks, each with what finds them again.
pub fn variety() -> Vec<Step> {
    let text = words(7, 70);
    let longer = format!("{text} {}", words(8, 20));
    let ids: Vec<u32> = (100..260).collect();
    let named = |model: &str| json!({"model": model});
    let salted = |salt: &str| json!({"cache_salt": salt});
    let both = json!({"model": ADAPTERS[0], "cache_salt": "tenant-a"});
    let mut steps = Vec::new();
    for turns in 0..4 {
        steps.push(Step::chat(&format!("talk, turn {turns}"), &talk(1, turns), Value::Null));
    }
    for turns in 0..3 {
        steps.push(Step::chat(&format!("tools, turn {turns}"), &talk(2, turns), tools()));
    }
    for (name, prompt, more) in [
        ("text", json!(text), Value::Null),
        ("text again", json!(text), Value::Null),
        ("text and more", json!(longer), Value::Null),
        ("no special tokens", json!(text), json!({"add_special_tokens": false})),
        ("no special tokens again", json!(text), json!({"add_special_tokens": false})),
        ("token ids, whole blocks", json!(ids), Value::Null),
        ("token ids again", json!(ids), Value::Null),
        ("token ids, a part", json!(ids[..100]), Value::Null),
        ("salt a", json!(text), salted("tenant-a")),
        ("salt a again", json!(longer), salted("tenant-a")),
        ("salt b", json!(text), salted("tenant-b")),
        ("adapter", json!(text), named(ADAPTERS[0])),
        ("adapter again", json!(longer), named(ADAPTERS[0])),
        ("other adapter", json!(text), named(ADAPTERS[1])),
        ("adapter and salt", json!(text), both.clone()),
        ("adapter and salt again", json!(text), both),
        ("two prompts", json!([text, words(11, 40)]), Value::Null),
        ("two prompts again", json!([longer, words(11, 40)]), Value::Null),
        ("long answer", json!(words(9, 10)), json!({"max_tokens": 90})),
        ("short", json!("Hi"), Value::Null),
    ] {
        steps.push(Step::completion(name, prompt, more));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_body_can_be_replaced() {
        let step = Step::completion("x", "text", json!({"model": "m", "max_tokens": 9}));
        assert_eq!(step.field("model"), "m");
        assert_eq!(step.field("max_tokens"), 9);
        assert_eq!(step.field("cache_salt"), Value::Null);
    }

    #[test]
    fn a_template_is_taken_out_and_nothing_else() {
        let of = |body: &str| Step { name: "x".into(), path: "/x".into(), body: body.into() };
        let step = of(r#"{"b": 1, "chat_template": "{{ \"a\" }}", "a": 2}"#);
        assert_eq!(step.without_template(), r#"{"b": 1, "chat_template": null, "a": 2}"#);
        let step = of(r#"{"b": 1}"#);
        assert_eq!(step.without_template(), step.body);
    }

    #[test]
    fn a_conversation_begins_as_its_turn_before() {
        let (short, long) = (talk(3, 1), talk(3, 2));
        assert_eq!(short[..3], long[..3]);
        assert_ne!(words(1, 9), words(2, 9));
    }

    #[test]
    fn recorded_requests_are_read_as_they_were_sent() {
        let run = super::super::model().join("../runs/sha256_cbor-seed42-int");
        let steps = recorded(&run).unwrap();
        assert!(steps.len() > 150);
        let salted = steps.iter().find(|step| step.name == "c08-salt").unwrap();
        assert!(salted.field("cache_salt").is_string());
    }
}

//! Reads requests and writes the prompts that engines make of them, a line of JSON each: what
//! `scripts/vllm/oracle.py` answers for vLLM itself.
//!
//! `cargo run -p inlane-text --features prompts --example prompts < requests.jsonl`
//!
//! A line has `api` (chat, messages, responses, completions, embeddings), `dir` (a model's
//! directory), `template` (in place of the model's own) and `body`, the request as a string. With
//! `again` the prompt is made twice, the second time from what is known of the first.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::sync::Arc;

use inlane_text::template::{ChatApi, ChatTemplate};
use inlane_text::tokens::{Model, PromptApi, TokenCache};
use serde::Deserialize;
use serde_json::{Value, json};

const NOW: i64 = 1_722_470_405;

#[derive(Deserialize)]
struct Job {
    api: String,
    dir: String,
    template: Option<String>,
    body: String,
    #[serde(default)]
    again: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut prompts = Prompts::default();
    let mut out = stdout().lock();
    for line in stdin().lock().lines() {
        let job: Job = serde_json::from_str(&line?)?;
        let answer = prompts.answer(&job).unwrap_or_else(|why| json!({"error": why.to_string()}));
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

#[derive(Default)]
struct Prompts {
    /// By directory and template.
    models: HashMap<(String, Option<String>), Result<Model, String>>,
}

impl Prompts {
    fn answer(&mut self, job: &Job) -> Result<Value, Box<dyn Error>> {
        let api = PromptApi::of_path(&format!(
            "/v1/{}",
            match job.api.as_str() {
                "chat" => "chat/completions",
                api => api,
            }
        ));
        let api = api.ok_or("an api is expected")?;
        let key = (job.dir.clone(), job.template.clone());
        let model = self.models.entry(key).or_insert_with(|| load(job));
        let model = model.as_ref().map_err(Clone::clone)?;
        let tokenized = model.tokenize_at(api, job.body.as_bytes(), NOW)?;
        let again = || model.tokenize_at(api, job.body.as_bytes(), NOW);
        if job.again && again()?.prompts != tokenized.prompts {
            return Err("known text has other tokens".into());
        }
        let mut answer = json!({"ids": tokenized.prompts});
        let chat = match api {
            PromptApi::Chat => ChatApi::Chat,
            PromptApi::Messages => ChatApi::Messages,
            PromptApi::Responses => ChatApi::Responses,
            _ => return Ok(answer),
        };
        let template = template(job)?;
        answer["text"] = template.render(chat, job.body.as_bytes(), NOW)?.text.into();
        Ok(answer)
    }
}

fn template(job: &Job) -> Result<ChatTemplate, Box<dyn Error>> {
    let dir = Path::new(&job.dir);
    Ok(match &job.template {
        None => ChatTemplate::load(dir)?,
        Some(text) => {
            let config = std::fs::read(dir.join("tokenizer_config.json"));
            ChatTemplate::from_parts(text, &config.unwrap_or_else(|_| b"{}".to_vec()))?
        }
    })
}

fn load(job: &Job) -> Result<Model, String> {
    let cache = Arc::new(TokenCache::new(64 << 20));
    let model = Model::load("model", Path::new(&job.dir), cache);
    let model = model.map_err(|error| error.to_string())?;
    match &job.template {
        None => Ok(model),
        Some(_) => Ok(model.with_template(template(job).map_err(|error| error.to_string())?)),
    }
}

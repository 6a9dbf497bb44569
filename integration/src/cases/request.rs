//! The requests of a case.

use std::collections::BTreeMap;

use inlane_core::request::{Headers, Media, Prompt, Request};
use inlane_plugins::token_producer::Estimate;
use inlane_text::{Api, CollectedPrompt, Feature, Limits, Scanner, TokenCollector};
use serde_json::{Value, json};

use super::schema::{MediaFeature, PromptSpec, RequestSpec};

/// A request that changes as hooks set headers.
#[derive(Debug, Clone)]
pub(super) struct LiveRequest {
    spec: RequestSpec,
    pub(super) headers: HeaderMap,
    /// The prompts; empty = not tokenized.
    prompts: Vec<PromptSpec>,
    /// Bytes of the text that they came from, when they came from text.
    text_bytes: Option<u64>,
}

/// Request headers by lower-case name.
#[derive(Debug, Clone, Default)]
pub(super) struct HeaderMap(pub(super) BTreeMap<String, String>);

impl Headers for HeaderMap {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl LiveRequest {
    pub(super) fn new(spec: &RequestSpec) -> Self {
        Self {
            spec: spec.clone(),
            headers: HeaderMap(spec.headers.clone()),
            prompts: spec.prompts.clone(),
            text_bytes: None,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.spec.request_id
    }

    /// Reads the tokens of a body that has not been tokenized yet, as a token producer with this
    /// estimate would.
    pub(super) fn tokenize(&mut self, estimate: &Estimate) -> Result<(), String> {
        if self.prompts.is_empty() {
            self.text_bytes = self.spec.completion.as_ref().and_then(Value::as_str).map(bytes);
            self.prompts = scan(&self.spec, estimate)?;
        }
        Ok(())
    }

    /// Shows the request as the core sees it.
    pub(super) fn with<R>(&self, call: impl FnOnce(&Request<'_>) -> R) -> R {
        let mut media = Vec::new();
        for (prompt, features) in (0..).zip(&self.prompts) {
            media.extend(features.mm_features.iter().map(|f| Media {
                modality: &f.modality,
                hash: &f.hash,
                prompt,
                offset: f.offset,
                length: f.length,
            }));
        }
        let ids: Vec<Vec<u32>> = self.prompts.iter().map(PromptSpec::ids).collect();
        let prompts: Vec<Prompt<'_>> = ids.iter().map(|ids| Prompt::Tokens(ids)).collect();
        let tokens: u64 = prompts.iter().map(Prompt::token_count).sum();
        call(&Request {
            id: &self.spec.request_id,
            model: &self.spec.target_model,
            target_model: &self.spec.target_model,
            headers: &self.headers,
            priority: self.spec.priority,
            fairness_id: &self.spec.fairness_id,
            prompts: &prompts,
            media: &media,
            prompt_bytes: self.text_bytes.unwrap_or(4 * tokens),
            cache_salt: &self.spec.cache_salt,
            max_output_tokens: self.spec.max_output_tokens,
            ..Request::default()
        })
    }

    /// The headers as a hook left them, without the request id.
    pub(super) fn headers_after(&self) -> Value {
        let headers = self.headers.0.iter().filter(|(name, _)| *name != "x-request-id");
        headers
            .map(|(name, value)| (name.clone(), json!(value)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }
}

/// Bytes of a text.
fn bytes(text: &str) -> u64 {
    text.len() as u64
}

/// The prompts of a request: those that it comes with, or what its body says; no body, no prompts.
pub(super) fn scan(spec: &RequestSpec, estimate: &Estimate) -> Result<Vec<PromptSpec>, String> {
    if !spec.prompts.is_empty() {
        return Ok(spec.prompts.clone());
    }
    let (api, mut body) = match (&spec.chat, &spec.completion) {
        (Some(chat), _) => (Api::ChatCompletions, chat.clone()),
        (None, Some(prompt)) => (Api::Completions, json!({ "prompt": prompt })),
        (None, None) => return Ok(Vec::new()),
    };
    if body.get("model").is_none() {
        body["model"] = json!(spec.target_model);
    }
    let body = body.to_string();
    let mut scanner = Scanner::new(api, Limits::default(), TokenCollector::new());
    scanner.set_media_rules(estimate.rules(&HeaderMap(spec.headers.clone())));
    let failed = |error: inlane_text::ScanError| format!("the body cannot be read: {error}");
    scanner.feed(body.as_bytes()).map_err(failed)?;
    scanner.finish().map_err(failed)?;
    if scanner.needs_second_pass() {
        scanner.second_pass(&[body.as_bytes()]).map_err(failed)?;
    }
    Ok(scanner.sink().prompts().iter().map(prompt).collect())
}

fn prompt(found: &CollectedPrompt) -> PromptSpec {
    let feature = |feature: &Feature| MediaFeature {
        modality: feature.modality.name().into(),
        hash: format!("{:x}", feature.hash),
        offset: feature.offset,
        length: feature.length.into(),
    };
    PromptSpec {
        ids: found.tokens.clone(),
        mm_features: found.features.iter().map(feature).collect(),
        ..PromptSpec::default()
    }
}

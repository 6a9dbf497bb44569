//! One model: tokenizer, chat template, limits.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use super::body::{Body, Prompts};
use super::cache::TokenCache;
use super::encoder::{Encoder, Work};
use super::error::{LoadError, PromptError};
use super::files::{self, Place};
use super::images::{Engine, Files, Images};
use super::prompt::{PromptApi, Side, Tokenized, Truncation};
use crate::template::{ChatApi, ChatTemplate, TruncationSide};

/// Named tokens of `tokenizer_config.json`, which the tokenizer may lack.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const NAMED_LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// `model_max_length` at or above this means that nobody set it.
const NO_LENGTH: u64 = 1_000_000_000_000_000;

/// Turns requests to one model into token ids, as the engine does.
///
/// The rules are vLLM's 0.32: a completion's text is tokenized with special tokens around it
/// unless the request says otherwise, a chat goes through the model's template and is tokenized
/// without, token ids are taken as they are, and `truncate_prompt_tokens` shortens all of them.
/// `tokenizer.json` alone decides what the special tokens are (`add_bos_token` beside it says
/// nothing, as in transformers 5).
pub struct Model {
    name: String,
    encoder: Arc<Encoder>,
    template: Result<ChatTemplate, String>,
    cache: Arc<TokenCache>,
    limit: Option<u64>,
    images: Option<Images>,
}

impl Model {
    /// Loads the model in `dir`: `tokenizer.json`, and beside it `tokenizer_config.json`,
    /// `config.json`, the chat template and the processor's configuration, if there. A model whose
    /// template is broken is loaded without: see [`template_error`](Self::template_error).
    ///
    /// Takes up to a second for vocabularies of 200,000 tokens.
    ///
    /// # Errors
    /// A file that cannot be read, a tokenizer that is none.
    pub fn load(name: &str, dir: &Path, cache: Arc<TokenCache>) -> Result<Self, LoadError> {
        Self::load_for(name, dir, cache, &Engine::default())
    }

    /// The same for engines that were started in some other way than with the model's name.
    ///
    /// # Errors
    /// As there.
    pub fn load_for(
        name: &str,
        dir: &Path,
        cache: Arc<TokenCache>,
        engine: &Engine,
    ) -> Result<Self, LoadError> {
        let place = Place { dir: dir.to_owned(), file: "tokenizer.json".to_owned() };
        Self::load_from(name, &place, cache, engine, None)
    }

    /// The same, with the tokenizer of the model's state before, if it has not changed since. A
    /// broken template is an error where the one before was none.
    pub(super) fn load_from(
        name: &str,
        place: &Place,
        cache: Arc<TokenCache>,
        engine: &Engine,
        before: Option<&Self>,
    ) -> Result<Self, LoadError> {
        let path = place.tokenizer();
        let mut source = files::read(&path)?;
        let config = json(&place.dir.join("tokenizer_config.json"))?;
        let model = json(&place.dir.join("config.json"))?;
        let bytes = source.len();
        // The tokens that are added change the tokenizer as the file does.
        source.extend(config.to_string().into_bytes());
        let encoder = match before.filter(|before| before.encoder.is_of(&source)) {
            Some(before) => Arc::clone(&before.encoder),
            None => {
                // Parts of the parser trust their input.
                let load = || encoder(&source, bytes, &config);
                let loaded = catch_unwind(AssertUnwindSafe(load));
                let loaded = loaded.unwrap_or_else(|_| Err("the tokenizer panics".into()));
                Arc::new(loaded.map_err(|why| LoadError::new(&path, why))?)
            }
        };
        let template = ChatTemplate::load(&place.dir).map_err(|error| error.to_string());
        if let (Err(why), true) = (&template, before.is_some_and(|before| before.template.is_ok()))
        {
            return Err(LoadError::new(&place.dir, why.as_str()));
        }
        let limit = limit(&config, &model);
        let files = Files {
            config: &model,
            preprocessor: &json(&place.dir.join("preprocessor_config.json"))?,
            processor: &json(&place.dir.join("processor_config.json"))?,
            tokenizer: &config,
            encoder: &encoder,
            mistral: place.is_mistral(),
        };
        let images = Images::new(name, &files, engine);
        Ok(Self { name: name.to_owned(), encoder, template, cache, limit, images })
    }

    /// The same model with another chat template.
    #[must_use]
    pub fn with_template(self, template: ChatTemplate) -> Self {
        Self { template: Ok(template), ..self }
    }

    /// The name it was loaded by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong with the chat template, `None` if it works or there is none.
    pub fn template_error(&self) -> Option<&str> {
        self.template.as_ref().err().map(String::as_str)
    }

    /// Whether images in chats with this model have tokens: it is of a family whose placeholders
    /// follow from an image's size.
    pub fn knows_images(&self) -> bool {
        self.images.is_some()
    }

    /// Tokens that prompt and answer may have together, by the model's own files.
    pub fn max_length(&self) -> Option<u64> {
        self.limit
    }

    /// Where texts are cut so that what is known of them need not be tokenized again: `"words"`
    /// (at messages and inside them), `"messages"`, or `"never"`.
    pub fn cut_at(&self) -> &'static str {
        self.encoder.cut_at()
    }

    /// The prompts of `body` as the engine will see them.
    ///
    /// Blocks for as long as tokenizing takes: microseconds per kilobyte of text that was seen
    /// before, some 300 µs per kilobyte that was not.
    ///
    /// # Errors
    /// A body that is no request of this API; a chat of a model without a template, or one that its
    /// template refuses or cannot place (media); a text that the tokenizer refuses.
    pub fn tokenize(&self, api: PromptApi, body: &[u8]) -> Result<Tokenized, PromptError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.tokenize_at(api, body, i64::try_from(now.as_secs()).unwrap_or(i64::MAX))
    }

    /// The same at a time in seconds since 1970, which templates may write into their prompt.
    ///
    /// # Errors
    /// Those of [`tokenize`](Self::tokenize).
    pub fn tokenize_at(
        &self,
        api: PromptApi,
        body: &[u8],
        now: i64,
    ) -> Result<Tokenized, PromptError> {
        match api.chat() {
            Some(chat) => self.chat(chat, body, now),
            None => self.prompts(api, body),
        }
    }

    fn chat(&self, api: ChatApi, body: &[u8], now: i64) -> Result<Tokenized, PromptError> {
        let template = self.template.as_ref().map_err(|why| PromptError::Template(why.clone()))?;
        let style = self.images.as_ref().map(Images::style);
        let rendered = template.render_with(api, body, now, style)?;
        // Left is what a request without a side asks for; special tokens then stay.
        let right = rendered.truncation_side == TruncationSide::Right;
        let side = right.then_some(Side::Right);
        let truncation =
            Truncation { keep: rendered.truncate, side, answered: rendered.max_tokens > Some(0) };
        let mut tokenized = Tokenized::default();
        let special = rendered.add_special_tokens;
        let mut ids = self.text(&rendered.text, special, truncation, &mut tokenized.work)?;
        if !rendered.images.is_empty() {
            // The engine shortens a prompt before its images are in it, and after.
            let images = self.images.as_ref().filter(|_| rendered.truncate.is_none());
            let placed = images.and_then(|images| images.place(&ids, &rendered.images));
            let placed = placed.ok_or(PromptError::Media)?;
            (ids, tokenized.media) = (placed.ids, placed.media);
        }
        tokenized.prompts.push(ids);
        Ok(tokenized)
    }

    fn prompts(&self, api: PromptApi, body: &[u8]) -> Result<Tokenized, PromptError> {
        let body = Body::read(body, api.keys())?;
        let truncation = Truncation::of(&body, api);
        let special = body.add_special_tokens.unwrap_or(true);
        match body.prompts {
            None => Err(PromptError::Body(format!("no {}", api.keys().prompt))),
            Some(Prompts::Ids(mut prompts)) => {
                for ids in &mut prompts {
                    truncation.apply(ids, None, self.limit);
                }
                Ok(Tokenized { prompts, media: body.media, work: Work::default() })
            }
            Some(Prompts::Texts(texts)) => {
                let mut tokenized = Tokenized { media: body.media, ..Tokenized::default() };
                for text in texts {
                    let ids = self.text(&text, special, truncation, &mut tokenized.work)?;
                    tokenized.prompts.push(ids);
                }
                Ok(tokenized)
            }
        }
    }

    /// The tokens of a text, with what the tokenizer puts around it if `special`.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, PromptError> {
        self.encoder.encode(text, special, &self.cache, &mut Work::default())
    }

    fn text(
        &self,
        text: &str,
        special: bool,
        truncation: Truncation,
        work: &mut Work,
    ) -> Result<Vec<u32>, PromptError> {
        let mut ids = self.encoder.encode(text, special, &self.cache, work)?;
        let around = self.encoder.around().filter(|_| special);
        truncation.apply(&mut ids, around, self.limit);
        Ok(ids)
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Reads a JSON file, an empty object if there is none.
fn json(path: &Path) -> Result<Value, LoadError> {
    match files::read_if_any(path)? {
        None => Ok(Value::Object(serde_json::Map::new())),
        Some(bytes) => {
            serde_json::from_slice(&bytes).map_err(|error| LoadError::new(path, error.to_string()))
        }
    }
}

/// The tokenizer in the first `bytes` of `source`, with the tokens that `config` adds.
fn encoder(source: &[u8], bytes: usize, config: &Value) -> Result<Encoder, String> {
    let mut tokenizer =
        Tokenizer::from_bytes(&source[..bytes]).map_err(|error| error.to_string())?;
    let split = config["split_special_tokens"].as_bool().unwrap_or(false);
    tokenizer.set_encode_special_tokens(split);
    let added = added(config, &tokenizer);
    tokenizer.add_tokens(added).map_err(|error| error.to_string())?;
    Encoder::new(tokenizer, source)
}

/// Tokens of `tokenizer_config.json` that the tokenizer does not have, or has otherwise.
fn added(config: &Value, tokenizer: &Tokenizer) -> Vec<AddedToken> {
    let known = tokenizer.get_added_tokens_decoder();
    let mut added = Vec::new();
    if let Some(declared) = config["added_tokens_decoder"].as_object() {
        let mut declared: Vec<(u32, AddedToken)> = declared
            .iter()
            .filter_map(|(id, token)| Some((id.parse().ok()?, token_of(token)?)))
            .filter(|(_, token)| !known.values().any(|other| other == token))
            .collect();
        declared.sort_by_key(|(id, _)| *id);
        added.extend(declared.into_iter().map(|(_, token)| token));
    }
    let lists = NAMED_LISTS.iter().filter_map(|name| config[*name].as_array()).flatten();
    for named in NAMED.iter().map(|name| &config[*name]).chain(lists) {
        let Some(content) = named.as_str().or_else(|| named["content"].as_str()) else { continue };
        let has = |token: &AddedToken| token.content == content;
        if !content.is_empty() && !known.values().any(has) && !added.iter().any(has) {
            added.push(AddedToken::from(content, true));
        }
    }
    added
}

fn token_of(value: &Value) -> Option<AddedToken> {
    let content = value["content"].as_str().filter(|content| !content.is_empty())?;
    let flag = |name: &str, default: bool| value[name].as_bool().unwrap_or(default);
    let special = flag("special", false);
    Some(
        AddedToken::from(content, special)
            .single_word(flag("single_word", false))
            .lstrip(flag("lstrip", false))
            .rstrip(flag("rstrip", false))
            .normalized(flag("normalized", !special)),
    )
}

/// The model's own maximum, the tokenizer's if that is less.
fn limit(config: &Value, model: &Value) -> Option<u64> {
    let positions = |value: &Value| value["max_position_embeddings"].as_u64();
    let model = positions(model).or_else(|| positions(&model["text_config"]));
    let config = config["model_max_length"].as_u64().filter(|&length| length < NO_LENGTH);
    model.into_iter().chain(config).min()
}

//! Token ids equal those of the tokenizer itself and those that a real engine recorded.
#![cfg(feature = "prompts")]

mod kinds;

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use inlane_text::tokens::{Model, PromptApi, TokenCache, Tokenized};
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokenizers::Tokenizer;

use kinds::{Kind, fixtures};

const CACHE_BYTES: usize = 4 << 20;

fn recorded(cache: usize) -> Model {
    Model::load("tiny", &fixtures().join("model"), Arc::new(TokenCache::new(cache)))
        .expect("the recorded model")
}

fn lines(file: &Path) -> Vec<Value> {
    texts(file).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn texts(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a recording");
    text.lines().map(str::to_owned).collect()
}

/// The text of a member: a [`Value`] would sort its keys.
fn raw<'l>(line: &'l str, key: &str) -> &'l str {
    let key = format!("\"{key}\": ");
    let from = line.find(&key).expect("the member") + key.len();
    let mut values = serde_json::Deserializer::from_str(&line[from..]).into_iter::<IgnoredAny>();
    values.next().expect("a value").expect("JSON");
    &line[from..from + values.byte_offset()]
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("token ids")
}

#[test]
fn recorded_texts_have_their_tokens_cold_and_warm() {
    for cache in [0, CACHE_BYTES] {
        let model = recorded(cache);
        assert_eq!(model.cut_at(), "words");
        let cases = lines(&fixtures().join("tokenize_cases.jsonl"));
        assert_eq!(cases.len(), 180);
        for _ in 0..2 {
            for case in &cases {
                let text = case["text"].as_str().expect("a text");
                let special = case["add_special_tokens"].as_bool().expect("a flag");
                assert_eq!(model.encode(text, special), Ok(ids(&case["ids"])), "{text:?}");
            }
        }
    }
}

#[test]
fn recorded_completions_have_their_tokens() {
    let model = recorded(CACHE_BYTES);
    let mut compared = 0;
    for run in fs::read_dir(fixtures().join("runs")).expect("runs").flatten() {
        for step in lines(&run.path().join("steps.jsonl")) {
            let (request, answer) = (&step["request"], &step["response"]);
            let Some(api) = request["path"].as_str().and_then(PromptApi::of_path) else { continue };
            if api.is_chat() || answer["status"] != 200 {
                continue;
            }
            let expected: Vec<Vec<u32>> = match &answer["json"] {
                Value::Array(prompts) => prompts.iter().map(|one| ids(&one["token_ids"])).collect(),
                answer => {
                    let choices = answer["choices"].as_array().into_iter().flatten();
                    let prompts = choices.map(|choice| &choice["prompt_token_ids"]);
                    prompts.filter(|ids| ids.is_array()).map(ids).collect()
                }
            };
            if expected.is_empty() {
                continue;
            }
            let body = serde_json::to_vec(&request["body"]).expect("JSON");
            let tokenized = model.tokenize(api, &body).expect("tokens");
            assert_eq!(tokenized.prompts, expected, "{}", step["id"]);
            compared += expected.len();
        }
    }
    assert!(compared >= 60, "{compared} prompts compared");
}

#[test]
fn recorded_generate_requests_carry_their_tokens() {
    for step in lines(&fixtures().join("runs/sha256_cbor-seed42-int/steps.jsonl")) {
        if step["request"]["path"] == "/inference/v1/generate" {
            let body = step["request"]["body"].to_string();
            let tokenized = Tokenized::from_ids(PromptApi::Generate, body.as_bytes());
            let tokenized = tokenized.expect("a request").expect("token ids");
            assert_eq!(tokenized.prompts, [ids(&step["request"]["body"]["token_ids"])]);
            let count = &step["response"]["json"]["usage"]["prompt_tokens"];
            assert_eq!(count.as_u64(), Some(tokenized.prompts[0].len() as u64));
            return;
        }
    }
    panic!("no generate request was recorded");
}

/// The recorded model with this chat template, in a directory of its own.
fn with_template(template: &str) -> Model {
    let dir = tempfile::tempdir().expect("a directory");
    for file in ["tokenizer.json", "tokenizer_config.json", "config.json"] {
        fs::copy(fixtures().join("model").join(file), dir.path().join(file)).expect("copied");
    }
    fs::copy(fixtures().join(template), dir.path().join("chat_template.jinja")).expect("copied");
    let cache = Arc::new(TokenCache::new(CACHE_BYTES));
    Model::load("tiny", dir.path(), cache).expect("a model")
}

#[test]
fn recorded_chats_have_their_tokens_cold_and_warm() {
    let cases = texts(&fixtures().join("chat_cases.jsonl"));
    let mut models = HashMap::new();
    let mut compared = 0;
    for _ in 0..2 {
        for line in &cases {
            let case: Value = serde_json::from_str(line).expect("JSON");
            let template = case["template"].as_str().expect("a template").to_owned();
            let new = || with_template(case["template"].as_str().expect("a template"));
            let model = models.entry(template).or_insert_with(new);
            let body = raw(line, "request");
            let tokenized = model.tokenize_at(PromptApi::Chat, body.as_bytes(), 0);
            if case["status"] == 200 {
                let tokenized = tokenized.unwrap_or_else(|error| panic!("{}: {error}", case["id"]));
                assert_eq!(tokenized.prompts, [ids(&case["token_ids"])], "{}", case["id"]);
                compared += 1;
            } else {
                assert!(tokenized.is_err(), "{}", case["id"]);
            }
        }
    }
    assert_eq!(compared, 2 * 117);
}

#[test]
fn recorded_chats_of_all_runs_have_their_tokens() {
    let model = recorded(CACHE_BYTES);
    let mut compared = 0;
    for run in fs::read_dir(fixtures().join("runs")).expect("runs").flatten() {
        for line in texts(&run.path().join("steps.jsonl")) {
            let step: Value = serde_json::from_str(&line).expect("JSON");
            let (request, answer) = (&step["request"], &step["response"]["json"]);
            let api = match request["path"].as_str() {
                Some("/tokenize") if request["body"].get("messages").is_some() => PromptApi::Chat,
                Some("/tokenize") => PromptApi::Completions,
                Some(path) => match PromptApi::of_path(path) {
                    Some(api) if api.is_chat() => api,
                    _ => continue,
                },
                None => continue,
            };
            let rendered = answer["token_ids"].as_array().or(answer["tokens"].as_array());
            let Some(expected) = answer["prompt_token_ids"].as_array().or(rendered) else {
                continue;
            };
            let body = &request["body"];
            if body.get("chat_template").is_some() {
                continue;
            }
            let tokenized = model.tokenize_at(api, raw(&line, "body").as_bytes(), 0);
            let tokenized = tokenized.unwrap_or_else(|error| panic!("{}: {error}", step["id"]));
            assert_eq!(tokenized.prompts, [ids(&Value::Array(expected.clone()))], "{}", step["id"]);
            compared += 1;
        }
    }
    assert!(compared >= 30, "{compared} prompts compared");
}

/// A model and the plain tokenizer of one kind.
struct Pair {
    kind: Kind,
    model: Model,
    plain: Tokenizer,
}

impl Pair {
    fn load(kind: Kind) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let json = serde_json::to_vec(&kind.json).expect("JSON");
        fs::write(dir.path().join("tokenizer.json"), &json).expect("written");
        let cache = Arc::new(TokenCache::new(CACHE_BYTES));
        let model = Model::load(kind.name, dir.path(), cache)
            .unwrap_or_else(|error| panic!("{}: {error}", kind.name));
        let mut plain = Tokenizer::from_bytes(&json).expect("a tokenizer");
        plain.with_truncation(None).expect("no truncation");
        plain.with_padding(None);
        Self { kind, model, plain }
    }

    fn check(&self, text: &str) {
        for special in [false, true] {
            let expected = self.plain.encode(text, special).expect("tokens");
            let tokens = self.model.encode(text, special).expect("tokens");
            assert_eq!(tokens, expected.get_ids(), "{}: {text:?}", self.kind.name);
        }
    }
}

thread_local! {
    static PAIRS: Vec<Pair> = kinds::all().into_iter().map(Pair::load).collect();
}

#[test]
fn each_kind_of_tokenizer_is_cut_where_it_may_be() {
    PAIRS.with(|pairs| {
        for pair in pairs {
            assert_eq!(pair.model.cut_at(), pair.kind.cut_at, "{}", pair.kind.name);
        }
    });
}

#[test]
fn texts_that_stand_between_two_rules_have_the_tokens_of_the_whole() {
    let long = "the word ".repeat(70);
    let texts = [
        String::new(),
        " ".repeat(700),
        "\n".repeat(700),
        "a".repeat(700),
        "'s".repeat(300),
        long.clone(),
        format!("{long}   \n\n  {long}"),
        long.replace(' ', "\n"),
        long.replace(' ', "\r\n\u{a0} "),
        format!("{}\u{301} e\n\u{301}{}", "e ".repeat(280), "\u{301}x ".repeat(200)),
        "12 345 6789 ".repeat(60),
    ];
    PAIRS.with(|pairs| {
        for pair in pairs {
            let added = pair.kind.added();
            for text in &texts {
                pair.check(text);
                for token in &added {
                    for text in [
                        format!("{token}{text}{token}"),
                        format!("{text} {token} {text}"),
                        format!("{text}x{token}\n\n{token} x{text}"),
                        format!("{token}{token}{}{text}", &token[..token.len() - 1]),
                    ] {
                        pair.check(&text);
                    }
                }
            }
        }
    });
}

/// A fragment of a message, an added token by index, or one without its end.
fn fragment() -> impl Strategy<Value = (usize, u8, String)> {
    let texts = prop_oneof![
        "[a-zA-Z' ]{0,40}",
        "[ \t\r\n]{0,5}",
        "[0-9., ]{0,12}",
        "[éß\u{301}ﬁſ日本語ひらがな한국어🙂\u{200d}\u{a0}▁Ġ ]{0,8}",
        "[<|>\\[\\]/{}\"':,.!?_-]{0,6}",
        "the word( (in|s|12|don't|it's|WORD))*".prop_map(|text| text.repeat(30)),
    ];
    (any::<usize>(), 0..6_u8, texts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_conversation_has_the_tokens_of_the_whole_turn_by_turn(
        fragments in prop::collection::vec(fragment(), 1..32),
    ) {
        PAIRS.with(|pairs| {
            for pair in pairs {
                let added = pair.kind.added();
                let mut text = String::new();
                for (turn, (token, shape, fragment)) in fragments.iter().enumerate() {
                    let token = &added[token % added.len()];
                    match shape {
                        0 | 1 => text.push_str(token),
                        2 => text.push_str(&token[..token.len() / 2]),
                        _ => {}
                    }
                    text.push_str(fragment);
                    if turn % 8 == 7 || turn + 1 == fragments.len() {
                        pair.check(&text);
                    }
                }
            }
        });
    }
}

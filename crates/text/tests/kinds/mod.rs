//! Tokenizers of every kind in use, made from the recorded model's or from a few letters.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub(crate) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub(crate) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub(crate) const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub(crate) const DEEPSEEK: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// Recordings of a real engine.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vllm")
}

/// A tokenizer, where its texts are expected to be cut, and its added tokens.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) cut_at: &'static str,
    pub(crate) json: Value,
}

impl Kind {
    pub(crate) fn added(&self) -> Vec<String> {
        let added = self.json["added_tokens"].as_array().into_iter().flatten();
        added.filter_map(|token| token["content"].as_str().map(str::to_owned)).collect()
    }
}

pub(crate) fn all() -> Vec<Kind> {
    let level = |regex: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": regex})
    };
    let split = |pattern: &str| {
        json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": false})
    };
    let list = |steps: Vec<Value>| json!({"type": "Sequence", "pretokenizers": steps});
    let recorded = recorded();
    let kind = |name, cut_at, change: &dyn Fn(&mut Value)| {
        let mut json = recorded.clone();
        change(&mut json);
        Kind { name, cut_at, json }
    };
    let flag = |json: &mut Value, token: usize, name: &str| {
        json["added_tokens"][token][name] = json!(true);
    };
    vec![
        kind("gpt2", "words", &|_| {}),
        kind("llama3", "words", &|json| {
            json["pre_tokenizer"] = list(vec![split(LLAMA3), level(false)]);
        }),
        kind("o200k", "words", &|json| {
            json["pre_tokenizer"] = list(vec![split(O200K), level(false)]);
        }),
        kind("qwen", "words", &|json| {
            json["normalizer"] = json!({"type": "NFC"});
            json["pre_tokenizer"] = list(vec![split(QWEN2), level(false)]);
            flag(json, 4, "normalized");
        }),
        kind("deepseek", "words", &|json| {
            json["normalizer"] = json!({"type": "Sequence", "normalizers": []});
            let runs = split("[一-龥぀-ゟ゠-ヿ]+");
            let steps = vec![split(r"\p{N}{1,3}"), runs, split(DEEPSEEK), level(false)];
            json["pre_tokenizer"] = list(steps);
            for token in 1..6 {
                flag(json, token, "normalized");
            }
        }),
        kind("roberta", "messages", &|json| {
            json["pre_tokenizer"]["add_prefix_space"] = json!(true);
            flag(json, 3, "lstrip");
        }),
        kind("phi", "words", &|json| {
            for token in 0..6 {
                flag(json, token, "rstrip");
            }
        }),
        kind("own pattern", "messages", &|json| {
            json["pre_tokenizer"] = list(vec![split(r"\w+\s?|\W"), level(false)]);
        }),
        kind("whole words", "never", &|json| flag(json, 2, "single_word")),
        kind("split specials", "never", &|json| {
            // A token that begins with white space which another takes away.
            json["added_tokens"][5]["content"] = json!(" \n");
            flag(json, 1, "rstrip");
        }),
        Kind {
            name: "llama2",
            cut_at: "messages",
            json: pieces(
                &json!([
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ]),
                &Value::Null,
            ),
        },
        Kind {
            name: "mistral",
            cut_at: "messages",
            json: pieces(
                &json!([]),
                &json!(
                    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false}
                ),
            ),
        },
        Kind {
            name: "gemma",
            cut_at: "messages",
            json: pieces(
                &json!([
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ]),
                &json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
            "invert": false}),
            ),
        },
        Kind { name: "t5", cut_at: "messages", json: unigram() },
        Kind { name: "bert", cut_at: "messages", json: wordpiece() },
    ]
}

fn recorded() -> Value {
    let file = fs::read(fixtures().join("model/tokenizer.json")).expect("the recorded tokenizer");
    serde_json::from_slice(&file).expect("JSON")
}

fn added(tokens: &[(u32, &str)]) -> Value {
    let token = |(id, content): &(u32, &str)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    tokens.iter().map(token).collect()
}

/// A SentencePiece-like BPE: letters, a few merges, bytes for the rest.
fn pieces(normalizers: &Value, pre_tokenizer: &Value) -> Value {
    let mut vocab = serde_json::Map::new();
    let mut add = |token: &str| {
        let id = vocab.len();
        vocab.entry(token).or_insert(json!(id));
    };
    ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"].into_iter().for_each(&mut add);
    (0..=255_u8).for_each(|byte| add(&format!("<0x{byte:02X}>")));
    ('!'..='~').for_each(|letter| add(letter.encode_utf8(&mut [0; 4])));
    add("▁");
    let merges = [
        ("▁", "t"),
        ("h", "e"),
        ("▁t", "he"),
        ("o", "r"),
        ("w", "or"),
        ("wor", "d"),
        ("▁", "word"),
        ("▁", "▁"),
        ("▁▁", "▁▁"),
        ("1", "2"),
        ("i", "n"),
        ("<", "s"),
        ("s", "▁"),
    ];
    merges.iter().for_each(|(left, right)| add(&format!("{left}{right}")));
    let merges: Vec<_> = merges.iter().map(|(left, right)| json!([left, right])).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added(&[(0, "<unk>"), (1, "<s>"), (2, "</s>"), (3, "[INST]"), (4, "[/INST]")]),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": pre_tokenizer,
        "post_processor": around("<s>", 1, None),
        "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "byte_fallback": true,
            "ignore_merges": false, "vocab": vocab, "merges": merges},
    })
}

fn unigram() -> Value {
    let mut vocab = vec![json!(["<pad>", 0.0]), json!(["</s>", 0.0]), json!(["<unk>", 0.0])];
    let words = ["▁", "▁the", "▁word", "the", "word", "in", "s", "▁I", "12", "▁▁", "<extra>"];
    vocab.extend(words.iter().map(|word| json!([word, -(2.0 + word.len() as f64 / 3.0)])));
    vocab.extend(('!'..='z').filter(|c| *c != 's').map(|c| json!([c.to_string(), -9.0])));
    let extra = words.len() as u32 + 2;
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added(&[(0, "<pad>"), (1, "</s>"), (2, "<unk>"), (extra, "<extra>")]),
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
            "split": true},
        "post_processor": around("</s>", 1, Some(true)),
        "decoder": null,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false},
    })
}

fn wordpiece() -> Value {
    let mut vocab = serde_json::Map::new();
    let names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "word", "##s", "don", "it"];
    for name in names
        .into_iter()
        .map(str::to_owned)
        .chain(('!'..='~').flat_map(|c| [c.to_string(), format!("##{c}")]))
    {
        let id = vocab.len();
        vocab.entry(name).or_insert(json!(id));
    }
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": added(&[(0, "[PAD]"), (1, "[UNK]"), (2, "[CLS]"), (3, "[SEP]"), (4, "[MASK]")]),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

/// A special token before the text, or after it.
fn around(token: &str, id: u32, after: Option<bool>) -> Value {
    let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let other = json!({"Sequence": {"id": "B", "type_id": 0}});
    let single = if after == Some(true) { [text, special] } else { [special, text] };
    let pair: Vec<_> = single.iter().cloned().chain([other]).collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair,
        "special_tokens": {token: {"id": token, "ids": [id], "tokens": [token]}}})
}

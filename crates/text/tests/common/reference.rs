//! What a body means, by way of a document.

use inlane_text::{Api, CollectedPrompt, Feature, MediaRange, Modality};
use serde_json::Value;
use xxhash_rust::xxh64::xxh64;

use super::doc::Doc;
use super::{BLOCK_BYTES, BLOCK_TOKENS, Outcome};

/// The default of `Limits::media_tokens`.
const MEDIA_TOKENS: u32 = 1 << 20;

/// The bytes of one prompt as tokens and as plain bytes.
#[derive(Default)]
struct Packed {
    bytes: Vec<u8>,
    plain: Vec<u8>,
    features: Vec<Feature>,
}

impl Packed {
    fn text(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.plain.extend_from_slice(text.as_bytes());
    }

    fn media(&mut self, modality: Modality, data: &str, tokens: u32) {
        if data.is_empty() {
            return;
        }
        let taken: u32 = self.features.iter().map(|feature| feature.length).sum();
        let tokens = tokens.min(MEDIA_TOKENS.saturating_sub(taken)).max(1);
        let hash = xxh64(data.as_bytes(), 0);
        self.pad();
        let offset = self.bytes.len() as u64 / 4;
        self.features.push(Feature { modality, hash, offset, length: tokens });
        for _ in 0..tokens {
            self.bytes.extend_from_slice(&(hash as u32).to_le_bytes());
        }
        self.plain.extend_from_slice(&hash.to_le_bytes());
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// `None` if the body is refused.
pub fn read(api: Api, bytes: &[u8]) -> Option<Outcome> {
    let body: Value = serde_json::from_slice(bytes).ok()?;
    body.as_object()?;
    let prompts = match api {
        Api::ChatCompletions => vec![chat(&body)?],
        Api::Completions => completion(&body["prompt"])?,
        Api::Embeddings => completion(&body["input"])?,
        Api::Generate => vec![ids(body["token_ids"].as_array().filter(|ids| !ids.is_empty())?)?],
        Api::ImagesGenerations => {
            completion(&body["prompt"]).filter(|_| body["prompt"].is_string())?
        }
        Api::Conversations | Api::Messages | Api::Responses => {
            vec![talk(api, &body, &Doc::read(bytes))?]
        }
    };
    let features = match api {
        Api::Generate => media_features(Doc::read(bytes).last("features"))?,
        _ => Vec::new(),
    };
    // Where the caps stand.
    let limits = if api == Api::Generate { &body["sampling_params"] } else { &body };
    let caps: &[&str] = match api {
        Api::ChatCompletions => &["max_completion_tokens", "max_tokens"],
        Api::Completions | Api::Generate | Api::Messages => &["max_tokens"],
        Api::Conversations | Api::Embeddings | Api::ImagesGenerations => &[],
        Api::Responses => &["max_output_tokens"],
    };
    let hashes = |block: usize, bytes: &[u8]| bytes.chunks(block).map(|b| xxh64(b, 0)).collect();
    let blocks = [
        prompts.iter().map(|prompt| hashes(BLOCK_TOKENS * 4, &prompt.bytes)).collect(),
        prompts.iter().map(|prompt| hashes(BLOCK_BYTES, &prompt.plain)).collect(),
    ];
    Some(Outcome {
        model: body["model"].as_str().unwrap_or_default().to_owned(),
        stream: body["stream"] == true,
        include_usage: body["stream_options"]["include_usage"] == true,
        max_tokens: caps.iter().find_map(|key| whole(&limits[*key])),
        n: whole(&limits["n"]),
        cache_salt: body["cache_salt"].as_str().unwrap_or_default().to_owned(),
        prompts: prompts
            .into_iter()
            .map(|prompt| CollectedPrompt {
                tokens: prompt
                    .bytes
                    .chunks(4)
                    .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
                    .collect(),
                features: prompt.features,
            })
            .collect(),
        features,
        blocks,
    })
}

/// `None` if they are refused.
fn media_features(features: Option<&Doc>) -> Option<Vec<MediaRange>> {
    let members = |value: &Doc| matches!(value, Doc::Null | Doc::Object(_)).then_some(());
    let Some(features) = features else { return Some(Vec::new()) };
    members(features)?;
    for (key, lists) in features.members() {
        if !["mm_hashes", "mm_placeholders"].contains(&key.as_str()) {
            continue;
        }
        members(lists)?;
        for (_, list) in lists.members() {
            for item in items(list)? {
                if key == "mm_hashes" {
                    text_or_null(item)?;
                    continue;
                }
                members(item)?;
                let fields = ["offset", "length"];
                let mut numbers =
                    item.members().iter().filter(|(key, _)| fields.contains(&key.as_str()));
                let is_number = |value: &Doc| matches!(value, Doc::Null | Doc::Number(Some(_)));
                numbers.all(|(_, value)| is_number(value)).then_some(())?;
            }
        }
    }
    let number = |item: &Doc, name| match item.last(name) {
        Some(Doc::Number(number)) => *number,
        _ => None,
    };
    let mut ranges = Vec::new();
    let (Some(hashes), Some(places)) =
        (features.last("mm_hashes"), features.last("mm_placeholders"))
    else {
        return Some(ranges);
    };
    // In the order in which modalities are first named, whatever list counts of each.
    let mut names = Vec::new();
    for (key, lists) in features.members() {
        if ["mm_hashes", "mm_placeholders"].contains(&key.as_str()) {
            names.extend(lists.members().iter().map(|(name, _)| name.as_str()));
        }
    }
    let mut seen = Vec::new();
    for name in names.into_iter().filter(|name| (1..=24).contains(&name.len())) {
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let (Some(hashes), Some(places)) = (hashes.last(name), places.last(name)) else { continue };
        for (hash, place) in items(hashes)?.iter().zip(items(places)?) {
            let (offset, length) = (number(place, "offset"), number(place, "length"));
            let (Some(offset), Some(length), text) = (offset, length, hash.text()) else {
                continue;
            };
            if !text.is_empty() {
                let (modality, hash) = (name.to_owned(), text.to_owned());
                ranges.push(MediaRange { modality, hash, prompt: 0, offset, length });
            }
        }
    }
    ranges.sort_by_key(|range| range.offset);
    Some(ranges)
}

fn items(value: &Doc) -> Option<&[Doc]> {
    match value {
        Doc::Null => Some(&[]),
        Doc::List(items) => Some(items),
        _ => None,
    }
}

fn text_or_null(value: &Doc) -> Option<()> {
    matches!(value, Doc::Null | Doc::Text(_)).then_some(())
}

fn whole(value: &Value) -> Option<u64> {
    let value = value.as_number()?;
    value.as_u64().or_else(|| {
        let value = value.as_f64().filter(|value| *value >= 0.0 && value.trunc() == *value)?;
        Some(value as u64)
    })
}

fn completion(prompt: &Value) -> Option<Vec<Packed>> {
    let string = |text: &str| {
        let mut packed = Packed::default();
        packed.text(text);
        packed.pad();
        packed
    };
    match prompt {
        Value::String(text) if !text.is_empty() => Some(vec![string(text)]),
        Value::Array(items) if items.is_empty() => None,
        Value::Array(items) if items.iter().all(Value::is_string) => {
            Some(items.iter().map(|item| string(item.as_str().unwrap())).collect())
        }
        Value::Array(items) if items.iter().all(Value::is_array) => {
            items.iter().map(|item| ids(item.as_array().filter(|ids| !ids.is_empty())?)).collect()
        }
        Value::Array(items) => Some(vec![ids(items)?]),
        _ => None,
    }
}

fn ids(items: &[Value]) -> Option<Packed> {
    let mut packed = Packed::default();
    for item in items {
        let id = u32::try_from(item.as_u64()?).ok()?;
        packed.bytes.extend_from_slice(&id.to_le_bytes());
        packed.plain.extend_from_slice(&id.to_le_bytes());
    }
    Some(packed)
}

/// A string, or empty for null and absent; `None` for anything else.
fn text(value: &Value) -> Option<&str> {
    match value {
        Value::Null => Some(""),
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// An object, or null.
fn object(value: &Value) -> Option<&Value> {
    (value.is_null() || value.is_object()).then_some(value)
}

fn chat(body: &Value) -> Option<Packed> {
    let messages = body["messages"].as_array().filter(|messages| !messages.is_empty())?;
    let mut packed = Packed::default();
    if let Some(tools) = body["tools"].as_array().filter(|tools| !tools.is_empty()) {
        let mut json = String::new();
        go_json(&Value::Array(tools.clone()), &mut json);
        packed.text(&json);
    }
    for message in messages {
        message.as_object()?;
        packed.text(text(&message["role"])?);
        let parts = match &message["content"] {
            Value::Array(parts) => parts.as_slice(),
            content => {
                packed.text(text(content)?);
                &[]
            }
        };
        for part in parts {
            part.as_object()?;
            let words = text(&part["text"])?;
            let image = text(&object(&part["image_url"])?["url"])?;
            let audio = object(&part["input_audio"])?;
            let (data, format) = (text(&audio["data"])?, text(&audio["format"])?);
            let video = text(&object(&part["video_url"])?["url"])?;
            match text(&part["type"])? {
                "text" => packed.text(words),
                "image_url" => packed.media(Modality::Image, image, image_tokens(image)),
                "input_audio" => {
                    let tokens = (data.len() + format.len()).div_ceil(4) as u32;
                    // Formats longer than this are left out.
                    let format = if format.len() > 24 { "" } else { format };
                    let content = format!("{data}{format}");
                    let heard = if data.is_empty() { "" } else { &content };
                    packed.media(Modality::Audio, heard, tokens);
                }
                "video_url" => packed.media(Modality::Video, video, 4500),
                _ => {}
            }
        }
    }
    packed.pad();
    Some(packed)
}

/// The prompt of messages or of a response: tools, then what stands before the turns, then these in
/// the order of the body.
fn talk(api: Api, body: &Value, doc: &Doc) -> Option<Packed> {
    let mut packed = Packed::default();
    let tools = body["tools"].as_array().filter(|_| api != Api::Conversations);
    if let Some(tools) = tools.filter(|tools| !tools.is_empty()) {
        let mut json = String::new();
        go_json(&Value::Array(tools.clone()), &mut json);
        packed.text(&json);
    }
    let (system, turns) = match api {
        Api::Messages => ("system", "messages"),
        Api::Conversations => ("", "items"),
        _ => ("instructions", "input"),
    };
    match doc.last(system).filter(|_| !system.is_empty()) {
        Some(Doc::Text(text)) => packed.text(text),
        Some(Doc::List(blocks)) => {
            for (_, text) in blocks.iter().flat_map(Doc::members).filter(|(key, _)| key == "text") {
                let text = text.text();
                if !text.starts_with("x-anthropic-billing-header") {
                    packed.text(text);
                }
            }
        }
        _ => {}
    }
    match (api, doc.last(turns)?) {
        (Api::Messages, Doc::List(messages)) if !messages.is_empty() => {
            for message in messages {
                is_message(message).then_some(())?;
                turn(api, message, &mut packed);
            }
        }
        (Api::Conversations, Doc::List(items)) if !items.is_empty() => {
            for item in items {
                is_item(item).then_some(())?;
                turn(api, item, &mut packed);
            }
        }
        (Api::Conversations | Api::Messages, _) | (_, Doc::Null) => return None,
        (_, Doc::Text(text)) => packed.text(text),
        (_, Doc::List(items)) => items.iter().for_each(|item| turn(api, item, &mut packed)),
        _ => {}
    }
    packed.pad();
    Some(packed)
}

fn is_item(item: &Doc) -> bool {
    let Doc::Object(members) = item else { return false };
    let role = members.iter().rev().find(|(key, _)| key == "role");
    role.is_none_or(|(_, role)| matches!(role, Doc::Text(_) | Doc::Null))
}

/// Of equal keys the last one counts, but parts that are none are remembered.
fn is_message(message: &Doc) -> bool {
    let Doc::Object(members) = message else { return false };
    let (mut role_fine, mut content_fine) = (true, true);
    for (key, value) in members {
        match (key.as_str(), value) {
            ("role", value) => role_fine = matches!(value, Doc::Text(_) | Doc::Null),
            ("content", Doc::List(parts)) => {
                content_fine = parts.iter().all(|part| matches!(part, Doc::Object(_)));
            }
            ("content", value) => content_fine = matches!(value, Doc::Text(_) | Doc::Null),
            _ => {}
        }
    }
    role_fine && content_fine
}

fn turn(api: Api, turn: &Doc, packed: &mut Packed) {
    for (key, value) in turn.members() {
        match (key.as_str(), api) {
            ("role", _) | ("name", Api::Conversations | Api::Responses) => {
                packed.text(value.text());
            }
            ("content", _) => parts(value, packed, &|part, packed| turn_part(api, part, packed)),
            ("arguments", Api::Conversations | Api::Responses) => {
                value.flat(&mut |text| packed.text(text));
            }
            ("output" | "summary", Api::Conversations | Api::Responses) => {
                parts(value, packed, &result_part);
            }
            _ => {}
        }
    }
}

/// A string, or a list of parts.
fn parts(value: &Doc, packed: &mut Packed, part: &dyn Fn(&Doc, &mut Packed)) {
    match value {
        Doc::Text(text) => packed.text(text),
        Doc::List(items) => items.iter().for_each(|item| part(item, packed)),
        _ => {}
    }
}

fn turn_part(api: Api, part: &Doc, packed: &mut Packed) {
    for (key, value) in part.members() {
        match (key.as_str(), api) {
            ("text", _) => packed.text(value.text()),
            ("thinking" | "id" | "name", Api::Messages) => packed.text(value.text()),
            ("refusal", Api::Conversations | Api::Responses) => packed.text(value.text()),
            ("input", Api::Messages) => value.flat(&mut |text| packed.text(text)),
            ("content", Api::Messages) => parts(value, packed, &result_part),
            ("source", Api::Messages) | ("image_url", Api::Conversations | Api::Responses) => {
                source(value, packed);
            }
            _ => {}
        }
    }
}

fn result_part(part: &Doc, packed: &mut Packed) {
    for (key, value) in part.members() {
        match key.as_str() {
            "text" => packed.text(value.text()),
            "source" => source(value, packed),
            _ => {}
        }
    }
}

fn source(value: &Doc, packed: &mut Packed) {
    let (mut content, mut sized) = (value.text().to_owned(), value.text().to_owned());
    for (key, value) in value.members() {
        match key.as_str() {
            "url" => sized.push_str(value.text()),
            "data" => sized.push_str(&format!("data:image/jpeg;base64,{}", value.text())),
            _ => continue,
        }
        content.push_str(value.text());
    }
    packed.media(Modality::Image, &content, image_tokens(&sized));
}

/// A PNG of 64 by 48 pixels, the one kind of image that the generator knows.
pub const SMALL_PNG: &str = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAAAwCAIAAAA=";

fn image_tokens(url: &str) -> u32 {
    let tokens = png_size(url).map_or(225, |(width, height)| width * height / 1024);
    u32::try_from(tokens).unwrap_or(u32::MAX).max(1)
}

fn png_size(url: &str) -> Option<(u64, u64)> {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (prefix, data) = url.split_once(',')?;
    let is_data = prefix.get(..5)?.eq_ignore_ascii_case("data:") && prefix.ends_with(";base64");
    let bits: String = data
        .replace(['\n', '\r'], "")
        .replace('-', "+")
        .replace('_', "/")
        .chars()
        .map_while(|character| ALPHABET.find(character))
        .map(|value| format!("{value:06b}"))
        .collect();
    let byte = |at: usize| u8::from_str_radix(bits.get(8 * at..8 * at + 8)?, 2).ok();
    let bytes: Option<Vec<u8>> = (0..24).map(byte).collect();
    let bytes = bytes.filter(|_| is_data && prefix.len() <= 128)?;
    let is_png = bytes.starts_with(b"\x89PNG\r\n\x1a\n") && &bytes[12..16] == b"IHDR";
    let word = |at: usize| u64::from(u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()));
    is_png.then(|| (word(16), word(20)))
}

/// Keys sorted, numbers as doubles, the escapes of Go.
pub fn go_json(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => go_number(number.as_f64().unwrap(), out),
        Value::String(text) => go_string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                go_json(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|member| member.0);
            out.push('{');
            for (index, (key, item)) in members.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                go_string(key, out);
                out.push(':');
                go_json(item, out);
            }
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

fn go_number(value: f64, out: &mut String) {
    let plain = value == 0.0 || (1e-6..1e21).contains(&value.abs());
    let text = if plain { value.to_string() } else { format!("{value:e}") };
    let signed = text.replace('e', "e+").replace("e+-", "e-");
    out.push_str(if plain { &text } else { &signed });
}

/// False if a number below `value` may have been rounded: `serde_json` is off by a digit now and
/// then where the scanner, for tools, is exact.
fn is_exact(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let text = format!("{:e}", number.as_f64().unwrap());
            let (digits, exponent) = text.split_once('e').unwrap();
            digits.len() <= 16 && exponent.parse::<i32>().unwrap().abs() <= 22
        }
        Value::Array(items) => items.iter().all(is_exact),
        Value::Object(members) => members.values().all(is_exact),
        _ => true,
    }
}

/// Whether [`read`] is sure of the text of this body.
pub fn is_sure(body: &[u8]) -> bool {
    serde_json::from_slice(body).is_ok_and(|body: Value| is_exact(&body["tools"]))
}

fn go_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", character as u32));
            }
            // The shortest escapes, which serde_json uses too.
            _ => {
                let quoted = serde_json::to_string(&character).unwrap();
                out.push_str(&quoted[1..quoted.len() - 1]);
            }
        }
    }
    out.push('"');
}

//! Recorded renderings: of a vLLM, and of Jinja2 itself.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::json::{Json, Object};
use super::python::Dumps;
use super::{ChatApi, ChatTemplate, ContentFormat, object};

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

/// Renders a line of `tests/jinja/cases.jsonl`; see `record.py` there.
fn recorded_by_jinja(case: &Object, chats: &Object) -> Result<String, String> {
    const NOW: i64 = 1_722_470_405;
    let text = |member| case.get(member).and_then(Json::as_text);
    let config = br#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}}"#;
    let loaded = |template: &str| {
        ChatTemplate::from_parts(template, config).map_err(|error| error.to_string())
    };
    let rendered = match (text("file"), text("chat"), text("template")) {
        (Some(file), Some(chat), _) => {
            let body = chats.get(chat).cloned().map(arguments_first);
            let Some(Json::Object(body)) = body else { panic!("no {chat}") };
            // As a response's: these conversations were not held against the engine's types.
            let rendered = loaded(&jinja(file))?.rendered(body, ChatApi::Responses, 0, NOW, None);
            rendered.map(|rendered| rendered.text)
        }
        (_, _, Some(template)) => {
            let base = br#"{"messages": [], "tools": null, "documents": null, "add_generation_prompt": true}"#;
            let Ok(Json::Object(base)) = Json::parse(base) else { panic!("no object") };
            let variables = case.get("variables").and_then(Json::as_object).unwrap();
            // Of equal names the last one counts.
            let all = base.entries.iter().chain(&variables.entries);
            let all = all.map(|(name, json)| (name.to_string(), object::value(json)));
            let now = (super::NOW.to_owned(), minijinja::Value::from(NOW));
            let context = minijinja::Value::from_pairs(std::iter::once(now).chain(all));
            loaded(template)?.run("default", context, 0)
        }
        _ => panic!("a case without a template: {case:?}"),
    };
    rendered.map_err(|error| error.to_string())
}

/// Puts the members of called functions into the order of the engine's type.
fn arguments_first(mut body: Json) -> Json {
    fn member<'o>(of: &'o mut Json, name: &str) -> Option<&'o mut Json> {
        let Json::Object(of) = of else { return None };
        of.entries.iter_mut().find(|(known, _)| &**known == name).map(|(_, value)| value)
    }
    if let Some(Json::List(messages)) = member(&mut body, "messages") {
        for message in messages {
            let Some(Json::List(calls)) = member(message, "tool_calls") else { continue };
            for call in calls {
                if let Some(Json::Object(function)) = member(call, "function") {
                    function.entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
            }
        }
    }
    body
}

fn jinja(file: &str) -> String {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/jinja"));
    std::fs::read_to_string(dir.join(file)).unwrap()
}

fn parsed(text: &str) -> Object {
    match Json::parse(text.as_bytes()) {
        Ok(Json::Object(object)) => object,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn templates_render_as_jinja_does() {
    let chats = parsed(&jinja("chats.json"));
    let mut failed = Vec::new();
    for line in jinja("cases.jsonl").lines() {
        let case = parsed(line);
        let rendered = recorded_by_jinja(&case, &chats);
        let expected = case.get("rendered").and_then(Json::as_text);
        let same = match (&rendered, expected) {
            (Ok(text), Some(expected)) => **text == **expected,
            (Err(_), None) => true,
            _ => false,
        };
        if !same {
            failed.push(format!("{line}\n  is     {rendered:?}\n  not {expected:?}"));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The chat body of another interface, as a value.
fn converted(api: ChatApi, body: &str) -> Result<String, String> {
    let chat = super::to_chat(api, body.as_bytes()).map_err(|error| error.to_string())?;
    Ok(String::from_utf8(chat).unwrap())
}

#[test]
fn anthropic_requests_become_chats() {
    let body = r#"{"model": "m", "max_tokens": 4, "stream": true,
        "system": [{"type": "text", "text": "x-anthropic-billing-header: 1"},
                   {"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm"}, {"type": "redacted_thinking", "data": "z"},
                {"type": "text", "text": "calling"},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"z": "\u00e9", "a": [1, 2.50]}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [
                    {"type": "text", "text": "a"}, {"type": "text", "text": "b"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}]},
                {"type": "tool_result", "tool_use_id": "t2", "content": "r"},
                {"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t3"}]}],
        "tools": [{"name": "f", "description": "d", "input_schema": {"properties": {}}}, {"name": "g", "input_schema": {}}],
        "output_config": {"effort": "low"}}"#;
    let expected = concat!(
        r#"{"model": "m", "messages": ["#,
        r#"{"role": "system", "content": "Be brief."}, "#,
        r#"{"role": "user", "content": "Hi"}, "#,
        r#"{"role": "assistant", "reasoning": "hm", "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"z\": \"\\u00e9\", \"a\": [1, 2.5]}"}}, {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}}], "content": "calling"}, "#,
        r#"{"role": "tool", "tool_call_id": "t1", "content": "a\nb"}, "#,
        r#"{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]}, "#,
        r#"{"role": "tool", "tool_call_id": "t2", "content": "r"}, "#,
        r#"{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}, "#,
        r#"{"role": "tool", "tool_call_id": "t3", "content": ""}], "#,
        r#""max_tokens": 4, "reasoning_effort": "low", "#,
        r#""tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"properties": {}, "type": "object"}, "strict": null, "defer_loading": null}}, {"type": "function", "function": {"name": "g", "description": null, "parameters": {"type": "object"}, "strict": null, "defer_loading": null}}], "#,
        r#""tool_choice": "auto"}"#,
    );
    assert_eq!(converted(ChatApi::Messages, body).as_deref(), Ok(expected));
}

#[test]
fn anthropic_requests_render_as_the_chats_they_become() {
    let template = ChatTemplate::load(&fixtures().join("model")).unwrap();
    let body = r#"{"max_tokens": 4, "system": [{"type": "text", "text": "x-anthropic-billing-header: abc"},
        {"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]}"#;
    let rendered = template.render(ChatApi::Messages, body.as_bytes(), 0).unwrap();
    let expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!((rendered.text.as_str(), rendered.add_special_tokens), (expected, false));

    let body = r#"{"instructions": "Be brief.", "input": "Hello"}"#;
    let rendered = template.render(ChatApi::Responses, body.as_bytes(), 0).unwrap();
    assert_eq!((rendered.text.as_str(), rendered.add_special_tokens), (expected, true));
}

#[test]
fn inputs_of_responses_become_chats() {
    let body = r#"{"model": "m", "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
        {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "r"},
        {"type": "message", "role": "assistant", "status": "incomplete",
         "content": [{"type": "output_text", "text": "so"}]}],
        "tools": [{"type": "function", "name": "f", "parameters": {}}, {"type": "web_search"}]}"#;
    let expected = concat!(
        r#"{"model": "m", "messages": ["#,
        r#"{"role": "user", "content": [{"type": "input_text", "text": "q"}]}, "#,
        r#"{"role": "assistant", "reasoning": "hm", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{\"a\":1}"}, "type": "function"}, {"id": "c2", "function": {"name": "g", "arguments": "{}"}, "type": "function"}]}, "#,
        r#"{"role": "tool", "content": "r", "tool_call_id": "c1"}, "#,
        r#"{"role": "assistant", "content": "so"}], "#,
        r#""add_generation_prompt": false, "continue_final_message": true, "add_special_tokens": true, "#,
        r#""tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}"#,
    );
    assert_eq!(converted(ChatApi::Responses, body).as_deref(), Ok(expected));
    let unknown = converted(ChatApi::Responses, r#"{"input": [], "previous_response_id": "r"}"#);
    assert!(unknown.is_err_and(|error| error.starts_with("previous_response_id: ")));
}

#[test]
fn damaged_bodies_render_or_are_refused() {
    let chats = parsed(&jinja("chats.json"));
    let files = ["llama-like.jinja", "schema-like.jinja", "granite-like.jinja"];
    let templates = files.map(|file| ChatTemplate::from_parts(&jinja(file), b"{}").unwrap());
    let apis = [ChatApi::Chat, ChatApi::Messages, ChatApi::Responses];
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % bound as u64) as usize
    };
    let pieces =
        ["null", "{}", "[]", "\"items\"", "1e999", "-", "[[", "\\u", "\u{1f642}", "\"role\""];
    let (mut rendered, mut refused) = (0, 0);
    for _ in 0..4000 {
        let chat = &chats.entries[next(chats.entries.len())].1;
        let mut text = String::new();
        Dumps::default().write(&mut text, &object::value(chat), 0).unwrap();
        let mut bytes = text.into_bytes();
        for _ in 0..next(4) {
            let at = next(bytes.len());
            match next(4) {
                0 => bytes[at] = next(256) as u8,
                1 => bytes.truncate(at.max(1)),
                2 => drop(bytes.drain(at..(at + next(9)).min(bytes.len()))),
                _ => drop(bytes.splice(at..at, pieces[next(pieces.len())].bytes())),
            }
            if bytes.is_empty() {
                break;
            }
        }
        let template = &templates[next(templates.len())];
        match template.render(apis[next(apis.len())], &bytes, 0) {
            Ok(_) => rendered += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(rendered > 200 && refused > 200, "{rendered} rendered, {refused} refused");
}

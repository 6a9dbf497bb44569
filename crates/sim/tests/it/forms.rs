//! Messages, responses and lists of token ids: the same prompts in other forms.

use serde_json::{Value, json};

use crate::support::{config, one, post};
use inlane_sim::{Config, config::Mode};

/// Longer than some blocks.
const TEXT: &str = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen \
     fifteen sixteen seventeen eighteen nineteen twenty twenty-one twenty-two twenty-three";

fn turns() -> Value {
    json!([{"role": "user", "content": TEXT}])
}

/// A request for two tokens and the prompt in each form; all of them are the same prompt.
fn requests(stream: bool) -> [(&'static str, Value); 3] {
    let mut chat = json!([{"role": "system", "content": "Be brief."}]);
    chat.as_array_mut().unwrap().extend(turns().as_array().unwrap().clone());
    [
        (
            "/v1/chat/completions",
            json!({"model": "random", "messages": chat, "max_tokens": 2, "stream": stream,
                "stream_options": {"include_usage": true}}),
        ),
        (
            "/v1/messages",
            json!({"model": "random", "messages": turns(), "max_tokens": 2, "stream": stream,
                "system": [{"type": "text", "text": "Be brief."}]}),
        ),
        (
            "/v1/responses",
            json!({"model": "random", "instructions": "Be brief.", "max_output_tokens": 2,
                "stream": stream, "input": [{"type": "message", "role": "user",
                "content": [{"type": "input_text", "text": TEXT}]}, {"type": "reasoning"}]}),
        ),
    ]
}

fn echo() -> Config {
    Config { mode: Mode::Echo, ..config() }
}

/// Tokens of the prompt and, of these, of the cache, as the answer's form has them.
fn usage(path: &str, usage: &Value) -> (u64, u64) {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{path}: {usage}"));
    match path {
        "/v1/messages" => {
            let cached = number(&usage["cache_read_input_tokens"]);
            (number(&usage["input_tokens"]) + cached, cached)
        }
        "/v1/responses" => {
            let cached = number(&usage["input_tokens_details"]["cached_tokens"]);
            (number(&usage["input_tokens"]), cached)
        }
        _ => {
            let cached = number(&usage["prompt_tokens_details"]["cached_tokens"]);
            (number(&usage["prompt_tokens"]), cached)
        }
    }
}

/// The named events of a stream, and their payloads.
fn events(body: &str) -> Vec<(String, Value)> {
    let event = |event: &str| {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        let name = name.strip_prefix("event: ").unwrap().to_owned();
        assert_eq!(data["type"], *name);
        (name, data)
    };
    body.split_terminator("\n\n").map(event).collect()
}

#[test]
fn every_form_of_a_prompt_shares_its_blocks() {
    let (_cluster, address) = one(echo());
    let mut first = None;
    for (path, body) in requests(false) {
        let answer = post(address, path, &body.to_string());
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        let (prompt, cached) = usage(path, &answer.json()["usage"]);
        let (want, _) = *first.get_or_insert((prompt, cached));
        let held = if path.ends_with("completions") { 0 } else { (want - 1) / 16 * 16 };
        assert_eq!((prompt, cached), (want, held), "{path}");
    }
    let tokens = post(address, "/tokenize", &json!({"messages": turns()}).to_string());
    assert!(tokens.json()["count"].as_u64().unwrap() > 32);
}

#[test]
fn a_message_and_a_response_are_as_their_apis_have_them() {
    let (_cluster, address) = one(echo());
    let [_, (messages, message), (responses, response)] = requests(false);
    let answer = post(address, messages, &message.to_string()).json();
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"));
    assert_eq!((&answer["type"], &answer["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(answer["content"], json!([{"type": "text", "text": TEXT}]));
    assert_eq!(
        (&answer["stop_reason"], &answer["model"]),
        (&json!("max_tokens"), &json!("random"))
    );

    let answer = post(address, responses, &response.to_string()).json();
    assert!(answer["id"].as_str().unwrap().starts_with("resp_"));
    assert_eq!((&answer["object"], &answer["status"]), (&json!("response"), &json!("incomplete")));
    assert_eq!(answer["output"][0]["content"][0]["text"], TEXT);
    let text = json!({"model": "random", "input": "hi"}).to_string();
    assert_eq!(post(address, responses, &text).json()["status"], "completed");
}

#[test]
fn streams_say_the_same_in_named_events() {
    let (_cluster, address) = one(echo());
    let [_, (messages, message), (responses, response)] = requests(true);
    for (path, body, delta, first, last) in [
        (messages, message, "content_block_delta", "message_start", "message_stop"),
        (
            responses,
            response,
            "response.output_text.delta",
            "response.created",
            "response.completed",
        ),
    ] {
        let answer = post(address, path, &body.to_string());
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        let events = events(&answer.body);
        let name = |at: usize| events[at].0.as_str();
        assert_eq!((name(0), name(events.len() - 1)), (first, last));
        let deltas = events.iter().filter(|(name, _)| name == delta);
        let texts = deltas.map(|(_, event)| match &event["delta"] {
            Value::String(text) => text.clone(),
            delta => delta["text"].as_str().unwrap().to_owned(),
        });
        assert_eq!(texts.collect::<String>(), TEXT, "{path}");
        let end = match path {
            "/v1/messages" => &events[events.len() - 2].1["usage"],
            _ => &events[events.len() - 1].1["response"]["usage"],
        };
        assert!(usage(path, end).0 > 32);
        if path == responses {
            let numbers =
                events.iter().map(|(_, event)| event["sequence_number"].as_u64().unwrap());
            assert!(numbers.eq(0..events.len() as u64));
        }
    }
}

#[test]
fn token_ids_in_token_ids_out() {
    let (_cluster, address) = one(config());
    let ids: Vec<u32> = (0..40).collect();
    let body = |stream: bool| {
        json!({"token_ids": ids, "stream": stream, "stream_options": {"include_usage": true},
            "sampling_params": {"max_tokens": 3, "ignore_eos": true}})
        .to_string()
    };
    let answer = post(address, "/inference/v1/generate", &body(false)).json();
    assert_eq!(usage("", &answer["usage"]), (40, 0));
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["choices"][0]["token_ids"].as_array().unwrap().len(), 3);

    let stream = post(address, "/inference/v1/generate", &body(true));
    let events = stream.events();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(*done, "[DONE]");
    let chunks: Vec<Value> =
        chunks.iter().map(|chunk| serde_json::from_str(chunk).unwrap()).collect();
    let reasons: Vec<_> =
        chunks.iter().map(|chunk| &chunk["choices"][0]["finish_reason"]).collect();
    assert_eq!(reasons, [&Value::Null, &Value::Null, &json!("length"), &Value::Null]);
    assert_eq!(usage("", &chunks[3]["usage"]), (40, 32));

    // The same prompt as a completion, and from the render endpoint.
    let text = json!({"model": "random", "prompt": ids, "max_tokens": 1}).to_string();
    let completion = post(address, "/v1/completions", &text).json();
    assert_eq!(usage("", &completion["usage"]), (40, 32));
    let rendered = post(address, "/v1/completions/render", &text).json();
    assert_eq!(rendered[0]["token_ids"], json!(ids));
}

#[test]
fn what_an_api_demands_must_be_there() {
    let (_cluster, address) = one(config());
    let turns = turns();
    for (path, body, text) in [
        ("/v1/messages", json!({"model": "random", "messages": turns}), "max_tokens is missing"),
        (
            "/v1/messages",
            json!({"model": "random", "messages": [], "max_tokens": 1}),
            "messages must not be empty",
        ),
        ("/v1/responses", json!({"model": "random"}), "input is missing"),
        (
            "/inference/v1/generate",
            json!({"token_ids": [], "sampling_params": {}}),
            "token_ids must not be empty",
        ),
        ("/inference/v1/generate", json!({"token_ids": [1]}), "sampling_params is missing"),
    ] {
        let answer = post(address, path, &body.to_string());
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.json()["error"]["message"], text, "{path}");
    }
    let body = json!({"model": "nope", "token_ids": [1], "sampling_params": {}}).to_string();
    assert_eq!(post(address, "/inference/v1/generate", &body).status, 404);
}

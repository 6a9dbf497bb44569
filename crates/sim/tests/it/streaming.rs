//! Streamed answers.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{Client, config, eventually, one, post, slow};
use serde_json::Value;

const CHAT: &str = r#"{"model":"random","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}],"max_tokens":3,"ignore_eos":true}"#;
const TEXT: &str =
    r#"{"model":"random","stream":true,"prompt":"hi","max_tokens":3,"ignore_eos":true}"#;

#[test]
fn chat_frames_as_recorded() {
    let (_cluster, address) = one(config());
    let answer = post(address, "/v1/chat/completions", CHAT);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let events = answer.events();
    assert_eq!(events.len(), 7, "{events:#?}");
    let first: Value = serde_json::from_str(events[0]).unwrap();
    let head = format!(
        r#"{{"id":{},"model":"random","object":"chat.completion.chunk","created":{},"usage":"#,
        first["id"], first["created"]
    );
    let rest = |event: &str| event.strip_prefix(&head).unwrap().to_owned();
    assert_eq!(
        rest(events[0]),
        r#"null,"choices":[{"index":0,"finish_reason":null,"delta":{"role":"assistant"}}]}"#
    );
    for event in &events[1..4] {
        let json: Value = serde_json::from_str(event).unwrap();
        let content = &json["choices"][0]["delta"]["content"];
        assert_eq!(
            rest(event),
            format!(
                r#"null,"choices":[{{"index":0,"finish_reason":null,"delta":{{"content":{content}}}}}]}}"#
            )
        );
    }
    assert_eq!(
        rest(events[4]),
        r#"null,"choices":[{"index":0,"finish_reason":"length","delta":{}}]}"#
    );
    assert_eq!(
        rest(events[5]),
        r#"{"prompt_tokens":6,"completion_tokens":3,"total_tokens":9,"prompt_tokens_details":{"cached_tokens":0}},"choices":[]}"#
    );
    assert_eq!(events[6], "[DONE]");
}

#[test]
fn text_frames_as_recorded() {
    let (_cluster, address) = one(config());
    let answer = post(address, "/v1/completions", TEXT);
    let events = answer.events();
    assert_eq!(events.len(), 5, "{events:#?}");
    let last: Value = serde_json::from_str(events[3]).unwrap();
    assert_eq!(
        events[3],
        format!(
            r#"{{"id":{},"model":"random","object":"text_completion","created":{},"usage":null,"choices":[{{"index":0,"finish_reason":"length","text":""}}]}}"#,
            last["id"], last["created"]
        )
    );
    assert_eq!(events[4], "[DONE]");
}

#[test]
fn streamed_text_is_the_whole_text() {
    let streamed = |stream: bool| {
        let (_cluster, address) = one(config());
        let body =
            TEXT.replace("true,\"prompt\"", &format!("{stream},\"prompt\"")).replace("3", "30");
        post(address, "/v1/completions", &body)
    };
    let whole = streamed(false).json()["choices"][0]["text"].as_str().unwrap().to_owned();
    let answer = streamed(true);
    let pieces = answer.events().into_iter().filter(|event| *event != "[DONE]");
    let text: String = pieces
        .map(|event| serde_json::from_str::<Value>(event).unwrap())
        .map(|json| json["choices"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(text, whole);
}

#[test]
fn tokens_arrive_one_by_one() {
    let (_cluster, address) = one(slow("100ms", "100ms"));
    // A reader that was stopped meanwhile finds all of them at once, though not every time.
    let spread = |_| {
        let times = arrivals(address);
        times[2] - times[0] > Duration::from_millis(50)
    };
    assert!((0..10).any(spread), "the first is held back");
}

/// When the first three tokens arrived, none of them too early.
fn arrivals(address: SocketAddr) -> Vec<Duration> {
    let mut client = Client::connect(address).unwrap();
    let start = Instant::now();
    client.send("POST", "/v1/completions", &[], TEXT).unwrap();
    let mut times = Vec::new();
    for tokens in 1..=3 {
        client
            .read_until(|seen| {
                String::from_utf8_lossy(seen).matches("\"text\":\"").count() >= tokens
            })
            .unwrap();
        times.push(start.elapsed());
    }
    for (time, due) in times.iter().zip([100, 200, 300]) {
        assert!(*time >= Duration::from_millis(due), "{times:?}");
    }
    times
}

#[test]
fn several_choices_share_a_stream() {
    let (_cluster, address) = one(config());
    let body = TEXT
        .replace("\"hi\"", "[\"a\",\"b c\"]")
        .replace("true,\"prompt\"", "true,\"stream_options\":{\"include_usage\":true},\"prompt\"");
    let answer = post(address, "/v1/completions", &body);
    let events = answer.events();
    for index in 0..2 {
        let marker = format!("\"index\":{index},");
        assert_eq!(events.iter().filter(|event| event.contains(&marker)).count(), 4);
    }
    let usage: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
    assert_eq!(usage["usage"]["prompt_tokens"], 3);
    assert_eq!(usage["usage"]["completion_tokens"], 6);
}

#[test]
fn errors_keep_their_status() {
    let (_cluster, address) = one(config());
    let answer = post(address, "/v1/completions", &TEXT.replace("random", "nope"));
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let (cluster, address) = one(slow("50ms", "10s"));
    let mut client = Client::connect(address).unwrap();
    client.send("POST", "/v1/completions", &[], TEXT).unwrap();
    client.read_until(|seen| String::from_utf8_lossy(seen).contains("\"text\":\"")).unwrap();
    let pod = &cluster.pods[0];
    let running = "vllm:num_requests_running{engine=\"0\",model_name=\"random\"}";
    assert_eq!(pod.metric(running), Some(1.0));
    drop(client);
    eventually("the request is aborted", || pod.metric(running) == Some(0.0));
    let aborted =
        "vllm:request_success_total{engine=\"0\",finished_reason=\"abort\",model_name=\"random\"}";
    assert_eq!(pod.metric(aborted), Some(1.0));
}

//! Answers over a real socket, compared with recorded ones. Text, ids and times may differ; nothing else may.

use crate::support::{Client, config, eventually, exactly, get, one, post, request};
use inlane_sim::{
    Config,
    config::{Mode, lora::LoraModule},
};
use serde_json::json;

/// `json` with the value of every `"key":` replaced by `_`, up to the next comma or bracket outside strings.
fn blank(json: &str, keys: &[&str]) -> String {
    let mut text = json.to_owned();
    for key in keys {
        let marker = format!("\"{key}\":");
        let mut from = 0;
        while let Some(at) = text[from..].find(&marker) {
            let start = from + at + marker.len();
            let mut quoted = false;
            let mut escaped = false;
            let end = text[start..]
                .find(|c: char| {
                    let inside = quoted;
                    quoted ^= c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    !inside && matches!(c, ',' | '}' | ']')
                })
                .map_or(text.len(), |at| start + at);
            text.replace_range(start..end, "_");
            from = start;
        }
    }
    text
}

#[test]
fn text_completion_as_recorded() {
    let (_cluster, address) = one(config());
    let answer =
        post(address, "/v1/completions", r#"{"model":"random","prompt":"test","max_tokens":5}"#);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        blank(
            &answer.body,
            &["id", "created", "text", "finish_reason", "completion_tokens", "total_tokens"]
        ),
        r#"{"id":_,"model":"random","object":"text_completion","created":_,"usage":{"prompt_tokens":1,"completion_tokens":_,"total_tokens":_,"prompt_tokens_details":{"cached_tokens":0}},"choices":[{"index":0,"finish_reason":_,"text":_}]}"#
    );
    let json = answer.json();
    let id = json["id"].as_str().unwrap();
    assert!(id.starts_with("cmpl-") && id.ends_with("-0"), "{id}");
}

#[test]
fn chat_completion_as_recorded() {
    let config = Config { enable_request_id_headers: true, ..config() };
    let (_cluster, address) = one(config);
    let body = r#"{"model":"random","messages":[{"role":"user","content":"hello there, general"}],"max_tokens":4}"#;
    let answer =
        request(address, "POST", "/v1/chat/completions", &["x-request-id: abc"], body).unwrap();
    assert_eq!(answer.header("x-request-id"), Some("abc"));
    assert_eq!(
        blank(
            &answer.body,
            &["created", "content", "finish_reason", "completion_tokens", "total_tokens"]
        ),
        r#"{"id":"chatcmpl-abc","model":"random","object":"chat.completion","created":_,"usage":{"prompt_tokens":9,"completion_tokens":_,"total_tokens":_,"prompt_tokens_details":{"cached_tokens":0}},"choices":[{"index":0,"finish_reason":_,"message":{"role":"assistant","content":_}}]}"#
    );
}

#[test]
fn answers_name_the_pod() {
    let config =
        Config { pod_name: Some("pod-a".to_owned()), pod_namespace: "ns1".to_owned(), ..config() };
    let (_cluster, address) = one(config);
    let port = address.port().to_string();
    let answer = post(address, "/v1/completions", &exactly("a", 1));
    assert_eq!(answer.header("x-inference-pod"), Some("pod-a"));
    assert_eq!(answer.header("x-inference-port"), Some(port.as_str()));
    assert_eq!(answer.header("x-inference-namespace"), Some("ns1"));
    let early = post(address, "/v1/completions", "{");
    assert_eq!((early.status, early.header("x-inference-pod")), (400, None));
}

#[test]
fn ids_and_texts_follow_the_seed() {
    let ask = || {
        let (_cluster, address) = one(config());
        post(address, "/v1/completions", &exactly("a", 30)).json()
    };
    let (first, second) = (ask(), ask());
    assert_eq!(first["choices"], second["choices"]);
    // Ids contain the port, which differs.
    assert_ne!(first["id"], second["id"]);
}

#[test]
fn errors_as_recorded() {
    let (_cluster, address) = one(config());
    let completion = |headers: &[&str], body: &str| {
        let answer = request(address, "POST", "/v1/completions", headers, body).unwrap();
        (answer.status, answer.body)
    };
    assert_eq!(
        completion(&[], r#"{"model":"nope","prompt":"a"}"#),
        (404, r#"{"error":{"message":"The model `nope` does not exist.","type":"NotFoundError","param":null,"code":404}}"#.to_owned())
    );
    assert_eq!(
        completion(&["X-Return-Error: 503"], r#"{"model":"random","prompt":"a"}"#),
        (503, r#"{"error":{"message":"Simulated error triggered by X-Return-Error header (code 503)","type":"InternalServerError","param":null,"code":503}}"#.to_owned())
    );
    assert_eq!(
        completion(&["X-Return-Error: x"], r#"{"model":"random","prompt":"a"}"#),
        (400, r#"{"error":{"message":"Invalid X-Return-Error header value \"x\": must be an integer","type":"BadRequestError","param":null,"code":400}}"#.to_owned())
    );
    let (status, body) = completion(&[], "not json");
    assert_eq!(status, 400);
    assert!(body.contains("Failed to read and parse request body, "), "{body}");
    let answer = get(address, "/nothing/here");
    assert_eq!((answer.status, answer.body.as_str()), (404, "Not Found"));
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
}

#[test]
fn requests_longer_than_the_model_are_refused() {
    let (_cluster, address) = one(Config { max_model_len: 8, ..config() });
    let answer = post(address, "/v1/completions", &exactly("a b c d", 5));
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json()["error"]["message"],
        "This model's maximum context length is 8 tokens. However, you requested 9 tokens (4 in the messages, 5 in the completion). Please reduce the length of the messages or completion"
    );
    assert_eq!(post(address, "/v1/completions", &exactly("a b c d", 4)).status, 200);
}

#[test]
fn tokenize_as_recorded() {
    let (_cluster, address) = one(Config { max_model_len: 1024, ..config() });
    let tokenize = |body: &str| post(address, "/tokenize", body);
    assert_eq!(
        tokenize(r#"{"prompt":"hello there, general"}"#).body,
        r#"{"max_model_len":1024,"count":4,"tokens":[3801292497,3102463325,2312110321,616112491],"token_strs":null}"#
    );
    let chat = r#"{"messages":[{"role":"user","content":"hello there, general"}]}"#;
    assert_eq!(tokenize(chat).json()["count"], 9);
    assert_eq!(tokenize(r#"{"prompt":"a","messages":[]}"#).status, 400);
    assert_eq!(tokenize("{}").status, 400);
}

#[test]
fn several_prompts_and_copies_become_choices() {
    let (_cluster, address) = one(config());
    let body = r#"{"model":"random","prompt":["a b","c"],"n":2,"max_tokens":3,"ignore_eos":true}"#;
    let json = post(address, "/v1/completions", body).json();
    let choices = json["choices"].as_array().unwrap();
    assert_eq!(
        choices.iter().map(|c| c["index"].as_u64().unwrap()).collect::<Vec<_>>(),
        [0, 1, 2, 3]
    );
    assert_eq!(json["usage"]["prompt_tokens"], 3);
    assert_eq!(json["usage"]["completion_tokens"], 12);
}

#[test]
fn more_choices_than_the_queue_holds_are_refused() {
    let (_cluster, address) =
        one(Config { max_num_seqs: 2, max_waiting_queue_length: 1, ..config() });
    let ask = |n: usize| {
        let body = format!(r#"{{"model":"random","prompt":"a","max_tokens":1,"n":{n}}}"#);
        post(address, "/v1/completions", &body).status
    };
    assert_eq!([ask(3), ask(4)], [200, 429]);
    let prompts = vec!["\"a\""; 5000].join(",");
    let body = format!(r#"{{"model":"random","prompt":[{prompts}]}}"#);
    assert_eq!(post(address, "/v1/completions", &body).status, 400);
}

#[test]
fn token_ids_are_prompts_too() {
    let (_cluster, address) = one(Config { mode: Mode::Echo, ..config() });
    let json = post(address, "/v1/completions", r#"{"model":"random","prompt":[1,22,333]}"#).json();
    assert_eq!(json["usage"]["prompt_tokens"], 3);
    assert_eq!(json["choices"][0]["text"], "1,22,333");
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
}

#[test]
fn echo_repeats_the_last_message() {
    let (_cluster, address) = one(Config { mode: Mode::Echo, ..config() });
    let body = r#"{"model":"random","messages":[{"role":"system","content":"x"},{"role":"user","content":"say \"é\"!"}],"max_tokens":2}"#;
    let json = post(address, "/v1/chat/completions", body).json();
    assert_eq!(json["choices"][0]["message"]["content"], "say \"é\"!");
    assert_eq!(json["choices"][0]["finish_reason"], "length");
}

#[test]
fn repeated_prompts_are_cached() {
    let (_cluster, address) = one(config());
    let prompt = "word ".repeat(100);
    let cached = || {
        let json = post(address, "/v1/completions", &exactly(prompt.trim(), 1)).json();
        json["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!([cached(), cached()], [0, 96]);
    assert_eq!(post(address, "/reset_prefix_cache", "").body, r#"{"success":true}"#);
    assert_eq!([cached(), cached()], [0, 96]);
    let cache = get(address, "/debug/cache?limit=2").json();
    assert_eq!(cache["cached"], 6);
    assert_eq!(cache["blocks"].as_array().unwrap().len(), 2);
}

#[test]
fn what_was_cached_need_not_be_told() {
    let config = Config { enable_prompt_tokens_details: false, ..config() };
    let (_cluster, address) = one(config);
    let prompt = "word ".repeat(100);
    for _ in 0..2 {
        let json = post(address, "/v1/completions", &exactly(prompt.trim(), 1)).json();
        assert!(json["usage"]["prompt_tokens_details"].is_null(), "{json}");
        assert!(json["usage"]["prompt_tokens"].is_u64());
    }
    let stream = r#"{"model":"random","stream":true,"stream_options":{"include_usage":true},"prompt":"hi","max_tokens":1}"#;
    let answer = post(address, "/v1/completions", stream);
    assert!(answer.body.contains(r#""prompt_tokens_details":null"#), "{}", answer.body);
}

#[test]
fn a_cache_can_be_switched_off() {
    let (_cluster, address) = one(Config { enable_kvcache: false, ..config() });
    let prompt = "word ".repeat(100);
    for _ in 0..2 {
        let json = post(address, "/v1/completions", &exactly(prompt.trim(), 1)).json();
        assert_eq!(json["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
    }
    assert_eq!(get(address, "/debug/cache").json(), json!({"enabled": false}));
}

#[test]
fn cold_requests_below_the_threshold_come_back_empty() {
    let (_cluster, address) = one(config());
    let prompt = "word ".repeat(100);
    let body = format!(
        r#"{{"model":"random","prompt":"{}","max_tokens":1,"cache_hit_threshold":0.9}}"#,
        prompt.trim()
    );
    let cold = post(address, "/v1/completions", &body);
    assert_eq!(
        blank(&cold.body, &["id", "created"]),
        r#"{"id":_,"model":"random","object":"text_completion","created":_,"usage":{"prompt_tokens":100,"completion_tokens":0,"total_tokens":100,"prompt_tokens_details":null},"choices":[{"index":0,"finish_reason":"cache_threshold","text":""}]}"#
    );
    let warm = post(address, "/v1/completions", &body).json();
    assert_eq!(warm["choices"][0]["finish_reason"], "length");
    let forced = ["X-Cache-Threshold-Finish-Reason: true"];
    let forced = request(address, "POST", "/v1/completions", &forced, &exactly("a", 1)).unwrap();
    assert_eq!(forced.json()["choices"][0]["finish_reason"], "cache_threshold");
}

#[test]
fn a_prefill_answer_tells_where_its_blocks_are() {
    let (_cluster, address) = one(config());
    let prompt = "word ".repeat(40);
    let body = format!(
        r#"{{"model":"random","prompt":"{}","max_tokens":1,"kv_transfer_params":{{"do_remote_decode":true,"do_remote_prefill":false,"remote_block_ids":null,"other":[1]}}}}"#,
        prompt.trim()
    );
    let answer = post(address, "/v1/completions", &body);
    let order = blank(&answer.body, &["id", "created", "text", "remote_engine_id", "remote_port"]);
    assert_eq!(
        order,
        r#"{"id":_,"model":"random","object":"text_completion","kv_transfer_params":{"do_remote_decode":false,"do_remote_prefill":true,"remote_engine_id":_,"remote_block_ids":[0,1,2],"remote_host":"127.0.0.1","remote_port":_,"tp_size":1},"created":_,"usage":{"prompt_tokens":40,"completion_tokens":1,"total_tokens":41,"prompt_tokens_details":{"cached_tokens":0}},"choices":[{"index":0,"finish_reason":"remote_decode","text":_}]}"#
    );
}

#[test]
fn models_and_adapters_are_listed() {
    let adapter = LoraModule {
        name: "tuned".to_owned(),
        path: "/adapters/tuned".to_owned(),
        base_model_name: Some("base".to_owned()),
    };
    let config = Config {
        model: "base".to_owned(),
        served_model_name: vec!["shown".to_owned(), "alias".to_owned()],
        lora_modules: vec![adapter],
        max_model_len: 1024,
        ..config()
    };
    let (_cluster, address) = one(config);
    let list = get(address, "/v1/models").body;
    assert_eq!(
        blank(&list, &["created"]),
        r#"{"object":"list","data":[{"id":"shown","object":"model","created":_,"owned_by":"vllm","root":"base","parent":null,"max_model_len":1024},{"id":"alias","object":"model","created":_,"owned_by":"vllm","root":"base","parent":null,"max_model_len":1024},{"id":"tuned","object":"model","created":_,"owned_by":"vllm","root":"/adapters/tuned","parent":"shown","max_model_len":1024}]}"#
    );
    let model = |name: &str| {
        let body = format!(r#"{{"model":"{name}","prompt":"a","max_tokens":1}}"#);
        post(address, "/v1/completions", &body).json()["model"].clone()
    };
    assert_eq!(model("alias"), "shown");
    assert_eq!(model("tuned"), "tuned");
    assert_eq!(model("base"), json!(null));

    assert_eq!(
        post(address, "/v1/load_lora_adapter", r#"{"lora_name":"new","lora_path":"/n"}"#).status,
        200
    );
    assert_eq!(model("new"), "new");
    assert_eq!(post(address, "/v1/unload_lora_adapter", r#"{"lora_name":"new"}"#).status, 200);
    assert_eq!(model("new"), json!(null));
}

#[test]
fn bodies_have_a_limit() {
    let (_cluster, address) = one(Config { max_request_body_size_mb: 1, ..config() });
    let body = exactly(&"a ".repeat(600_000), 1);
    assert_eq!(post(address, "/v1/completions", &body).status, 413);
    // A large body below the limit arrives in many pieces.
    let body = exactly("a ".repeat(500_000).trim(), 1);
    assert_eq!(post(address, "/v1/completions", &body).json()["usage"]["prompt_tokens"], 500_000);
}

#[test]
fn connections_are_kept_alive() {
    let (_cluster, address) = one(config());
    let mut client = Client::connect(address).unwrap();
    for path in ["/health", "/v1/models", "/health"] {
        client.send("GET", path, &[], "").unwrap();
        assert_eq!(client.receive().unwrap().status, 200);
    }
}

#[test]
fn lean_pods_answer_without_looking() {
    let (_cluster, address) = one(Config { lean: true, ..config() });
    let answer = post(address, "/v1/chat/completions", "anything");
    assert_eq!((answer.status, answer.body.len()), (200, 130));
    assert!(answer.header("x-inference-pod").is_some());
}

#[test]
fn readiness_comes_with_time() {
    let config = Config { startup_duration: "300ms".parse().unwrap(), ..config() };
    let (_cluster, address) = one(config);
    assert_eq!(get(address, "/health").status, 200);
    assert_eq!(get(address, "/health/ready").status, 503);
    eventually("ready", || get(address, "/health/ready").status == 200);
}

#[test]
fn the_last_requests_are_remembered() {
    let (cluster, address) = one(Config { request_log: 2, ..config() });
    for n in 0..3 {
        let header = format!("x-test: {n}");
        request(address, "POST", "/v1/completions", &[&header], &exactly("a", 1)).unwrap();
    }
    let log = get(address, "/debug/requests").json();
    assert_eq!(log, cluster.pods[0].requests());
    let seen: Vec<_> = log.as_array().unwrap().iter().map(|e| &e["headers"]["x-test"]).collect();
    assert_eq!(seen, ["1", "2"]);
    assert_eq!(log[1]["status"], 200);
    assert_eq!(log[1]["path"], "/v1/completions");
}

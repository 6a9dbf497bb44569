//! Prompts that reach plugins as tokens, and streams that wait for these.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::testing::{BodyStatus, Stream, TrailersStatus};
use super::BODY;
use crate::settings::{Settings, Tokenizers};
use crate::testing::{PROBED, Shown, World, registry, script, settings};

/// The recorded model.
fn model() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vllm/model").into()
}

/// Settings with the recorded model as `m`.
fn with_model(tokenizers: Tokenizers) -> Settings {
    let map = [("m".to_owned(), model())].into();
    Settings { tokenizers: Tokenizers { map, ..tokenizers }, ..settings() }
}

fn patient() -> Tokenizers {
    Tokenizers { timeout: Duration::from_secs(60), ..Tokenizers::default() }
}

/// A pool whose configuration has this token producer, once the models are loaded.
fn world(settings: Settings, producer: &str) -> World {
    let loads = !settings.tokenizers.map.is_empty();
    let config = PROBED.replace("plugins:\n- type", &format!("plugins:\n- {producer}\n- type"));
    let world = World::with(settings, registry, &config, 2);
    let since = Instant::now();
    while loads && world.runtime.tokens.tokenizers().unwrap().models().is_empty() {
        assert!(since.elapsed() < Duration::from_secs(60), "no model is loaded");
        std::thread::sleep(Duration::from_millis(2));
    }
    script(|script| script.prompts.clear());
    world
}

const OF_M: &str = "{type: token-producer, parameters: {modelName: m}}";

fn body(prompt: &str) -> String {
    json!({"model": "m", "prompt": prompt, "max_tokens": 3}).to_string()
}

/// A stream with this body, and whether it is held.
fn sent(world: &World, path: &str, body: &str) -> (Stream, bool) {
    let mut stream = Stream::new(world, path);
    stream.headers(false);
    let status = stream.body(body.as_bytes(), true);
    (stream, status == BodyStatus::StopIterationAndBuffer)
}

/// The prompts of the last request that was decided on.
fn shown() -> Vec<Shown> {
    script(|script| script.prompts.pop().unwrap())
}

fn count(world: &World, series: &str) -> u64 {
    let text = world.metrics();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

fn missed(world: &World) -> u64 {
    count(world, "inlane_decision_steps_total{step=\"precise-missed\"}")
}

fn failures(world: &World, reason: &str) -> u64 {
    count(world, &format!("inlane_tokenize_failures_total{{reason=\"{reason}\"}}"))
}

/// Text that takes a tokenizer half a second and more.
fn long_text() -> String {
    let mut state = 1_u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        format!("{:x} ", state >> 20)
    };
    std::iter::repeat_with(&mut word).take(150_000).collect()
}

#[test]
fn prompts_that_come_as_ids_reach_plugins_as_ids_and_do_not_wait() {
    let world = world(with_model(patient()), OF_M);
    let ids = r#"{"model":"m","prompt":[5,6,70000],"max_tokens":3}"#;
    let (_stream, held) = sent(&world, "/v1/completions", ids);
    assert!(!held);
    assert_eq!(shown(), [Shown::Tokens(vec![5, 6, 70_000])]);
    let lists = r#"{"model":"m","prompt":[[5,6],[7]],"max_tokens":3}"#;
    let (_other, held) = sent(&world, "/v1/completions", lists);
    assert!(!held);
    assert_eq!(shown(), [Shown::Tokens(vec![5, 6]), Shown::Tokens(vec![7])]);
    assert_eq!((missed(&world), world.booked().iter().sum::<u32>()), (0, 2));
}

#[test]
fn without_the_wish_nothing_waits_and_no_thread_is_started() {
    for producer in ["{type: token-producer}", "{type: token-producer, parameters: {estimate: {}}}"]
    {
        let config = PROBED.replace("plugins:\n- type", &format!("plugins:\n- {producer}\n- type"));
        let world = World::with(with_model(patient()), registry, &config, 2);
        assert!(world.runtime.tokens.tokenizers().is_none());
        let (_stream, held) = sent(&world, "/v1/completions", BODY);
        assert!(!held);
        assert_eq!(shown(), [Shown::Blocks(0)], "nobody asks for blocks");
    }
}

#[test]
fn a_completion_is_decided_on_with_the_engines_tokens() {
    let world = world(with_model(patient()), OF_M);
    let cases = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/vllm/tokenize_cases.jsonl");
    let cases = std::fs::read_to_string(cases).unwrap();
    let case = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    let of_note = |case: &Value| {
        case["add_special_tokens"] == true && case["text"].as_str().is_some_and(|t| t.len() > 40)
    };
    let mut compared = 0;
    for case in cases.lines().map(case).filter(of_note).take(8) {
        let (mut stream, held) =
            sent(&world, "/v1/completions", &body(case["text"].as_str().unwrap()));
        assert!(held);
        assert_eq!(world.booked(), [0; 2], "nothing is booked for a request that waits");
        stream.woken();
        assert_eq!(stream.seen().continued, 1);
        let ids = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(shown(), [Shown::Tokens(ids)]);
        compared += 1;
    }
    assert_eq!((compared, missed(&world)), (8, 0));
    assert_eq!(count(&world, "inlane_tokenize_duration_seconds_count"), 8);
    assert!(count(&world, "inlane_tokenize_tokens_total") > 8);
    assert!(world.metrics().contains("inlane_tokenize_models 0"), "set when the page is asked for");
}

#[test]
fn conversations_of_all_apis_have_the_engines_tokens() {
    let world = world(with_model(patient()), OF_M);
    let ids = |path: &str, body: Value| {
        let (mut stream, held) = sent(&world, path, &body.to_string());
        assert!(held, "{path}");
        stream.woken();
        let [Shown::Tokens(ids)] = &shown()[..] else { panic!("{path}: one prompt of ids") };
        ids.clone()
    };
    let turns = json!([{"role": "user", "content": "What is it?"}]);
    let system = json!({"role": "system", "content": "Be brief."});
    let chat = json!({"model": "m", "messages": [system, turns[0]]});
    let chat = ids("/v1/chat/completions", chat);
    let messages = json!({"model": "m", "messages": turns, "system": "Be brief.", "max_tokens": 5});
    assert_eq!(ids("/v1/messages", messages), chat);
    // The engine begins the prompt of a response with the token that begins texts.
    let response = json!({"model": "m", "instructions": "Be brief.", "input": "What is it?"});
    assert_eq!(ids("/v1/responses", response)[1..], chat);
    let embedded = ids("/v1/embeddings", json!({"model": "m", "input": "What is it?"}));
    assert_eq!(embedded, ids("/v1/completions", json!({"model": "m", "prompt": "What is it?"})));
    assert_eq!(missed(&world), 0);
}

#[test]
fn a_request_with_trailers_waits_at_these() {
    let world = world(with_model(patient()), OF_M);
    let mut stream = Stream::new(&world, "/v1/completions");
    stream.headers(false);
    stream.body(BODY.as_bytes(), false);
    assert_eq!(stream.trailers(), TrailersStatus::StopIteration);
    stream.woken();
    assert_eq!(stream.seen().continued, 1);
    stream.scheduled(super::super::tokens::TOKENS);
    assert_eq!(stream.seen().continued, 1, "it is taken up once");
}

#[test]
fn a_stream_that_ends_while_its_tokens_are_made_leaves_nothing() {
    let world = world(with_model(patient()), OF_M);
    let (mut stream, held) = sent(&world, "/v1/completions", &body(&long_text()));
    assert!(held);
    stream.destroy();
    assert_eq!(world.runtime.held_bytes.load(Ordering::Relaxed), 0);
    let (mut other, held) = sent(&world, "/v1/completions", BODY);
    assert!(held);
    other.woken();
    assert_eq!(other.seen().continued, 1);
    assert_eq!(world.booked().iter().sum::<u32>(), 1);
    assert!(stream.seen().events.is_empty(), "nobody wakes a stream that is gone");
}

#[test]
fn a_request_goes_on_without_tokens_that_come_too_late() {
    let quick = Tokenizers { timeout: Duration::from_millis(5), ..Tokenizers::default() };
    let world = world(with_model(quick), OF_M);
    let (mut stream, held) = sent(&world, "/v1/completions", &body(&long_text()));
    assert!(held);
    stream.woken();
    assert_eq!(stream.seen().continued, 1);
    assert!(matches!(shown()[..], [Shown::Blocks(_)]));
    assert_eq!((missed(&world), failures(&world, "late")), (1, 1));
}

#[test]
fn where_too_many_wait_the_next_goes_on_at_once() {
    let one = Tokenizers { threads: 1, queue: 1, ..patient() };
    let world = world(with_model(one), OF_M);
    let text = long_text();
    // One in the queue, one at work if it has begun; more if this thread is the slower one.
    let mut waiting = Vec::new();
    loop {
        let (stream, held) = sent(&world, "/v1/completions", &body(&text));
        if !held {
            break;
        }
        waiting.push(stream);
        assert!(waiting.len() < 50, "nobody is turned away");
    }
    assert!(!waiting.is_empty(), "there is room for one");
    assert_eq!((missed(&world), failures(&world, "overloaded")), (1, 1));
}

#[test]
fn a_model_without_tokenizer_and_one_without_template_are_routed_all_the_same() {
    let known = world(with_model(patient()), "{type: token-producer, parameters: {modelName: x}}");
    let (_stream, held) = sent(&known, "/v1/completions", BODY);
    assert!(!held);
    assert_eq!((missed(&known), failures(&known, "no-model")), (1, 1));

    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(model().join("tokenizer.json"), dir.path().join("tokenizer.json")).unwrap();
    let map = [("m".to_owned(), dir.path().to_owned())].into();
    let settings = Settings { tokenizers: Tokenizers { map, ..patient() }, ..settings() };
    let bare = world(settings, OF_M);
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"hello"}]}"#;
    let (mut stream, held) = sent(&bare, "/v1/chat/completions", chat);
    assert!(held);
    stream.woken();
    assert_eq!(stream.seen().continued, 1);
    assert_eq!((missed(&bare), failures(&bare, "no-template")), (1, 1));
    assert_eq!(bare.booked().iter().sum::<u32>(), 1);
}

#[test]
fn a_window_follows_the_tokens() {
    let burst = "- {type: burst-prefix-cache-producer, parameters: {windowDurationMs: 10000}}";
    let world = world(with_model(patient()), &format!("{OF_M}\n{burst}"));
    let (mut stream, held) = sent(&world, "/v1/completions", BODY);
    assert!(held);
    stream.woken();
    assert_eq!(stream.seen().continued, 0, "the window is open");
    let [alarm] = &world.runtime.timer.drain()[..] else { panic!("one alarm") };
    stream.scheduled(super::super::tokens::TOKENS);
    assert_eq!(stream.seen().continued, 0);
    stream.scheduled(alarm.event);
    assert_eq!(stream.seen().continued, 1);
    assert!(matches!(&shown()[..], [Shown::Tokens(_)]));
}

#[test]
fn a_new_configuration_ends_the_tokenizers() {
    let mut world = world(with_model(patient()), OF_M);
    let (mut stream, held) = sent(&world, "/v1/completions", BODY);
    assert!(held);
    world.publish_config(PROBED);
    world.tick();
    assert!(world.runtime.tokens.tokenizers().is_none());
    stream.woken();
    assert_eq!(stream.seen().continued, 1);
}

mod render {
    use super::*;

    const SERVER: &str = "{type: token-producer, parameters: {modelName: base, \
        vllm: {url: 'http://render:8000/a/', timeout: 1500ms, mmTimeout: 7s}}}";

    fn rendering() -> World {
        let tokenizers = Tokenizers { render_cluster: "renderers".into(), ..patient() };
        world(Settings { tokenizers, ..settings() }, SERVER)
    }

    #[test]
    fn a_server_is_asked_where_there_is_no_tokenizer() {
        let world = rendering();
        let (mut stream, held) = sent(&world, "/v1/completions", BODY);
        assert!(held);
        let (cluster, headers, asked, timeout) = stream.seen().calls.pop().unwrap();
        assert_eq!((cluster.as_str(), timeout), ("renderers", 1_500));
        let header = |name: &str| headers.iter().find(|(key, _)| key == name).unwrap().1.as_str();
        assert_eq!(header(":path"), "/a/v1/completions/render");
        assert_eq!((header("host"), header("x-request-id")), ("render:8000", "r-1"));
        let asked: Value = serde_json::from_str(&asked).unwrap();
        assert_eq!(asked, json!({"model": "base", "prompt": "hello there", "max_tokens": 3}));
        stream.called(0, Some(("200", r#"[{"token_ids":[3,4]},{"token_ids":[5]}]"#)));
        assert_eq!(stream.seen().continued, 0, "another thread reads it first");
        stream.woken();
        assert_eq!(stream.seen().continued, 1);
        assert_eq!(shown(), [Shown::Tokens(vec![3, 4]), Shown::Tokens(vec![5])]);
        assert_eq!(missed(&world), 0);
    }

    #[test]
    fn media_have_their_own_time() {
        let world = rendering();
        let chat = json!({"model": "m", "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}]});
        let (mut stream, held) = sent(&world, "/v1/chat/completions", &chat.to_string());
        assert!(held);
        let (_, headers, _, timeout) = stream.seen().calls.pop().unwrap();
        assert_eq!(timeout, 7_000);
        assert!(headers.contains(&(":path".into(), "/a/v1/chat/completions/render".into())));
        let answer = r#"{"token_ids":[1,9,9],"features":{"mm_hashes":{"image":["h"]},
            "mm_placeholders":{"image":[{"offset":1,"length":2}]}}}"#;
        stream.called(0, Some(("200", answer)));
        stream.woken();
        assert_eq!(shown(), [Shown::Tokens(vec![1, 9, 9])]);
    }

    #[test]
    fn media_are_for_the_server_even_where_there_is_a_tokenizer() {
        let tokenizers = Tokenizers { render_cluster: "renderers".into(), ..patient() };
        let world = world(with_model(tokenizers), &SERVER.replace("base", "m"));
        let part = |part: Value| {
            json!({"model": "m", "messages": [{"role": "user", "content": [part]}]}).to_string()
        };
        let image = json!({"type": "image_url", "image_url": {"url": "http://x/y.png"}});
        let (stream, held) = sent(&world, "/v1/chat/completions", &part(image));
        assert!(held);
        assert_eq!(stream.seen().calls.len(), 1);
        let text = json!({"type": "text", "text": "hello"});
        let (mut stream, held) = sent(&world, "/v1/chat/completions", &part(text));
        assert!(held);
        assert_eq!(stream.seen().calls.len(), 0);
        stream.woken();
        assert!(matches!(shown()[..], [Shown::Tokens(_)]));
    }

    #[test]
    fn other_conversations_are_asked_for_as_chats() {
        let world = rendering();
        let messages = json!({"model": "m", "max_tokens": 3, "system": "Be brief.",
            "messages": [{"role": "user", "content": "hello"}]});
        let response = json!({"model": "m", "instructions": "Be brief.", "input": "hello"});
        for (path, body) in [("/v1/messages", messages), ("/v1/responses", response)] {
            let (mut stream, held) = sent(&world, path, &body.to_string());
            assert!(held);
            assert!(stream.seen().calls.is_empty(), "it is converted first");
            stream.woken();
            let (_, headers, asked, timeout) = stream.seen().calls.pop().unwrap();
            assert_eq!(timeout, 1_500);
            assert!(headers.contains(&(":path".into(), "/a/v1/chat/completions/render".into())));
            let asked: Value = serde_json::from_str(&asked).unwrap();
            assert_eq!(asked["model"], "base");
            let turns = json!([{"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hello"}]);
            assert_eq!(asked["messages"], turns, "{path}");
            stream.called(0, Some(("200", r#"{"token_ids":[3,4]}"#)));
            stream.woken();
            assert_eq!(stream.seen().continued, 1);
            assert_eq!(shown(), [Shown::Tokens(vec![3, 4])]);
        }
        assert_eq!(missed(&world), 0);
        // What the engine will refuse is not asked for.
        let refused = json!({"model": "m", "input": "x", "previous_response_id": "resp_1"});
        let (mut stream, held) = sent(&world, "/v1/responses", &refused.to_string());
        assert!(held);
        stream.woken();
        assert!(stream.seen().calls.is_empty());
        assert_eq!(stream.seen().continued, 1);
        assert_eq!((missed(&world), failures(&world, "template")), (1, 1));
    }

    #[test]
    fn a_server_that_does_not_answer_well_is_no_obstacle() {
        let world = rendering();
        for (n, answer) in [(1, None), (2, Some(("403", "forbidden"))), (3, Some(("200", "{}")))] {
            let (mut stream, held) = sent(&world, "/v1/completions", BODY);
            assert!(held);
            stream.called(5, Some(("200", "{}")));
            assert_eq!(stream.seen().continued, 0, "that was another call");
            stream.called(0, answer);
            if n == 3 {
                stream.woken();
            }
            assert_eq!(stream.seen().continued, 1);
            assert!(matches!(shown()[..], [Shown::Blocks(_)]));
            assert_eq!((missed(&world), failures(&world, "render")), (n, n));
        }
    }

    #[test]
    fn a_stream_that_ends_while_a_server_is_asked_leaves_nothing() {
        let world = rendering();
        let (mut stream, _) = sent(&world, "/v1/completions", BODY);
        stream.destroy();
        assert_eq!(world.runtime.held_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(world.booked(), [0; 2]);
    }
}

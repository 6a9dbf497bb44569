//! Paths: whose body is read, whose is not, and who is told that nobody knows them.

use envoy_proxy_dynamic_modules_rust_sdk::abi;

use super::super::control_headers::DESTINATION;
use super::super::testing::BodyStatus;
use super::{BODY, Stream};
use crate::settings::{OtherPaths, Settings};
use crate::testing::{PROBED, Shown, World, registry, script, settings};

use abi::envoy_dynamic_module_type_on_http_filter_request_headers_status as HeadersStatus;

/// A world with these parsers; none: those that there are by default.
fn world(settings: Settings, parsers: &[&str]) -> World {
    let listed: String = parsers.iter().map(|name| format!("  - pluginRef: {name}\n")).collect();
    let handler =
        if parsers.is_empty() { String::new() } else { "requestHandler:\n  parsers:\n".into() };
    let world = World::with(settings, registry, &format!("{PROBED}{handler}{listed}"), 2);
    script(|script| script.prompts.clear());
    world
}

fn count(world: &World, series: &str) -> f64 {
    let text = world.metrics();
    let lines = text.lines().filter(|line| line.starts_with(series));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn bodies_of_every_api_are_decided_on() {
    let world = world(settings(), &[]);
    let turns = r#"[{"role":"user","content":"hello there"}]"#;
    for (path, body) in [
        ("/v1/completions/render", BODY.to_owned()),
        ("/v1/foocompletions", BODY.to_owned()),
        ("/v1/chat/completions/render", format!(r#"{{"model":"m","messages":{turns}}}"#)),
        ("/v1/conversations", format!(r#"{{"model":"m","items":{turns}}}"#)),
        ("/v1/images/generations", r#"{"model":"m","prompt":"a cat"}"#.to_owned()),
        ("/inference/v1/generate", r#"{"model":"m","token_ids":[1,2,3]}"#.to_owned()),
    ] {
        let mut stream = Stream::new(&world, path);
        assert_eq!(stream.headers(false), HeadersStatus::StopIteration, "{path}");
        assert_eq!(stream.body(body.as_bytes(), true), BodyStatus::Continue, "{path}");
        assert!(stream.request_header(DESTINATION).is_some(), "{path}");
        let shown = script(|script| script.prompts.pop().unwrap());
        assert_eq!(shown.len(), 1, "{path}");
        if path.ends_with("generate") {
            assert_eq!(shown, [Shown::Tokens(vec![1, 2, 3])]);
        }
    }
    assert_eq!(world.booked(), [0, 0]);
}

#[test]
fn malformed_bodies_are_answered_in_the_words_of_their_api() {
    let world = world(settings(), &[]);
    for (path, text) in [
        ("/v1/conversations", "invalid conversations request: must have items field"),
        ("/v1/images/generations", "invalid images generations request: must have prompt field"),
        ("/inference/v1/generate", "invalid generate request: must have non-empty token_ids field"),
        ("/v1/completions/render", "invalid completions request: must have prompt field"),
        (
            "/v1/chat/completions/render",
            "invalid chat completions request: must have valid messages field",
        ),
        ("/v1/fooresponses", "invalid completions request: must have prompt field"),
    ] {
        let mut stream = Stream::new(&world, path);
        stream.headers(false);
        stream.body(br#"{"model":"m"}"#, true);
        let reply = stream.reply();
        assert_eq!(reply.status, 400, "{path}");
        assert_eq!(reply.body, format!("inference error: BadRequest - {text}"), "{path}");
    }
}

#[test]
fn counting_tokens_takes_a_pod_unread_and_unwatched() {
    let world = world(settings(), &[]);
    let mut stream = Stream::new(&world, "/v1/messages/count_tokens?beta=true")
        .with_header("content-length", "8");
    assert_eq!(stream.headers(false), HeadersStatus::Continue);
    assert!(stream.request_header(DESTINATION).is_some());
    assert_eq!(world.booked().iter().sum::<u32>(), 1);
    assert_eq!(stream.body(b"not ", false), BodyStatus::Continue);
    assert_eq!(stream.body(b"json", true), BodyStatus::Continue);
    stream.respond(&[(":status", "500")], false);
    stream.respond_body(&[br#"{"usage":{"prompt_tokens":9}}"#], true);
    stream.destroy();
    assert_eq!(world.booked(), [0, 0]);
    assert_eq!(count(&world, "llm_d_epp_request_total"), 1.0);
    assert_eq!(count(&world, "llm_d_epp_request_error_total"), 0.0);
    assert_eq!(count(&world, "llm_d_epp_request_input_tokens_count"), 0.0);
    assert_eq!(count(&world, "llm_d_epp_running_requests"), 0.0);
}

#[test]
fn what_no_parser_claims_goes_to_the_one_that_takes_everything() {
    let world = world(settings(), &[]);
    let mut stream = Stream::new(&world, "/custom/api");
    assert_eq!(stream.headers(false), HeadersStatus::Continue);
    assert!(stream.request_header(DESTINATION).is_some());
    assert_eq!(stream.body(b"not json at all", true), BodyStatus::Continue);
    assert_eq!(world.booked().iter().sum::<u32>(), 1);
    stream.respond(&[(":status", "500")], true);
    stream.destroy();
    assert_eq!(world.booked(), [0, 0]);
    assert_eq!(count(&world, "llm_d_epp_request_error_total"), 1.0);
}

#[test]
fn parsers_that_are_listed_are_all_that_there_are() {
    let refused = |world: &World, path: &str| {
        let mut stream = Stream::new(world, path);
        assert_eq!(stream.headers(false), HeadersStatus::StopIteration, "{path}");
        let reply = stream.reply();
        assert_eq!(reply.status, 400, "{path}");
        reply.body.clone()
    };
    let openai = world(settings(), &["openai-parser"]);
    for path in ["/v1/messages", "/inference/v1/generate", "/custom/api"] {
        let text = format!("no parser registered matching path suffix for: {path}");
        let body = refused(&openai, &format!("{path}/?x=1"));
        assert_eq!(body, format!("inference error: BadRequest - {text}"));
    }
    assert!(Stream::sent(&openai, BODY).request_header(DESTINATION).is_some());
    drop(openai);

    let both = world(settings(), &["anthropic-parser", "passthrough-parser"]);
    let body = refused(&both, "/v1/batch_messages");
    assert!(body.ends_with("unsupported API endpoint: /v1/batch_messages"), "{body}");
    // Not its model is missing, but its parser: the body is not looked at.
    let mut stream = Stream::new(&both, "/v1/completions");
    assert_eq!(stream.headers(false), HeadersStatus::Continue);
    assert!(stream.request_header(DESTINATION).is_some());
}

#[test]
fn other_paths_may_be_kept_from_the_parsers() {
    let pass = Settings { other_paths: OtherPaths::Pass, ..settings() };
    let passing = world(pass, &["openai-parser"]);
    let mut stream = Stream::new(&passing, "/custom/api");
    assert_eq!(stream.headers(false), HeadersStatus::Continue);
    assert_eq!(stream.request_header(DESTINATION), None);
    assert_eq!(stream.body(b"x", true), BodyStatus::Continue);
    drop(stream);
    drop(passing);

    let refuse = Settings { other_paths: OtherPaths::Refuse, ..settings() };
    let refusing = world(refuse, &[]);
    let mut stream = Stream::new(&refusing, "/custom/api");
    assert_eq!(stream.headers(false), HeadersStatus::StopIteration);
    assert_eq!(stream.reply().status, 404);
}

//! Headers and body of requests, up to Envoy's being told where they go.

use envoy_proxy_dynamic_modules_rust_sdk::abi;
use inlane_core::snapshot::FailureMode;

use super::super::control_headers::{CONTROL, DESTINATION, STEERING, STREAM_TOKEN};
use super::super::forward::TOKEN_STATE;
use super::{BODY, Stream};
use crate::settings::{Destination, OtherPaths, Settings};
use crate::stream::Token;
use crate::testing::{LEAST_BOOKED, World, registry, settings};

use abi::envoy_dynamic_module_type_on_http_filter_request_body_status as BodyStatus;
use abi::envoy_dynamic_module_type_on_http_filter_request_headers_status as HeadersStatus;
use abi::envoy_dynamic_module_type_on_http_filter_request_trailers_status as TrailersStatus;

fn world(settings: Settings) -> World {
    World::with(settings, registry, LEAST_BOOKED, 2)
}

fn with_all(mut stream: Stream, names: &[&str]) -> Stream {
    for name in names {
        stream = stream.with_header(name, "10.9.9.9:1");
    }
    stream
}

fn held(world: &World) -> u64 {
    world.runtime.held_bytes.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn steering_is_stripped_on_every_path() {
    let world = world(settings());
    for (path, end) in [("/v1/models", true), ("/v1/completions", true), ("/v1/completions", false)]
    {
        let mut stream = with_all(Stream::new(&world, path), STEERING);
        stream.headers(end);
        for name in STEERING {
            assert_eq!(stream.request_header(name), None, "{name} at {path}");
        }
    }
}

#[test]
fn control_headers_go_unless_they_are_wanted() {
    for strip in [true, false] {
        let world = world(Settings { strip_control_headers: strip, ..settings() });
        let mut decided = with_all(Stream::new(&world, "/v1/completions"), CONTROL);
        decided.headers(false);
        decided.body(BODY.as_bytes(), true);
        let mut other = with_all(Stream::new(&world, "/v1/models"), CONTROL);
        other.headers(true);
        for (stream, name) in CONTROL.iter().flat_map(|name| [(&decided, name), (&other, name)]) {
            assert_eq!(stream.request_header(name).is_none(), strip, "{name}");
        }
    }
}

#[test]
fn other_paths_pass_or_are_refused() {
    let mut passed = Stream::new(&world(settings()), "/v1/models");
    assert_eq!(passed.headers(true), HeadersStatus::Continue);
    assert_eq!(passed.body(b"anything", true), BodyStatus::Continue);
    assert!(passed.seen().replies.is_empty());

    let refusing = world(Settings { other_paths: OtherPaths::Refuse, ..settings() });
    let mut refused = Stream::new(&refusing, "/v1/models");
    assert_eq!(refused.headers(true), HeadersStatus::StopIteration);
    assert_eq!(refused.reply().status, 404);
}

#[test]
fn a_length_over_the_limit_is_refused_before_the_body() {
    let world = world(Settings { max_body_bytes: 100, ..settings() });
    let mut stream = Stream::new(&world, "/v1/completions").with_header("content-length", "101");
    assert_eq!(stream.headers(false), HeadersStatus::StopIteration);
    assert_eq!(stream.reply().status, 413);
    let reason = stream.reply().header("x-llm-d-request-dropped-reason").map(str::to_owned);
    assert_eq!(reason.as_deref(), Some("rejected-body-too-large"));

    for fine in ["100", "a lot", "-1"] {
        let stream = Stream::new(&world, "/v1/completions").with_header("content-length", fine);
        let mut stream = stream;
        assert_eq!(stream.headers(false), HeadersStatus::StopIteration);
        assert!(stream.seen().replies.is_empty(), "{fine}");
    }
}

#[test]
fn a_body_over_the_limit_is_refused_where_it_passes_it() {
    let world = world(Settings { max_body_bytes: 10, ..settings() });
    let mut stream = Stream::new(&world, "/v1/completions");
    stream.headers(false);
    assert_eq!(stream.body(b"{\"model\":", false), BodyStatus::StopIterationAndBuffer);
    assert_eq!(held(&world), 9);
    assert_eq!(stream.body(b"\"m\"", false), BodyStatus::StopIterationNoBuffer);
    assert_eq!(stream.reply().status, 413);
    assert_eq!(held(&world), 0);
}

#[test]
fn the_buffer_limit_is_raised_and_never_lowered() {
    let world = world(Settings { max_body_bytes: 1 << 20, ..settings() });
    let mut small = Stream::new(&world, "/v1/completions");
    small.headers(false);
    assert!(small.seen().buffer_limit > 1 << 20);
    let mut large = Stream::new(&world, "/v1/completions");
    large.seen().buffer_limit = 1 << 30;
    large.headers(false);
    assert_eq!(large.seen().buffer_limit, 1 << 30);
}

#[test]
fn all_streams_together_hold_no_more_than_the_cap() {
    let world = world(Settings { max_held_bytes: 80, ..settings() });
    let mut streams: Vec<Stream> = (0..2)
        .map(|_| {
            let mut stream = Stream::new(&world, "/v1/completions");
            stream.headers(false);
            stream
        })
        .collect();
    assert_eq!(streams[0].body(BODY.as_bytes(), false), BodyStatus::StopIterationAndBuffer);
    assert_eq!(streams[1].body(BODY.as_bytes(), false), BodyStatus::StopIterationNoBuffer);
    assert_eq!(streams[1].reply().status, 429);
    assert_eq!(held(&world), BODY.len() as u64);
    streams[0].destroy();
    assert_eq!(held(&world), 0);
}

/// Every way in which Envoy may show the same body comes to the same decision.
#[test]
fn a_body_is_read_once_however_it_is_shown() {
    let world = world(settings());
    let check = |stream: &Stream, what: &str| {
        assert!(stream.seen().replies.is_empty(), "{what}");
        assert!(stream.request_header(DESTINATION).is_some(), "{what}");
    };
    for at in 0..=BODY.len() {
        let (first, second) = BODY.as_bytes().split_at(at);
        // The usual: what came before is buffered, the rest is received.
        let mut stream = Stream::new(&world, "/v1/completions");
        stream.headers(false);
        stream.body(first, false);
        assert_eq!(stream.body(second, true), BodyStatus::Continue);
        check(&stream, &format!("split at {at}"));

        // The last piece is already in the buffer, in a chunk of its own or not.
        for shown in [vec![BODY.into()], vec![first.to_vec(), second.to_vec()]] {
            let mut stream = Stream::new(&world, "/v1/completions");
            stream.headers(false);
            stream.body(first, false);
            stream.seen().buffered = shown;
            assert_eq!(stream.body_as_shown(true), BodyStatus::Continue);
            check(&stream, &format!("all buffered, split at {at}"));
        }

        // All of it is shown as received, what was read before included.
        let mut stream = Stream::new(&world, "/v1/completions");
        stream.headers(false);
        stream.body(first, false);
        stream.seen().buffered.clear();
        assert_eq!(stream.body(BODY.as_bytes(), true), BodyStatus::Continue);
        check(&stream, &format!("all received, split at {at}"));

        // Trailers end the body.
        let mut stream = Stream::new(&world, "/v1/completions");
        stream.headers(false);
        stream.body(first, false);
        stream.body(second, false);
        assert_eq!(stream.trailers(), TrailersStatus::Continue);
        check(&stream, &format!("trailers, split at {at}"));
    }
    // Byte by byte.
    let mut stream = Stream::new(&world, "/v1/completions");
    stream.headers(false);
    for byte in BODY.as_bytes() {
        assert_eq!(stream.body(&[*byte], false), BodyStatus::StopIterationAndBuffer);
    }
    assert_eq!(stream.body(b"", true), BodyStatus::Continue);
    check(&stream, "byte by byte");
}

#[test]
fn tools_after_messages_are_read_in_a_second_pass() {
    let world = world(settings());
    let sorted = r#"{"model":"m","tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user","content":"hello"}]}"#;
    let late = r#"{"model":"m","messages":[{"role":"user","content":"hello"}],"tools":[{"type":"function","function":{"name":"f"}}]}"#;
    let tokens = |body: &str| {
        let mut stream = Stream::new(&world, "/v1/chat/completions");
        stream.headers(false);
        let (first, second) = body.as_bytes().split_at(body.len() / 2);
        stream.body(first, false);
        assert_eq!(stream.body(second, true), BodyStatus::Continue);
        assert!(stream.request_header(DESTINATION).is_some());
        let mut tokens = Vec::new();
        world.runtime.log.read(|entry| tokens.push((entry.sequence, entry.prompt_tokens)));
        tokens.into_iter().max().unwrap().1
    };
    let expected = tokens(sorted);
    assert!(expected > 0);
    assert_eq!(tokens(late), expected);
}

#[test]
fn the_client_is_told_what_is_wrong_with_its_body() {
    let world = world(settings());
    for (body, text) in [("{\"model\"", "inference error: BadRequest - "), ("{}", "prompt")] {
        let stream = Stream::sent(&world, body);
        assert_eq!(stream.reply().status, 400, "{body}");
        assert!(stream.reply().body.contains(text), "{}", stream.reply().body);
    }
    let nameless = Stream::sent(&world, r#"{"prompt":"hi"}"#);
    assert!(nameless.reply().body.contains("model not found"), "{}", nameless.reply().body);
    assert_eq!(world.booked(), [0, 0]);
}

#[test]
fn the_pods_cluster_gets_a_token() {
    let world = world(settings());
    let stream = Stream::sent(&world, BODY);
    let state = stream.seen().filter_state.get(TOKEN_STATE).cloned().unwrap();
    assert!(Token::decode(&state).is_some());
    // No Envoy is around, which counts as 1.38: the token goes as a header too.
    assert_eq!(stream.request_header(STREAM_TOKEN).unwrap().as_bytes(), state);
    let destination = stream.request_header(DESTINATION).unwrap();
    let told = ("envoy.lb".to_owned(), DESTINATION.to_owned(), destination.clone());
    assert_eq!(stream.seen().metadata, [told]);
    assert!(["10.0.0.1:8000", "10.0.0.2:8000"].contains(&destination.as_str()));
    assert_eq!(stream.seen().override_host, None);

    let mut without = Stream::new(&world, "/v1/completions");
    without.seen().filter_state_works = false;
    without.headers(false);
    without.body(BODY.as_bytes(), true);
    assert!(without.request_header(STREAM_TOKEN).is_some());
}

#[test]
fn an_ordinary_cluster_gets_an_override_host() {
    let of = |failure_mode| Settings {
        destination: Destination::OverrideHost,
        failure_mode,
        ..settings()
    };
    let strict = |world: &World| {
        let stream = Stream::sent(world, BODY);
        assert_eq!(stream.request_header(STREAM_TOKEN), None);
        let (host, strict) = stream.seen().override_host.clone().unwrap();
        assert_eq!(stream.request_header(DESTINATION), Some(host));
        strict
    };
    assert!(strict(&world(of(None))));
    assert!(!strict(&world(of(Some(FailureMode::FailOpen)))));
    let mut open = world(of(None));
    open.set_failure_mode(FailureMode::FailOpen);
    assert!(!strict(&open));
}

#[test]
fn the_override_host_policy_gets_the_whole_ranking() {
    let world = world(Settings { destination: Destination::Header, ..settings() });
    let stream = Stream::sent(&world, BODY);
    let ranking = stream.request_header(DESTINATION).unwrap();
    let mut hosts: Vec<&str> = ranking.split(',').collect();
    hosts.sort_unstable();
    assert_eq!(hosts, ["10.0.0.1:8000", "10.0.0.2:8000"]);
    assert_eq!(stream.request_header(STREAM_TOKEN), None);
    assert_eq!(stream.seen().override_host, None);
}

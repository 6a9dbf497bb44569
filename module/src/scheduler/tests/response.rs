//! Responses and the end of streams.

use super::{BODY, Stream};
use crate::testing::World;

#[test]
fn the_first_byte_gives_the_tokens_back_once() {
    let world = World::new(1);
    let mut streams = [Stream::sent(&world, BODY), Stream::sent(&world, BODY)];
    let booked = world.load(0);
    assert_eq!(booked.requests(), 2);
    assert!(booked.tokens() > 0 && booked.tokens().is_multiple_of(2));

    streams[0].respond(&[(":status", "200"), ("content-type", "text/event-stream")], false);
    streams[0].respond_body(&[], false);
    assert_eq!(world.load(0).tokens(), booked.tokens(), "an empty call is no byte");
    for _ in 0..3 {
        streams[0].respond_body(&[b"data: {}\n\n"], false);
        assert_eq!(world.load(0).tokens(), booked.tokens() / 2);
    }
    assert_eq!(world.load(0).requests(), 2);
    streams[0].destroy();
    assert_eq!(world.booked(), [1]);
    assert_eq!(world.load(0).tokens(), booked.tokens() / 2);
    streams[1].destroy();
    assert_eq!((world.load(0).requests(), world.load(0).tokens()), (0, 0));
    assert_eq!(world.stale_releases(), 0);
}

#[test]
fn a_stream_releases_its_claim_wherever_it_ends() {
    type Step = fn(&mut Stream);
    let steps: [Step; 4] = [
        |stream| stream.respond(&[(":status", "200")], false),
        |stream| stream.respond_body(&[b"{\"id\":1,"], false),
        |stream| stream.respond_body(&[b"\"x\":2}"], true),
        |_| {},
    ];
    for end in 0..=steps.len() {
        let world = World::new(1);
        let mut stream = Stream::sent(&world, BODY);
        assert_eq!(world.booked(), [1]);
        steps[..end].iter().for_each(|step| step(&mut stream));
        assert_eq!(world.booked(), [1]);
        stream.destroy();
        assert_eq!(world.booked(), [0], "ended after {end} steps");
        assert_eq!(world.stale_releases(), 0);
    }
}

#[test]
fn usage_and_sizes_are_measured() {
    let world = World::new(1);
    let mut stream = Stream::sent(&world, BODY);
    stream.respond(&[(":status", "200"), ("content-type", "text/event-stream")], false);
    // The usage object is split between two calls, and one call brings two chunks.
    let usage = r#"data: {"usage":{"prompt_tokens":7,"completion_tokens":3,"#;
    let rest = r#""prompt_tokens_details":{"cached_tokens":4}}}"#;
    stream.respond_body(&[b"data: {}\n\n", usage.as_bytes()], false);
    stream.respond_body(&[rest.as_bytes()], true);
    stream.destroy();

    let text = world.metrics();
    let of = |name: &str| {
        let labels =
            r#"fairness_id="default-flow",model_name="m",priority="0",target_model_name="m""#;
        let start = format!("llm_d_epp_{name}{{{labels}}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.unwrap_or_else(|| panic!("no {start} in\n{text}")).parse::<f64>().unwrap()
    };
    assert_eq!(of("request_input_tokens_sum"), 7.0);
    assert_eq!(of("request_output_tokens_sum"), 3.0);
    assert_eq!(of("request_cached_tokens_sum"), 4.0);
    assert_eq!(of("response_size_bytes_sum"), (10 + usage.len() + rest.len()) as f64);
    assert_eq!(of("request_size_bytes_sum"), BODY.len() as f64);
    assert_eq!(of("request_streaming_itl_seconds_count"), 1.0);
    assert_eq!(of("request_streaming_tpot_seconds_count"), 1.0);
    assert_eq!(of("request_running"), 0.0);
}

#[test]
fn usage_of_messages_is_put_together() {
    let world = World::new(1);
    let body = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    let mut stream = Stream::new(&world, "/v1/messages");
    stream.headers(false);
    stream.body(body.as_bytes(), true);
    assert_eq!(world.booked(), [1]);
    stream.respond(&[(":status", "200"), ("content-type", "text/event-stream")], false);
    let start = r#"data: {"message":{"usage":{"input_tokens":7,"cache_read_input_tokens":4}}}"#;
    stream.respond_body(&[start.as_bytes()], false);
    stream.respond_body(&[br#"data: {"usage":{"output_tokens":3}}"#], true);
    stream.destroy();
    let text = world.metrics();
    for (name, value) in [("input", 7), ("output", 3), ("cached", 4)] {
        let family = format!("llm_d_epp_request_{name}_tokens_sum{{");
        let line = text.lines().find(|line| line.starts_with(&family)).unwrap();
        assert!(line.ends_with(&format!(" {value}")), "{line}");
    }
}

#[test]
fn errors_of_the_model_server_are_counted() {
    let world = World::new(1);
    let answers: [Option<&str>; 3] = [Some("500"), Some("200"), None];
    for status in answers {
        let mut stream = Stream::sent(&world, BODY);
        if let Some(status) = status {
            stream.respond(&[(":status", status)], true);
        }
        stream.destroy();
    }
    let text = world.metrics();
    let errors: Vec<&str> =
        text.lines().filter(|l| l.starts_with("llm_d_epp_request_error_total{")).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains(r#"error_code="ModelServerError""#) && errors[0].ends_with(" 1"));
}

//! The hooks of plugins on responses.

use super::{BODY, Stream};
use crate::testing::{PROBED, World, registry, script, settings};

fn world() -> World {
    World::with(settings(), registry, PROBED, 1)
}

#[test]
fn plugins_see_the_response_and_its_end() {
    let world = world();
    let mut stream = Stream::sent(&world, BODY);
    stream.respond(&[(":status", "200")], false);
    let served_by = ("x-served-by".to_owned(), "pod-0".to_owned());
    assert!(stream.seen().response.contains(&served_by));
    stream.respond_body(&[br#"{"usage":{"completion_tokens":3}}"#], true);
    assert!(script(|script| script.completed.is_empty()), "the stream has not ended yet");
    stream.destroy();
    assert_eq!(script(|script| script.answered.clone()), [("pod-0".to_owned(), 200)]);
    assert_eq!(script(|script| script.completed.clone()), [("pod-0".to_owned(), 200, Some(3))]);
}

#[test]
fn a_stream_that_is_given_up_ends_too() {
    let world = world();
    Stream::sent(&world, BODY).destroy();
    assert_eq!(script(|script| script.completed.clone()), [("pod-0".to_owned(), 0, None)]);
}

#[test]
fn a_refused_request_has_no_response() {
    let world = world();
    Stream::sent(&world, "{}").destroy();
    assert!(script(|script| script.completed.is_empty()));
}

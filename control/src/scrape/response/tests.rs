use proptest::prelude::*;

use super::*;

/// Feeds in pieces of `size` and returns the body and whether the response completed.
fn decode(
    response: &mut Response,
    input: &[u8],
    size: usize,
) -> Result<(Vec<u8>, bool), ResponseError> {
    let mut body = Vec::new();
    let mut done = false;
    for piece in input.chunks(size) {
        done = response.feed(piece, &mut |part| body.extend_from_slice(part))?;
    }
    Ok((body, done))
}

fn all_sizes(input: &str) -> Result<(Vec<u8>, bool, bool), ResponseError> {
    let mut results = [1, 2, 3, 7, 10_000].map(|size| {
        let mut response = Response::new(1_000);
        let decoded = decode(&mut response, input.as_bytes(), size);
        decoded.map(|(body, done)| (body, done, response.is_reusable()))
    });
    results.sort_by_key(|r| r.is_ok());
    let [first, ..] = &results;
    assert!(results.iter().all(|r| r == first), "the cut matters: {results:?}");
    results.into_iter().next().unwrap()
}

#[test]
fn a_length_ends_the_body() {
    let ok = all_sizes("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(ok, Ok((b"hello".to_vec(), true, true)));
    let empty = all_sizes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(empty, Ok((vec![], true, true)));
}

#[test]
fn chunks_are_joined_and_extensions_and_trailers_skipped() {
    let ok = all_sizes(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;name=\"v\"\r\nhello\r\nA \r\n, world 10\r\n0\r\nx: y\r\n\r\n",
    );
    assert_eq!(ok, Ok((b"hello, world 10".to_vec(), true, true)));
}

#[test]
fn the_end_of_the_connection_may_end_the_body() {
    let mut response = Response::new(100);
    let text = b"HTTP/1.0 200 OK\r\n\r\nabc";
    assert_eq!(decode(&mut response, text, 4), Ok((b"abc".to_vec(), false)));
    assert_eq!(response.end(), Ok(()));
    assert!(!response.is_reusable());
    response.restart();
    assert!(response.is_untouched());
    assert_eq!(response.end(), Err(ResponseError::Truncated));
}

#[test]
fn reuse_follows_version_and_connection_field() {
    for (head, reusable) in [
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\n", false),
        ("HTTP/1.0 200 OK\r\n", false),
        ("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n", true),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", true),
    ] {
        let text = format!("{head}content-length: 1\r\n\r\nx");
        assert_eq!(all_sizes(&text), Ok((b"x".to_vec(), true, reusable)), "{head}");
    }
    let mut response = Response::new(100);
    let text = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200";
    assert_eq!(decode(&mut response, text, 100), Ok((b"x".to_vec(), true)));
    assert!(!response.is_reusable(), "stray bytes follow");
}

#[test]
fn what_is_no_good_is_refused() {
    for (text, error) in [
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", ResponseError::Status(404)),
        ("SSH-2.0-OpenSSH_9\r\n", ResponseError::Head),
        ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", ResponseError::Framing),
        ("HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n", ResponseError::Framing),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            ResponseError::Framing,
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
            ResponseError::Framing,
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", ResponseError::Framing),
        ("HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n", ResponseError::BodyTooLarge(1_000)),
    ] {
        assert_eq!(all_sizes(text), Err(error), "{text}");
    }
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for bad in ["\r\n", "g\r\n", "5\r\nhelloX", "1234567890abcdef1\r\n", ";x\r\n", "5x\r\n"] {
        assert_eq!(all_sizes(&format!("{chunked}{bad}")), Err(ResponseError::Chunk), "{bad:?}");
    }
}

#[test]
fn nothing_grows_without_bound() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(MAX_HEAD));
    assert_eq!(all_sizes(&long), Err(ResponseError::Head));
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let extension = format!("{chunked}1;{}", "y".repeat(MAX_CHUNK_LINE));
    assert_eq!(all_sizes(&extension), Err(ResponseError::Chunk));
    let trailer = format!("{chunked}0\r\n{}", "y: z\r\n".repeat(MAX_CHUNK_LINE / 6 + 1));
    assert_eq!(all_sizes(&trailer), Err(ResponseError::Chunk));
    let body = format!("{chunked}{}", "64\r\n".to_owned() + &"y".repeat(100) + "\r\n");
    let body = body.clone() + &body[chunked.len()..].repeat(10);
    assert_eq!(all_sizes(&body), Err(ResponseError::BodyTooLarge(1_000)));
}

proptest! {
    #[test]
    fn any_bytes_are_survived_and_cuts_do_not_matter(
        pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                prop::sample::select(vec![
                    &b"HTTP/1.1 200 OK\r\n"[..], b"HTTP/1.1 100 Continue\r\n", b"\r\n", b"\n", b"0\r\n",
                    b"content-length: 12\r\n", b"transfer-encoding: chunked\r\n", b"connection: close\r\n",
                    b"5\r\nhello\r\n", b"a;x=y\r\n0123456789\r\n", b"ffffffffffffff\r\n",
                ]).prop_map(<[u8]>::to_vec),
            ],
            0..12,
        ),
        cut in 1_usize..40,
    ) {
        let input = pieces.concat();
        let outcome = |size: usize| {
            let mut response = Response::new(1_000);
            let decoded = decode(&mut response, &input, size);
            (decoded, response.end(), response.is_reusable())
        };
        let (whole, cut) = (outcome(input.len().max(1)), outcome(cut));
        match (&whole.0, &cut.0) {
            // A later piece may have broken it: then what was complete by then may differ.
            (Err(_), _) | (_, Err(_)) => prop_assert_eq!(whole.0.err(), cut.0.err()),
            _ => prop_assert_eq!(whole, cut),
        }
    }
}

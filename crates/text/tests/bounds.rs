//! Hostile bodies meet their bound.

use std::num::NonZeroU32;

use inlane_text::{
    Api, BlockHasher, BlockSize, Bounded, Limits, ScanError, Scanner, Sink, TokenCollector,
};

fn refuse(api: Api, limits: Limits, body: &str) -> ScanError {
    let mut scanner = Scanner::new(api, limits, ());
    let fed = scanner.feed(body.as_bytes());
    fed.err().or_else(|| scanner.finish().err()).expect("refused")
}

#[test]
fn depth() {
    let nested = |depth: usize| {
        format!(r#"{{"prompt":"a","x":{}{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    let mut scanner = Scanner::new(Api::Completions, Limits::default(), ());
    scanner.feed(nested(126).as_bytes()).expect("127 containers are allowed");
    scanner.finish().expect("a request");
    assert!(serde_json::from_str::<serde_json::Value>(&nested(126)).is_ok());

    let error = refuse(Api::Completions, Limits::default(), &nested(127));
    assert_eq!(error, ScanError::TooDeep { offset: 18 + 126, limit: 127 });
    assert!(serde_json::from_str::<serde_json::Value>(&nested(127)).is_err());

    let endless = "[".repeat(1_000_000);
    let error = refuse(Api::Completions, Limits::default(), &format!("{{\"a\":{endless}"));
    assert!(matches!(error, ScanError::TooDeep { .. }));
}

#[test]
fn held_strings() {
    let limits = Limits { string_bytes: 8, ..Limits::default() };
    let body = |key: &str, len: usize| format!(r#"{{"prompt":"p","{key}":"{}"}}"#, "x".repeat(len));
    for (key, what) in [("model", Bounded::Model), ("cache_salt", Bounded::CacheSalt)] {
        let mut scanner = Scanner::new(Api::Completions, limits.clone(), ());
        scanner.feed(body(key, 8).as_bytes()).expect("fits");
        assert_eq!(
            refuse(Api::Completions, limits.clone(), &body(key, 9)),
            ScanError::TooLarge { what, limit: 8 }
        );
    }
    let error = refuse(Api::Completions, limits, &body("model", 9));
    assert_eq!(error.to_string(), "model exceeds 8 bytes");
}

#[test]
fn prompts() {
    let limits = Limits { prompts: 3, ..Limits::default() };
    let error = refuse(Api::Completions, limits.clone(), r#"{"prompt":["","","",""]}"#);
    assert_eq!(error, ScanError::TooLarge { what: Bounded::Prompts, limit: 3 });
    let mut scanner = Scanner::new(Api::Completions, limits, ());
    scanner.feed(br#"{"prompt":["","",""]}"#).expect("fits");
    assert_eq!(scanner.finish().expect("a request").prompts, 3);
}

#[test]
fn tools() {
    let limits = Limits { tools_bytes: 1000, ..Limits::default() };
    let nodes = "1,".repeat(100);
    let string = format!("{:?},", "x".repeat(1000));
    let digits = format!("{},", "9".repeat(300)).repeat(4);
    let key = format!("{{{:?}:1}},", "k".repeat(1000));
    for tools in [nodes, string, digits, key] {
        let body = format!(r#"{{"tools":[{tools}1],"messages":[{{}}]}}"#);
        let error = refuse(Api::ChatCompletions, limits.clone(), &body);
        assert_eq!(error, ScanError::TooLarge { what: Bounded::Tools, limit: 1000 });
    }
}

#[test]
fn media_claims() {
    // A header of 65535 by 65535 pixels claims four million tokens in a hundred bytes.
    let gif = "data:image/gif;base64,R0lGODlh/////wAAAA==";
    let part = format!(r#"{{"type":"image_url","image_url":{{"url":"{gif}"}}}}"#);
    let parts = vec![part; 50].join(",");
    let body = format!(r#"{{"messages":[{{"content":[{parts}]}}]}}"#);
    let limits = Limits { media_tokens: 10_000, ..Limits::default() };
    let mut scanner = Scanner::new(Api::ChatCompletions, limits, TokenCollector::new());
    scanner.feed(body.as_bytes()).expect("valid");
    scanner.finish().expect("a request");
    let prompt = &scanner.sink().prompts()[0];
    assert_eq!(prompt.features.len(), 50);
    assert_eq!(prompt.tokens.len(), 10_000 + 49);
}

#[test]
fn the_block_cap_bounds_hashes_not_tokens() {
    let size = BlockSize::Tokens(NonZeroU32::new(4).expect("not zero"));
    let mut capped = BlockHasher::new(size, 2);
    let mut free = BlockHasher::new(size, usize::MAX);
    for hasher in [&mut capped, &mut free] {
        for pieces in
            [&["abc", "defghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", "0123"][..], &["x"]]
        {
            hasher.begin_prompt();
            pieces.iter().for_each(|piece| hasher.text(piece.as_bytes()));
            hasher.end_prompt();
        }
    }
    for (capped, free) in capped.prompts().zip(free.prompts()) {
        assert_eq!((capped.tokens, capped.bytes), (free.tokens, free.bytes));
        assert_eq!(capped.contents, &free.contents[..free.contents.len().min(2)]);
    }
    assert_eq!(free.prompts().map(|prompt| prompt.contents.len()).collect::<Vec<_>>(), [4, 1]);
    assert_eq!(capped.tokens(), 14 + 1);
}

#[test]
fn a_second_pass_over_another_body_is_refused() {
    let body = br#"{"messages":[{"content":"x","role":"u"}]}"#;
    let mut scanner = Scanner::new(Api::ChatCompletions, Limits::default(), TokenCollector::new());
    scanner.feed(body).expect("valid");
    scanner.finish().expect("a request");
    assert!(scanner.needs_second_pass());
    let mut shorter = scanner.clone();
    assert_eq!(shorter.second_pass(&[&body[1..]]), Err(ScanError::BodyChanged));
    // The same length, but no longer JSON where it counts.
    let garbage = vec![b'{'; body.len()];
    assert!(scanner.clone().second_pass(&[&garbage]).is_err());
    scanner.second_pass(&[&body[..9], &[], &body[9..]]).expect("the same body");
    assert!(!scanner.needs_second_pass());
    assert_eq!(scanner.sink().prompts()[0].tokens, [u32::from_le_bytes(*b"ux\0\0")]);
}

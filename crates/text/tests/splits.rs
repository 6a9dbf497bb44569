//! How a body is split changes nothing.

mod common;

use common::{APIS, check, scan, scanner};
use inlane_text::Api;

/// Bodies that between them visit every state of the lexer and the extractor.
const BODIES: &[&str] = &[
    r#"{"model":"llama","prompt":"!hi!","stream":true,"max_tokens":7,"n":2,"cache_salt":"s"}"#,
    r#" { "prompt" : [ "a\n\"\\\/\b\f\r\t" , "\u00e9\ud834\udd1e\u20AC", "é€𝄞" ] , "x":-1.5e-3 } "#,
    r#"{"prompt":[0,1,4294967295,12345678901],"max_tokens":1e2}"#,
    r#"{"prompt":[0,1,4294967295],"max_tokens":18446744073709551616,"n":0.5}"#,
    r#"{"prompt":"a","prompt":"b","model":"x","mod\u0065l":"y","model":null}"#,
    r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null}]}"#,
    r#"{"tools":[{"b":[1,2.50,true],"a":"<é>\u2028"}],"messages":[{"role":"u","content":"x"}]}"#,
    r#"{"messages":[{"content":"x","role":"u"}],"tools":[{"b":1e3,"a":{}}],"model":"m"}"#,
    r#"{"messages":[{"role":"u","content":[{"text":"t","type":"text"},{"type":"image_url",
        "image_url":{"url":"data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAAAwCAIAAAA="}},
        {"input_audio":{"format":"wav","data":"abcd"},"type":"input_audio"},
        {"text":"not text","type":"video_url","video_url":{"url":"v\u0041"}}]}],
        "stream_options":{"include_usage":true}}"#,
    r#"{"messages":[{"role":"u","content":"a","content":[{"type":"text","text":"b"}]}]}"#,
    r#"{"messages":[5],"messages":[{"role":"u"}],"a key longer than any that the scanner knows":1}"#,
    r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":5},"image_url":{}}]}]}"#,
    r#"{"messages":[{"content":[{"type":"image_url","image_url":{"url":"a,b"}},{"type":"image_url",
        "image_url":{"url":"data:,"}},{"type":"image_url","image_url":{"url":""}}]}]}"#,
    r#"{"messages":[{"content":[{"input_audio":{"data":1,"format":2},"input_audio":null,
        "video_url":{"url":[]},"video_url":{},"text":1,"text":"t","type":{},"type":"text"}]}]}"#,
    r#"{"prompt":[[1,2],[3]],"input":[[4294967295],[]]}"#,
    r#"{"messages":[{"role":"user","content":[{"type":"text","text":"é"},{"type":"tool_use","id":"t1",
        "name":"f","input":{"a":["b",2,{"c":null}]}},{"type":"tool_result","content":[{"text":"r"},
        {"source":{"type":"base64","data":"iVBORw0KGgoAAAANSUhEUgAAAEAAAAAwCAIAAAA="}}]}]}],
        "system":[{"type":"text","text":"x-anthropic-billing-header: v"},{"text":"x-anthropic"},
        {"text":"x-\u0061nthropic-bill"}],"tools":[{"name":"f"}]}"#,
    r#"{"instructions":"be","input":[{"role":"user","content":"hi"},{"arguments":"{\"a\":1}",
        "name":"f"},{"output":"o\u0041"},{"content":[{"image_url":"u"},{"image_url":{"url":"v"}},
        {"refusal":"no"}],"summary":[{"text":"s"}]}],"max_output_tokens":7}"#,
    // Refused: the error and its offset must not depend on the split either.
    r#"{"prompt":"\ud834x"}"#,
    r#"{"prompt":"\udd1e"}"#,
    r#"{"prompt":"\ud834\u0041"}"#,
    r#"{"prompt":"\x"}"#,
    r#"{"prompt":"\u00g0"}"#,
    "{\"prompt\":\"a\nb\"}",
    r#"{"prompt":01}"#,
    r#"{"prompt":1.}"#,
    r#"{"prompt":1e999}"#,
    r#"{"prompt":nul}"#,
    r#"{"prompt":"a"}}"#,
    r#"{"prompt":"a",}"#,
    r#"{"prompt""a"}"#,
    r#"{"prompt":["a""b"]}"#,
    r#"{"prompt":["a"}"#,
    r#"[1]"#,
    r#"{"prompt":"a""#,
];

#[test]
fn one_cut_everywhere() {
    let mut scanner = scanner();
    for body in bodies() {
        for api in APIS {
            check(&mut scanner, api, &body, 0);
            let whole = scan(&mut scanner, api, &[&body]);
            for cut in 0..=body.len() {
                let (head, tail) = body.split_at(cut);
                assert_eq!(scan(&mut scanner, api, &[head, tail]), whole, "cut at {cut}");
            }
        }
    }
}

#[test]
fn byte_by_byte_and_in_small_steps() {
    let mut scanner = scanner();
    for body in bodies() {
        for api in APIS {
            let whole = scan(&mut scanner, api, &[&body]);
            for step in [1, 2, 3, 4, 7, 13] {
                let chunks: Vec<&[u8]> = body.chunks(step).collect();
                assert_eq!(scan(&mut scanner, api, &chunks), whole, "steps of {step}");
            }
        }
    }
}

#[test]
fn two_cuts_everywhere_around_a_character() {
    let body = r#"{"prompt":"a\ud834\udd1eé𝄞\n","cache_salt":"𝄞"}"#.as_bytes();
    let mut scanner = scanner();
    let whole = scan(&mut scanner, Api::Completions, &[body]);
    assert!(whole.is_ok());
    for first in 0..body.len() {
        for second in first..body.len() {
            let chunks = [&body[..first], &body[first..second], &body[second..]];
            assert_eq!(scan(&mut scanner, Api::Completions, &chunks), whole, "{first} {second}");
        }
    }
}

/// All bodies, the invalid UTF-8 ones included.
fn bodies() -> Vec<Vec<u8>> {
    let broken: [&[u8]; 6] = [
        b"{\"prompt\":\"\xc3\"}",
        b"{\"prompt\":\"\xe2\x82\"}",
        b"{\"prompt\":\"\xf0\x9d\x84a\"}",
        b"{\"prompt\":\"\xed\xa0\x80\"}",
        b"{\"prompt\":\"ab\xff\"}",
        b"{\"pro\xf4\x90\x80\x80\":1}",
    ];
    let broken = broken.iter().map(|body| body.to_vec());
    BODIES.iter().map(|body| body.as_bytes().to_vec()).chain(broken).collect()
}

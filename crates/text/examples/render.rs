//! Measures chat templates: microseconds per render of 100 KB, by template and shape of chat.
//!
//! `cargo run --release -p inlane-text --features prompts --example render`

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use inlane_text::template::{ChatApi, ChatTemplate};

const BODY: usize = 100 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/jinja"));
    let prose = "The quick brown fox jumps over the lazy dog; the dog does not mind at all. ";
    let tool = r#"{"type":"function","function":{"name":"search","description":"Searches the documents","parameters":{"type":"object","properties":{"query":{"type":"string"},"limit":{"type":"integer","default":10}},"required":["query"]}}}"#;
    let user = |text: &str| format!(r#"{{"role":"user","content":"{text}"}}"#);
    let turns = |length: usize| {
        let pair = format!(
            r#"{},{{"role":"assistant","content":"{}"}}"#,
            user(&prose.repeat(length)),
            prose.repeat(length),
        );
        vec![pair.as_str(); BODY / pair.len()].join(",")
    };
    let long = user(&prose.repeat(BODY / prose.len()));
    let escaped = user(&"a \\\"line\\\" of\\ncode\\n".repeat(BODY / 18));
    let tools = vec![tool; 20].join(",");
    let shapes = [
        ("200 B", format!(r#"{{"messages":[{}]}}"#, user(&prose.repeat(2)))),
        ("100 KB in one message", format!(r#"{{"messages":[{long}]}}"#)),
        ("100 KB, escaped", format!(r#"{{"messages":[{escaped}]}}"#)),
        ("100 KB in 40 messages", format!(r#"{{"messages":[{},{}]}}"#, turns(32), user("q"))),
        ("100 KB in 400 messages", format!(r#"{{"messages":[{},{}]}}"#, turns(3), user("q"))),
        ("20 tools", format!(r#"{{"messages":[{}],"tools":[{tools}]}}"#, user(prose))),
    ];
    for file in ["llama-like.jinja", "qwen-like.jinja", "mistral-like.jinja"] {
        let text = std::fs::read_to_string(dir.join(file))?;
        let template =
            ChatTemplate::from_parts(&text, br#"{"bos_token":"<s>","eos_token":"</s>"}"#)?;
        for (name, body) in &shapes {
            let mut times: Vec<u128> = Vec::new();
            for _ in 0..200 {
                let start = Instant::now();
                black_box(template.render(ChatApi::Chat, black_box(body.as_bytes()), 0)?);
                times.push(start.elapsed().as_nanos());
            }
            times.sort_unstable();
            let micros = times[times.len() / 2] as f64 / 1000.0;
            println!("{file:20} {name:24} {micros:8.1} µs");
        }
    }
    Ok(())
}

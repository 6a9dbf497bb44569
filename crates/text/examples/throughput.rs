//! Measures the scanner: nanoseconds per body and bytes per second, by shape of body.
//!
//! `cargo run --release -p inlane-text --example throughput [part of a name]`

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Instant;

use inlane_text::{Api, BlockHasher, BlockSize, Limits, Scanner};

/// Bytes per chunk, as a proxy reads them from a socket.
const CHUNK: usize = 16 << 10;
const BODY: usize = 220 << 10;

fn main() {
    let prose = "The quick brown fox jumps over the lazy dog; the dog does not mind at all. ";
    let code = "fn main() {\\n    println!(\\\"{}\\\", 1 + 1);\\n}\\n";
    let wide = "四十四字节的中文文本，用来测试宽字符的路径，足够长以跨越块边界，是的。";
    let image =
        format!("data:image/png;base64,{}", "iVBORw0KGgoAAAANSUhEUgAAAEAAAAAw".repeat(7000));
    let tools = r#"{"type":"function","function":{"name":"search","description":"Searches the documents","parameters":{"type":"object","properties":{"query":{"type":"string"},"limit":{"type":"integer","default":10}},"required":["query"]}}}"#;
    let message = |text: &str| format!(r#"{{"role":"user","content":"{text}"}}"#);
    let fill = |piece: &str| piece.repeat(BODY / piece.len());
    let ids: Vec<String> = (0..20_000).map(|id| (id * 7 % 128_000).to_string()).collect();
    let chat =
        |text: &str| format!(r#"{{"model":"llama","messages":[{}],"stream":true}}"#, message(text));
    let many = vec![message(&prose.repeat(4)); 600].join(",");
    let late = format!(r#"{{"messages":[{}],"tools":[{tools}]}}"#, message(&fill(prose)));
    let swapped = format!(r#"{{"messages":[{{"content":"{}","role":"user"}}]}}"#, fill(prose));

    use Api::{ChatCompletions as Chat, Completions};
    report(
        "200 B completion",
        Completions,
        &format!(
            r#"{{"model":"meta-llama/Llama-3.1-8B-Instruct","prompt":"{}","max_tokens":128,"temperature":0.7,"stream":true,"stream_options":{{"include_usage":true}}}}"#,
            &prose[..48],
        ),
    );
    report(
        "200 B chat",
        Chat,
        &format!(
            r#"{{"model":"meta-llama/Llama-3.1-8B-Instruct","messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"{}"}}],"max_tokens":128,"stream":true}}"#,
            &prose[..48],
        ),
    );
    report("220 KB ASCII", Chat, &chat(&fill(prose)));
    report("220 KB code, escaped", Chat, &chat(&fill(code)));
    report("220 KB Chinese", Chat, &chat(&fill(wide)));
    report("220 KB in 600 messages", Chat, &format!(r#"{{"model":"m","messages":[{many}]}}"#));
    report("220 KB, tools late", Chat, &late);
    report("220 KB, content first", Chat, &swapped);
    report(
        "220 KB image",
        Chat,
        &format!(
            r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"{image}"}}}}]}}]}}"#
        ),
    );
    report(
        "100 tools (23 KB)",
        Chat,
        &format!(r#"{{"tools":[{}],"messages":[{}]}}"#, vec![tools; 100].join(","), message("hi"),),
    );
    report("20 000 token ids", Completions, &format!(r#"{{"prompt":[{}]}}"#, ids.join(",")));
}

/// Prints the best of several rounds: the others were disturbed.
fn report(name: &str, api: Api, body: &str) {
    if std::env::args().nth(1).is_some_and(|only| !name.contains(&only)) {
        return;
    }
    let chunks: Vec<&[u8]> = body.as_bytes().chunks(CHUNK).collect();
    let block = BlockSize::Tokens(NonZeroU32::new(64).expect("not zero"));
    let mut scanner = Scanner::new(api, Limits::default(), BlockHasher::new(block, usize::MAX));
    let repeats = (8_000_000 / body.len()).clamp(20, 20_000);
    let mut best = f64::MAX;
    for _ in 0..30 {
        let start = Instant::now();
        for _ in 0..repeats {
            scanner.reset(api);
            for chunk in &chunks {
                scanner.feed(black_box(chunk)).expect("valid");
            }
            black_box(scanner.finish().expect("a request"));
            if scanner.needs_second_pass() {
                scanner.second_pass(&chunks).expect("the same body");
            }
        }
        best = best.min(start.elapsed().as_nanos() as f64 / repeats as f64);
    }
    let rate = body.len() as f64 / best;
    println!("{name:24} {:>8} B {best:>10.0} ns {rate:>7.2} GB/s", body.len());
}

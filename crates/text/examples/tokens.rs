//! What a long chat costs: `cargo run --release --features prompts --example tokens [MODEL_DIR]`.
//!
//! A conversation of 100 KB, as it comes in the body of a request. "cold" has an empty cache,
//! "same" is sent again, "next turn" differs from the one before in its last two messages, as
//! requests of a conversation do. Then small requests through a pool, alone and while long ones
//! that nobody has seen arrive beside them.

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use inlane_text::template::{ChatApi, ChatTemplate};
use inlane_text::tokens::{Job, Model, Pool, PoolSize, PromptApi, TokenCache};

const BYTES: usize = 100 * 1024;
const ROUNDS: usize = 100;
const WORDS: [&str; 24] = [
    "the",
    "request",
    "Prefix",
    "cache",
    "holds",
    "blocks",
    "of",
    "tokens",
    "which",
    "engines",
    "report",
    "it's",
    "routing",
    "while",
    "12",
    "pods",
    "scheduler",
    "answer",
    "don't",
    "quickly",
    "configuration",
    "e.g.",
    "latency",
    "under",
];

fn main() -> Result<(), Box<dyn Error>> {
    let recorded = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/vllm/model");
    let dir = std::env::args().nth(1).map_or_else(|| PathBuf::from(recorded), PathBuf::from);
    let cache = Arc::new(TokenCache::new(256 << 20));
    let started = Instant::now();
    let model = Arc::new(Model::load("model", &dir, Arc::clone(&cache))?);
    let template = ChatTemplate::load(&dir)?;
    println!("loaded in {:.0?}, cut at {}", started.elapsed(), model.cut_at());

    let body = |seed, turns| chat(seed, turns);
    let turns = (1..).find(|turns| body(0, *turns).len() >= BYTES).unwrap_or(1);
    let tokens = model.tokenize(PromptApi::Chat, body(0, turns).as_bytes())?.prompts[0].len();
    println!("{} bytes, {turns} turns, {tokens} tokens; µs:", body(0, turns).len());

    let same = body(1, turns);
    row("render alone, of all below", |_| {
        let started = Instant::now();
        template.render(ChatApi::Chat, same.as_bytes(), 0)?;
        Ok(started.elapsed())
    })?;
    let text = template.render(ChatApi::Chat, same.as_bytes(), 0)?.text;
    model.encode(&text, false)?;
    row("known text alone", |_| {
        let started = Instant::now();
        std::hint::black_box(model.encode(&text, false)?);
        Ok(started.elapsed())
    })?;
    row("cold", |round| tokenize(&model, &body(1000 + round as u64, turns)))?;
    row("same", |_| tokenize(&model, &same))?;
    // Each conversation has been seen up to the turn before.
    for round in 0..ROUNDS {
        model.tokenize(PromptApi::Chat, body(5000 + round as u64, turns - 1).as_bytes())?;
    }
    row("next turn", |round| tokenize(&model, &body(5000 + round as u64, turns)))?;
    println!("cache: {} pieces, {} bytes", cache.len(), cache.bytes());

    let pool = Pool::new(PoolSize::default())?;
    let small = chat(7, 1);
    pooled("pool, small alone", &pool, &model, &small, |_| None)?;
    pooled("pool, small beside cold 100 KB", &pool, &model, &small, |round| {
        (round % 8 == 0).then(|| body(20_000 + round as u64, turns))
    })?;
    Ok(())
}

fn tokenize(model: &Model, body: &str) -> Result<Duration, Box<dyn Error>> {
    let started = Instant::now();
    let tokenized = model.tokenize(PromptApi::Chat, body.as_bytes())?;
    let elapsed = started.elapsed();
    std::hint::black_box(tokenized);
    Ok(elapsed)
}

fn pooled(
    name: &str,
    pool: &Pool,
    model: &Arc<Model>,
    small: &str,
    beside: impl Fn(usize) -> Option<String>,
) -> Result<(), Box<dyn Error>> {
    let job = |body: &str, done: Box<dyn FnOnce(Duration) + Send>| Job {
        model: Arc::clone(model),
        api: PromptApi::Chat,
        body: body.as_bytes().to_vec(),
        deadline: Instant::now() + Duration::from_secs(10),
        done: Box::new(move |outcome| done(outcome.elapsed)),
    };
    row(name, |round| {
        if let Some(long) = beside(round) {
            pool.submit(job(&long, Box::new(|_| {}))).map_err(|_| "the queue is full")?;
        }
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |elapsed| sender.send(elapsed).unwrap_or_default());
        pool.submit(job(small, done)).map_err(|_| "the queue is full")?;
        Ok(receiver.recv()?)
    })
}

fn row(
    name: &str,
    mut run: impl FnMut(usize) -> Result<Duration, Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let mut micros = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS {
        micros.push(run(round)?.as_secs_f64() * 1e6);
    }
    micros.sort_by(f64::total_cmp);
    let at = |share: f64| micros[((micros.len() - 1) as f64 * share) as usize];
    println!(
        "{name:32} least {:9.1}  p50 {:9.1}  p90 {:9.1}  p99 {:9.1}",
        at(0.0),
        at(0.5),
        at(0.9),
        at(0.99)
    );
    Ok(())
}

/// A chat of so many turns of about a kilobyte; equal seeds agree in all turns that both have.
fn chat(seed: u64, turns: usize) -> String {
    let mut random = fast(seed);
    let mut body =
        String::from(r#"{"model":"model","stream":true,"messages":[{"role":"system","content":""#);
    text(&mut body, &mut random, 2000);
    for _ in 0..turns {
        body.push_str(r#""},{"role":"user","content":""#);
        text(&mut body, &mut random, 300);
        body.push_str(r#""},{"role":"assistant","content":""#);
        text(&mut body, &mut random, 700);
    }
    body.push_str(r#""},{"role":"user","content":"And now?"}]}"#);
    body
}

fn text(body: &mut String, random: &mut impl FnMut(usize) -> usize, bytes: usize) {
    let end = body.len() + bytes;
    while body.len() < end {
        body.push_str(WORDS[random(WORDS.len())]);
        body.push_str(match random(12) {
            0 => ". ",
            1 => ", ",
            2 => ".\\n",
            _ => " ",
        });
    }
}

fn fast(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |bound| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % bound
    }
}

//! Conversations that share system prompts, and what became of them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::Client;

/// Words that the demonstration's tokenizer was trained on, so that texts have few tokens.
const WORDS: [&str; 24] = [
    "blocks",
    "cached",
    "counting",
    "gateway",
    "holds",
    "keeps",
    "later",
    "longest",
    "other",
    "pod",
    "prefix",
    "queues",
    "quick",
    "request",
    "routes",
    "running",
    "scheduler",
    "sequences",
    "stay",
    "tenants",
    "tokens",
    "warm",
    "while",
    "already",
];
/// Requests at the same time.
const CONNECTIONS: usize = 12;
/// Tokens of an answer.
const ANSWER: usize = 24;

/// One conversation.
#[derive(Debug, Clone)]
pub(super) struct Talk {
    id: usize,
    messages: Vec<Value>,
}

/// The shape of all conversations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) tenants: usize,
    pub(super) talks: usize,
    /// Words of a tenant's system prompt.
    pub(super) system: usize,
    /// Words of what a user says in each turn.
    pub(super) question: usize,
}

/// Every conversation before its first turn, the tenants' in turns. The same seed makes the same ones.
pub(super) fn begin(shape: Shape, seed: u64) -> Vec<Talk> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let systems: Vec<String> = (0..shape.tenants).map(|_| words(shape.system, &mut rng)).collect();
    let talk = |id: usize| {
        let system = systems.get(id % shape.tenants.max(1)).map_or("", String::as_str);
        Talk { id, messages: vec![json!({"role": "system", "content": system})] }
    };
    (0..shape.talks).map(talk).collect()
}

fn words(count: usize, rng: &mut fastrand::Rng) -> String {
    let words: Vec<&str> = (0..count).map(|_| WORDS[rng.usize(..WORDS.len())]).collect();
    words.join(" ")
}

/// Where requests go: to gateways, or to the pods themselves, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Way(pub(super) Vec<Client>);

impl Way {
    fn client(&self, request: usize) -> Option<&Client> {
        self.0.get(request.checked_rem(self.0.len())?)
    }
}

/// What the clients saw.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Time to the first token of every request.
    pub(super) ttft: Vec<Duration>,
    /// Prompt tokens that were in the cache, of all prompt tokens, by the answers' `usage`.
    pub(super) cached: u64,
    pub(super) prompt: u64,
    /// Requests by pod.
    pub(super) pods: BTreeMap<String, usize>,
}

impl Seen {
    /// Time to the first token at a quantile.
    pub(super) fn quantile(&self, quantile: f64) -> Duration {
        let mut sorted = self.ttft.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * quantile) as usize).copied().unwrap_or_default()
    }
}

/// Every conversation has one turn, in an order drawn from `seed`; answers become part of them.
///
/// # Errors
/// The first request without a complete answer.
pub(super) fn turn(
    way: &Way,
    tag: &str,
    question: usize,
    seed: u64,
    talks: &mut [Talk],
    seen: &mut Seen,
) -> io::Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    rng.shuffle(talks);
    for talk in talks.iter_mut() {
        let question = words(question, &mut rng);
        talk.messages.push(json!({"role": "user", "content": question}));
    }
    let next = AtomicUsize::new(0);
    let answers = Mutex::new(Vec::with_capacity(talks.len()));
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS.min(talks.len()) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(talk) = talks.get(n) else { return };
                    let Some(client) = way.client(n) else { return };
                    let answer = ask(client, &format!("{tag}-{}", talk.id), talk);
                    // No thread panics while it holds the lock.
                    if let Ok(mut answers) = answers.lock() {
                        answers.push((n, answer));
                    }
                }
            });
        }
    });
    for (n, answer) in answers.into_inner().unwrap_or_default() {
        let answer = answer?;
        seen.ttft.push(answer.ttft);
        seen.cached += answer.cached;
        seen.prompt += answer.prompt;
        *seen.pods.entry(answer.pod).or_default() += 1;
        if let Some(talk) = talks.get_mut(n) {
            talk.messages.push(json!({"role": "assistant", "content": answer.text}));
        }
    }
    Ok(())
}

struct Answer {
    text: String,
    ttft: Duration,
    cached: u64,
    prompt: u64,
    pod: String,
}

fn ask(client: &Client, id: &str, talk: &Talk) -> io::Result<Answer> {
    let body = json!({
        "model": "random", "stream": true, "stream_options": {"include_usage": true},
        "max_tokens": ANSWER, "ignore_eos": true, "messages": talk.messages,
    });
    let headers = [("x-request-id", id)];
    let sent = Instant::now();
    let body = body.to_string();
    let mut answer = client.post_streaming("/v1/chat/completions", &headers, body.as_bytes())?;
    let pod = answer.headers.get("x-inference-pod").and_then(|pod| pod.to_str().ok());
    let pod = pod.unwrap_or("?").to_owned();
    let (mut text, mut first) = (Vec::new(), None);
    let mut piece = [0; 4096];
    loop {
        let length = answer.read(&mut piece)?;
        if length == 0 {
            break;
        }
        first.get_or_insert_with(|| sent.elapsed());
        text.extend_from_slice(&piece[..length]);
    }
    let (status, text) = (answer.status, String::from_utf8_lossy(&text).into_owned());
    let Some(ttft) = first.filter(|_| status == 200 && text.ends_with("data: [DONE]\n\n")) else {
        return Err(io::Error::other(format!("{id}: status {status}: {text}")));
    };
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
        .collect();
    let said = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str());
    let usage = events.iter().map(|e| &e["usage"]).find(|usage| usage.is_object());
    let count = |usage: &Value| usage.as_u64().unwrap_or(0);
    Ok(Answer {
        text: said.collect(),
        ttft,
        cached: usage.map_or(0, |u| count(&u["prompt_tokens_details"]["cached_tokens"])),
        prompt: usage.map_or(0, |u| count(&u["prompt_tokens"])),
        pod,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversations_follow_from_the_seed_and_share_system_prompts() {
        let shape = Shape { tenants: 2, talks: 5, system: 10, question: 3 };
        let text = |seed: u64| {
            let talks = begin(shape, seed);
            talks.iter().map(|talk| talk.messages[0].to_string()).collect::<Vec<_>>()
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
        let one = text(1);
        assert_eq!((one.len(), &one[0]), (5, &one[2]));
        assert_ne!(one[0], one[1]);
    }

    #[test]
    fn quantiles_are_of_all_requests() {
        let ms = Duration::from_millis;
        let seen = Seen { ttft: (1..=11).map(ms).rev().collect(), ..Seen::default() };
        assert_eq!((seen.quantile(0.5), seen.quantile(0.9)), (ms(6), ms(10)));
        assert_eq!(Seen::default().quantile(0.5), Duration::ZERO);
    }
}

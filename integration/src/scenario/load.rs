//! Load from several threads, and what became of it.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use inlane_cli::lab::{Client, Lab};

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Complete answers with 200, by pod.
    pub served: BTreeMap<String, u64>,
    /// Streams that broke off after their first byte, by pod.
    pub broken: BTreeMap<String, u64>,
    /// Everything else.
    pub failed: Vec<String>,
}

impl Outcome {
    /// Requests with a complete answer.
    pub fn completed(&self) -> u64 {
        self.served.values().sum()
    }

    /// Asserts that no request failed.
    ///
    /// # Panics
    /// With the failures.
    pub fn assert_none_failed(&self) {
        assert!(self.failed.is_empty(), "failed: {:?}", &self.failed[..self.failed.len().min(5)]);
        assert!(self.completed() > 0, "no request was sent");
    }

    /// Asserts that no stream broke off either.
    ///
    /// # Panics
    /// With the failures.
    pub fn assert_all_served(&self) {
        self.assert_none_failed();
        assert!(self.broken.is_empty(), "broken: {:?}", self.broken);
    }
}

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Completions in one piece.
    Whole,
    /// Every third completion is streamed.
    Mixed,
}

/// Sends requests from `threads` threads for `length`; `event` runs after a quarter of it.
///
/// # Panics
/// When `event` fails.
pub fn during<T>(
    lab: &mut Lab,
    threads: usize,
    length: Duration,
    kind: Kind,
    event: impl FnOnce(&mut Lab) -> T,
) -> (Outcome, T) {
    let outcome = Mutex::new(Outcome::default());
    let (stop, next) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = lab.client();
    let answer = std::thread::scope(|scope| {
        for thread in 0..threads {
            let (client, outcome, stop, next) = (client.clone(), &outcome, &stop, &next);
            let stream = kind == Kind::Mixed && thread % 3 == 0;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed).to_string();
                    one(&client, &id, stream, outcome);
                }
            });
        }
        // The threads stop even when the event panics.
        let _stop = Stop(&stop);
        let start = Instant::now();
        std::thread::sleep(length / 4);
        let answer = event(lab);
        std::thread::sleep(length.saturating_sub(start.elapsed()));
        answer
    });
    (outcome.into_inner().unwrap_or_default(), answer)
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Sends `count` requests that start together, each from a thread of its own over a connection that
/// is already open.
pub fn at_once(lab: &Lab, count: usize, prompt: &str, max_tokens: u32) -> Outcome {
    let (outcome, barrier) = (Mutex::new(Outcome::default()), Barrier::new(count));
    std::thread::scope(|scope| {
        for n in 0..count {
            let (client, outcome, barrier) = (Client::new(lab.port), &outcome, &barrier);
            scope.spawn(move || {
                let _ = client.get("/v1/models");
                let body = serde_json::json!({
                    "model": "random", "prompt": prompt, "max_tokens": max_tokens,
                });
                barrier.wait();
                send(&client, &format!("at-once-{n}"), body.to_string().as_bytes(), false, outcome);
            });
        }
    });
    outcome.into_inner().unwrap_or_default()
}

fn one(client: &Client, id: &str, stream: bool, outcome: &Mutex<Outcome>) {
    let prompt = format!("request {id}: the rain in Spain stays mainly in the plain");
    let body = serde_json::json!({
        "model": "random", "prompt": prompt, "max_tokens": 8, "stream": stream,
    });
    send(client, id, body.to_string().as_bytes(), stream, outcome);
}

fn send(client: &Client, id: &str, body: &[u8], stream: bool, outcome: &Mutex<Outcome>) {
    let record = |note: &dyn Fn(&mut Outcome)| {
        if let Ok(mut outcome) = outcome.lock() {
            note(&mut outcome);
        }
    };
    let fail = |text: String| record(&|o| o.failed.push(format!("{id}: {text}")));
    match client.post_streaming("/v1/completions", &[("x-request-id", id)], body) {
        Ok(mut answer) if answer.status == 200 => {
            let pod = answer.headers.get("x-inference-pod").and_then(|pod| pod.to_str().ok());
            let pod = pod.unwrap_or_default().to_owned();
            let mut text = Vec::new();
            let read = answer.read_to_end(&mut text);
            let complete = read.is_ok() && (!stream || text.ends_with(b"data: [DONE]\n\n"));
            record(&|o| {
                let counts = if complete { &mut o.served } else { &mut o.broken };
                *counts.entry(pod.clone()).or_default() += 1;
            });
        }
        Ok(answer) => {
            let status = answer.status;
            fail(format!("{status} {}", answer.finish().map(|a| a.text()).unwrap_or_default()));
        }
        Err(error) => fail(error.to_string()),
    }
}

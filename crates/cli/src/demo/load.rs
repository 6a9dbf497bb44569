//! Load for a few seconds: completions, some of them streamed, from several threads.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::lab::{Client, Lab};

/// What became of the requests.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Answered completely, by pod.
    pub(super) served: BTreeMap<String, u64>,
    /// Streams that broke off after their first byte: request id and pod.
    pub(super) broken: Vec<(String, String)>,
    /// Requests without an answer, or with another status than 200.
    pub(super) failed: Vec<String>,
}

impl Outcome {
    pub(super) fn total(&self) -> u64 {
        self.served.values().sum::<u64>() + (self.broken.len() + self.failed.len()) as u64
    }
}

/// Sends load for `length`, calling `event` after a third of it.
pub(super) fn run(
    lab: &mut Lab,
    tag: &str,
    length: Duration,
    event: impl FnOnce(&mut Lab) -> std::io::Result<()>,
) -> std::io::Result<Outcome> {
    const THREADS: usize = 12;
    let outcome = Mutex::new(Outcome::default());
    let (stop, next) = (AtomicBool::new(false), AtomicU64::new(0));
    let client = lab.client();
    let result = std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (client, outcome, stop, next) = (client.clone(), &outcome, &stop, &next);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let id = format!("{tag}-{n}");
                    one(&client, &id, thread % 3 == 0, outcome);
                }
            });
        }
        let start = Instant::now();
        std::thread::sleep(length / 3);
        let result = event(lab);
        std::thread::sleep(length.saturating_sub(start.elapsed()));
        stop.store(true, Ordering::Relaxed);
        result
    });
    result?;
    Ok(outcome.into_inner().unwrap_or_default())
}

/// A number that differs from its neighbours' in the first digits, so that no two prompts share a
/// prefix (FNV-1a).
fn spread(id: &str) -> u64 {
    id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn one(client: &Client, id: &str, stream: bool, outcome: &Mutex<Outcome>) {
    let body = serde_json::json!({
        "model": "random", "max_tokens": if stream { 48 } else { 12 }, "stream": stream,
        "prompt": format!("{:016x}: tell me how you are, and then tell me again", spread(id)),
    });
    let headers = [("x-request-id", id)];
    let answer = client.post_streaming("/v1/completions", &headers, body.to_string().as_bytes());
    // No other thread panics while it holds the lock: nothing in here can.
    let record = |note: &dyn Fn(&mut Outcome)| {
        if let Ok(mut outcome) = outcome.lock() {
            note(&mut outcome);
        }
    };
    match answer {
        Ok(mut answer) if answer.status == 200 => {
            let pod = answer.headers.get("x-inference-pod").and_then(|p| p.to_str().ok());
            let pod = pod.unwrap_or("?").to_owned();
            let mut text = Vec::new();
            let read = answer.read_to_end(&mut text);
            let complete = !stream || text.ends_with(b"data: [DONE]\n\n");
            if read.is_ok() && complete {
                record(&|o| *o.served.entry(pod.clone()).or_default() += 1);
            } else {
                record(&|o| o.broken.push((id.to_owned(), pod.clone())));
            }
        }
        Ok(answer) => {
            let status = answer.status;
            let text = answer.finish().map(|a| a.text()).unwrap_or_default();
            record(&|o| o.failed.push(format!("{id}: {status} {text}")));
        }
        Err(error) => record(&|o| o.failed.push(format!("{id}: {error}"))),
    }
}

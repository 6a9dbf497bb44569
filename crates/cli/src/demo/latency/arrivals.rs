//! Requests at times that do not depend on the answers, and how long the answers took.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::lab::Client;

/// Connections at most. An arrival that finds all of them busy is late, and counted as such.
const CONNECTIONS: usize = 96;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slo {
    /// Time to the first token.
    pub ttft: Duration,
    /// Time per output token.
    pub tpot: Duration,
}

/// The targets of the two kinds of clients, the hurried first.
pub const SLOS: [Slo; 2] = [
    Slo { ttft: Duration::from_millis(300), tpot: Duration::from_millis(14) },
    Slo { ttft: Duration::from_millis(1500), tpot: Duration::from_millis(50) },
];

/// A request that is going to be sent.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arrival {
    at: Duration,
    prompt_words: usize,
    tokens: usize,
    /// Index into [`SLOS`].
    slo: usize,
    /// Makes the prompt unlike any other.
    salt: u64,
}

/// A Poisson process of `rate` per second; the same for the same seed.
pub(super) fn draw(count: usize, rate: f64, seed: u64) -> Vec<Arrival> {
    let mut rng = Rng::with_seed(seed);
    let mut at = 0.0;
    let mut next = || {
        at += -(1.0 - rng.f64()).ln() / rate;
        Arrival {
            at: Duration::from_secs_f64(at),
            prompt_words: rng.usize(100..1_000),
            tokens: rng.usize(8..=16),
            slo: rng.usize(..SLOS.len()),
            salt: rng.u64(..),
        }
    };
    (0..count).map(|_| next()).collect()
}

/// How a request went.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    /// Index into [`SLOS`].
    pub slo: usize,
    /// The pod.
    pub pod: String,
    /// Time to the first bytes of the answer.
    pub ttft: Duration,
    /// Time per token after the first.
    pub tpot: Duration,
}

impl Served {
    /// Whether both targets were met.
    pub fn is_attained(&self) -> bool {
        let slo = SLOS[self.slo.min(SLOS.len() - 1)];
        self.ttft <= slo.ttft && self.tpot <= slo.tpot
    }
}

/// Sends all and waits for the answers.
///
/// # Errors
/// The first request without a complete answer.
pub(super) fn send(client: &Client, tag: &str, arrivals: &[Arrival]) -> io::Result<Vec<Served>> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(arrivals.len()));
    let failure = Mutex::new(None);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS.min(arrivals.len()) {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(arrival) = arrivals.get(n) else { return };
                    std::thread::sleep(arrival.at.saturating_sub(start.elapsed()));
                    let id = format!("{tag}-{n}");
                    // No thread panics while it holds a lock.
                    match one(client, &id, arrival) {
                        Ok(served) => {
                            if let Ok(mut done) = done.lock() {
                                done.push(served);
                            }
                        }
                        Err(error) => {
                            if let Ok(mut failure) = failure.lock() {
                                failure.get_or_insert(format!("{id}: {error}"));
                            }
                        }
                    }
                }
            });
        }
    });
    match failure.into_inner() {
        Ok(Some(failure)) => Err(io::Error::other(failure)),
        _ => Ok(done.into_inner().unwrap_or_default()),
    }
}

fn one(client: &Client, id: &str, arrival: &Arrival) -> io::Result<Served> {
    let slo = SLOS[arrival.slo];
    let body = serde_json::json!({
        "model": "random", "stream": true, "max_tokens": arrival.tokens, "ignore_eos": true,
        "stream_options": {"include_usage": true},
        "prompt": format!("{:016x} {}", arrival.salt, "word ".repeat(arrival.prompt_words)),
    });
    let (ttft, tpot) = (slo.ttft.as_millis().to_string(), slo.tpot.as_millis().to_string());
    let headers = [
        ("x-request-id", id),
        ("x-llm-d-slo-ttft-ms", ttft.as_str()),
        ("x-llm-d-slo-tpot-ms", tpot.as_str()),
    ];
    let body = body.to_string();
    let sent = Instant::now();
    let mut answer = client.post_streaming("/v1/completions", &headers, body.as_bytes())?;
    let pod = answer.headers.get("x-inference-pod").and_then(|pod| pod.to_str().ok());
    let pod = pod.unwrap_or_default().to_owned();
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    let (mut first, mut last) = (None, sent);
    loop {
        let len = answer.read(&mut piece)?;
        if len == 0 {
            break;
        }
        text.extend_from_slice(&piece[..len]);
        last = Instant::now();
        first.get_or_insert(last);
    }
    let status = answer.status;
    let complete = status == 200 && text.ends_with(b"data: [DONE]\n\n");
    let Some(first) = first.filter(|_| complete) else {
        let text = String::from_utf8_lossy(&text).into_owned();
        return Err(io::Error::other(format!("status {status}: {text}")));
    };
    let later = u32::try_from(arrival.tokens).unwrap_or(1).saturating_sub(1).max(1);
    Ok(Served { slo: arrival.slo, pod, ttft: first - sent, tpot: (last - first) / later })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_follow_from_the_seed_and_have_the_rate() {
        let arrivals = draw(2_000, 100.0, 7);
        assert_eq!(arrivals, draw(2_000, 100.0, 7));
        assert_ne!(arrivals, draw(2_000, 100.0, 8));
        let seconds = arrivals[1_999].at.as_secs_f64();
        assert!((18.0..22.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn both_targets_have_to_be_met() {
        let ms = Duration::from_millis;
        let served = |slo, ttft, tpot| Served { slo, pod: String::new(), ttft, tpot };
        assert!(served(0, ms(300), ms(14)).is_attained());
        assert!(!served(0, ms(301), ms(1)).is_attained());
        assert!(!served(0, ms(1), ms(15)).is_attained());
        assert!(served(1, ms(301), ms(15)).is_attained());
    }
}

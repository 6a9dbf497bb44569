//! Families of tokenizing.

use inlane_text::tokens::{PromptError, Tokenized};
use prometheus::{Histogram, IntCounter, IntGauge};

use super::make::Maker;
use crate::runtime::tokens::Missed;

/// From the asking to the tokens, in seconds.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
    2.5, 5.0, 10.0, 30.0,
];

/// What is counted about tokenizing.
#[derive(Debug)]
pub struct TokenFamilies {
    /// How long requests were held for their tokens.
    pub seconds: Histogram,
    failures: Vec<(&'static str, IntCounter)>,
    tokens: IntCounter,
    bytes: IntCounter,
    cached_bytes: IntCounter,
    /// Requests that wait for a thread.
    pub queue: IntGauge,
    /// Models that can be tokenized for.
    pub models: IntGauge,
}

impl TokenFamilies {
    pub(super) fn new(m: &Maker) -> prometheus::Result<Self> {
        let failures = m.counters(
            "inlane_tokenize_failures_total",
            "Requests decided on without the tokens that the configuration wants, by reason.",
            &["reason"],
        )?;
        let reasons = PromptError::REASONS.into_iter().chain(Missed::REASONS);
        Ok(Self {
            seconds: m.histogram(
                "inlane_tokenize_duration_seconds",
                "Time that requests were held for the tokens of their prompts in seconds.",
                SECONDS,
            )?,
            failures: reasons.map(|r| (r, failures.with_label_values(&[r]))).collect(),
            tokens: m.counter("inlane_tokenize_tokens_total", "Tokens of prompts.")?,
            bytes: m.counter("inlane_tokenize_text_bytes_total", "Bytes of text of prompts.")?,
            cached_bytes: m.counter(
                "inlane_tokenize_cache_hit_bytes_total",
                "Bytes of text of prompts whose tokens were known from an earlier prompt.",
            )?,
            queue: m.gauge(
                "inlane_tokenize_queue_length",
                "Requests that wait for a thread that tokenizes.",
            )?,
            models: m.gauge("inlane_tokenize_models", "Models whose tokenizer is loaded.")?,
        })
    }

    /// Counts a request without tokens.
    pub fn failed(&self, reason: &str) {
        let counter = self.failures.iter().find(|(known, _)| *known == reason);
        if let Some((_, counter)) = counter {
            counter.inc();
        }
    }

    /// Counts the tokens of a request.
    pub fn tokenized(&self, tokens: &Tokenized) {
        self.tokens.inc_by(tokens.prompts.iter().map(|ids| ids.len() as u64).sum());
        self.bytes.inc_by(tokens.work.bytes);
        self.cached_bytes.inc_by(tokens.work.cached);
    }
}

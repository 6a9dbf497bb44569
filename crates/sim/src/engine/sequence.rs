//! A job inside the engine.

use std::{
    ops::{Deref, DerefMut, Range},
    sync::Arc,
    time::Instant,
};

use super::{
    cache::BlockId,
    events::{Event, Stored},
    job::{Job, Listener},
};
use crate::metrics::stats::{Counter, Distribution, Stats};

/// A job and how far it has come.
#[derive(Debug)]
pub(super) struct Sequence<L> {
    pub(super) job: Job<L>,
    /// Its blocks; empty while it waits.
    pub(super) table: Vec<BlockId>,
    /// Tokens of the answer that have appeared.
    pub(super) produced: usize,
    /// Tokens that appear when the timer fires.
    pub(super) pending: usize,
    /// Number of its timer; older ones in the heap are outdated.
    pub(super) timer: u32,
    pub(super) preemptions: u32,
    /// Prompt tokens found in the cache at the first start.
    pub(super) cached: usize,
    pub(super) arrived: Instant,
    pub(super) started: Option<Instant>,
    pub(super) first_token: Option<Instant>,
}

impl<L: Listener> Sequence<L> {
    pub(super) fn new(job: Job<L>, arrived: Instant) -> Self {
        Self {
            job,
            table: Vec::new(),
            produced: 0,
            pending: 0,
            timer: 0,
            preemptions: 0,
            cached: 0,
            arrived,
            started: None,
            first_token: None,
        }
    }

    /// Tokens that must be in blocks before the next one can appear.
    pub(super) fn computed_tokens(&self) -> usize {
        self.prompt.len() + self.produced
    }

    /// The token at a position of the prompt and its answer.
    pub(super) fn token(&self, at: usize) -> u32 {
        token(&self.job, at)
    }

    /// Continues the chain of keys to `blocks` blocks of `size` tokens.
    pub(super) fn extend_chain(&mut self, blocks: usize, size: usize) {
        let mut chain = std::mem::take(&mut self.job.chain);
        chain.extend(blocks, size, |at| token(&self.job, at));
        self.job.chain = chain;
    }

    /// The event that tells of these blocks of `size` tokens; none if there is none.
    pub(super) fn stored(&self, blocks: Range<usize>, size: usize) -> Option<Event> {
        let keys = self.chain.keys().get(blocks.clone()).filter(|keys| !keys.is_empty())?;
        Some(Event::Stored(Stored {
            parent: blocks.start.checked_sub(1).map(|before| self.chain.keys()[before]),
            keys: keys.to_vec(),
            digests: self.chain.digests().get(blocks.clone()).unwrap_or_default().to_vec(),
            tokens: (blocks.start * size..blocks.end * size).map(|at| self.token(at)).collect(),
            origin: Arc::clone(&self.origin),
        }))
    }

    /// Whether the request wants no answer because too little is cached.
    pub(super) fn below_threshold(&self, cached: usize) -> bool {
        let share =
            if self.prompt.is_empty() { 0.0 } else { cached as f64 / self.prompt.len() as f64 };
        self.cache_threshold.is_some_and(|threshold| share < threshold)
    }

    /// Counts what is known when the first token appears.
    pub(super) fn count_prefill(&self, stats: &mut Stats, at: Instant) {
        let prompt = self.prompt.len();
        let computed = prompt - self.cached.min(prompt);
        stats.add(Counter::PromptTokens, prompt);
        stats.add(Counter::PromptTokensCached, self.cached);
        let source = if self.remote_prefill {
            Counter::PromptTokensTransferred
        } else {
            Counter::PromptTokensComputed
        };
        stats.add(source, computed);
        stats[Distribution::PrefillComputed].observe(computed as f64);
        stats[Distribution::FirstToken].observe(seconds(self.arrived, at));
    }

    /// Counts what is known at the end.
    pub(super) fn count_end(&self, stats: &mut Stats, at: Instant) {
        let started = self.started.unwrap_or(at);
        let first = self.first_token.unwrap_or(at);
        let mut observe = |name: Distribution, value: f64| stats[name].observe(value);
        observe(Distribution::PromptTokens, self.prompt.len() as f64);
        observe(Distribution::GenerationTokens, self.produced as f64);
        observe(Distribution::MaxGenerationTokens, self.produced as f64);
        observe(Distribution::ParamsN, self.choices as f64);
        if let Some(max_tokens) = self.max_tokens {
            observe(Distribution::ParamsMaxTokens, max_tokens as f64);
        }
        observe(Distribution::EndToEnd, seconds(self.arrived, at));
        observe(Distribution::Queue, seconds(self.arrived, started));
        observe(Distribution::Inference, seconds(started, at));
        observe(Distribution::Prefill, seconds(started, first));
        observe(Distribution::Decode, seconds(first, at));
        if self.produced > 1 {
            let mean = seconds(first, at) / (self.produced - 1) as f64;
            observe(Distribution::PerOutputToken, mean);
        }
        observe(Distribution::Preemptions, f64::from(self.preemptions));
    }
}

impl<L> Deref for Sequence<L> {
    type Target = Job<L>;

    fn deref(&self) -> &Job<L> {
        &self.job
    }
}

impl<L> DerefMut for Sequence<L> {
    fn deref_mut(&mut self) -> &mut Job<L> {
        &mut self.job
    }
}

fn token<L>(job: &Job<L>, at: usize) -> u32 {
    match at.checked_sub(job.prompt.len()) {
        None => job.prompt[at],
        Some(generated) => job.reply.ids()[generated],
    }
}

fn seconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64()
}

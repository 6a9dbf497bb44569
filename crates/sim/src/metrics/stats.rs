//! What a pod counts: one array of counters, one of histograms, indexed by name.
//!
//! The engine writes them, [`page`](super::page) reads them. Times are in seconds.

use std::{
    ops::{Index, IndexMut},
    sync::Arc,
};

use super::histogram::Histogram;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// How many there are.
            pub const COUNT: usize = [$(Self::$variant),*].len();
        }
    };
}

names! {
    /// Names of counters.
    Counter {
        /// Requests finished because the client went away.
        FinishedAbort,
        /// Requests finished at their token limit.
        FinishedLength,
        /// Requests finished by themselves.
        FinishedStop,
        /// Generated tokens.
        GenerationTokens,
        /// Evictions of a running request for lack of blocks.
        Preemptions,
        /// Prompt tokens looked up in the block cache.
        PrefixHits,
        /// Those of them that were found.
        PrefixQueries,
        /// Prompt tokens, counted when their prefill ends.
        PromptTokens,
        /// Prompt tokens found in the block cache.
        PromptTokensCached,
        /// Prompt tokens computed here.
        PromptTokensComputed,
        /// Prompt tokens whose blocks came from another pod.
        PromptTokensTransferred,
        /// Requests refused because the waiting queue was full.
        RejectedQueueFull,
    }
}

names! {
    /// Names of histograms.
    Distribution {
        /// Time between two tokens after the first.
        Decode,
        /// From arrival to the last token.
        EndToEnd,
        /// From arrival to the first token.
        FirstToken,
        /// Generated tokens per request.
        GenerationTokens,
        /// From the first start to the last token.
        Inference,
        /// Between consecutive tokens.
        InterToken,
        /// Tokens processed per engine step.
        IterationTokens,
        /// Largest number of tokens generated for one choice.
        MaxGenerationTokens,
        /// The request's token limit.
        ParamsMaxTokens,
        /// The request's number of choices.
        ParamsN,
        /// Mean time per token after the first, per request.
        PerOutputToken,
        /// How often a request was preempted.
        Preemptions,
        /// From the first start to the first token.
        Prefill,
        /// Prompt tokens per request that the cache did not have.
        PrefillComputed,
        /// Prompt tokens per request.
        PromptTokens,
        /// From arrival to the first start.
        Queue,
    }
}

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct Stats {
    counters: [u64; Counter::COUNT],
    distributions: [Histogram; Distribution::COUNT],
}

impl Stats {
    /// All zero; token histograms reach up to `max_model_len`.
    pub fn new(max_model_len: usize) -> Self {
        let tokens = one_two_five(max_model_len);
        let between: Arc<[f64]> = BETWEEN.into();
        let latency: Arc<[f64]> = LATENCY.into();
        let mut distributions = std::array::from_fn(|_| Histogram::new(Arc::clone(&tokens)));
        let mut set = |name: Distribution, bounds: &Arc<[f64]>| {
            distributions[name as usize] = Histogram::new(Arc::clone(bounds));
        };
        set(Distribution::FirstToken, &TTFT.into());
        set(Distribution::InterToken, &between);
        set(Distribution::PerOutputToken, &between);
        set(Distribution::Decode, &latency);
        set(Distribution::EndToEnd, &latency);
        set(Distribution::Inference, &latency);
        set(Distribution::Prefill, &latency);
        set(Distribution::Queue, &latency);
        set(Distribution::IterationTokens, &ITERATION.into());
        set(Distribution::ParamsN, &[1.0, 2.0, 5.0, 10.0, 20.0].into());
        set(Distribution::Preemptions, &[1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0].into());
        Self { counters: [0; Counter::COUNT], distributions }
    }

    /// Adds `amount` to a counter.
    pub fn add(&mut self, counter: Counter, amount: usize) {
        self.counters[counter as usize] += amount as u64;
    }
}

impl Index<Counter> for Stats {
    type Output = u64;

    fn index(&self, counter: Counter) -> &u64 {
        &self.counters[counter as usize]
    }
}

impl Index<Distribution> for Stats {
    type Output = Histogram;

    fn index(&self, distribution: Distribution) -> &Histogram {
        &self.distributions[distribution as usize]
    }
}

impl IndexMut<Distribution> for Stats {
    fn index_mut(&mut self, distribution: Distribution) -> &mut Histogram {
        &mut self.distributions[distribution as usize]
    }
}

/// 1, 2, 5, 10, 20, 50, … up to `limit`.
fn one_two_five(limit: usize) -> Arc<[f64]> {
    let decades = (0..).map(|exponent| 10_f64.powi(exponent));
    decades
        .flat_map(|decade| [1.0, 2.0, 5.0].map(|mantissa| mantissa * decade))
        .take_while(|bound| *bound <= limit as f64)
        .collect()
}

const TTFT: [f64; 22] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
];
const BETWEEN: [f64; 19] = [
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0,
    40.0, 80.0,
];
const LATENCY: [f64; 21] = [
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
    480.0, 960.0, 1920.0, 7680.0,
];
const ITERATION: [f64; 13] =
    [1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0];

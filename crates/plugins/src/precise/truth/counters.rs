//! The truth check by an engine's own counters, for those that report no cached tokens.
//!
//! vLLM says how much of a prompt it found only if it was started with `--enable-prompt-tokens-details`.
//! But it counts, over everything that it serves, the prompt tokens that it looked up in its prefix
//! cache and those that it found, and the control plane scrapes both ([`CacheCounters`]). They are held
//! against what was predicted of the requests that this proxy sent.
//!
//! # Why the comparison is sound
//!
//! Counters know neither requests nor senders, so that nothing is concluded from an equality. A
//! *window* begins with a reading of the counters. A request counts in it if it was decided on after
//! that, was answered in full before the sums are noted, and the counters are read again at least
//! [`SCRAPE_MS`] later: then all that the engine counted of it lies between the two readings. What
//! else lies there is not known: requests still running or begun before, those that failed, answer
//! several prompts or have another pod compute theirs, what was computed again after a preemption,
//! and what other gateways send. So of the growth of the counters, `queries` and `hits`, our requests,
//! which have `prompt` tokens, were found to have
//!
//! ```text
//! at most   hits                          at least   hits - (queries - prompt)
//! ```
//!
//! cached: everything else may have missed, or been found in whole. A prediction is refuted where even
//! the former is less than half of it, and a hit was missed where even the latter is more than twice
//! what was predicted. Traffic of others hides a disagreement; it never makes one.
//!
//! Counters that grow by much less than what was sent count something else (blocks, as in 2025, or
//! one of several server processes), and say nothing.
//!
//! A window is judged again and again while it grows. It ends with a verdict, after a minute
//! if it had enough to say, after [`LONGEST_MS`] otherwise, and when the engine starts anew.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use inlane_core::snapshot::{CacheCounters, MetricsRow};

use super::{SAMPLE_TOKENS, SAMPLES};

/// A page is asked for this long at most, in ms: one that arrives later was begun later.
const SCRAPE_MS: u64 = 1_000;
/// A window with enough predictions ends after so many ms, so that what was right hides nothing for
/// long that has become wrong.
const SHORTEST_MS: u64 = 60_000;
/// One without ends after so many.
const LONGEST_MS: u64 = 600_000;
/// Numbers of windows go round, so that they stay exact in an `f32`.
const NUMBERS: u64 = 1 << 20;

/// What is known of one request that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::precise) struct Served {
    /// Number of the window in which it was decided on.
    pub(in crate::precise) window: u64,
    /// Tokens that the endpoint should have found, at least.
    pub(in crate::precise) at_least: u64,
    /// Tokens that it may have found, as far as the index knows.
    pub(in crate::precise) at_most: u64,
    /// Tokens of the prompt.
    pub(in crate::precise) prompt: u64,
}

/// Sums over the requests of one endpoint that counted in a window. Only ever grow.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Number of the present window.
    window: AtomicU64,
    requests: AtomicU64,
    /// Requests of which something was predicted.
    predictions: AtomicU64,
    prompt: AtomicU64,
    at_least: AtomicU64,
    at_most: AtomicU64,
}

impl Tally {
    /// Number of the present window.
    pub(super) fn window(&self) -> u64 {
        self.window.load(Relaxed) % NUMBERS
    }

    /// Counts a request that was decided on in the present window. One that ends while the next one
    /// begins may count there.
    pub(super) fn add(&self, served: Served) {
        if served.window != self.window() {
            return;
        }
        // The engine computes the last token in any case.
        let at_least = served.at_least.min(served.prompt.saturating_sub(1));
        let add = |sum: &AtomicU64, value: u64| sum.fetch_add(value, Relaxed);
        add(&self.requests, 1);
        add(&self.predictions, u64::from(at_least >= SAMPLE_TOKENS));
        add(&self.prompt, served.prompt);
        add(&self.at_least, at_least);
        add(&self.at_most, served.at_most);
    }

    pub(super) fn sums(&self) -> Sums {
        Sums {
            requests: self.requests.load(Relaxed),
            predictions: self.predictions.load(Relaxed),
            prompt: self.prompt.load(Relaxed),
            at_least: self.at_least.load(Relaxed),
            at_most: self.at_most.load(Relaxed),
        }
    }

    /// Another endpoint is counted from now on.
    pub(super) fn clear(&self) {
        for sum in [&self.requests, &self.predictions, &self.prompt, &self.at_least, &self.at_most]
        {
            sum.store(0, Relaxed);
        }
    }
}

/// A reading of a [`Tally`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    pub(super) requests: u64,
    pub(super) predictions: u64,
    pub(super) prompt: u64,
    pub(super) at_least: u64,
    pub(super) at_most: u64,
}

impl Sums {
    fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            predictions: self.predictions.saturating_sub(before.predictions),
            prompt: self.prompt.saturating_sub(before.prompt),
            at_least: self.at_least.saturating_sub(before.at_least),
            at_most: self.at_most.saturating_sub(before.at_most),
        }
    }
}

/// How counters and predictions disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disagreement {
    /// The engine found less than half of what was predicted.
    Refuted {
        /// Requests.
        requests: u64,
        /// Tokens predicted, at least.
        predicted: u64,
        /// Tokens found, at most.
        found: u64,
    },
    /// The engine found more than twice of what was predicted.
    Missed {
        /// Requests.
        requests: u64,
        /// Tokens predicted, at most.
        predicted: u64,
        /// Tokens found, at least.
        found: u64,
    },
}

/// What requests with these sums and counters that grew by `counted` meanwhile say together.
fn weigh(sent: Sums, counted: CacheCounters) -> Option<Disagreement> {
    let Sums { requests, predictions, prompt, at_least, at_most } = sent;
    if counted.queries.saturating_mul(5) < prompt.saturating_mul(4) {
        return None;
    }
    if predictions >= SAMPLES && counted.hits.saturating_mul(2) < at_least {
        return Some(Disagreement::Refuted { requests, predicted: at_least, found: counted.hits });
    }
    let others = counted.queries.saturating_sub(prompt);
    let found = counted.hits.saturating_sub(others);
    let missed = requests >= SAMPLES
        && found >= SAMPLES * SAMPLE_TOKENS
        && at_most.saturating_mul(2) < found;
    missed.then_some(Disagreement::Missed { requests, predicted: at_most, found })
}

/// The window of one endpoint, as the thread that judges remembers it.
#[derive(Debug, Default)]
pub(super) struct Window {
    began: Option<Began>,
    /// What the counters said the last time.
    last: CacheCounters,
    /// Sums that wait for counters that cover them, and when they were noted.
    noted: Option<(u64, Sums)>,
}

#[derive(Debug, Clone, Copy)]
struct Began {
    at_ms: u64,
    counters: CacheCounters,
    sums: Sums,
}

impl Window {
    /// What the counters said the last time.
    pub(super) fn counters(&self) -> CacheCounters {
        self.last
    }

    /// Compares what the engine has counted with what was sent to it, as far as there is anything to
    /// compare.
    pub(super) fn look(
        &mut self,
        tally: &Tally,
        row: &MetricsRow,
        now_ms: u64,
    ) -> Option<Disagreement> {
        let (before, now) = (self.last, row.cache);
        self.last = now;
        let anew = now.queries < before.queries || now.hits < before.hits;
        let Some(began) = self.began.filter(|_| !anew) else {
            self.begin(tally, now_ms);
            return None;
        };
        let Some((noted_ms, sums)) = self.noted else {
            self.noted = Some((now_ms, tally.sums()));
            return None;
        };
        if row.scraped_at_ms < noted_ms + SCRAPE_MS {
            return None;
        }
        let sent = sums.since(began.sums);
        let counted = CacheCounters {
            queries: now.queries.saturating_sub(began.counters.queries),
            hits: now.hits.saturating_sub(began.counters.hits),
        };
        self.noted = Some((now_ms, tally.sums()));
        let age_ms = now_ms.saturating_sub(began.at_ms);
        let enough = age_ms >= SHORTEST_MS && sent.predictions >= SAMPLES;
        if enough || age_ms >= LONGEST_MS {
            self.begin(tally, now_ms);
        }
        weigh(sent, counted)
    }

    /// Begins a window with what the counters said the last time, if they said anything.
    pub(super) fn begin(&mut self, tally: &Tally, now_ms: u64) {
        self.noted = None;
        self.began = None;
        if self.last.queries > 0 {
            // The counters were read before: what is decided on from here on comes after that.
            tally.window.fetch_add(1, Relaxed);
            let (counters, sums) = (self.last, tally.sums());
            self.began = Some(Began { at_ms: now_ms, counters, sums });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An engine whose counters are scraped all the time, and a proxy that sends to it.
    #[derive(Default)]
    struct World {
        tally: Tally,
        window: Window,
        engine: CacheCounters,
        now_ms: u64,
    }

    impl World {
        /// One whose window has begun.
        fn new() -> Self {
            // As recorded of vLLM 0.32 after some requests.
            let engine = CacheCounters { queries: 5_077, hits: 1_600 };
            let mut world = Self { engine, now_ms: 100_000, ..Self::default() };
            assert_eq!(world.pass(), None);
            assert_eq!(world.tally.window(), 1);
            world
        }

        fn count(&mut self, queries: u64, hits: u64) {
            self.engine.queries += queries;
            self.engine.hits += hits;
        }

        /// A request of 1,000 tokens that is answered at once.
        fn send(&mut self, predicted: u64, found: u64) {
            let window = self.tally.window();
            self.count(1_000, found);
            self.tally.add(Served {
                window,
                at_least: predicted,
                at_most: predicted,
                prompt: 1_000,
            });
        }

        /// Looks 5 s later, at counters that were read just before.
        fn pass(&mut self) -> Option<Disagreement> {
            self.now_ms += 5_000;
            let scraped_at_ms = self.now_ms - 50;
            let row = MetricsRow { cache: self.engine, scraped_at_ms, ..MetricsRow::default() };
            self.window.look(&self.tally, &row, self.now_ms)
        }

        /// Looks until what was sent has been compared.
        fn settle(&mut self) -> Option<Disagreement> {
            self.pass();
            self.pass()
        }
    }

    #[test]
    fn counters_that_grow_as_predicted_say_nothing() {
        let mut world = World::new();
        for round in 0..40 {
            (0..10).for_each(|_| world.send(512, 512));
            (0..10).for_each(|_| world.send(0, 0));
            assert_eq!(world.pass(), None, "{round}");
        }
        assert!(world.tally.window() > 3, "a new one every minute");
    }

    #[test]
    fn hits_that_do_not_come_refute() {
        let mut world = World::new();
        (0..15).for_each(|_| world.send(512, 16));
        assert_eq!(world.settle(), None, "one short");
        world.send(512, 16);
        let refuted = Disagreement::Refuted { requests: 16, predicted: 8_192, found: 256 };
        assert_eq!(world.settle(), Some(refuted));
    }

    #[test]
    fn hits_that_were_not_predicted_are_missed() {
        let mut world = World::new();
        (0..16).for_each(|_| world.send(0, 512));
        let missed = Disagreement::Missed { requests: 16, predicted: 0, found: 8_192 };
        assert_eq!(world.settle(), Some(missed));
    }

    #[test]
    fn others_hide_a_disagreement_and_never_make_one() {
        // They find much: what we predict in vain looks found.
        let mut world = World::new();
        (0..16).for_each(|_| world.send(512, 0));
        world.count(20_000, 9_000);
        assert_eq!(world.settle(), None);
        // They find nothing: what we predict is there all the same.
        let mut world = World::new();
        (0..16).for_each(|_| world.send(512, 512));
        world.count(1_000_000, 0);
        assert_eq!(world.settle(), None);
        // They find all: what we do not predict is not ours.
        let mut world = World::new();
        (0..16).for_each(|_| world.send(0, 0));
        world.count(1_000_000, 1_000_000);
        assert_eq!(world.settle(), None);
        // Some traffic of others leaves enough.
        let mut world = World::new();
        (0..16).for_each(|_| world.send(0, 800));
        world.count(4_000, 4_000);
        let missed = Disagreement::Missed { requests: 16, predicted: 0, found: 12_800 };
        assert_eq!(world.settle(), Some(missed));
    }

    #[test]
    fn requests_across_the_edge_of_a_window_do_not_count() {
        let mut world = World::new();
        let before = world.tally.window();
        // Computed in this window, answered in the next one.
        (0..100).for_each(|_| world.count(1_000, 900));
        world.window.begin(&world.tally, world.now_ms);
        world.pass();
        let late = Served { window: before, at_least: 900, at_most: 900, prompt: 1_000 };
        (0..100).for_each(|_| world.tally.add(late));
        assert_eq!(world.tally.sums(), Sums::default());
        assert_eq!(world.settle(), None);
    }

    #[test]
    fn sums_wait_for_counters_that_cover_them() {
        let mut world = World::new();
        (0..16).for_each(|_| world.send(512, 0));
        world.pass();
        let cache = world.engine;
        for age_ms in [5_000, 4_100] {
            let scraped_at_ms = world.now_ms + 5_000 - age_ms;
            let row = MetricsRow { cache, scraped_at_ms, ..MetricsRow::default() };
            assert_eq!(world.window.look(&world.tally, &row, world.now_ms + 5_000), None);
        }
        assert!(world.pass().is_some());
    }

    #[test]
    fn an_engine_that_starts_anew_begins_a_window() {
        let mut world = World::new();
        (0..100).for_each(|_| world.send(512, 512));
        world.engine = CacheCounters { queries: 3_000, hits: 0 };
        let before = world.tally.window();
        assert_eq!(world.pass(), None);
        assert_eq!(world.tally.window(), before + 1);
        (0..16).for_each(|_| world.send(512, 512));
        assert_eq!(world.settle(), None);
    }

    #[test]
    fn counters_of_something_else_say_nothing() {
        let mut world = World::new();
        for _ in 0..100 {
            world.send(512, 512);
            // In blocks of 16.
            world.engine.queries -= 1_000 - 1_000 / 16;
            world.engine.hits -= 512 - 512 / 16;
        }
        assert_eq!(world.settle(), None);
        // An engine that says nothing has no windows.
        let mut world = World { now_ms: 1, ..World::default() };
        assert_eq!((world.pass(), world.tally.window()), (None, 0));
    }

    #[test]
    fn what_was_right_hides_nothing_for_long() {
        let mut world = World::new();
        for _ in 0..12 {
            (0..100).for_each(|_| world.send(512, 512));
            assert_eq!(world.pass(), None);
        }
        let turned_ms = world.now_ms;
        let refuted = (0..40).find_map(|_| {
            (0..100).for_each(|_| world.send(512, 0));
            world.pass()
        });
        assert!(matches!(refuted, Some(Disagreement::Refuted { .. })), "{refuted:?}");
        assert!(world.now_ms - turned_ms <= 60_000, "{} ms", world.now_ms - turned_ms);
    }

    #[test]
    fn the_last_token_is_not_demanded() {
        let tally = Tally::default();
        tally.add(Served { window: 0, at_least: 128, at_most: 128, prompt: 128 });
        assert_eq!(tally.sums().at_least, 127);
    }
}

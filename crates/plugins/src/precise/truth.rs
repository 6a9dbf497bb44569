//! The truth check: what the index predicted against what the engine reports.
//!
//! An engine says at the end of a response how many tokens of the prompt it found in its cache. The
//! index has credited the endpoint with some. Where the two disagree again and again, something is
//! wrong that shows nowhere else: a wrong match costs nothing but time, and no match at all looks like
//! cold caches.
//!
//! * The index **predicts hits that the engine does not confirm**: the endpoint's events lie, or are
//!   another's. Its matches count for nothing for [`COOL_DOWN_MS`], then it is tried again.
//! * The engine **reports hits that the index does not predict**: events do not arrive, or keys are
//!   made differently on the two sides. That is said, with what is most likely the cause.
//! * **Prompts that were sent before are never found anywhere**: the same, for engines that report
//!   nothing.
//!
//! # What counts
//!
//! Per response, in tokens: the prediction is at least the longest run of blocks that one tier of the
//! endpoint holds (what is only expected left out), at most all blocks found from the first on. The
//! engine computes at least the last token itself, so nothing beyond the others is demanded. A
//! prediction of [`SAMPLE_TOKENS`] or more is *refuted* by a report of less than half of it; a
//! report of as many is *missed* by a prediction of less than half. [`SAMPLES`] of one kind within
//! some minutes, four in five of them bad, make a verdict. Responses that failed or were aborted, that a retry
//! served elsewhere, whose prompt another endpoint computed (a prefill leg), or that answer several
//! prompts, of which vLLM reports one, say nothing.
//!
//! Some versions of vLLM leave the number out where it is 0. So an endpoint that has never reported any
//! is not judged by its silence, but by its counters.
//!
//! Engines that report nothing at all are held against their own counters (`counters`).
//!
//! Workers count into atomics; the owner thread judges (`Truth::pass`). A decision costs one load
//! per endpoint that the index credits.

mod cells;
pub(super) mod counters;
mod report;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use inlane_core::endpoint::{EndpointSet, Slot};
use inlane_core::snapshot::MetricsRow;

use self::cells::{Cell, Cells, Counts};
use self::counters::{Disagreement, Served, Window};
use super::repeats::Repeats;

/// Tokens from which on a prediction or a report says something.
pub const SAMPLE_TOKENS: u64 = 64;
/// Predictions, or reports, that make a verdict.
pub const SAMPLES: u64 = 16;
/// How long an endpoint is distrusted, in ms.
pub const COOL_DOWN_MS: u64 = 60_000;
/// How often to judge, in ms: verdicts are about minutes.
pub const JUDGED_EVERY_MS: u64 = 5_000;
/// What was counted is halved this often, in ms.
const HALVED_EVERY_MS: u64 = 60_000;
/// The same thing is said again after this many ms.
const SAID_AGAIN_MS: u64 = 600_000;
/// Endpoints that can be judged.
const SLOTS: usize = 16_384;

/// What one response had to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Tokens that the endpoint should have found, at least.
    pub(super) at_least: u64,
    /// Tokens that it may have found, as far as the index knows.
    pub(super) at_most: u64,
    /// Tokens of the prompt, as the engine counts them.
    pub(super) prompt: u64,
    /// Tokens that the engine says it found.
    pub(super) reported: Option<u64>,
}

/// What the owner thread remembers of an endpoint between two looks.
#[derive(Debug, Default)]
struct Judged {
    slot: Option<Slot>,
    /// Counts before what is judged.
    base: Counts,
    window: Window,
    halved_ms: u64,
    distrusted_until_ms: Option<u64>,
    said_ms: Option<u64>,
}

/// What is known of the index, for the cause of misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// There is no index that is written with the producer's parameters.
    NoIndex,
    /// The index holds so many blocks of the endpoint, or of all of them.
    Blocks(u64),
}

/// Counts of one producer, and its verdicts.
#[derive(Debug, Default)]
pub struct Truth {
    cells: Cells,
    repeats: Repeats,
    owner: Mutex<Owner>,
    verdicts: [AtomicU64; 3],
}

#[derive(Debug, Default)]
struct Owner {
    /// The endpoints of the last look, for metrics.
    endpoints: Vec<(String, Slot)>,
    judged: HashMap<u32, Judged>,
    repeats_said_ms: Option<u64>,
}

const REFUTED: usize = 0;
const MISSED: usize = 1;
const NEVER_FOUND: usize = 2;

impl Truth {
    /// Counts what a response had to say of the endpoint in `slot`.
    pub(super) fn count(&self, slot: Slot, sample: Sample) {
        let Some(cell) = self.cells.make(slot) else { return };
        let add = |count: &AtomicU64, value: u64| count.fetch_add(value, Relaxed);
        let reported = match sample.reported {
            Some(reported) => {
                cell.has_reported.store(true, Relaxed);
                reported
            }
            None if cell.has_reported.load(Relaxed) => 0,
            None => {
                add(&cell.silent, 1);
                return;
            }
        };
        let computed = sample.prompt.saturating_sub(1);
        let at_least = sample.at_least.min(computed);
        add(&cell.predicted_tokens, at_least);
        add(&cell.reported_tokens, reported);
        if at_least >= SAMPLE_TOKENS {
            add(&cell.predictions, 1);
            add(&cell.refuted, u64::from(reported * 2 < at_least));
        }
        if reported >= SAMPLE_TOKENS {
            add(&cell.reports, 1);
            add(&cell.missed, u64::from(sample.at_most.saturating_mul(2) < reported));
        }
    }

    /// The window of the endpoint in `slot` in which a request is decided on now.
    pub(super) fn window(&self, slot: Slot) -> u64 {
        self.cells.get(slot).map_or(0, |cell| cell.tally.window())
    }

    /// Counts a request that the endpoint in `slot` answered in full, to hold it against the engine's
    /// counters.
    pub(super) fn served(&self, slot: Slot, served: Served) {
        if let Some(cell) = self.cells.make(slot) {
            cell.tally.add(served);
        }
    }

    /// Whether what the index says of this endpoint is not to be believed for now.
    pub(super) fn distrusts(&self, slot: Slot) -> bool {
        self.cells.get(slot).is_some_and(|cell| cell.distrusted.load(Relaxed))
    }

    /// Notes that a prompt was looked up whose front has this key, and whether anybody had it.
    pub(super) fn looked_up(&self, front: u64, found: bool, now_ms: u64) {
        self.repeats.note(front, found, now_ms);
    }

    /// Judges what was counted; returns what should be said of it. `known` tells what the index
    /// knows of a slot, or with `None` of all of them; `row` what was scraped. For the owner thread, every [`JUDGED_EVERY_MS`].
    pub(super) fn pass(
        &self,
        now_ms: u64,
        endpoints: &EndpointSet,
        known: impl Fn(Option<u16>) -> Known,
        row: impl Fn(Slot) -> Option<MetricsRow>,
    ) -> Vec<String> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notices = Vec::new();
        for endpoint in endpoints.as_slice() {
            let slot = endpoint.slot;
            let Some(cell) = self.cells.get(slot) else { continue };
            let judged = owner.judged.entry(slot.index).or_default();
            if judged.slot != Some(slot) {
                *judged = Judged { slot: Some(slot), halved_ms: now_ms, ..Judged::default() };
            }
            // Engines that report are held to their reports.
            let row = row(slot).filter(|_| !cell.has_reported.load(Relaxed));
            let counted = row.and_then(|row| judged.window.look(&cell.tally, &row, now_ms));
            let known = || known(u16::try_from(slot.index).ok());
            notices.extend(self.judge(&endpoint.id, cell, judged, counted, now_ms, known));
        }
        let Owner { judged, endpoints: seen, .. } = &mut *owner;
        seen.clear();
        seen.extend(endpoints.as_slice().iter().map(|e| (e.id.clone(), e.slot)));
        let live: HashSet<u32> = seen.iter().map(|(_, slot)| slot.index).collect();
        judged.retain(|index, _| live.contains(index));
        let due = owner.repeats_said_ms.is_none_or(|said| now_ms - said >= SAID_AGAIN_MS);
        if due && let Some(prompts) = self.repeats.never_found(now_ms) {
            owner.repeats_said_ms = Some(now_ms);
            self.verdicts[NEVER_FOUND].fetch_add(1, Relaxed);
            notices.push(format!(
                "{prompts} prompts began as others had before, and no endpoint was found to hold any \
                 of them: {}",
                cause(known(None), false)
            ));
        }
        notices
    }

    fn judge(
        &self,
        id: &str,
        cell: &Cell,
        judged: &mut Judged,
        counted: Option<Disagreement>,
        now_ms: u64,
        known: impl Fn() -> Known,
    ) -> Option<String> {
        let counts = cell.counts();
        let since = counts.since(judged.base);
        if let Some(until) = judged.distrusted_until_ms {
            if now_ms < until {
                return None;
            }
            judged.base = counts;
            if since.is_refuted() || matches!(counted, Some(Disagreement::Refuted { .. })) {
                judged.distrusted_until_ms = Some(now_ms + COOL_DOWN_MS);
                judged.window.begin(&cell.tally, now_ms);
                return None;
            }
            judged.distrusted_until_ms = None;
            cell.distrusted.store(false, Relaxed);
            return Some(format!("what the index says of {id} counts again"));
        }
        if now_ms.saturating_sub(judged.halved_ms) >= HALVED_EVERY_MS {
            judged.halved_ms = now_ms;
            judged.base = judged.base.halfway_to(counts);
        }
        let refuted = match counted {
            _ if since.is_refuted() => Some(format!(
                "{} of {} prompts were cached to less than half of it",
                since.refuted, since.predictions
            )),
            Some(Disagreement::Refuted { requests, predicted, found }) => Some(format!(
                "by its counters it found at most {found} of {predicted} tokens, in {requests} prompts"
            )),
            _ => None,
        };
        if let Some(refuted) = refuted {
            judged.base = counts;
            judged.window.begin(&cell.tally, now_ms);
            judged.distrusted_until_ms = Some(now_ms + COOL_DOWN_MS);
            cell.distrusted.store(true, Relaxed);
            self.verdicts[REFUTED].fetch_add(1, Relaxed);
            return Some(format!(
                "{id} does not confirm what the index predicts: {refuted}. Either its events are \
                 another server's (topic, port), or its cache is off or was emptied without saying so. \
                 Its matches count for nothing for {} s",
                COOL_DOWN_MS / 1_000
            ));
        }
        if judged.said_ms.is_some_and(|said| now_ms - said < SAID_AGAIN_MS) {
            return None;
        }
        let (missed, some_match) = match counted {
            _ if since.is_missed() => {
                (format!("{} of {}", since.missed, since.reports), since.predictions > 0)
            }
            Some(Disagreement::Missed { requests, predicted, found }) => (
                format!(
                    "by its counters at least {found} tokens of {requests} prompts, and {predicted} \
                     were predicted"
                ),
                predicted > 0,
            ),
            _ => return None,
        };
        judged.base = counts;
        judged.window.begin(&cell.tally, now_ms);
        judged.said_ms = Some(now_ms);
        self.verdicts[MISSED].fetch_add(1, Relaxed);
        Some(format!(
            "{id} finds prompts in its cache that the index does not predict, {missed}: {}",
            cause(known(), some_match)
        ))
    }
}

/// The likeliest reason for matches that should be there.
fn cause(known: Known, some_match: bool) -> &'static str {
    match (known, some_match) {
        (Known::NoIndex, _) => {
            "there is no index with the producer's parameters (tokenProcessorConfig); see the control \
             plane's log"
        }
        (Known::Blocks(0), _) => {
            "no event has arrived. Are KV events enabled (--kv-events-config), and do port and topic \
             fit (kvEventsConfig)?"
        }
        (Known::Blocks(_), true) => {
            "prompts match, but shorter than they should. Does a block of the engine hold a multiple \
             of blockSizeTokens, and is the chat template the engine's own?"
        }
        (Known::Blocks(_), false) => {
            "events arrive, but no prompt matches. Compare the tokenizer, the chat template, the model's \
             name in the topic with that in requests, and cache salts"
        }
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::exposition::Exposition;
    use inlane_core::snapshot::CacheCounters;

    use super::*;
    use crate::testing::endpoint_in;

    fn pool() -> EndpointSet {
        let endpoint =
            |index: u32| endpoint_in(Slot { index, generation: 3 }, format!("default/p{index}"));
        EndpointSet::new(1, (0..2).map(endpoint).collect())
    }

    const SLOT: Slot = Slot { index: 1, generation: 3 };

    fn sample(at_least: u64, reported: impl Into<Option<u64>>) -> Sample {
        Sample { at_least, at_most: at_least, prompt: 1_000, reported: reported.into() }
    }

    /// Passes at `second`.
    fn pass(truth: &Truth, second: u64) -> Vec<String> {
        truth.pass(second * 1_000, &pool(), |_| Known::Blocks(7), |_| None)
    }

    /// Passes at `second`, with the counters of an engine that was scraped just before.
    fn pass_with(truth: &Truth, second: u64, queries: u64, hits: u64) -> Vec<String> {
        let now_ms = second * 1_000;
        let cache = CacheCounters { queries, hits };
        let row = MetricsRow { cache, scraped_at_ms: now_ms - 50, ..MetricsRow::default() };
        truth.pass(now_ms, &pool(), |_| Known::Blocks(7), |_| Some(row))
    }

    /// Answers a request of 1,000 tokens without a word of what was cached.
    fn serve(truth: &Truth, predicted: u64) {
        let window = truth.window(SLOT);
        let served = Served { window, at_least: predicted, at_most: predicted, prompt: 1_000 };
        truth.served(SLOT, served);
        truth.count(SLOT, sample(predicted, None));
    }

    #[test]
    fn predictions_that_are_confirmed_are_believed() {
        let truth = Truth::default();
        for _ in 0..100 {
            truth.count(SLOT, sample(512, 512));
            truth.count(SLOT, sample(512, 480));
            // Less than a sample: nothing is said by it.
            truth.count(SLOT, sample(48, 0));
        }
        assert!(pass(&truth, 10).is_empty());
        assert!(!truth.distrusts(SLOT));
    }

    #[test]
    fn an_endpoint_that_does_not_confirm_is_distrusted_for_a_while() {
        let truth = Truth::default();
        truth.count(SLOT, sample(512, 512));
        for _ in 0..15 {
            truth.count(SLOT, sample(512, None));
        }
        let notices = pass(&truth, 10);
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].starts_with("default/p1 does not confirm"), "{notices:?}");
        assert!(truth.distrusts(SLOT));
        assert!(!truth.distrusts(Slot { index: 0, generation: 3 }));
        assert!(!truth.distrusts(Slot { generation: 4, ..SLOT }), "the next tenant is another");
        assert!(pass(&truth, 40).is_empty());
        assert!(truth.distrusts(SLOT));
        let again = pass(&truth, 70);
        assert_eq!(again, ["what the index says of default/p1 counts again"]);
        assert!(!truth.distrusts(SLOT));
    }

    #[test]
    fn who_goes_on_lying_stays_distrusted() {
        let truth = Truth::default();
        for round in 1..5 {
            (0..20).for_each(|_| truth.count(SLOT, sample(512, 0)));
            pass(&truth, round * 61);
            assert!(truth.distrusts(SLOT), "{round}");
        }
        (0..20).for_each(|_| truth.count(SLOT, sample(512, 512)));
        pass(&truth, 5 * 61);
        assert!(!truth.distrusts(SLOT));
    }

    #[test]
    fn silence_is_no_refutation_before_the_first_report() {
        let truth = Truth::default();
        (0..100).for_each(|_| truth.count(SLOT, sample(512, None)));
        assert!(pass(&truth, 10).is_empty());
        let mut page = Exposition::default();
        truth.collect(&mut page, "p");
        let text = page.render();
        let labels = "{plugin_name=\"p\",endpoint=\"default/p1\"}";
        assert!(text.contains(&format!("inlane_precise_unreported_total{labels} 100")), "{text}");
    }

    #[test]
    fn who_reports_nothing_is_held_against_its_counters() {
        let truth = Truth::default();
        serve(&truth, 512);
        assert!(pass_with(&truth, 10, 5_077, 1_600).is_empty());
        (0..16).for_each(|_| serve(&truth, 512));
        assert!(pass_with(&truth, 15, 21_077, 1_600).is_empty(), "not covered yet");
        let notices = pass_with(&truth, 20, 21_077, 1_600);
        let text = "default/p1 does not confirm what the index predicts: by its counters it found at \
                    most 0 of 8192 tokens, in 16 prompts. Either its events";
        assert!(notices.len() == 1 && notices[0].starts_with(text), "{notices:?}");
        assert!(truth.distrusts(SLOT));
        // It goes on, in another window.
        (0..16).for_each(|_| serve(&truth, 512));
        assert!((5..=17).all(|n| pass_with(&truth, n * 5, 37_077, 1_700).is_empty()));
        assert!(truth.distrusts(SLOT), "another minute");
        (0..16).for_each(|_| serve(&truth, 512));
        let notices: Vec<_> =
            (18..=40).flat_map(|n| pass_with(&truth, n * 5, 53_077, 9_892)).collect();
        assert_eq!(notices, ["what the index says of default/p1 counts again"]);
        assert!(!truth.distrusts(SLOT));
        let mut page = Exposition::default();
        truth.collect(&mut page, "p");
        let text = page.render();
        let labels = "{plugin_name=\"p\",endpoint=\"default/p1\"}";
        for line in [
            format!("inlane_precise_counted_prompt_tokens_total{labels} 49000"),
            format!("inlane_precise_counted_predicted_tokens_total{labels} 25088"),
            format!("inlane_precise_engine_queried_tokens_total{labels} 53077"),
            format!("inlane_precise_engine_found_tokens_total{labels} 9892"),
        ] {
            assert!(text.contains(&line), "{line}: {text}");
        }
    }

    #[test]
    fn hits_that_only_counters_show_are_said_with_the_cause() {
        let truth = Truth::default();
        serve(&truth, 0);
        pass_with(&truth, 10, 5_077, 1_600);
        (0..20).for_each(|_| serve(&truth, 0));
        pass_with(&truth, 15, 25_077, 11_840);
        let notices = pass_with(&truth, 20, 25_077, 11_840);
        let text = "default/p1 finds prompts in its cache that the index does not predict, by its \
                    counters at least 10240 tokens of 20 prompts, and 0 were predicted: events arrive, \
                    but no prompt matches";
        assert!(notices.len() == 1 && notices[0].starts_with(text), "{notices:?}");
        assert!(!truth.distrusts(SLOT));
    }

    #[test]
    fn reports_are_believed_before_counters() {
        let truth = Truth::default();
        truth.count(SLOT, sample(512, 512));
        pass_with(&truth, 10, 5_077, 1_600);
        (0..20).for_each(|_| serve(&truth, 512));
        (0..20).for_each(|_| truth.count(SLOT, sample(512, 512)));
        for second in 3..6 {
            assert!(pass_with(&truth, second * 5, 25_077, 1_600).is_empty());
        }
        assert!(!truth.distrusts(SLOT));
    }

    #[test]
    fn the_last_token_is_never_cached() {
        let truth = Truth::default();
        let whole = Sample { at_least: 128, at_most: 128, prompt: 128, reported: Some(64) };
        (0..100).for_each(|_| truth.count(SLOT, whole));
        assert!(pass(&truth, 10).is_empty(), "64 is half of the 127 that can be cached");
    }

    #[test]
    fn hits_that_are_not_predicted_are_said_with_the_cause() {
        for (known, predicted, text) in [
            (Known::NoIndex, 0, "tokenProcessorConfig"),
            (Known::Blocks(0), 0, "--kv-events-config"),
            (Known::Blocks(9), 0, "no prompt matches"),
            (Known::Blocks(9), 64, "shorter than they should"),
        ] {
            let truth = Truth::default();
            (0..20).for_each(|_| truth.count(SLOT, sample(predicted, 512)));
            let known = |slot| {
                assert_eq!(slot, Some(1));
                known
            };
            let notices = truth.pass(10_000, &pool(), known, |_| None);
            assert_eq!(notices.len(), 1);
            assert!(notices[0].contains(text), "{notices:?}");
            assert!(!truth.distrusts(SLOT));
            (0..20).for_each(|_| truth.count(SLOT, sample(predicted, 512)));
            assert!(pass(&truth, 20).is_empty(), "said once");
        }
    }

    #[test]
    fn prompts_that_are_never_found_are_said_within_a_minute() {
        let truth = Truth::default();
        for second in 0..30 {
            truth.looked_up(77, false, second * 1_000);
        }
        let known = |slot| {
            assert_eq!(slot, None);
            Known::Blocks(0)
        };
        let notices = truth.pass(30_000, &pool(), known, |_| None);
        assert_eq!(notices.len(), 1, "{notices:?}");
        assert!(notices[0].contains("no event has arrived"), "{notices:?}");
    }

    #[test]
    fn what_is_old_fades() {
        let truth = Truth::default();
        (0..15).for_each(|_| truth.count(SLOT, sample(512, 0)));
        assert!(pass(&truth, 10).is_empty(), "one short of a verdict");
        for minute in 1..10 {
            assert!(pass(&truth, 10 + minute * 60).is_empty());
        }
        (0..8).for_each(|_| truth.count(SLOT, sample(512, 0)));
        assert!(pass(&truth, 1_000).is_empty());
        assert!(!truth.distrusts(SLOT));
    }
}

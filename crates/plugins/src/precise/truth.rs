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
//! is not judged by its silence.
//!
//! Workers count into atomics; the owner thread judges (`Truth::pass`). A decision costs one load
//! per endpoint that the index credits.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use inlane_core::endpoint::{EndpointSet, Slot};
use inlane_core::exposition::Exposition;

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

/// Counts of one endpoint. Only ever grow while the slot has the same tenant.
#[derive(Debug, Default)]
struct Cell {
    /// Generation of the endpoint that is counted.
    tenant: AtomicU64,
    predictions: AtomicU64,
    refuted: AtomicU64,
    reports: AtomicU64,
    missed: AtomicU64,
    /// Responses without a number, of an endpoint that has never given one.
    silent: AtomicU64,
    predicted_tokens: AtomicU64,
    reported_tokens: AtomicU64,
    has_reported: AtomicBool,
    distrusted: AtomicBool,
}

impl Cell {
    fn counts(&self) -> Counts {
        Counts {
            predictions: self.predictions.load(Relaxed),
            refuted: self.refuted.load(Relaxed),
            reports: self.reports.load(Relaxed),
            missed: self.missed.load(Relaxed),
        }
    }

    /// A new tenant starts anew. Two workers that see it at the same time lose each other a count.
    fn welcome(&self, generation: u64) {
        if self.tenant.swap(generation, Relaxed) == generation {
            return;
        }
        for count in [
            &self.predictions,
            &self.refuted,
            &self.reports,
            &self.missed,
            &self.silent,
            &self.predicted_tokens,
            &self.reported_tokens,
        ] {
            count.store(0, Relaxed);
        }
        self.has_reported.store(false, Relaxed);
        self.distrusted.store(false, Relaxed);
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    predictions: u64,
    refuted: u64,
    reports: u64,
    missed: u64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            predictions: self.predictions.saturating_sub(before.predictions),
            refuted: self.refuted.saturating_sub(before.refuted),
            reports: self.reports.saturating_sub(before.reports),
            missed: self.missed.saturating_sub(before.missed),
        }
    }

    /// Takes half of what came since `self` as said.
    fn halfway_to(self, now: Self) -> Self {
        let mean = |a: u64, b: u64| a + b.saturating_sub(a) / 2;
        Self {
            predictions: mean(self.predictions, now.predictions),
            refuted: mean(self.refuted, now.refuted),
            reports: mean(self.reports, now.reports),
            missed: mean(self.missed, now.missed),
        }
    }

    fn is_refuted(self) -> bool {
        self.predictions >= SAMPLES && self.refuted * 5 >= self.predictions * 4
    }

    fn is_missed(self) -> bool {
        self.reports >= SAMPLES && self.missed * 5 >= self.reports * 4
    }
}

/// What the owner thread remembers of an endpoint between two looks.
#[derive(Debug, Default)]
struct Judged {
    tenant: u64,
    /// Counts before what is judged.
    base: Counts,
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
    cells: OnceLock<Box<[Cell]>>,
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
        // Made with the first response: who has no precise producer has no cells.
        let cells = self.cells.get_or_init(|| (0..SLOTS).map(|_| Cell::default()).collect());
        let Some(cell) = cells.get(slot.index as usize) else { return };
        cell.welcome(tenant(slot));
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

    /// Whether what the index says of this endpoint is not to be believed for now.
    pub(super) fn distrusts(&self, slot: Slot) -> bool {
        let cell = self.cells.get().and_then(|cells| cells.get(slot.index as usize));
        cell.is_some_and(|cell| {
            cell.distrusted.load(Relaxed) && cell.tenant.load(Relaxed) == tenant(slot)
        })
    }

    /// Notes that a prompt was looked up whose front has this key, and whether anybody had it.
    pub(super) fn looked_up(&self, front: u64, found: bool, now_ms: u64) {
        self.repeats.note(front, found, now_ms);
    }

    /// Judges what was counted; returns what should be said of it. `known` tells what the index
    /// knows of a slot, or with `None` of all of them. For the owner thread, every [`JUDGED_EVERY_MS`].
    pub(super) fn pass(
        &self,
        now_ms: u64,
        endpoints: &EndpointSet,
        known: impl Fn(Option<u16>) -> Known,
    ) -> Vec<String> {
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut notices = Vec::new();
        let cells = self.cells.get().map_or(&[][..], |cells| &cells[..]);
        for endpoint in endpoints.as_slice() {
            let slot = endpoint.slot;
            let Some(cell) = cells.get(slot.index as usize) else { continue };
            if cell.tenant.load(Relaxed) != tenant(slot) {
                continue;
            }
            let judged = owner.judged.entry(slot.index).or_default();
            if judged.tenant != tenant(slot) {
                let (tenant, halved_ms) = (tenant(slot), now_ms);
                *judged = Judged { tenant, halved_ms, ..Judged::default() };
            }
            let known = || known(u16::try_from(slot.index).ok());
            notices.extend(self.judge(&endpoint.id, cell, judged, now_ms, known));
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
            if since.is_refuted() {
                judged.distrusted_until_ms = Some(now_ms + COOL_DOWN_MS);
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
        if since.is_refuted() {
            judged.base = counts;
            judged.distrusted_until_ms = Some(now_ms + COOL_DOWN_MS);
            cell.distrusted.store(true, Relaxed);
            self.verdicts[REFUTED].fetch_add(1, Relaxed);
            return Some(format!(
                "{id} does not confirm what the index predicts: {} of {} prompts were cached to less \
                 than half of it. Either its events are another server's (topic, port), or its cache \
                 is off or was emptied without saying so. Its matches count for nothing for {} s",
                since.refuted,
                since.predictions,
                COOL_DOWN_MS / 1_000
            ));
        }
        if since.is_missed() && judged.said_ms.is_none_or(|said| now_ms - said >= SAID_AGAIN_MS) {
            judged.base = counts;
            judged.said_ms = Some(now_ms);
            self.verdicts[MISSED].fetch_add(1, Relaxed);
            return Some(format!(
                "{id} finds prompts in its cache that the index does not predict, {} of {}: {}",
                since.missed,
                since.reports,
                cause(known(), since.predictions > 0)
            ));
        }
        None
    }

    /// Adds the families, per endpoint of the pool that has said something.
    pub(super) fn collect(&self, page: &mut Exposition, producer: &str) {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = self.cells.get().map_or(&[][..], |cells| &cells[..]);
        for (id, slot) in &owner.endpoints {
            let Some(cell) = cells.get(slot.index as usize) else { continue };
            if cell.tenant.load(Relaxed) != tenant(*slot) {
                continue;
            }
            let labels = [("plugin_name", producer), ("endpoint", id.as_str())];
            for (name, help, count) in [
                (
                    "inlane_precise_predicted_tokens_total",
                    "Prompt tokens that the index said the endpoint had cached, at least.",
                    &cell.predicted_tokens,
                ),
                (
                    "inlane_precise_reported_tokens_total",
                    "Prompt tokens that the engine reported as cached.",
                    &cell.reported_tokens,
                ),
                (
                    "inlane_precise_refuted_total",
                    "Predictions that the engine did not confirm to half.",
                    &cell.refuted,
                ),
                (
                    "inlane_precise_missed_total",
                    "Hits reported by the engine that the index had not predicted to half.",
                    &cell.missed,
                ),
                (
                    "inlane_precise_unreported_total",
                    "Responses of an endpoint that has never reported cached tokens.",
                    &cell.silent,
                ),
            ] {
                page.counter(name, help, &labels, count.load(Relaxed) as f64);
            }
            page.gauge(
                "inlane_precise_distrusted",
                "1 while the matches of the endpoint count for nothing, else 0.",
                &labels,
                f64::from(u8::from(cell.distrusted.load(Relaxed))),
            );
        }
        for (verdict, count) in ["refuted", "missed", "never_found"].iter().zip(&self.verdicts) {
            page.counter(
                "inlane_precise_verdicts_total",
                "Times that predictions and reports were found to disagree.",
                &[("plugin_name", producer), ("verdict", verdict)],
                count.load(Relaxed) as f64,
            );
        }
        let (repeats, found) = self.repeats.totals();
        for (name, help, value) in [
            ("inlane_precise_repeats_total", "Prompts that began as one before.", repeats),
            ("inlane_precise_repeats_found_total", "Of those, found at some endpoint.", found),
        ] {
            page.counter(name, help, &[("plugin_name", producer)], value as f64);
        }
    }
}

/// Never 0, which is nobody.
fn tenant(slot: Slot) -> u64 {
    u64::from(slot.generation) + 1
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
        truth.pass(second * 1_000, &pool(), |_| Known::Blocks(7))
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
            let notices = truth.pass(10_000, &pool(), |slot| {
                assert_eq!(slot, Some(1));
                known
            });
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
        let notices = truth.pass(30_000, &pool(), |slot| {
            assert_eq!(slot, None);
            Known::Blocks(0)
        });
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

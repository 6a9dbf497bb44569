//! The numbers of the truth check, for whoever reads metrics.

use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;

use inlane_core::exposition::Exposition;
use inlane_core::snapshot::CacheCounters;

use super::Truth;

impl Truth {
    /// Adds the families, per endpoint of the pool that has said something.
    pub(in crate::precise) fn collect(&self, page: &mut Exposition, producer: &str) {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, slot) in &owner.endpoints {
            let Some(cell) = self.cells.get(*slot) else { continue };
            let sums = cell.tally.sums();
            let counters = owner.judged.get(&slot.index).map(|judged| judged.window.counters());
            let CacheCounters { queries, hits } = counters.unwrap_or_default();
            let labels = [("plugin_name", producer), ("endpoint", id.as_str())];
            for (name, help, count) in [
                (
                    "inlane_precise_predicted_tokens_total",
                    "Prompt tokens that the index said the endpoint had cached, at least.",
                    cell.predicted_tokens.load(Relaxed),
                ),
                (
                    "inlane_precise_reported_tokens_total",
                    "Prompt tokens that the engine reported as cached.",
                    cell.reported_tokens.load(Relaxed),
                ),
                (
                    "inlane_precise_refuted_total",
                    "Predictions that the engine did not confirm to half.",
                    cell.refuted.load(Relaxed),
                ),
                (
                    "inlane_precise_missed_total",
                    "Hits reported by the engine that the index had not predicted to half.",
                    cell.missed.load(Relaxed),
                ),
                (
                    "inlane_precise_unreported_total",
                    "Responses of an endpoint that has never reported cached tokens.",
                    cell.silent.load(Relaxed),
                ),
                (
                    "inlane_precise_counted_prompt_tokens_total",
                    "Prompt tokens that were held against the engine's own counters.",
                    sums.prompt,
                ),
                (
                    "inlane_precise_counted_predicted_tokens_total",
                    "Of those, tokens that the index said the endpoint had cached, at least.",
                    sums.at_least,
                ),
                (
                    "inlane_precise_engine_queried_tokens_total",
                    "Prompt tokens that the engine has looked up in its cache, for whomever.",
                    queries,
                ),
                (
                    "inlane_precise_engine_found_tokens_total",
                    "Of those, tokens that it found.",
                    hits,
                ),
            ] {
                page.counter(name, help, &labels, count as f64);
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

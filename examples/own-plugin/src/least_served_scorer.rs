//! `least-served-scorer`: prefers endpoints that have finished the fewest requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use inlane_core::columns::{Col, Scalar};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::endpoint::EndpointIx;
use inlane_core::exposition::Exposition;
use inlane_core::plugin::{Category, Collector, Cycle, PostChoice, Roles, Scorer};
use inlane_core::registry::PluginType;

use crate::served::SERVED;

/// The type `least-served-scorer`. Reads what `served-extractor` reports.
pub const TYPE: PluginType = PluginType::new("least-served-scorer", |build, _| {
    let scorer = Arc::new(LeastServedScorer {
        served: build.scalar(SERVED, ""),
        instance: build.instance(),
        name: build.name().to_owned(),
        // Kept over a reload of the configuration, like every state that should outlive one.
        picks: build.kept_state("picks", AtomicU64::default),
    });
    Ok(Roles::default().scorer(scorer.clone()).post_choice(scorer.clone()).collector(scorer))
});

/// `(max - served) / (max - min)`, 1 for all when they are equal; endpoints that report nothing are
/// not scored.
struct LeastServedScorer {
    served: Col<Scalar>,
    instance: PluginIx,
    name: String,
    picks: Arc<AtomicU64>,
}

impl Scorer for LeastServedScorer {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let served = cx.columns.get(self.served);
        let of = |ix: EndpointIx| served.get(ix as usize).copied().flatten().map(|Scalar(n)| n);
        let known = candidates.iter().filter_map(|&ix| of(ix));
        let (min, max) = known
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), n| (min.min(n), max.max(n)));
        for (&ix, out) in candidates.iter().zip(out) {
            if let Some(served) = of(ix) {
                *out = if max == min { 1.0 } else { (max - served) / (max - min) };
            }
        }
        Ok(())
    }
}

impl PostChoice for LeastServedScorer {
    /// A decision changes nothing itself: it asks for effects.
    fn post_choice(&self, _: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        effects.extend(decision.target().map(|to| Effect::record(self.instance, to)));
    }

    /// Called once the request is booked.
    fn apply(&self, _: &Cycle<'_>, effect: &Effect) {
        if matches!(effect, Effect::Record { plugin, .. } if *plugin == self.instance) {
            self.picks.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Collector for LeastServedScorer {
    fn collect(&self, page: &mut Exposition) {
        let picks = self.picks.load(Ordering::Relaxed) as f64;
        let labels = [("plugin_name", self.name.as_str())];
        page.counter(
            "own_plugin_picks_total",
            "Requests decided with this scorer.",
            &labels,
            picks,
        );
    }
}

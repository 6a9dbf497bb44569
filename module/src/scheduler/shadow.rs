//! The shadow: a second configuration decides beside the first, and nothing comes of it but numbers.
//!
//! It runs on the worker, after the request has been decided and booked, on the same moment: the
//! same rows, the same load but for the request's own booking, the same time and seed. Its effects
//! are dropped, except that plugins whose state the first configuration does not have learn where
//! the request really went: a prefix index would otherwise stay empty for ever. Prompts are cut
//! into blocks once, in the size that the first configuration wants where it wants one.

use inlane_core::cycle::{Ask, Scratch};
use inlane_core::decision::ProfileRun;
use inlane_core::effect::Effect;
use inlane_core::endpoint::EndpointIx;
use inlane_core::request::Request;
use inlane_core::rng::Rng;

use super::decide::Ground;
use crate::clock;
use crate::runtime::ShadowPlan;
use crate::worker::Worker;

/// Salt of the draw that chooses requests for the shadow.
const SAMPLE: u64 = 0x7368_6164_6f77;

/// The moment that both configurations decide at.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) now_ms: u64,
    pub(super) seed: u64,
}

/// Decides with the shadow configuration, if there is one and this request is for it. `live` holds
/// the decision that counts, for `target`.
pub(super) fn run(
    ground: Ground<'_>,
    worker: &mut Worker,
    request: &Request<'_>,
    (live, target): (&Scratch, EndpointIx),
    moment: Moment,
) {
    let Some(shadow) = &ground.serving.shadow else { return };
    if Rng::new(moment.seed ^ SAMPLE).unit() >= shadow.fraction {
        return;
    }
    let start_ns = clock::now_ns();
    let mut scratch = worker.take_shadow(&shadow.plan);
    let compared = decide(ground, shadow, request, (live, target), moment, &mut scratch);
    worker.put_shadow(scratch);
    let metrics = &ground.runtime.metrics.shadow;
    match compared {
        Compared::Same => metrics.same.inc(),
        Compared::Other { live_margin, shadow_margin } => {
            metrics.other.inc();
            metrics.live_margin.observe(live_margin);
            metrics.shadow_margin.observe(shadow_margin);
        }
        Compared::None => metrics.none.inc(),
    }
    metrics.seconds.observe(clock::now_ns().saturating_sub(start_ns) as f64 * 1e-9);
}

/// What the shadow makes of a request.
enum Compared {
    /// The same endpoint.
    Same,
    /// Another one.
    Other {
        /// By how much the first configuration prefers its own choice.
        live_margin: f64,
        /// By how much the shadow prefers its own.
        shadow_margin: f64,
    },
    /// No decision.
    None,
}

fn decide(
    ground: Ground<'_>,
    shadow: &ShadowPlan,
    request: &Request<'_>,
    (live, target): (&Scratch, EndpointIx),
    Moment { now_ms, seed }: Moment,
    scratch: &mut Scratch,
) -> Compared {
    let (plan, serving) = (&shadow.plan, ground.serving);
    plan.begin(scratch);
    let stale_ms = ground.settings.metrics_stale_after.as_millis() as u64;
    serving.fill_rows(&shadow.scalars, &mut scratch.columns, now_ms, stale_ms);
    plan.produce(&Ask { seed, ..Ask::new(request, serving, now_ms) }, scratch);
    let Ok(choice) = plan.decide(request, now_ms, seed, scratch) else { return Compared::None };
    let compared = if choice == target {
        Compared::Same
    } else {
        let live_run = live.decision.primary_run();
        Compared::Other {
            live_margin: margin(live_run, target, choice),
            shadow_margin: margin(scratch.decision.primary_run(), choice, target),
        }
    };
    if !shadow.learners.is_empty() {
        plan.follow(request, target, now_ms, seed, scratch);
        let learns = |effect: &Effect| matches!(effect, Effect::Record { plugin, .. } if shadow.learners.contains(plugin));
        scratch.effects.retain(learns);
        plan.apply_records(request, now_ms, seed, scratch);
    }
    compared
}

/// How much more `chosen` scored than `other`; 0 when `other` was no candidate.
fn margin(run: Option<&ProfileRun>, chosen: EndpointIx, other: EndpointIx) -> f64 {
    let total = |endpoint: EndpointIx| {
        let run = run?;
        let row = run.candidates.iter().position(|candidate| *candidate == endpoint)?;
        run.totals.get(row).copied()
    };
    match (total(chosen), total(other)) {
        (Some(chosen), Some(other)) => (chosen - other).max(0.0),
        _ => 0.0,
    }
}

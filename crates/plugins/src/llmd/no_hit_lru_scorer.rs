//! `no-hit-lru-scorer`: sends a prompt that nobody has cached where the last such prompt went
//! longest ago.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inlane_core::columns::{Col, Columns, PrefixMatch, Scalar};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, DataProducer, PostChoice, Producing, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use inlane_core::state::{CycleData, CycleState, StateSlot};
use serde::Deserialize;

use super::cold_order::ColdOrder;
use crate::{PREFILL_PROFILE, approx_prefix_cache_producer};

/// Endpoints remembered, unless configured.
const DEFAULT_SIZE: i64 = 1_024;
/// Score of every endpoint while some endpoint has part of the prompt.
const WARM: f64 = 0.5;
/// Data key of the column with an endpoint's place in the order.
const PLACE: &str = "NoHitLRUPlace";

/// The type `no-hit-lru-scorer`.
pub const TYPE: PluginType = PluginType::new("no-hit-lru-scorer", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Endpoints remembered; not positive = the default.
    lru_size: i64,
    /// Instance that publishes prefix matches; empty = `approx-prefix-cache-producer`.
    prefix_match_info_producer_name: String,
    /// Without effect, as in the reference.
    prefix_plugin_type: Option<String>,
    /// Without effect, as in the reference.
    prefix_plugin_name: Option<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            lru_size: DEFAULT_SIZE,
            prefix_match_info_producer_name: String::new(),
            prefix_plugin_type: None,
            prefix_plugin_name: None,
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    if parameters.prefix_plugin_type.is_some() || parameters.prefix_plugin_name.is_some() {
        build.warn(
            "prefixPluginType and prefixPluginName have no effect, use prefixMatchInfoProducerName",
        );
    }
    let size = if parameters.lru_size > 0 { parameters.lru_size } else { DEFAULT_SIZE };
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    let order = build.kept_state(&format!("lru={size}"), || ColdOrder::new(size));
    let name = build.name().to_owned();
    build.produce_key(PLACE);
    let plugin = Arc::new(NoHitLruScorer {
        order,
        instance: build.instance(),
        found: build.require(
            &parameters.prefix_match_info_producer_name,
            approx_prefix_cache_producer::TYPE.name,
        ),
        place: build.scalar(PLACE, &name),
        state: build.cycle_state(),
    });
    Ok(Roles::default().producer(plugin.clone()).scorer(plugin.clone()).post_choice(plugin))
}

/// A request is *cold* when no candidate holds any of its blocks. Not cold: 0.5 for all. Cold, with
/// `n` candidates (llm-d-router `no-hit-lru-scorer`):
///
/// ```text
/// score = max(0, 1 - rank / (n - 1))         1 when n = 1
/// ```
///
/// Candidates that were never given a cold request have the ranks 0, 1, … in their order; the others
/// follow, with their place among all endpoints that were, the one served longest ago first.
#[derive(Debug)]
struct NoHitLruScorer {
    order: Arc<ColdOrder>,
    instance: PluginIx,
    found: Col<PrefixMatch>,
    /// Place in the order, 0 = served longest ago; absent = never.
    place: Col<Scalar>,
    state: StateSlot<Verdict>,
}

/// What the scorer found out about the running request, for the record of the choice, and memory
/// to work in.
#[derive(Debug, Default)]
struct Verdict {
    cold: AtomicBool,
    order: Vec<u64>,
    by_slot: Vec<u32>,
}

impl CycleData for Verdict {
    fn clear(&mut self) {
        self.cold = AtomicBool::new(false);
        self.order.clear();
    }
}

impl DataProducer for NoHitLruScorer {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError> {
        // Needed even when somebody has part of the prompt: a filter may drop those.
        let Some(Verdict { order, by_slot, .. }) = state.get_mut(self.state) else {
            return Err(PluginError::new("the cycle state belongs to another configuration"));
        };
        self.order.read(order);
        let column = columns.get_mut(self.place);
        column.fill(None);
        ColdOrder::places(order, cx.endpoints, by_slot, |ix, place| {
            if let Some(cell) = column.get_mut(ix as usize) {
                *cell = Some(Scalar(f64::from(place)));
            }
        });
        Ok(())
    }
}

impl Scorer for NoHitLruScorer {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let found = cx.columns.get(self.found);
        let hit = |ix: EndpointIx| {
            let found = found.get(ix as usize).copied().flatten();
            found.is_some_and(|found| found.match_blocks > 0)
        };
        let cold = !candidates.iter().any(|&ix| hit(ix));
        if let Some(verdict) = cx.state.get(self.state) {
            verdict.cold.store(cold, Ordering::Relaxed);
        }
        if !cold || candidates.len() <= 1 {
            out.fill(if cold { 1.0 } else { WARM });
            return Ok(());
        }
        let places = cx.columns.get(self.place);
        let place = |ix: EndpointIx| places.get(ix as usize).copied().flatten();
        let never = candidates.iter().filter(|&&ix| place(ix).is_none()).count() as f64;
        let last = (candidates.len() - 1) as f64;
        let mut next_never = 0.0;
        for (&ix, out) in candidates.iter().zip(out) {
            let rank = match place(ix) {
                Some(Scalar(place)) => never + place,
                None => {
                    let rank = next_never;
                    next_never += 1.0;
                    rank
                }
            };
            *out = (1.0 - rank / last).max(0.0);
        }
        Ok(())
    }
}

impl PostChoice for NoHitLruScorer {
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        if !cx.state.get(self.state).is_some_and(|verdict| verdict.cold.load(Ordering::Relaxed)) {
            return;
        }
        let destination = decision.target();
        let prefill =
            decision.profile(PREFILL_PROFILE).and_then(|run| run.targets.first().copied());
        let targets = [destination, prefill.filter(|_| prefill != destination)];
        let record = |endpoint| Effect::record(self.instance, endpoint);
        effects.extend(targets.into_iter().flatten().map(record));
    }

    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        let &Effect::Record { plugin, endpoint, .. } = effect else { return };
        if plugin != self.instance {
            return;
        }
        if let Some(target) = cx.endpoints.get(endpoint) {
            self.order.touch(target.slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::PrefixMatch;
    use inlane_core::endpoint::EndpointIx;
    use inlane_core::request::Request;

    use crate::testing::{Built, Idle, World};

    fn world(len: usize, parameters: &str) -> (World, Built) {
        let mut world = World::new(len);
        let scorer = world.build("no-hit-lru-scorer", parameters).unwrap();
        (world, scorer)
    }

    fn hit(world: &mut World, endpoint: usize, blocks: u32) {
        let column = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        let found = PrefixMatch { match_blocks: blocks, total_blocks: 4, ..Default::default() };
        world.columns.get_mut(column)[endpoint] = Some(found);
    }

    fn score(world: &mut World, scorer: &Built, candidates: &[EndpointIx]) -> Vec<f64> {
        world.produce(scorer, &Request::default(), &Idle).unwrap();
        world.score_some(scorer, candidates)
    }

    /// Scores all and records the choice of `results`.
    fn send(world: &mut World, scorer: &Built, results: &[(&str, EndpointIx)]) -> usize {
        let all = world.all();
        score(world, scorer, &all);
        let effects = world.choose(scorer, &Request::default(), results);
        world.apply(scorer, &Request::default(), &effects);
        effects.len()
    }

    #[test]
    fn who_never_had_a_cold_request_comes_first() {
        let (mut world, scorer) = world(3, "");
        assert_eq!(score(&mut world, &scorer, &[0, 1, 2]), [1.0, 0.5, 0.0]);
        assert_eq!(send(&mut world, &scorer, &[("default", 1)]), 1);
        assert_eq!(score(&mut world, &scorer, &[0, 1, 2]), [1.0, 0.0, 0.5]);
        send(&mut world, &scorer, &[("default", 0)]);
        send(&mut world, &scorer, &[("default", 2)]);
        assert_eq!(score(&mut world, &scorer, &[0, 1, 2]), [0.5, 1.0, 0.0]);
        send(&mut world, &scorer, &[("default", 1)]);
        assert_eq!(score(&mut world, &scorer, &[0, 1, 2]), [1.0, 0.0, 0.5]);
    }

    #[test]
    fn places_count_endpoints_that_are_no_candidates() {
        let (mut world, scorer) = world(4, "");
        for endpoint in [0, 1, 2] {
            send(&mut world, &scorer, &[("default", endpoint)]);
        }
        assert_eq!(score(&mut world, &scorer, &[1, 2]), [0.0, 0.0]);
        assert_eq!(score(&mut world, &scorer, &[2, 3]), [0.0, 1.0]);
        assert_eq!(score(&mut world, &scorer, &[2]), [1.0]);
    }

    #[test]
    fn a_match_makes_all_equal_and_nothing_is_recorded() {
        let (mut world, scorer) = world(2, "");
        hit(&mut world, 0, 1);
        assert_eq!(score(&mut world, &scorer, &[0, 1]), [0.5, 0.5]);
        assert_eq!(send(&mut world, &scorer, &[("default", 1)]), 0);
        // Of the candidates alone: the one that matches may have been filtered out.
        assert_eq!(score(&mut world, &scorer, &[1]), [1.0]);
        hit(&mut world, 0, 0);
        assert_eq!(score(&mut world, &scorer, &[0, 1]), [1.0, 0.0]);
    }

    #[test]
    fn the_prefill_target_is_recorded_after_the_destination() {
        let (mut world, scorer) = world(3, "");
        assert_eq!(send(&mut world, &scorer, &[("decode", 0), ("prefill", 1)]), 2);
        assert_eq!(score(&mut world, &scorer, &[0, 1, 2]), [0.5, 0.0, 1.0]);
        assert_eq!(send(&mut world, &scorer, &[("decode", 0), ("prefill", 0)]), 1);
    }

    #[test]
    fn without_a_score_nothing_is_recorded() {
        let (world, scorer) = world(1, "");
        assert!(world.choose(&scorer, &Request::default(), &[("default", 0)]).is_empty());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let (mut world, scorer) = world(3, "{lruSize: 1}");
        send(&mut world, &scorer, &[("default", 0)]);
        send(&mut world, &scorer, &[("default", 1)]);
        assert_eq!(score(&mut world, &scorer, &[0, 1, 2]), [1.0, 0.0, 0.5]);
    }

    #[test]
    fn the_order_survives_a_reload() {
        let (mut world, scorer) = world(2, "{lruSize: 0}");
        send(&mut world, &scorer, &[("default", 0)]);
        let again = world.build("no-hit-lru-scorer", "{prefixPluginName: p}").unwrap();
        assert_eq!(again.warnings.len(), 1);
        assert_eq!(score(&mut world, &again, &[0, 1]), [0.0, 1.0]);
        assert!(world.build("no-hit-lru-scorer", "{size: 1}").is_err());
    }
}

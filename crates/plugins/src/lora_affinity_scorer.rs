//! `lora-affinity-scorer`: prefers endpoints that have the request's LoRA adapter loaded.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{CORE_METRICS_EXTRACTOR, PluginType, metric_keys};

/// The adapter is running.
const ACTIVE: f64 = 1.0;
/// There is room for it.
const ROOM: f64 = 0.8;
/// It is about to be loaded.
const WAITING: f64 = 0.6;

/// The type `lora-affinity-scorer`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("lora-affinity-scorer", |build, _| {
    build.require_key(metric_keys::ADAPTERS, CORE_METRICS_EXTRACTOR);
    Ok(Roles::default().scorer(Arc::new(LoraAffinityScorer)))
});

/// By the first that holds of the target model: it runs 1, fewer adapters run or wait than fit 0.8,
/// it waits 0.6, else 0 (llm-d-router `lora-affinity-scorer`). The base model is a name like any
/// other.
#[derive(Debug)]
struct LoraAffinityScorer;

impl Scorer for LoraAffinityScorer {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn reads_metrics(&self) -> bool {
        true
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let model = cx.endpoints.adapter_bit(cx.request.target_model);
        let adapters = &cx.columns.metrics.adapters;
        for (&ix, out) in candidates.iter().zip(out) {
            let adapters = adapters.get(ix as usize).copied().unwrap_or_default();
            *out = if adapters.active & model != 0 {
                ACTIVE
            } else if adapters.loaded < adapters.max_active {
                ROOM
            } else if adapters.waiting & model != 0 {
                WAITING
            } else {
                0.0
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::Adapters;
    use inlane_core::endpoint::EndpointSet;
    use inlane_core::request::Request;

    use crate::testing::World;

    /// Adapters `l`, `x`, `y` have bits 0, 1, 2.
    fn scores(model: &str, adapters: &[Adapters]) -> Vec<f64> {
        let mut world = World::new(adapters.len());
        let endpoints = world.endpoints.as_slice().to_vec();
        let names = ["l", "x", "y"].map(String::from).to_vec();
        world.endpoints = EndpointSet::new(1, endpoints).with_adapters(names);
        let scorer = world.build("lora-affinity-scorer", "{anything: 1}").unwrap();
        world.columns.metrics.adapters = adapters.to_vec();
        let request = Request { target_model: model, ..Default::default() };
        let (all, mut out) = (world.all(), vec![f64::NAN; adapters.len()]);
        let scorer = scorer.roles.scorer.as_ref().unwrap();
        scorer.score(&world.cycle(&request), &all, &mut out).unwrap();
        out
    }

    fn adapters(active: u64, waiting: u64, max_active: u32) -> Adapters {
        let loaded = active.count_ones() + waiting.count_ones();
        Adapters { active, waiting, max_active, loaded, ..Default::default() }
    }

    #[test]
    fn the_ladder() {
        let pool = [
            adapters(0b001, 0, 2),
            adapters(0b010, 0, 2),
            adapters(0b110, 0b001, 2),
            adapters(0b110, 0, 2),
            adapters(0, 0, 0),
            adapters(0b010, 0b001, 3),
        ];
        assert_eq!(scores("l", &pool), [1.0, 0.8, 0.6, 0.0, 0.0, 0.8]);
    }

    #[test]
    fn a_model_that_nobody_has_goes_where_there_is_room() {
        let pool = [adapters(0b001, 0, 1), adapters(0b001, 0, 2)];
        assert_eq!(scores("base", &pool), [0.0, 0.8]);
        assert_eq!(scores("", &pool), [0.0, 0.8]);
    }

    #[test]
    fn without_lora_columns_all_score_zero() {
        let mut world = World::new(2);
        let scorer = world.build("lora-affinity-scorer", "").unwrap();
        assert_eq!(world.score(&scorer), [0.0, 0.0]);
    }
}

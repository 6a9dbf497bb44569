//! `slo-headroom-tier-filter`: keeps the endpoints that are expected to meet the client's targets.

use std::sync::Arc;

use inlane_core::columns::{Col, LatencyInfo};
use inlane_core::decision::PluginError;
use inlane_core::effect::PluginIx;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::latency_scorer::PREDICTOR;

/// The type `slo-headroom-tier-filter`.
pub const TYPE: PluginType = PluginType::new("slo-headroom-tier-filter", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Probability that a request goes to the endpoints that miss the targets, 0 to 1.
    epsilon_explore_neg: f64,
    /// Instance that publishes predictions; empty = `predicted-latency-producer`.
    latency_prediction_info_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { epsilon_explore_neg: 0.01, latency_prediction_info_producer_name: String::new() }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { epsilon_explore_neg, latency_prediction_info_producer_name } =
        params.decode()?;
    if !(0.0..=1.0).contains(&epsilon_explore_neg) {
        let message = format!("expected 0 to 1, found {epsilon_explore_neg}");
        return Err(BuildError::field("epsilonExploreNeg", message));
    }
    let latency = build.require(&latency_prediction_info_producer_name, PREDICTOR);
    let (instance, epsilon) = (build.instance(), epsilon_explore_neg);
    Ok(Roles::default().filter(Arc::new(SloHeadroomTier { instance, latency, epsilon })))
}

/// Two tiers: positive endpoints have a prediction and no headroom below 0, all others are negative
/// (llm-d-router `slo-headroom-tier-filter`). With both there, the positive ones stay, or with
/// probability `epsilonExploreNeg` the negative ones, so that the models keep learning about them.
/// Without any prediction, or with one tier alone, everything stays.
#[derive(Debug)]
struct SloHeadroomTier {
    instance: PluginIx,
    latency: Col<LatencyInfo>,
    epsilon: f64,
}

impl SloHeadroomTier {
    fn is_positive(&self, cx: &Cycle<'_>, ix: EndpointIx) -> bool {
        let info = cx.columns.get(self.latency).get(ix as usize).copied().flatten();
        info.is_some_and(|info| info.ttft_headroom >= 0.0 && info.tpot_headroom >= 0.0)
    }
}

impl Filter for SloHeadroomTier {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let all = candidates.as_slice();
        let positive = all.iter().filter(|&&ix| self.is_positive(cx, ix)).count();
        if positive == 0 || positive == all.len() {
            return Ok(());
        }
        let explores = cx.rng(u64::from(self.instance)).unit() < self.epsilon;
        candidates.retain(|ix| match (self.is_positive(cx, ix), explores) {
            (true, false) | (false, true) => Ok(()),
            (false, false) => Err("not expected to meet the targets"),
            (true, true) => Err("meets the targets, and this request explores"),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::LatencyInfo;

    use crate::testing::{Built, World};

    const PLUGIN: &str = "slo-headroom-tier-filter";

    fn world(epsilon: f64, headrooms: &[Option<(f64, f64)>]) -> (World, Built) {
        let mut world = World::new(headrooms.len());
        let filter = world.build(PLUGIN, &format!("{{epsilonExploreNeg: {epsilon}}}")).unwrap();
        let col = world.column::<LatencyInfo>("predicted-latency-producer");
        for (cell, headrooms) in world.columns.get_mut(col).iter_mut().zip(headrooms) {
            *cell = headrooms.map(|(ttft_headroom, tpot_headroom)| LatencyInfo {
                ttft_headroom,
                tpot_headroom,
                ..Default::default()
            });
        }
        (world, filter)
    }

    fn kept(epsilon: f64, headrooms: &[Option<(f64, f64)>]) -> Vec<u32> {
        let (world, filter) = world(epsilon, headrooms);
        world.filter(&filter)
    }

    #[test]
    fn both_headrooms_must_be_there() {
        assert_eq!(kept(0.0, &[Some((40.0, 2.0)), Some((40.0, -2.0)), None]), [0]);
        assert_eq!(kept(0.0, &[Some((5.0, 0.0)), Some((-1.0, 3.0)), Some((0.0, 0.0))]), [0, 2]);
        assert_eq!(kept(0.0, &[Some((f64::NAN, 1.0)), Some((1.0, 1.0))]), [1]);
    }

    #[test]
    fn one_tier_alone_stays() {
        assert_eq!(kept(0.5, &[None, None]), [0, 1]);
        assert_eq!(kept(0.5, &[Some((-1.0, 0.0)), None]), [0, 1]);
        assert_eq!(kept(0.5, &[Some((1.0, 0.0)), Some((2.0, 0.0))]), [0, 1]);
        assert_eq!(kept(0.5, &[Some((-1.0, 0.0))]), [0]);
        assert_eq!(kept(0.5, &[]), [0u32; 0]);
    }

    #[test]
    fn some_requests_explore_the_negative_tier() {
        assert_eq!(kept(1.0, &[Some((1.0, 1.0)), Some((-1.0, 1.0)), None]), [1, 2]);
        let (mut world, filter) = world(0.2, &[Some((1.0, 1.0)), None]);
        let mut explored = 0;
        for seed in 0..10_000 {
            world.seed = seed;
            explored += u32::from(world.filter(&filter) == [1]);
        }
        assert!((1_800..2_200).contains(&explored), "{explored}");
    }

    #[test]
    fn epsilon_is_a_probability() {
        let mut world = World::new(0);
        for epsilon in ["-0.01", "1.01", ".nan"] {
            let parameters = format!("{{epsilonExploreNeg: {epsilon}}}");
            let error = world.build(PLUGIN, &parameters).err().expect(epsilon);
            assert_eq!(error.field.as_deref(), Some("epsilonExploreNeg"));
        }
        let built = world.build(PLUGIN, "").unwrap();
        let key = built.data.requires[0].to_string();
        assert_eq!(key, "LatencyPredictionInfoDataKey/predicted-latency-producer");
    }
}

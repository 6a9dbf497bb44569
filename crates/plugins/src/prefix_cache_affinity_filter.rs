//! `prefix-cache-affinity-filter`: keeps the endpoints that hold the prompt, unless they are too
//! busy.

use std::sync::Arc;

use inlane_core::columns::{Col, InFlight, LatencyInfo};
use inlane_core::decision::PluginError;
use inlane_core::effect::PluginIx;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::inflight_load_producer;
use crate::latency_scorer::PREDICTOR;
use crate::prefix::found::Found;

/// The type `prefix-cache-affinity-filter`.
pub const TYPE: PluginType = PluginType::new("prefix-cache-affinity-filter", build);

/// Times are estimated from the tokens in flight.
const PREFILL_THROUGHPUT: &str = "prefillThroughput";

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Share of the prompt that an endpoint must hold, at most 1; not positive = no filter.
    affinity_threshold: f64,
    /// Probability that a request ignores the filter, 0 to 1.
    exploration_probability: f64,
    /// What the cached endpoints may cost more than the others in time to first token; 0 =
    /// anything.
    #[serde(rename = "maxTTFTPenaltyMs")]
    max_ttft_penalty_ms: f64,
    /// `prefillThroughput` or `latencyPredictor`.
    ttft_source: String,
    /// Prompt tokens per second of an endpoint.
    peak_prefill_throughput: f64,
    /// Instance that publishes matches; empty = those that are configured.
    prefix_match_info_producer_name: String,
    /// Instance that publishes predictions; empty = `predicted-latency-producer`.
    latency_prediction_info_producer_name: String,
    /// Instance that publishes the load; empty = `inflight-load-producer`.
    in_flight_load_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            affinity_threshold: 0.80,
            exploration_probability: 0.0,
            max_ttft_penalty_ms: 18_000.0,
            ttft_source: PREFILL_THROUGHPUT.into(),
            peak_prefill_throughput: 15_928.0,
            prefix_match_info_producer_name: String::new(),
            latency_prediction_info_producer_name: String::new(),
            in_flight_load_producer_name: String::new(),
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let predicts = parameters.check()?;
    let prefix = Found::of(build, &parameters.prefix_match_info_producer_name);
    let penalty = parameters.max_ttft_penalty_ms;
    let gate = if penalty <= 0.0 {
        None
    } else if predicts {
        let name = &parameters.latency_prediction_info_producer_name;
        Some((Ttft::Predicted(build.require(name, PREDICTOR)), penalty))
    } else {
        let name = &parameters.in_flight_load_producer_name;
        let load = build.require(name, inflight_load_producer::TYPE.name);
        let tokens_per_ms = parameters.peak_prefill_throughput / 1_000.0;
        Some((Ttft::Queued { load, tokens_per_ms }, penalty))
    };
    Ok(Roles::default().filter(Arc::new(PrefixCacheAffinity {
        instance: build.instance(),
        prefix,
        threshold: parameters.affinity_threshold,
        exploration: parameters.exploration_probability,
        gate,
    })))
}

impl Parameters {
    /// Checks the ranges; answers whether times come from the latency predictor.
    fn check(&self) -> Result<bool, BuildError> {
        let predicts = match self.ttft_source.as_str() {
            PREFILL_THROUGHPUT => false,
            "latencyPredictor" => true,
            other => {
                let message =
                    format!("expected prefillThroughput or latencyPredictor, found {other:?}");
                return Err(BuildError::field("ttftSource", message));
            }
        };
        let fail = |field: &str, expected: &str, found: f64| {
            Err(BuildError::field(field, format!("expected {expected}, found {found}")))
        };
        let threshold = self.affinity_threshold;
        if threshold.is_nan() || threshold > 1.0 {
            return fail("affinityThreshold", "at most 1.0", threshold);
        }
        if !(0.0..=1.0).contains(&self.exploration_probability) {
            return fail("explorationProbability", "0 to 1", self.exploration_probability);
        }
        let not_negative = 0.0..f64::INFINITY;
        if !not_negative.contains(&self.max_ttft_penalty_ms) {
            let found = self.max_ttft_penalty_ms;
            return fail("maxTTFTPenaltyMs", "a number that is not negative", found);
        }
        let throughput = self.peak_prefill_throughput;
        if !not_negative.contains(&throughput) {
            return fail("peakPrefillThroughput", "a number that is not negative", throughput);
        }
        if !predicts && self.max_ttft_penalty_ms > 0.0 && throughput <= 0.0 {
            let expected = "a positive number, since maxTTFTPenaltyMs is measured with it";
            return fail("peakPrefillThroughput", expected, throughput);
        }
        Ok(predicts)
    }
}

/// Where the expected time to first token comes from.
#[derive(Debug, Clone, Copy)]
enum Ttft {
    /// From a prediction; without one the time is the largest there is.
    Predicted(Col<LatencyInfo>),
    /// From the tokens in flight and the speed at which they are worked off.
    Queued { load: Col<InFlight>, tokens_per_ms: f64 },
}

impl Ttft {
    /// The time of one endpoint in ms.
    fn of(self, cx: &Cycle<'_>, ix: EndpointIx) -> f64 {
        let at = ix as usize;
        match self {
            Self::Predicted(col) => {
                cx.columns.get(col).get(at).copied().flatten().map_or(f64::MAX, |info| info.ttft)
            }
            Self::Queued { load, tokens_per_ms } => {
                let load = cx.columns.get(load).get(at).copied().flatten();
                load.map_or(0.0, |load| load.tokens as f64 / tokens_per_ms)
            }
        }
    }
}

/// Keeps the sticky endpoints, those with `matchBlocks / totalBlocks >= affinityThreshold`
/// (llm-d-router `prefix-cache-affinity-filter`). Everything stays when there is none, with
/// probability `explorationProbability`, and when the load gate opens:
///
/// ```text
/// min TTFT(sticky) - min TTFT(others) > maxTTFTPenaltyMs
/// TTFT = tokens in flight / peakPrefillThroughput * 1000, or as predicted
/// ```
#[derive(Debug)]
struct PrefixCacheAffinity {
    instance: PluginIx,
    prefix: Found,
    threshold: f64,
    exploration: f64,
    /// Source of times, and the penalty in ms that is accepted.
    gate: Option<(Ttft, f64)>,
}

impl PrefixCacheAffinity {
    fn is_sticky(&self, cx: &Cycle<'_>, ix: EndpointIx) -> bool {
        let found = self.prefix.at(cx.columns, ix);
        let ratio = match found {
            Some(found) if found.total_blocks > 0 => {
                f64::from(found.match_blocks) / f64::from(found.total_blocks)
            }
            _ => 0.0,
        };
        ratio >= self.threshold
    }

    /// Whether the sticky endpoints are too busy.
    fn gate_opens(&self, cx: &Cycle<'_>, candidates: &[EndpointIx]) -> bool {
        let Some((ttft, max_penalty)) = self.gate else { return false };
        let (mut sticky, mut others) = (None::<f64>, None::<f64>);
        for &ix in candidates {
            let side = if self.is_sticky(cx, ix) { &mut sticky } else { &mut others };
            let time = ttft.of(cx, ix);
            *side = Some(side.map_or(time, |least| least.min(time)));
        }
        sticky.zip(others).is_some_and(|(sticky, others)| sticky - others > max_penalty)
    }
}

impl Filter for PrefixCacheAffinity {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let all = candidates.as_slice();
        if all.len() <= 1
            || self.threshold <= 0.0
            || cx.rng(u64::from(self.instance)).unit() < self.exploration
            || !all.iter().any(|&ix| self.is_sticky(cx, ix))
            || self.gate_opens(cx, all)
        {
            return Ok(());
        }
        candidates.retain(|ix| match self.is_sticky(cx, ix) {
            true => Ok(()),
            false => Err("holds too little of the prompt"),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::{InFlight, LatencyInfo, PrefixMatch};

    use crate::testing::{Built, World};

    const PLUGIN: &str = "prefix-cache-affinity-filter";

    /// Endpoints that hold so many of ten blocks.
    fn world(parameters: &str, blocks: &[Option<u32>]) -> (World, Built) {
        let mut world = World::new(blocks.len());
        let filter = world.build(PLUGIN, parameters).unwrap();
        let col = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        for (cell, blocks) in world.columns.get_mut(col).iter_mut().zip(blocks) {
            *cell = blocks.map(|match_blocks| PrefixMatch {
                match_blocks,
                total_blocks: 10,
                ..Default::default()
            });
        }
        (world, filter)
    }

    fn load(world: &mut World, tokens: &[u64]) {
        let col = world.column::<InFlight>("inflight-load-producer");
        for (cell, &tokens) in world.columns.get_mut(col).iter_mut().zip(tokens) {
            *cell = Some(InFlight { tokens, ..Default::default() });
        }
    }

    #[test]
    fn the_threshold_itself_sticks() {
        let (world, filter) = world("", &[Some(8), Some(7), Some(10), None]);
        assert_eq!(world.filter(&filter), [0, 2]);
    }

    #[test]
    fn nobody_sticky_keeps_everybody() {
        let (world, filter) = world("", &[Some(7), None]);
        assert_eq!(world.filter(&filter), [0, 1]);
        let (world, filter) = self::world("{affinityThreshold: 0}", &[Some(10), None]);
        assert_eq!(world.filter(&filter), [0, 1]);
        let (mut world, filter) = self::world("", &[Some(0), Some(0)]);
        let col = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        world.columns.get_mut(col)[0] = Some(PrefixMatch::default());
        assert_eq!(world.filter(&filter), [0, 1]);
    }

    #[test]
    fn a_busy_cache_opens_the_gate() {
        let (mut world, filter) = world("", &[Some(9), Some(0)]);
        load(&mut world, &[300_000, 0]);
        assert_eq!(world.filter(&filter), [0, 1], "18834.8 ms");
        load(&mut world, &[280_000, 0]);
        assert_eq!(world.filter(&filter), [0], "17579.1 ms");
        load(&mut world, &[300_000, 20_000]);
        assert_eq!(world.filter(&filter), [0], "the others are busy, too");
    }

    #[test]
    fn the_least_busy_cache_counts() {
        let (mut world, filter) = world("", &[Some(9), Some(9), Some(0)]);
        load(&mut world, &[900_000, 0, 0]);
        assert_eq!(world.filter(&filter), [0, 1]);
    }

    #[test]
    fn without_a_penalty_there_is_no_gate() {
        let (mut world, filter) = world("{maxTTFTPenaltyMs: 0}", &[Some(9), Some(0)]);
        load(&mut world, &[u64::MAX, 0]);
        assert_eq!(world.filter(&filter), [0]);
        assert_eq!(filter.data.requires.len(), 1);
    }

    #[test]
    fn predictions_may_take_the_place_of_throughput() {
        let parameters = "{ttftSource: latencyPredictor, maxTTFTPenaltyMs: 100}";
        let (mut world, filter) = world(parameters, &[Some(10), Some(0)]);
        let col = world.column::<LatencyInfo>("predicted-latency-producer");
        let at = |ttft| Some(LatencyInfo { ttft, ..Default::default() });
        world.columns.get_mut(col).copy_from_slice(&[at(300.0), at(200.0)]);
        assert_eq!(world.filter(&filter), [0], "equal to the penalty still sticks");
        world.columns.get_mut(col)[0] = at(300.1);
        assert_eq!(world.filter(&filter), [0, 1]);
        world.columns.get_mut(col)[0] = None;
        assert_eq!(world.filter(&filter), [0, 1], "no prediction is the longest time");
        world.columns.get_mut(col)[1] = None;
        assert_eq!(world.filter(&filter), [0]);
    }

    #[test]
    fn some_requests_explore() {
        let (mut world, filter) = world("{explorationProbability: 0.3}", &[Some(9), Some(0)]);
        let mut explored = 0;
        for seed in 0..10_000 {
            world.seed = seed;
            explored += u32::from(world.filter(&filter).len() == 2);
        }
        assert!((2_800..3_200).contains(&explored), "{explored}");
        let (world, filter) = self::world("{explorationProbability: 1}", &[Some(9), Some(0)]);
        assert_eq!(world.filter(&filter), [0, 1]);
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{affinityThreshold: 1.1}", "affinityThreshold"),
            ("{affinityThreshold: .nan}", "affinityThreshold"),
            ("{explorationProbability: -0.1}", "explorationProbability"),
            ("{explorationProbability: 1.1}", "explorationProbability"),
            ("{maxTTFTPenaltyMs: -1}", "maxTTFTPenaltyMs"),
            ("{ttftSource: guess}", "ttftSource"),
            ("{ttftSource: ''}", "ttftSource"),
            ("{peakPrefillThroughput: -1}", "peakPrefillThroughput"),
            ("{peakPrefillThroughput: 0}", "peakPrefillThroughput"),
            ("{affinity: 0.5}", "affinity"),
        ] {
            let error = world.build(PLUGIN, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
        for parameters in [
            "{affinityThreshold: -1}",
            "{peakPrefillThroughput: 0, maxTTFTPenaltyMs: 0}",
            "{peakPrefillThroughput: 0, ttftSource: latencyPredictor}",
        ] {
            assert!(world.build(PLUGIN, parameters).is_ok(), "{parameters}");
        }
    }
}

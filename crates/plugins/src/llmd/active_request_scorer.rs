//! `active-request-scorer`: prefers endpoints with few requests of ours in flight.

use std::sync::Arc;

use inlane_core::columns::{Col, InFlight};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::inflight_load_producer;

/// The type `active-request-scorer`.
pub const TYPE: PluginType = PluginType::new("active-request-scorer", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Endpoints with at most this many requests count as idle; negative = 0.
    idle_threshold: i64,
    /// Upper bound of a busy endpoint's score, 0 to 1; anything else = 1.
    max_busy_score: f64,
    /// Instance that publishes the load; empty = `inflight-load-producer`.
    in_flight_load_producer_name: String,
    /// Had a meaning once; still accepted.
    request_timeout: Option<serde_yaml::Value>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            idle_threshold: 0,
            max_busy_score: 1.0,
            in_flight_load_producer_name: String::new(),
            request_timeout: None,
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    if parameters.request_timeout.is_some() {
        build.warn("requestTimeout is deprecated and has no effect");
    }
    let mut max_busy_score = parameters.max_busy_score;
    if !(0.0..=1.0).contains(&max_busy_score) {
        build.warn(format!("maxBusyScore: {max_busy_score} is not between 0 and 1, using 1"));
        max_busy_score = 1.0;
    }
    let load =
        build.require(&parameters.in_flight_load_producer_name, inflight_load_producer::TYPE.name);
    Ok(Roles::default().scorer(Arc::new(ActiveRequestScorer {
        load,
        idle_threshold: u32::try_from(parameters.idle_threshold.max(0)).unwrap_or(u32::MAX),
        max_busy_score,
    })))
}

/// With `c` the requests in flight and `m` their maximum over the candidates: 1 when
/// `c <= idleThreshold`, else `(m - c) / m * maxBusyScore` (llm-d-router `active-request-scorer`).
/// Relative to the maximum, not min–max: equally busy endpoints all score 0.
#[derive(Debug)]
struct ActiveRequestScorer {
    load: Col<InFlight>,
    idle_threshold: u32,
    max_busy_score: f64,
}

impl Scorer for ActiveRequestScorer {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let load = cx.columns.get(self.load);
        let requests =
            |ix: EndpointIx| load.get(ix as usize).copied().flatten().map_or(0, |l| l.requests);
        let max = candidates.iter().map(|&ix| requests(ix)).max().unwrap_or(0);
        for (&ix, out) in candidates.iter().zip(out) {
            let count = requests(ix);
            // A busy endpoint has count > idle_threshold >= 0, so max is not 0.
            *out = if count <= self.idle_threshold {
                1.0
            } else {
                f64::from(max - count) / f64::from(max) * self.max_busy_score
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::InFlight;

    use crate::testing::{Built, World};

    fn world(requests: &[Option<u32>], parameters: &str) -> (World, Built) {
        let mut world = World::new(requests.len());
        let scorer = world.build("active-request-scorer", parameters).unwrap();
        let load = world.column::<InFlight>("inflight-load-producer");
        for (cell, requests) in world.columns.get_mut(load).iter_mut().zip(requests) {
            *cell = requests.map(|requests| InFlight { requests, ..Default::default() });
        }
        (world, scorer)
    }

    #[test]
    fn busy_endpoints_are_relative_to_the_busiest() {
        let (world, scorer) = world(&[None, Some(2), Some(4)], "");
        assert_eq!(world.score(&scorer), [1.0, 0.5, 0.0]);
        assert_eq!(
            scorer.data.requires[0].to_string(),
            "InFlightLoadDataKey/inflight-load-producer"
        );
    }

    #[test]
    fn equally_busy_endpoints_score_zero() {
        let (world, scorer) = world(&[Some(3), Some(3)], "");
        assert_eq!(world.score(&scorer), [0.0, 0.0]);
    }

    #[test]
    fn parameters_bound_and_shift() {
        let counts = [Some(0), Some(2), Some(4)];
        let (w, scorer) = world(&counts, "{maxBusyScore: 0.5}");
        assert_eq!(w.score(&scorer), [1.0, 0.25, 0.0]);
        let (w, scorer) = world(&counts, "{maxBusyScore: 0}");
        assert_eq!(w.score(&scorer), [1.0, 0.0, 0.0]);
        let (w, scorer) = world(&[Some(1), Some(4)], "{maxBusyScore: 1.5, idleThreshold: -1}");
        assert_eq!(w.score(&scorer), [0.75, 0.0]);
        assert_eq!(scorer.warnings.len(), 1);
        let (w, scorer) = world(&counts, "{idleThreshold: 2, requestTimeout: 2m}");
        assert_eq!(w.score(&scorer), [1.0, 1.0, 0.0]);
        assert_eq!(scorer.warnings, ["requestTimeout is deprecated and has no effect"]);
    }

    #[test]
    fn another_producer_can_be_named() {
        let (_, scorer) = world(&[None], "{inFlightLoadProducerName: mine}");
        assert_eq!(scorer.data.requires[0].producer, "mine");
    }
}

//! `concurrency-detector`: how full the pool is by what is in flight on it.

use std::sync::Arc;

use inlane_core::columns::{Col, Columns, InFlight};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Candidates, Cycle, Filter, Part, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::inflight_load_producer;

/// The type `concurrency-detector`.
pub const TYPE: PluginType = PluginType::new("concurrency-detector", build);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Requests and tokens; the worse of the two counts.
    Hybrid,
    /// Requests.
    #[default]
    Requests,
    /// Projected tokens.
    Tokens,
}

/// All parameters.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Parameters {
    /// Requests in flight at which an endpoint counts as full.
    pub max_concurrency: i64,
    /// Projected tokens in flight at which an endpoint counts as full.
    pub max_token_concurrency: i64,
    /// How far the filter lets endpoints go beyond full, as a fraction.
    pub headroom: f64,
    /// What is counted.
    pub concurrency_mode: Mode,
    /// Instance that publishes what is in flight; empty = `inflight-load-producer`.
    pub in_flight_load_producer_name: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            max_concurrency: 100,
            max_token_concurrency: 1_000_000,
            headroom: 0.0,
            concurrency_mode: Mode::Requests,
            in_flight_load_producer_name: String::new(),
        }
    }
}

impl Parameters {
    /// Decodes and checks the parameters.
    ///
    /// # Errors
    /// The field that does not fit.
    pub fn read(params: &Params) -> Result<Self, BuildError> {
        let read: Self = params.decode()?;
        for (field, value) in [
            ("maxConcurrency", read.max_concurrency),
            ("maxTokenConcurrency", read.max_token_concurrency),
        ] {
            if value <= 0 {
                let message = format!("must be strictly positive, found {value}");
                return Err(BuildError::field(field, message));
            }
        }
        if !(read.headroom >= 0.0 && read.headroom.is_finite()) {
            let message =
                format!("expected a number that is not negative, found {}", read.headroom);
            return Err(BuildError::field("headroom", message));
        }
        Ok(read)
    }

    /// How full the endpoints are, 1 for none of them; above 1 = overbooked. With requests
    /// `sum(requests) / (N * maxConcurrency)`, with tokens `sum(tokens) / (N * maxTokenConcurrency)`,
    /// hybrid the mean over the endpoints of the larger of the two (llm-d-router
    /// `concurrency-detector`). An endpoint whose load is not known counts as idle.
    pub fn saturation(
        &self,
        columns: &Columns,
        col: Col<InFlight>,
        endpoints: &[EndpointIx],
    ) -> f64 {
        if endpoints.is_empty() {
            return 1.0;
        }
        let column = columns.get(col);
        let (requests, tokens) = (self.max_concurrency as f64, self.max_token_concurrency as f64);
        let full = |&ix: &EndpointIx| {
            let load = load(column, ix);
            let (requests, tokens) =
                (f64::from(load.requests) / requests, load.tokens as f64 / tokens);
            match self.concurrency_mode {
                Mode::Hybrid => requests.max(tokens),
                Mode::Requests => requests,
                Mode::Tokens => tokens,
            }
        };
        endpoints.iter().map(full).sum::<f64>() / endpoints.len() as f64
    }
}

fn load(column: &[Option<InFlight>], endpoint: EndpointIx) -> InFlight {
    column.get(endpoint as usize).copied().flatten().unwrap_or_default()
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters = Parameters::read(params)?;
    let producer = &parameters.in_flight_load_producer_name;
    let in_flight = build.require(producer, inflight_load_producer::TYPE.name);
    // A limit below 1 would be 0 and keep nobody: limits are whole and at least 1.
    let limit = |most: i64| (most as f64 * (1.0 + parameters.headroom)).floor();
    let (requests, tokens) =
        (limit(parameters.max_concurrency), limit(parameters.max_token_concurrency));
    let detector = match parameters.concurrency_mode {
        Mode::Hybrid => ConcurrencyDetector { in_flight, requests, tokens },
        Mode::Requests => ConcurrencyDetector { in_flight, requests, tokens: f64::INFINITY },
        Mode::Tokens => ConcurrencyDetector { in_flight, requests: f64::INFINITY, tokens },
    };
    Ok(Roles::default().part(Part::SaturationDetector).filter(Arc::new(detector)))
}

/// Keeps endpoints with `load < floor(limit * (1 + headroom))` in what the mode counts; an empty
/// result stays empty (llm-d-router `concurrency-detector`).
#[derive(Debug)]
struct ConcurrencyDetector {
    in_flight: Col<InFlight>,
    requests: f64,
    tokens: f64,
}

impl Filter for ConcurrencyDetector {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let column = cx.columns.get(self.in_flight);
        candidates.retain(|ix| {
            let load = load(column, ix);
            if f64::from(load.requests) >= self.requests {
                Err("as many requests in flight as allowed")
            } else if load.tokens as f64 >= self.tokens {
                Err("as many tokens in flight as allowed")
            } else {
                Ok(())
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::World;

    fn world(loads: &[(u32, u64)]) -> (World, Col<InFlight>) {
        let mut world = World::new(loads.len());
        let col = world.column::<InFlight>("inflight-load-producer");
        for (value, &(requests, tokens)) in world.columns.get_mut(col).iter_mut().zip(loads) {
            *value = Some(InFlight { requests, tokens, word: 0 });
        }
        (world, col)
    }

    fn kept(loads: &[(u32, u64)], parameters: &str) -> Vec<EndpointIx> {
        let (mut world, _) = world(loads);
        let built = world.build("concurrency-detector", parameters).unwrap();
        world.filter(&built)
    }

    #[test]
    fn saturation_by_mode() {
        let (world, col) = world(&[(10, 500), (30, 0)]);
        let saturation = |mode, endpoints: &[u32]| {
            let (max_concurrency, max_token_concurrency) = (20, 1_000);
            let concurrency_mode = mode;
            Parameters {
                max_concurrency,
                max_token_concurrency,
                concurrency_mode,
                ..Default::default()
            }
            .saturation(&world.columns, col, endpoints)
        };
        assert_eq!(saturation(Mode::Requests, &[0, 1]), 1.0);
        assert_eq!(saturation(Mode::Tokens, &[0, 1]), 0.25);
        assert_eq!(saturation(Mode::Hybrid, &[0, 1]), 1.0);
        assert_eq!(saturation(Mode::Hybrid, &[0]), 0.5);
        assert_eq!(saturation(Mode::Requests, &[]), 1.0);
    }

    #[test]
    fn endpoints_at_the_limit_are_dropped_and_nobody_may_be_left() {
        let loads = [(15, 0), (16, 0), (19, 5), (20, 0)];
        assert_eq!(kept(&loads, "{maxConcurrency: 16}"), [0]);
        assert_eq!(kept(&loads, "{maxConcurrency: 16, headroom: 0.25}"), [0, 1, 2]);
        assert_eq!(kept(&loads, "{maxConcurrency: 3}"), [0u32; 0]);
        assert_eq!(kept(&[(1, 0), (0, 0)], "{maxConcurrency: 1, headroom: 0.99}"), [1]);
    }

    #[test]
    fn the_mode_says_what_counts() {
        let loads = [(50, 10), (1, 100), (1, 10)];
        let limits = "maxConcurrency: 50, maxTokenConcurrency: 100";
        let with = |mode: &str| kept(&loads, &format!("{{{limits}, concurrencyMode: {mode}}}"));
        assert_eq!(with("requests"), [1, 2]);
        assert_eq!(with("tokens"), [0, 2]);
        assert_eq!(with("hybrid"), [2]);
    }

    #[test]
    fn unknown_load_counts_as_none() {
        let mut world = World::new(2);
        let built = world.build("concurrency-detector", "").unwrap();
        assert_eq!(world.filter(&built), [0, 1]);
        let required: Vec<_> = built.data.requires.iter().map(ToString::to_string).collect();
        assert_eq!(required, ["InFlightLoadDataKey/inflight-load-producer"]);
        let built =
            world.build("concurrency-detector", "{inFlightLoadProducerName: mine}").unwrap();
        assert_eq!(built.data.requires[0].producer, "mine");
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{maxConcurrency: 0}", "maxConcurrency"),
            ("{maxTokenConcurrency: -1}", "maxTokenConcurrency"),
            ("{headroom: -1}", "headroom"),
            ("{headroom: .nan}", "headroom"),
            ("{concurrencyMode: both}", "concurrencyMode"),
            ("{concurrency: 1}", "concurrency"),
        ] {
            let error = world.build("concurrency-detector", parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
    }
}

//! `latency-slo-admitter`: turns sheddable requests away that no endpoint would serve in time.

use std::sync::Arc;

use inlane_core::columns::{Col, LatencyInfo};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Admitter, Cycle, Roles};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, metric_keys,
};
use serde::Deserialize;

use crate::latency_scorer::PREDICTOR;
use crate::slo::Targets;

/// KV-cache use below which an endpoint counts as unused.
const UNUSED_KV: f64 = 0.02;

/// The type `latency-slo-admitter`.
pub const TYPE: PluginType = PluginType::new("latency-slo-admitter", build);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Instance that publishes predictions; empty = `predicted-latency-producer`.
    latency_prediction_info_producer_name: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let latency = build.require(&parameters.latency_prediction_info_producer_name, PREDICTOR);
    build.use_key(metric_keys::RUNNING, CORE_METRICS_EXTRACTOR);
    build.use_key(metric_keys::KV_USAGE, CORE_METRICS_EXTRACTOR);
    Ok(Roles::default().admitter(Arc::new(LatencySloAdmitter { latency })))
}

/// Denies a request with negative priority and a latency target, when there are predictions and no
/// endpoint meets both targets, runs no request, or uses less than 2 % of its KV cache
/// (llm-d-router `latency-slo-admitter`). Of an endpoint without fresh metrics the last two are not
/// known.
#[derive(Debug)]
struct LatencySloAdmitter {
    latency: Col<LatencyInfo>,
}

impl Admitter for LatencySloAdmitter {
    fn admit(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
    ) -> Result<Option<String>, PluginError> {
        if cx.request.priority >= 0 || !Targets::of(cx.request).any() {
            return Ok(None);
        }
        let (metrics, latency) = (&cx.columns.metrics, cx.columns.get(self.latency));
        let mut predicted = false;
        for &ix in candidates {
            let ix = ix as usize;
            let known = metrics.fresh.get(ix).copied().unwrap_or(false);
            let idle = metrics.running.get(ix).is_some_and(|&running| running == 0);
            let unused = metrics.kv_usage.get(ix).is_some_and(|&usage| usage < UNUSED_KV);
            if known && (idle || unused) {
                return Ok(None);
            }
            if let Some(info) = latency.get(ix).copied().flatten() {
                predicted = true;
                if info.ttft_valid && info.tpot_valid {
                    return Ok(None);
                }
            }
        }
        Ok(predicted.then(|| "no endpoint is predicted to meet the latency targets".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::LatencyInfo;
    use inlane_core::request::Request;

    use crate::testing::{Built, World};

    fn world(valid: &[Option<(bool, bool)>]) -> (World, Built) {
        let mut world = World::new(valid.len());
        let admitter = world.build("latency-slo-admitter", "").unwrap();
        let column = world.column::<LatencyInfo>("predicted-latency-producer");
        for (cell, valid) in world.columns.get_mut(column).iter_mut().zip(valid) {
            *cell = valid.map(|(ttft_valid, tpot_valid)| LatencyInfo {
                ttft_valid,
                tpot_valid,
                ..Default::default()
            });
        }
        world.columns.metrics.running.fill(2);
        world.columns.metrics.kv_usage.fill(0.5);
        (world, admitter)
    }

    fn admits((world, admitter): &(World, Built), priority: i32, header: (&str, &str)) -> bool {
        let headers = [header];
        let request = Request { priority, headers: &headers, ..Default::default() };
        let admitter = admitter.roles.admitter.as_ref().unwrap();
        admitter.admit(&world.cycle(&request), &world.all()).unwrap().is_none()
    }

    const TARGET: (&str, &str) = ("x-slo-tpot-ms", "5");

    #[test]
    fn a_sheddable_request_that_nobody_serves_in_time_is_denied() {
        let busy = world(&[Some((false, true)), Some((true, false)), None]);
        assert!(!admits(&busy, -1, TARGET));
        assert!(admits(&busy, 0, TARGET));
        assert!(admits(&busy, -1, ("x-slo-tpot-ms", "soon")));
        assert!(admits(&busy, -1, ("x-other", "5")));
    }

    #[test]
    fn one_endpoint_that_can_is_enough() {
        assert!(admits(&world(&[Some((false, false)), Some((true, true))]), -1, TARGET));
        let mut idle = world(&[Some((false, false)), Some((false, false))]);
        idle.0.columns.metrics.running[1] = 0;
        assert!(admits(&idle, -1, TARGET));
        let mut cold = world(&[Some((false, false))]);
        cold.0.columns.metrics.kv_usage[0] = 0.019;
        assert!(admits(&cold, -1, TARGET));
        cold.0.columns.metrics.kv_usage[0] = 0.02;
        assert!(!admits(&cold, -1, TARGET));
        idle.0.columns.metrics.fresh[1] = false;
        assert!(!admits(&idle, -1, TARGET));
    }

    #[test]
    fn without_predictions_everybody_passes() {
        assert!(admits(&world(&[None, None]), -1, TARGET));
        assert!(admits(&world(&[]), -1, TARGET));
    }
}

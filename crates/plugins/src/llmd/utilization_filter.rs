//! `utilization-filter`: drops endpoints that are busier than they may be.

use std::sync::Arc;

use inlane_core::columns::{Col, InFlight};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, metric_keys,
};
use serde::Deserialize;

use crate::inflight_load_producer;

/// The type `utilization-filter`.
pub const TYPE: PluginType = PluginType::new("utilization-filter", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// What must hold, all of it.
    conditions: Vec<Condition>,
    /// Whether everything is kept when nothing would be.
    fallback_on_empty: bool,
    /// Instance that publishes the load; empty = `inflight-load-producer`.
    in_flight_load_producer_name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Condition {
    metric: String,
    max_value: Option<f64>,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { conditions, fallback_on_empty, in_flight_load_producer_name } =
        params.decode()?;
    if conditions.is_empty() {
        return Err(BuildError::field("conditions", "expected at least one condition"));
    }
    let mut limits = Vec::with_capacity(conditions.len());
    for (i, Condition { metric, max_value }) in conditions.into_iter().enumerate() {
        let metric = match metric.as_str() {
            "active-requests" => Metric::Active(
                build.require(&in_flight_load_producer_name, inflight_load_producer::TYPE.name),
            ),
            "running-requests" => {
                build.require_key(metric_keys::RUNNING, CORE_METRICS_EXTRACTOR);
                Metric::Running
            }
            "waiting-queue" => {
                build.require_key(metric_keys::WAITING, CORE_METRICS_EXTRACTOR);
                Metric::Waiting
            }
            "kv-cache-utilization" => {
                build.require_key(metric_keys::KV_USAGE, CORE_METRICS_EXTRACTOR);
                Metric::KvUsage
            }
            other => {
                let message = format!(
                    "expected active-requests, running-requests, waiting-queue or \
                     kv-cache-utilization, found {other:?}"
                );
                return Err(BuildError::field(format!("conditions[{i}].metric"), message));
            }
        };
        let upper = if matches!(metric, Metric::KvUsage) { 1.0 } else { f64::MAX };
        match max_value {
            Some(max) if (0.0..=upper).contains(&max) => limits.push((metric, max)),
            found => {
                let expected = if upper > 1.0 { "that is not negative" } else { "from 0 to 1" };
                let found = found.map_or_else(|| "nothing".into(), |max| max.to_string());
                let message = format!("expected a number {expected}, found {found}");
                return Err(BuildError::field(format!("conditions[{i}].maxValue"), message));
            }
        }
    }
    Ok(Roles::default().filter(Arc::new(UtilizationFilter { limits, fallback_on_empty })))
}

#[derive(Debug, Clone, Copy)]
enum Metric {
    Active(Col<InFlight>),
    KvUsage,
    Running,
    Waiting,
}

impl Metric {
    /// The number of one endpoint; 0 where it is missing.
    fn of(self, cx: &Cycle<'_>, ix: EndpointIx) -> f64 {
        let (at, metrics) = (ix as usize, &cx.columns.metrics);
        let count = |column: &[u32]| column.get(at).copied().map_or(0.0, f64::from);
        match self {
            Self::Active(col) => {
                let load = cx.columns.get(col).get(at).copied().flatten();
                load.map_or(0.0, |load| f64::from(load.requests))
            }
            Self::KvUsage => metrics.kv_usage.get(at).copied().unwrap_or(0.0),
            Self::Running => count(&metrics.running),
            Self::Waiting => count(&metrics.waiting),
        }
    }
}

/// Keeps an endpoint iff no number exceeds its limit: equality passes, and so does what is missing
/// (llm-d-router `utilization-filter`).
#[derive(Debug)]
struct UtilizationFilter {
    limits: Vec<(Metric, f64)>,
    fallback_on_empty: bool,
}

impl Filter for UtilizationFilter {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let exceeds = |ix| self.limits.iter().any(|(metric, max)| metric.of(cx, ix) > *max);
        if self.fallback_on_empty && candidates.as_slice().iter().all(|&ix| exceeds(ix)) {
            return Ok(());
        }
        candidates.retain(|ix| if exceeds(ix) { Err("exceeds a condition") } else { Ok(()) });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::InFlight;

    use crate::testing::World;

    const PLUGIN: &str = "utilization-filter";

    #[test]
    fn all_conditions_must_hold_and_missing_is_0() {
        let mut world = World::new(4);
        let conditions = "{conditions: [{metric: running-requests, maxValue: 8}, {metric: \
                          kv-cache-utilization, maxValue: 0.7}]}";
        let filter = world.build(PLUGIN, conditions).unwrap();
        world.columns.metrics.running = vec![8, 9, 1, 0];
        world.columns.metrics.kv_usage = vec![0.7, 0.1, 0.71, 0.0];
        assert_eq!(world.filter(&filter), [0, 3]);
    }

    #[test]
    fn our_own_requests_count() {
        let mut world = World::new(3);
        let active = "{conditions: [{metric: active-requests, maxValue: 2}]}";
        let filter = world.build(PLUGIN, active).unwrap();
        let load = world.column::<InFlight>("inflight-load-producer");
        for (cell, requests) in world.columns.get_mut(load).iter_mut().zip([2, 3]) {
            *cell = Some(InFlight { requests, ..Default::default() });
        }
        assert_eq!(world.filter(&filter), [0, 2]);
        let queue = world.build(PLUGIN, "{conditions: [{metric: waiting-queue, maxValue: 0}]}");
        world.columns.metrics.waiting = vec![0, 1, 0];
        assert_eq!(world.filter(&queue.unwrap()), [0, 2]);
    }

    #[test]
    fn an_empty_result_is_the_input_on_request() {
        let mut world = World::new(2);
        let strict = "conditions: [{metric: waiting-queue, maxValue: 1.5}]";
        let filter = world.build(PLUGIN, &format!("{{{strict}}}")).unwrap();
        let open = world.build(PLUGIN, &format!("{{{strict}, fallbackOnEmpty: true}}")).unwrap();
        world.columns.metrics.waiting = vec![2, 3];
        assert_eq!(world.filter(&filter), [0u32; 0]);
        assert_eq!(world.filter(&open), [0, 1]);
        world.columns.metrics.waiting = vec![2, 1];
        assert_eq!(world.filter(&open), [1]);
    }

    #[test]
    fn only_what_is_read_is_required() {
        let mut world = World::new(0);
        let filter = world.build(PLUGIN, "{conditions: [{metric: waiting-queue, maxValue: 1}]}");
        let keys: Vec<_> = filter.unwrap().data.requires.iter().map(ToString::to_string).collect();
        assert_eq!(keys, ["WaitingQueueSize/core-metrics-extractor"]);
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("", "conditions"),
            ("{conditions: []}", "conditions"),
            ("{conditions: [{metric: gpu, maxValue: 1}]}", "conditions[0].metric"),
            ("{conditions: [{maxValue: 1}]}", "conditions[0].metric"),
            ("{conditions: [{metric: waiting-queue}]}", "conditions[0].maxValue"),
            ("{conditions: [{metric: waiting-queue, maxValue: -1}]}", "conditions[0].maxValue"),
            ("{conditions: [{metric: waiting-queue, maxValue: .nan}]}", "conditions[0].maxValue"),
            (
                "{conditions: [{metric: kv-cache-utilization, maxValue: 1.1}]}",
                "conditions[0].maxValue",
            ),
        ] {
            let error = world.build(PLUGIN, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
        let zero = "{conditions: [{metric: kv-cache-utilization, maxValue: 0}]}";
        assert!(world.build(PLUGIN, zero).is_ok());
    }
}

//! `core-metrics-extractor`: which series of a metrics page are the engine's load.
//!
//! Its instance is the producer of the metric data keys and of the custom metrics; the reading itself is the control
//! plane's work, with the tables of `inlane-engine`.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, Params, PluginType, metric_keys,
};
use inlane_engine::{EngineTable, ExtractorParams};

/// The type `core-metrics-extractor`.
pub const TYPE: PluginType = PluginType::new(CORE_METRICS_EXTRACTOR, build);

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    for key in engine_table(params)?.custom_keys() {
        build.report(key);
    }
    for key in [
        metric_keys::WAITING,
        metric_keys::RUNNING,
        metric_keys::KV_USAGE,
        metric_keys::CACHE_INFO,
        metric_keys::ADAPTERS,
    ] {
        build.produce_key(key);
    }
    Ok(Roles::default().part(Part::Extractor))
}

/// The engines that these parameters describe.
///
/// # Errors
/// A parameter that does not fit, or an engine whose description makes no sense.
pub fn engine_table(params: &Params) -> Result<EngineTable, BuildError> {
    let parameters: ExtractorParams = params.decode()?;
    EngineTable::new(&parameters).map_err(|e| BuildError::new(e.to_string()))
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn metric_keys_are_produced_under_the_instance() {
        let mut world = World::new(0);
        let built = world.build("core-metrics-extractor", "").unwrap();
        let keys: Vec<_> = built.data.produces.iter().map(ToString::to_string).collect();
        assert!(keys.contains(&"WaitingQueueSize/core-metrics-extractor".to_owned()), "{keys:?}");
        assert_eq!(keys.len(), 5);
    }

    #[test]
    fn custom_metrics_are_reported_once_for_all_engines() {
        let engine = |name: &str, keys: &str| format!("{{name: {name}, customMetrics: [{keys}]}}");
        let parameters = format!(
            "{{engineConfigs: [{}, {}]}}",
            engine("a", "{attributeKey: k, metricSpec: m}, {attributeKey: b, metricSpec: n}"),
            engine("b", "{attributeKey: k, metricSpec: o}"),
        );
        let mut world = World::new(0);
        let built = world.build("core-metrics-extractor", &parameters).unwrap();
        assert_eq!(built.data.reports, ["b", "k"]);
    }

    #[test]
    fn engines_are_checked() {
        let mut world = World::new(0);
        let valid = "{defaultEngine: mine, engineConfigs: [{name: mine, queuedRequestsSpec: q}]}";
        assert!(world.build("core-metrics-extractor", valid).is_ok());
        for parameters in [
            "{defaultEngine: unheard-of}",
            "{engineConfigs: [{queuedRequestsSpec: q}]}",
            "{engineConfigs: [{name: x, queuedRequestsSpec: 'a b'}]}",
            "{engines: []}",
        ] {
            assert!(world.build("core-metrics-extractor", parameters).is_err(), "{parameters}");
        }
    }
}

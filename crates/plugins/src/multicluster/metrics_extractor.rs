//! `multicluster-metrics-extractor`: a cluster's average load.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::Endpoint;
use inlane_core::plugin::{Extraction, Extractor, Findings, Part, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use inlane_engine::{EngineSpec, MetricSpec, Plan, Scanner};
use serde::Deserialize;

use super::{KV_CACHE_UTILIZATION, QUEUE_SIZE};

/// The type `multicluster-metrics-extractor`.
pub const TYPE: PluginType = PluginType::new("multicluster-metrics-extractor", build).alpha();

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Series with the average KV-cache use.
    kv_cache_utilization_metric: String,
    /// Series with the average queue length.
    queue_size_metric: String,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            kv_cache_utilization_metric: "llm_d_epp_average_kv_cache_utilization".into(),
            queue_size_metric: "llm_d_epp_average_queue_size".into(),
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let mut cluster = EngineSpec::named("cluster");
    for (field, key, text) in [
        ("kvCacheUtilizationMetric", KV_CACHE_UTILIZATION, parameters.kv_cache_utilization_metric),
        ("queueSizeMetric", QUEUE_SIZE, parameters.queue_size_metric),
    ] {
        let spec: MetricSpec =
            text.parse().map_err(|e| BuildError::field(field, format!("{text:?}: {e}")))?;
        cluster.custom.push((key.to_owned(), spec));
        build.report(key);
    }
    let extractor = ClusterExtractor(Arc::new(Plan::new(cluster)));
    Ok(Roles::default().part(Part::Extractor).extractor(Arc::new(extractor)))
}

/// Takes the two averages from a metrics page, by the rules of `core-metrics-extractor`.
#[derive(Debug)]
struct ClusterExtractor(Arc<Plan>);

impl Extractor for ClusterExtractor {
    fn begin(&self, _endpoint: &Endpoint) -> Box<dyn Extraction> {
        Box::new(Page(Scanner::new(Arc::clone(&self.0))))
    }
}

#[derive(Debug)]
struct Page(Scanner);

impl Extraction for Page {
    fn chunk(&mut self, bytes: &[u8]) {
        self.0.feed(bytes);
    }

    fn finish(mut self: Box<Self>, found: &mut Findings<'_>) -> Result<(), PluginError> {
        let sample = self.0.finish();
        for (value, declared) in sample.custom.iter().zip(0..) {
            if let Some(value) = value {
                found.scalar(declared, *value);
            }
        }
        if sample.missing.is_empty() {
            return Ok(());
        }
        Err(PluginError::Failed("a cluster's average is missing".into()))
    }
}

#[cfg(test)]
mod tests {
    use crate::sources::read_page;
    use crate::testing::World;

    const PAGE: &str = "# TYPE llm_d_epp_average_kv_cache_utilization gauge\n\
        llm_d_epp_average_kv_cache_utilization{name=\"p\"} 0.25\n\
        # TYPE llm_d_epp_average_queue_size gauge\n\
        llm_d_epp_average_queue_size{name=\"p\"} 3.5\n";

    #[test]
    fn averages_are_read_from_whatever_pieces() {
        let mut world = World::new(1);
        let built = world.build("multicluster-metrics-extractor", "").unwrap();
        let names =
            ["llm-d.ai/multicluster-kv-cache-utilization", "llm-d.ai/multicluster-queue-size"];
        assert_eq!(built.data.reports, names);
        for size in [1, 10, 1_000] {
            let (scalars, _, complete) = read_page(&built.roles, &world.endpoints[0], PAGE, size);
            assert_eq!((scalars[0], scalars[1], complete), (0.25, 3.5, true));
        }
    }

    #[test]
    fn what_is_there_is_taken_and_the_rest_missed() {
        let mut world = World::new(1);
        let given = "{queueSizeMetric: 'queue{pool=\"x\"}'}";
        let built = world.build("multicluster-metrics-extractor", given).unwrap();
        let (scalars, _, complete) = read_page(&built.roles, &world.endpoints[0], PAGE, 64);
        assert!(scalars[0] == 0.25 && scalars[1].is_nan() && !complete);
        for (wrong, field) in [
            ("{queueSizeMetric: 'a b'}", "queueSizeMetric"),
            ("{kvCacheUtilizationMetric: ''}", "kvCacheUtilizationMetric"),
            ("{metric: x}", "metric"),
        ] {
            let error = world.build("multicluster-metrics-extractor", wrong).err().expect(wrong);
            assert_eq!(error.field.as_deref(), Some(field), "{wrong}");
        }
    }
}

//! `header-label-affinity-scorer`: prefers endpoints whose label is what a request header says.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::effect::PluginIx;
use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_core::plugin::{Category, Cycle, PerTopology, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `header-label-affinity-scorer`.
pub const TYPE: PluginType = PluginType::new("header-label-affinity-scorer", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Request header, in any case.
    header_name: String,
    /// Pod label.
    label_key: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    if !params.is_given() {
        return Err(BuildError::new("expected parameters headerName and labelKey"));
    }
    let Parameters { header_name, label_key } = params.decode()?;
    let header = header_name.trim().to_ascii_lowercase();
    if header.is_empty() {
        return Err(BuildError::field("headerName", "expected the name of a request header"));
    }
    if label_key.is_empty() {
        return Err(BuildError::field("labelKey", "expected the name of a pod label"));
    }
    let instance = build.instance();
    let plugin = Arc::new(HeaderLabelAffinity { instance, header, label: label_key });
    Ok(Roles::default().per_topology(plugin.clone()).scorer(plugin))
}

/// 1 if the request header is not empty and equals the pod label, else 0 (llm-d-router
/// `header-label-affinity-scorer`).
#[derive(Debug)]
struct HeaderLabelAffinity {
    instance: PluginIx,
    header: String,
    label: String,
}

/// The label's values in the pool, numbered, and the number that each endpoint has.
struct Values {
    numbers: HashMap<String, u32>,
    of: Vec<Option<u32>>,
}

impl PerTopology for HeaderLabelAffinity {
    fn settle(&self, endpoints: &EndpointSet) -> Box<dyn Any + Send + Sync> {
        let mut numbers = HashMap::new();
        let mut number = |value: &str| {
            let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
            *numbers.entry(value.to_owned()).or_insert(next)
        };
        let of = endpoints.as_slice().iter().map(|e| e.label(&self.label).map(&mut number));
        let of = of.collect();
        Box::new(Values { numbers, of })
    }
}

impl Scorer for HeaderLabelAffinity {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let Some(values) = cx.settled.get::<Values>(self.instance) else {
            return Err(PluginError::new("the labels of the pool have not been read"));
        };
        let wanted = cx.request.headers.get(&self.header).filter(|value| !value.is_empty());
        let wanted = wanted.and_then(|value| values.numbers.get(value));
        for (&ix, out) in candidates.iter().zip(out) {
            let has = values.of.get(ix as usize).and_then(Option::as_ref);
            *out = if wanted.is_some() && has == wanted { 1.0 } else { 0.0 };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::request::Request;

    use crate::testing::World;

    const PLUGIN: &str = "header-label-affinity-scorer";

    fn scores(header: &str, value: &str) -> Vec<f64> {
        let mut world = World::labelled(&[
            &[("zone", "eu")],
            &[("zone", "us")],
            &[],
            &[("zone", "")],
            &[("zone", "us")],
        ]);
        let scorer = world.build(PLUGIN, "{headerName: X-Zone, labelKey: zone}").unwrap();
        let headers = [(header, value)];
        world.score_for(&scorer, &Request { headers: &headers, ..Default::default() })
    }

    #[test]
    fn equal_is_1_and_anything_else_0() {
        assert_eq!(scores("x-zone", "us"), [0.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(scores("x-zone", "US"), [0.0; 5]);
        assert_eq!(scores("x-zone", "asia"), [0.0; 5]);
    }

    #[test]
    fn an_empty_header_matches_nothing() {
        assert_eq!(scores("x-zone", ""), [0.0; 5]);
        assert_eq!(scores("x-other", "us"), [0.0; 5]);
    }

    #[test]
    fn both_names_are_required() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("", None),
            ("{}", Some("headerName")),
            ("{labelKey: a}", Some("headerName")),
            ("{headerName: a}", Some("labelKey")),
            ("{headerName: a, labelKey: b, header: c}", Some("header")),
        ] {
            let error = world.build(PLUGIN, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), field, "{parameters}");
        }
    }
}

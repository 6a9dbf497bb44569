//! `by-label`: keeps endpoints whose label has one of several values. Deprecated in favour of
//! `label-selector-filter`.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `by-label`.
pub const TYPE: PluginType = PluginType::new("by-label", build);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Name of the label; required.
    label: String,
    /// Values that are kept.
    valid_values: Vec<String>,
    /// Whether endpoints without the label are kept.
    allows_no_label: bool,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    if parameters.label.is_empty() {
        return Err(BuildError::field("label", "must be the name of a pod label"));
    }
    if parameters.valid_values.is_empty() && !parameters.allows_no_label {
        return Err(BuildError::field(
            "validValues",
            "must be non-empty, or allowsNoLabel must be true",
        ));
    }
    build.warn("by-label is deprecated, use label-selector-filter");
    Ok(Roles::default().filter(Arc::new(ByLabel(parameters))))
}

/// Keeps an endpoint iff the label is absent and `allowsNoLabel`, or its value is in
/// `validValues`; an absent label counts as the value `""` (llm-d-router `by-label`).
#[derive(Debug)]
struct ByLabel(Parameters);

impl Filter for ByLabel {
    fn is_static(&self) -> bool {
        true
    }

    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let Parameters { label, valid_values, allows_no_label } = &self.0;
        candidates.retain(|ix| {
            let value = cx.endpoints.get(ix).and_then(|e| e.label(label));
            let kept = (value.is_none() && *allows_no_label)
                || valid_values.iter().any(|valid| valid == value.unwrap_or_default());
            if kept { Ok(()) } else { Err("label value not among validValues") }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    fn kept(parameters: &str) -> Vec<u32> {
        let mut world = World::labelled(&[&[("pool", "x")], &[("pool", "y")], &[]]);
        let filter = world.build("by-label", parameters).unwrap();
        assert_eq!(filter.warnings.len(), 1);
        world.filter(&filter)
    }

    #[test]
    fn absent_labels_are_kept_on_request() {
        assert_eq!(kept("{label: pool, validValues: [x], allowsNoLabel: true}"), [0, 2]);
        assert_eq!(kept("{label: pool, validValues: [x]}"), [0]);
        assert_eq!(kept("{label: pool, allowsNoLabel: true}"), [2]);
    }

    #[test]
    fn an_absent_label_has_the_empty_value() {
        assert_eq!(kept("{label: pool, validValues: ['', y]}"), [1, 2]);
    }

    #[test]
    fn parameters_are_required() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("", Some("label")),
            ("{validValues: [x]}", Some("label")),
            ("{label: gpu}", Some("validValues")),
            ("{label: gpu, values: [x]}", Some("values")),
        ] {
            let error = world.build("by-label", parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), field, "{parameters}");
        }
    }
}

//! `endpoint-attribute-scorer`: rates endpoints by a number that they report.

use std::sync::Arc;

use inlane_core::columns::{Col, Scalar};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use super::attribute;

/// The type `endpoint-attribute-scorer`.
pub const TYPE: PluginType = PluginType::new("endpoint-attribute-scorer", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Name of the number.
    attribute_key: String,
    /// Who reports it; absent = `core-metrics-extractor`, empty = whoever.
    producer: Option<String>,
    /// How to rate.
    algorithm: Algorithm,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Algorithm {
    /// `linear_lower_is_better` or `linear_higher_is_better`.
    #[serde(rename = "type")]
    kind: String,
    /// The scale; absent = that of the candidates.
    normalization: Option<Normalization>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Normalization {
    fixed_range: Option<FixedRange>,
    adaptive_range: Option<AdaptiveRange>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FixedRange {
    min: f64,
    max: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AdaptiveRange {}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { attribute_key, producer, algorithm } = params.decode()?;
    let col = attribute::column(build, "attributeKey", &attribute_key, producer.as_deref())?;
    let lower_is_better = match algorithm.kind.as_str() {
        "linear_lower_is_better" => true,
        "linear_higher_is_better" => false,
        other => {
            let message = format!(
                "expected linear_lower_is_better or linear_higher_is_better, found {other:?}"
            );
            return Err(BuildError::field("algorithm.type", message));
        }
    };
    let Normalization { fixed_range, adaptive_range } = algorithm.normalization.unwrap_or_default();
    if fixed_range.is_some() && adaptive_range.is_some() {
        let message = "expected at most one of fixedRange and adaptiveRange";
        return Err(BuildError::field("algorithm.normalization", message));
    }
    let range = fixed_range.map(|FixedRange { min, max }| (min, max));
    if let Some((min, max)) = range
        && (min.is_nan() || max.is_nan() || min >= max)
    {
        let message = format!("expected min below max, found {min} and {max}");
        return Err(BuildError::field("algorithm.normalization.fixedRange", message));
    }
    Ok(Roles::default().scorer(Arc::new(AttributeScorer { col, lower_is_better, range })))
}

/// `n = (v - min) / (max - min)` with `v` the number; the score is `n`, or `1 - n` where lower is
/// better (llm-d-router `endpoint-attribute-scorer`). The range is fixed, and `n` then clamped to
/// 0…1, or that of the candidates that have the number, and 1 for all of them when it is empty.
/// Missing scores 0.
#[derive(Debug)]
struct AttributeScorer {
    col: Col<Scalar>,
    lower_is_better: bool,
    /// The fixed range, if there is one.
    range: Option<(f64, f64)>,
}

impl Scorer for AttributeScorer {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let value = |&ix: &EndpointIx| attribute::value(cx.columns, self.col, ix);
        let (min, max) = self.range.unwrap_or_else(|| {
            let nothing = (f64::INFINITY, f64::NEG_INFINITY);
            let known = candidates.iter().filter_map(value);
            known.fold(nothing, |(min, max), v| (v.min(min), v.max(max)))
        });
        for (ix, out) in candidates.iter().zip(out) {
            *out = match value(ix) {
                None => 0.0,
                Some(_) if max <= min => 1.0,
                Some(v) => {
                    let n = ((v - min) / (max - min)).clamp(0.0, 1.0);
                    if self.lower_is_better { 1.0 - n } else { n }
                }
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::Scalar;

    use crate::testing::World;

    const PLUGIN: &str = "endpoint-attribute-scorer";

    fn scores(parameters: &str, producer: &str, values: &[Option<f64>]) -> Vec<f64> {
        let mut world = World::new(values.len());
        let scorer = world.build(PLUGIN, parameters).unwrap();
        let col = world.scalar("x", producer);
        for (cell, value) in world.columns.get_mut(col).iter_mut().zip(values) {
            *cell = value.map(Scalar);
        }
        world.score(&scorer)
    }

    #[test]
    fn a_fixed_range_clamps() {
        let fixed = "{attributeKey: x, producer: dcgm-extractor, algorithm: {type: \
                     linear_lower_is_better, normalization: {fixedRange: {min: 0, max: 100}}}}";
        let values = [Some(25.0), Some(120.0), None, Some(-5.0)];
        assert_eq!(scores(fixed, "dcgm-extractor", &values), [0.75, 0.0, 0.0, 1.0]);
        let higher = fixed.replace("lower", "higher");
        assert_eq!(scores(&higher, "dcgm-extractor", &values), [0.25, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn the_adaptive_range_ignores_what_is_missing() {
        let lower = "{attributeKey: x, algorithm: {type: linear_lower_is_better}}";
        let values = [Some(0.0), Some(5.0), Some(20.0), None, Some(f64::NAN)];
        let producer = "core-metrics-extractor";
        assert_eq!(scores(lower, producer, &values), [1.0, 0.75, 0.0, 0.0, 0.0]);
        let higher = "{attributeKey: x, algorithm: {type: linear_higher_is_better, \
                      normalization: {adaptiveRange: {}}}}";
        assert_eq!(scores(higher, producer, &values), [0.0, 0.25, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn an_empty_range_scores_1() {
        for kind in ["lower", "higher"] {
            let parameters =
                format!("{{attributeKey: x, algorithm: {{type: linear_{kind}_is_better}}}}");
            let producer = "core-metrics-extractor";
            assert_eq!(scores(&parameters, producer, &[Some(7.0), None]), [1.0, 0.0]);
            assert_eq!(scores(&parameters, producer, &[Some(7.0), Some(7.0)]), [1.0, 1.0]);
            assert_eq!(scores(&parameters, producer, &[None]), [0.0]);
            assert_eq!(scores(&parameters, producer, &[]), [0.0; 0]);
        }
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        let algorithm = "algorithm: {type: linear_lower_is_better, normalization: ";
        for (parameters, field) in [
            ("{algorithm: {type: linear_lower_is_better}}".into(), "attributeKey"),
            (
                "{attributeKey: a/b, algorithm: {type: linear_lower_is_better}}".into(),
                "attributeKey",
            ),
            ("{attributeKey: a}".into(), "algorithm.type"),
            ("{attributeKey: a, algorithm: {type: linear}}".into(), "algorithm.type"),
            (
                format!(
                    "{{attributeKey: a, {algorithm}{{fixedRange: {{min: 0, max: 1}}, \
                     adaptiveRange: {{}}}}}}}}"
                ),
                "algorithm.normalization",
            ),
            (
                format!("{{attributeKey: a, {algorithm}{{fixedRange: {{min: 1, max: 1}}}}}}}}"),
                "algorithm.normalization.fixedRange",
            ),
            (
                format!("{{attributeKey: a, {algorithm}{{fixedRange: {{}}}}}}}}"),
                "algorithm.normalization.fixedRange",
            ),
        ] {
            let error = world.build(PLUGIN, &parameters).err().expect(&parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
    }
}

//! `endpoint-attribute-filter`: keeps endpoints whose reported number compares true.

use std::sync::Arc;

use inlane_core::columns::{Col, Scalar};
use inlane_core::decision::PluginError;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use super::attribute;

/// The type `endpoint-attribute-filter`.
pub const TYPE: PluginType = PluginType::new("endpoint-attribute-filter", build).alpha();

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Name of the number.
    attribute: String,
    /// Who reports it; absent = `core-metrics-extractor`, empty = whoever.
    producer: Option<String>,
    /// What happens to endpoints without the number; empty = `Pass`.
    on_missing: String,
    /// Whether everything is kept when nothing would be.
    fallback_on_empty: bool,
    /// How to judge.
    algorithm: Algorithm,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Algorithm {
    /// `threshold`.
    #[serde(rename = "type")]
    kind: String,
    /// Parameters of `threshold`.
    threshold: Option<Threshold>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Threshold {
    operator: String,
    value: f64,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { attribute, producer, on_missing, fallback_on_empty, algorithm } =
        params.decode()?;
    let col = attribute::column(build, "attribute", &attribute, producer.as_deref())?;
    let keep_missing = match on_missing.as_str() {
        "" | "Pass" => true,
        "Fail" => false,
        other => {
            let message = format!("expected Pass or Fail, found {other:?}");
            return Err(BuildError::field("onMissing", message));
        }
    };
    if algorithm.kind != "threshold" {
        let message = format!("expected threshold, found {:?}", algorithm.kind);
        return Err(BuildError::field("algorithm.type", message));
    }
    let Some(Threshold { operator, value }) = algorithm.threshold else {
        return Err(BuildError::field("algorithm.threshold", "expected operator and value"));
    };
    let operator = Operator::parse(&operator)?;
    Ok(Roles::default().filter(Arc::new(AttributeFilter {
        col,
        operator,
        value,
        keep_missing,
        fallback_on_empty,
    })))
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Equal,
    GreaterThan,
    GreaterThanOrEqual,
    LessThan,
    LessThanOrEqual,
    NotEqual,
}

impl Operator {
    fn parse(name: &str) -> Result<Self, BuildError> {
        Ok(match name {
            "Equal" => Self::Equal,
            "GreaterThan" => Self::GreaterThan,
            "GreaterThanOrEqual" => Self::GreaterThanOrEqual,
            "LessThan" => Self::LessThan,
            "LessThanOrEqual" => Self::LessThanOrEqual,
            "NotEqual" => Self::NotEqual,
            other => {
                let message = format!(
                    "expected LessThan, LessThanOrEqual, GreaterThan, GreaterThanOrEqual, Equal \
                     or NotEqual, found {other:?}"
                );
                return Err(BuildError::field("algorithm.threshold.operator", message));
            }
        })
    }

    #[allow(clippy::float_cmp, reason = "the user asks for exact equality")]
    fn holds(self, left: f64, right: f64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::GreaterThan => left > right,
            Self::GreaterThanOrEqual => left >= right,
            Self::LessThan => left < right,
            Self::LessThanOrEqual => left <= right,
            Self::NotEqual => left != right,
        }
    }
}

/// Keeps an endpoint iff `number <operator> value`, exactly as IEEE doubles compare (llm-d-router
/// `endpoint-attribute-filter`).
#[derive(Debug)]
struct AttributeFilter {
    col: Col<Scalar>,
    operator: Operator,
    value: f64,
    keep_missing: bool,
    fallback_on_empty: bool,
}

impl Filter for AttributeFilter {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let verdict = |ix| match attribute::value(cx.columns, self.col, ix) {
            Some(value) if self.operator.holds(value, self.value) => Ok(()),
            Some(_) => Err("attribute does not compare true"),
            None if self.keep_missing => Ok(()),
            None => Err("attribute is missing"),
        };
        if self.fallback_on_empty && candidates.as_slice().iter().all(|&ix| verdict(ix).is_err()) {
            return Ok(());
        }
        candidates.retain(verdict);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::Scalar;

    use crate::testing::World;

    const PLUGIN: &str = "endpoint-attribute-filter";

    fn threshold(operator: &str, value: f64, rest: &str) -> String {
        format!(
            "{{attribute: queue_age, algorithm: {{type: threshold, threshold: {{operator: \
             {operator}, value: {value}}}}}, {rest}}}"
        )
    }

    fn kept(parameters: &str, values: &[Option<f64>]) -> Vec<u32> {
        let mut world = World::new(values.len());
        let filter = world.build(PLUGIN, parameters).unwrap();
        let col = world.scalar("queue_age", "core-metrics-extractor");
        for (cell, value) in world.columns.get_mut(col).iter_mut().zip(values) {
            *cell = value.map(Scalar);
        }
        world.filter(&filter)
    }

    #[test]
    fn missing_attributes_pass_unless_told_otherwise() {
        let values = [Some(3.5), Some(4.0), None];
        assert_eq!(kept(&threshold("LessThan", 4.0, "onMissing: Fail"), &values), [0]);
        assert_eq!(kept(&threshold("LessThan", 4.0, ""), &values), [0, 2]);
        assert_eq!(kept(&threshold("LessThan", 4.0, "onMissing: Pass"), &[Some(f64::NAN)]), [0]);
    }

    #[test]
    fn operators_compare_exactly() {
        let values = [Some(1.0), Some(2.0), Some(3.0)];
        for (operator, expected) in [
            ("LessThan", &[0u32] as &[u32]),
            ("LessThanOrEqual", &[0, 1]),
            ("GreaterThan", &[2]),
            ("GreaterThanOrEqual", &[1, 2]),
            ("Equal", &[1]),
            ("NotEqual", &[0, 2]),
        ] {
            assert_eq!(kept(&threshold(operator, 2.0, ""), &values), expected, "{operator}");
        }
        let sum = [Some(0.1 + 0.2)];
        assert_eq!(kept(&threshold("Equal", 0.3, ""), &sum), [0u32; 0]);
    }

    #[test]
    fn an_empty_result_is_the_input_on_request() {
        let values = [Some(1.0), Some(2.0), None];
        let strict = "onMissing: Fail";
        assert_eq!(kept(&threshold("GreaterThan", 5.0, strict), &values), [0u32; 0]);
        let fallback = "onMissing: Fail, fallbackOnEmpty: true";
        assert_eq!(kept(&threshold("GreaterThan", 5.0, fallback), &values), [0, 1, 2]);
        assert_eq!(kept(&threshold("GreaterThan", 1.5, fallback), &values), [1]);
    }

    #[test]
    fn the_threshold_is_0_unless_given() {
        let parameters =
            "{attribute: queue_age, algorithm: {type: threshold, threshold: {operator: LessThan}}}";
        assert_eq!(kept(parameters, &[Some(-1.0), Some(0.0)]), [0]);
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        let rest = "algorithm: {type: threshold, threshold: {operator: Equal}}";
        for (parameters, field) in [
            (format!("{{{rest}}}"), "attribute"),
            (format!("{{attribute: A/B, {rest}}}"), "attribute"),
            (format!("{{attribute: a, onMissing: pass, {rest}}}"), "onMissing"),
            ("{attribute: a}".into(), "algorithm.type"),
            ("{attribute: a, algorithm: {type: ratio}}".into(), "algorithm.type"),
            ("{attribute: a, algorithm: {type: threshold}}".into(), "algorithm.threshold"),
            (
                "{attribute: a, algorithm: {type: threshold, threshold: {operator: Less}}}".into(),
                "algorithm.threshold.operator",
            ),
            (format!("{{attribute: a, attributes: b, {rest}}}"), "attributes"),
        ] {
            let error = world.build(PLUGIN, &parameters).err().expect(&parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
        let slash = format!("{{attribute: A/B, producer: '', {rest}}}");
        let filter = world.build(PLUGIN, &slash).unwrap();
        assert_eq!(filter.data.uses[0].to_string(), "A/B/");
    }
}

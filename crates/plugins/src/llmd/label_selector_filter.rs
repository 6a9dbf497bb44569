//! `label-selector-filter`: keeps endpoints whose labels a Kubernetes label selector matches.

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::Endpoint;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::labels::{check_key, check_value};

/// The type `label-selector-filter`.
pub const TYPE: PluginType =
    PluginType::new("label-selector-filter", build).deprecated_names(&["by-label-selector"]);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Labels that must have exactly this value.
    match_labels: BTreeMap<String, String>,
    /// Further conditions.
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Expression {
    key: String,
    operator: String,
    values: Vec<String>,
}

fn build(_build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { match_labels, match_expressions } = params.decode()?;
    let mut terms = Vec::with_capacity(match_labels.len() + match_expressions.len());
    for (key, value) in match_labels {
        let path = format!("matchLabels[{key:?}]");
        check_key(&key).map_err(|e| BuildError::field(&path, e))?;
        check_value(&value).map_err(|e| BuildError::field(&path, e))?;
        terms.push(Term { key, test: Test::In(vec![value]) });
    }
    for (i, expression) in match_expressions.into_iter().enumerate() {
        terms.push(expression.parse(&format!("matchExpressions[{i}]"))?);
    }
    Ok(Roles::default().filter(Arc::new(LabelSelector(terms))))
}

impl Expression {
    fn parse(self, path: &str) -> Result<Term, BuildError> {
        let Self { key, operator, values } = self;
        check_key(&key).map_err(|e| BuildError::field(format!("{path}.key"), e))?;
        for value in &values {
            check_value(value).map_err(|e| BuildError::field(format!("{path}.values"), e))?;
        }
        let wants_values = matches!(operator.as_str(), "In" | "NotIn");
        let test = match operator.as_str() {
            "In" => Test::In(values),
            "NotIn" => Test::NotIn(values),
            "Exists" if values.is_empty() => Test::Exists,
            "DoesNotExist" if values.is_empty() => Test::DoesNotExist,
            "Exists" | "DoesNotExist" => {
                let message = format!("must be empty with operator {operator}");
                return Err(BuildError::field(format!("{path}.values"), message));
            }
            _ => {
                let message =
                    format!("expected In, NotIn, Exists or DoesNotExist, found {operator:?}");
                return Err(BuildError::field(format!("{path}.operator"), message));
            }
        };
        if let (true, Test::In(values) | Test::NotIn(values)) = (wants_values, &test)
            && values.is_empty()
        {
            let message = format!("must not be empty with operator {operator}");
            return Err(BuildError::field(format!("{path}.values"), message));
        }
        Ok(Term { key, test })
    }
}

/// One condition of a selector.
#[derive(Debug)]
struct Term {
    key: String,
    test: Test,
}

#[derive(Debug)]
enum Test {
    In(Vec<String>),
    /// Also true where the label is absent.
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Term {
    fn matches(&self, endpoint: &Endpoint) -> bool {
        let value = endpoint.label(&self.key);
        let among = |values: &[String]| value.is_some_and(|v| values.iter().any(|w| w == v));
        match &self.test {
            Test::In(values) => among(values),
            Test::NotIn(values) => !among(values),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
        }
    }
}

/// Keeps an endpoint iff all terms match; without terms, every endpoint. The semantics are those
/// of `LabelSelector` in the Kubernetes API.
#[derive(Debug)]
struct LabelSelector(Vec<Term>);

impl Filter for LabelSelector {
    fn is_static(&self) -> bool {
        true
    }

    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        candidates.retain(|ix| match cx.endpoints.get(ix) {
            Some(endpoint) if self.0.iter().all(|term| term.matches(endpoint)) => Ok(()),
            _ => Err("labels do not match the selector"),
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    fn kept(parameters: &str) -> Vec<u32> {
        let mut world = World::labelled(&[
            &[("gpu", "h100"), ("tier", "gold")],
            &[("gpu", "a100")],
            &[("example.com/zone", "eu")],
        ]);
        let filter = world.build("label-selector-filter", parameters).unwrap();
        world.filter(&filter)
    }

    #[test]
    fn no_terms_match_everything() {
        assert_eq!(kept(""), [0, 1, 2]);
        assert_eq!(kept("{}"), [0, 1, 2]);
    }

    #[test]
    fn terms_are_anded() {
        let exists = "{key: tier, operator: Exists}";
        let absent = "{key: tier, operator: DoesNotExist}";
        let labels = "matchLabels: {gpu: h100}";
        assert_eq!(kept(&format!("{{{labels}, matchExpressions: [{absent}]}}")), [0u32; 0]);
        assert_eq!(kept(&format!("{{{labels}, matchExpressions: [{exists}]}}")), [0]);
        assert_eq!(kept("{matchLabels: {example.com/zone: eu}}"), [2]);
    }

    #[test]
    fn operators() {
        let only = |expression: &str| kept(&format!("{{matchExpressions: [{expression}]}}"));
        assert_eq!(only("{key: gpu, operator: In, values: [h100]}"), [0]);
        assert_eq!(only("{key: gpu, operator: NotIn, values: [h100]}"), [1, 2]);
        assert_eq!(only("{key: gpu, operator: Exists}"), [0, 1]);
        assert_eq!(only("{key: gpu, operator: DoesNotExist, values: []}"), [2]);
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        for (parameters, field) in [
            (
                "{matchExpressions: [{key: a, operator: Near}]}",
                Some("matchExpressions[0].operator"),
            ),
            (
                "{matchExpressions: [{key: a, operator: in, values: [x]}]}",
                Some("matchExpressions[0].operator"),
            ),
            ("{matchExpressions: [{key: a, operator: In}]}", Some("matchExpressions[0].values")),
            (
                "{matchExpressions: [{key: a, operator: NotIn, values: []}]}",
                Some("matchExpressions[0].values"),
            ),
            (
                "{matchExpressions: [{key: a, operator: Exists, values: [x]}]}",
                Some("matchExpressions[0].values"),
            ),
            ("{matchExpressions: [{key: '', operator: Exists}]}", Some("matchExpressions[0].key")),
            (
                "{matchExpressions: [{key: a, operator: In, values: ['b c']}]}",
                Some("matchExpressions[0].values"),
            ),
            ("{matchLabels: {'a b': c}}", Some("matchLabels[\"a b\"]")),
            ("{matchLabels: {a: '-b'}}", Some("matchLabels[\"a\"]")),
            ("{labels: {a: b}}", Some("labels")),
        ] {
            let error = world.build("label-selector-filter", parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), field, "{parameters}");
        }
    }
}

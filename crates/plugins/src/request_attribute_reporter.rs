//! `request-attribute-reporter`: tells the proxy a number worked out of a response's token usage.

use std::sync::Arc;

use inlane_core::plugin::{AfterResponse, Metadata, Responding, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::cel::{Facts, Kind, Name, Names, Program, Value};

/// The type `request-attribute-reporter`.
pub const TYPE: PluginType = PluginType::new("request-attribute-reporter", build);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    attributes: Vec<Attribute>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Attribute {
    /// Where the number goes.
    key: Key,
    /// The number.
    expression: String,
    /// Whether it is told; empty = always.
    condition: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Key {
    /// Namespace of the dynamic metadata; empty = `envoy.lb`.
    namespace: String,
    name: String,
}

fn build(_build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { mut attributes } = params.decode()?;
    let (Some(attribute), true) = (attributes.pop(), attributes.is_empty()) else {
        return Err(BuildError::field("attributes", "expected exactly one attribute"));
    };
    let field = |name: &str| format!("attributes[0].{name}");
    let Attribute { key, expression, condition } = attribute;
    if key.name.is_empty() {
        return Err(BuildError::field(field("key.name"), "must be given"));
    }
    let compile = |name: &str, text: &str, kind: Kind| {
        let program =
            Program::compile(text, &mut Usage).map_err(|e| BuildError::field(field(name), e))?;
        match program.kind() {
            Some(found) if found != kind => {
                let expected =
                    if kind == Kind::Bool { "must be true or false" } else { "must be a number" };
                Err(BuildError::field(field(name), expected))
            }
            _ => Ok(program),
        }
    };
    let expression = compile("expression", &expression, Kind::Number)?;
    let condition = Some(condition)
        .filter(|text| !text.trim().is_empty())
        .map(|text| compile("condition", &text, Kind::Bool))
        .transpose()?;
    let namespace = if key.namespace.is_empty() { "envoy.lb".into() } else { key.namespace };
    let reporter = AttributeReporter { namespace, key: key.name, expression, condition };
    Ok(Roles::default().after_response(Arc::new(reporter)))
}

/// Writes the expression's number without its fraction, once the response is complete, unless the
/// condition is not true. Not written are 0, and whatever is no number (llm-d-router
/// `request-attribute-reporter`).
#[derive(Debug)]
struct AttributeReporter {
    namespace: String,
    key: String,
    expression: Program<Field>,
    condition: Option<Program<Field>>,
}

impl AfterResponse for AttributeReporter {
    fn report(&self, cx: &Responding<'_>, metadata: &mut Vec<Metadata>) {
        let facts = Answer(cx);
        let eval = |program: &Program<Field>| match program.eval(&facts, &program.begin(&facts)) {
            Ok(Value::Bool(value)) => Some(f64::from(u8::from(value))),
            Ok(value) => value.double(),
            Err(_) => None,
        };
        if self.condition.as_ref().is_some_and(|condition| eval(condition) != Some(1.0)) {
            return;
        }
        let Some(value) = eval(&self.expression).map(f64::trunc) else { return };
        if value != 0.0 && value.is_finite() {
            let (namespace, key) = (self.namespace.clone(), self.key.clone());
            metadata.push(Metadata { namespace, key, value });
        }
    }
}

/// What an engine says of the tokens of a request.
#[derive(Debug, Clone, Copy)]
enum Field {
    Cached,
    Completion,
    Details,
    Prompt,
    Total,
}

struct Usage;

impl Names for Usage {
    type Field = Field;

    fn resolve(&mut self, path: &[&str]) -> Option<Name<Field>> {
        match path {
            ["usage", "prompt_tokens"] => Some(Name::Field(Field::Prompt)),
            ["usage", "completion_tokens"] => Some(Name::Field(Field::Completion)),
            ["usage", "total_tokens"] => Some(Name::Field(Field::Total)),
            ["usage", "prompt_tokens_details"] => Some(Name::Field(Field::Details)),
            ["usage", "prompt_tokens_details", "cached_tokens"] => Some(Name::Field(Field::Cached)),
            _ => None,
        }
    }

    fn is_shared(&self, _field: Field) -> bool {
        false
    }

    fn kind(&self, _field: Field) -> Kind {
        Kind::Number
    }

    fn known(&self) -> &'static str {
        "usage.{prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details.cached_tokens}"
    }
}

struct Answer<'a, 'r>(&'r Responding<'a>);

impl<'a> Facts<'a, Field> for Answer<'_, '_> {
    fn field(&self, field: Field) -> Option<Value<'a>> {
        let Responding { prompt_tokens, completion_tokens, cached_tokens, .. } = *self.0;
        let tokens = match field {
            Field::Cached | Field::Details => cached_tokens,
            Field::Completion => completion_tokens,
            Field::Prompt => prompt_tokens,
            Field::Total if prompt_tokens.is_none() && completion_tokens.is_none() => None,
            Field::Total => {
                let (prompt, completion) = (prompt_tokens, completion_tokens);
                Some(prompt.unwrap_or(0).saturating_add(completion.unwrap_or(0)))
            }
        };
        tokens.map(|tokens| Value::Int(i64::try_from(tokens).unwrap_or(i64::MAX)))
    }

    fn entry(&self, _map: Field, _key: &str) -> Option<Value<'a>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::plugin::{Metadata, Responding};

    use crate::testing::World;

    fn report(parameters: &str, usage: (Option<u64>, Option<u64>, Option<u64>)) -> Vec<Metadata> {
        let mut world = World::new(0);
        let built = world.build("request-attribute-reporter", parameters).unwrap();
        let (prompt_tokens, completion_tokens, cached_tokens) = usage;
        let cx = Responding {
            endpoints: &world.endpoints,
            profiles: &[],
            targets: &[],
            kept: &[],
            request_id: "r",
            endpoint: None,
            streaming: false,
            status: 200,
            first_byte_ms: None,
            total_ms: 1.0,
            complete: true,
            prompt_tokens,
            completion_tokens,
            cached_tokens,
            tells_cached: true,
        };
        let mut metadata = Vec::new();
        built.roles.after_response.unwrap().report(&cx, &mut metadata);
        metadata
    }

    fn value(expression: &str) -> Option<f64> {
        let parameters =
            format!("{{attributes: [{{key: {{name: cost}}, expression: {expression:?}}}]}}");
        report(&parameters, (Some(100), Some(7), None)).first().map(|m| m.value)
    }

    #[test]
    fn the_number_is_written_without_its_fraction() {
        for (expression, expected) in [
            ("usage.prompt_tokens + usage.completion_tokens", Some(107.0)),
            ("usage.total_tokens", Some(107.0)),
            ("usage.completion_tokens * 0.5", Some(3.0)),
            ("usage.prompt_tokens - 200", Some(-100.0)),
            ("usage.prompt_tokens - 100", None),
            ("usage.completion_tokens * 0.1", None),
            ("usage.prompt_tokens_details.cached_tokens", None),
            (
                "has(usage.prompt_tokens_details) ? usage.prompt_tokens_details.cached_tokens : 5",
                Some(5.0),
            ),
            ("usage.prompt_tokens / 0", None),
            ("usage.prompt_tokens / 0.0", None),
        ] {
            assert_eq!(value(expression), expected, "{expression}");
        }
    }

    #[test]
    fn the_condition_decides() {
        let parameters = "{attributes: [{key: {namespace: n, name: cost}, \
            expression: usage.completion_tokens, condition: has(usage.prompt_tokens)}]}";
        let expected = Metadata { namespace: "n".into(), key: "cost".into(), value: 7.0 };
        assert_eq!(report(parameters, (Some(1), Some(7), None)), [expected]);
        assert_eq!(report(parameters, (None, Some(7), None)), []);
        let default = "{attributes: [{key: {name: cost}, \
            expression: usage.prompt_tokens_details.cached_tokens}]}";
        assert_eq!(report(default, (None, None, Some(3)))[0].namespace, "envoy.lb");
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        let one = |rest: &str| format!("{{attributes: [{{key: {{name: n}}, {rest}}}]}}");
        let two =
            "{attributes: [{key: {name: a}, expression: '1'}, {key: {name: b}, expression: '1'}]}";
        for (parameters, field) in [
            ("{}".to_owned(), "attributes"),
            (two.to_owned(), "attributes"),
            ("{attributes: [{expression: '1'}]}".to_owned(), "attributes[0].key.name"),
            (one("condition: 'true'"), "attributes[0].expression"),
            (one("expression: 'usage.tokens'"), "attributes[0].expression"),
            (one("expression: '1 > 0'"), "attributes[0].expression"),
            (one("expression: '1', condition: '1'"), "attributes[0].condition"),
            (one("expression: '1', when: x"), "attributes[0].when"),
        ] {
            let error = world.build("request-attribute-reporter", &parameters).err();
            assert_eq!(error.expect(&parameters).field.as_deref(), Some(field), "{parameters}");
        }
    }
}

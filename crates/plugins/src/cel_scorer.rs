//! `cel-scorer`: rates endpoints by an expression of the user's own.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::cel::decision::{Candidate, Columns, Declare, Field, Producers};
use crate::cel::{Errors, Kind, Program, Value};

/// The type `cel-scorer`.
pub const TYPE: PluginType = PluginType::new("cel-scorer", build);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// A number per endpoint.
    expression: String,
    /// How numbers become scores.
    normalize: Normalize,
    prefix_match_info_producer_name: String,
    in_flight_load_producer_name: String,
    latency_prediction_info_producer_name: String,
}

/// How numbers become scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Normalize {
    /// `(x - min) / (max - min)`.
    HigherIsBetter,
    /// `(max - x) / (max - min)`.
    LowerIsBetter,
    /// They are scores.
    #[default]
    None,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let errors = Arc::new(Errors::of(TYPE.name, build.name()));
    let producers = Producers {
        prefix: parameters.prefix_match_info_producer_name,
        in_flight: parameters.in_flight_load_producer_name,
        latency: parameters.latency_prediction_info_producer_name,
    };
    let mut names = Declare { build, producers: &producers, columns: Columns::default() };
    let program = Program::compile(&parameters.expression, &mut names)
        .map_err(|e| BuildError::field("expression", e))?;
    if program.kind() == Some(Kind::Text) {
        return Err(BuildError::field("expression", "must be a number, or true or false"));
    }
    let scorer = CelScorer {
        program,
        columns: names.columns,
        normalize: parameters.normalize,
        errors: Arc::clone(&errors),
    };
    Ok(Roles::default().scorer(Arc::new(scorer)).collector(errors))
}

/// The expression's number, true = 1 and false = 0; with `normalize` its place between the least and
/// the greatest of the candidates, 1 for all when they are equal.
#[derive(Debug)]
struct CelScorer {
    program: Program<Field>,
    columns: Columns,
    normalize: Normalize,
    errors: Arc<Errors>,
}

impl Scorer for CelScorer {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn reads_metrics(&self) -> bool {
        self.columns.engine
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let Some(&first) = candidates.first() else { return Ok(()) };
        let facts = |endpoint| Candidate { cx, columns: &self.columns, endpoint };
        let frame = self.program.begin(&facts(first));
        let (mut min, mut max, mut errors) = (f64::INFINITY, f64::NEG_INFINITY, 0);
        for (&endpoint, out) in candidates.iter().zip(&mut *out) {
            let number = match self.program.eval(&facts(endpoint), &frame) {
                Ok(Value::Bool(value)) => Some(f64::from(u8::from(value))),
                Ok(value) => value.double().filter(|number| number.is_finite()),
                Err(_) => None,
            };
            match number {
                Some(number) => {
                    *out = number;
                    (min, max) = (min.min(number), max.max(number));
                }
                None => {
                    *out = f64::NAN;
                    errors += 1;
                }
            }
        }
        self.errors.add(errors);
        // Halves, so that the range of the largest numbers is finite.
        let range = max * 0.5 - min * 0.5;
        let place = |number: f64| match self.normalize {
            Normalize::None => number,
            _ if range == 0.0 => 1.0,
            Normalize::HigherIsBetter => (number * 0.5 - min * 0.5) / range,
            Normalize::LowerIsBetter => (max * 0.5 - number * 0.5) / range,
        };
        out.iter_mut().filter(|out| !out.is_nan()).for_each(|out| *out = place(*out));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::exposition::Exposition;

    use crate::testing::World;

    fn world() -> World {
        let mut world = World::labelled(&[&[("cost", "2")], &[("cost", "4.5")], &[]]);
        let metrics = &mut world.columns.metrics;
        (metrics.waiting, metrics.kv_usage) = (vec![0, 5, 10], vec![0.0, 0.5, 1.0]);
        world
    }

    fn scores(parameters: &str) -> Vec<f64> {
        let mut world = world();
        let built = world.build("cel-scorer", parameters).unwrap();
        world.score(&built)
    }

    #[test]
    fn numbers_and_truths_are_scores() {
        assert_eq!(scores("{expression: '1.0 - endpoint.kv_usage'}"), [1.0, 0.5, 0.0]);
        assert_eq!(scores("{expression: 'endpoint.waiting'}"), [0.0, 5.0, 10.0]);
        assert_eq!(scores("{expression: 'endpoint.waiting < 6'}"), [1.0, 1.0, 0.0]);
        let mixed = "{expression: '0.5 * endpoint.waiting / 10 + 1u - 1'}";
        assert_eq!(scores(mixed), [0.0, 0.25, 0.5]);
    }

    #[test]
    fn normalized_numbers_span_the_unit_interval() {
        let with = |normalize: &str, expression: &str| {
            scores(&format!("{{normalize: {normalize}, expression: '{expression}'}}"))
        };
        assert_eq!(with("higherIsBetter", "endpoint.waiting - 3"), [0.0, 0.5, 1.0]);
        assert_eq!(with("lowerIsBetter", "endpoint.waiting * 7"), [1.0, 0.5, 0.0]);
        assert_eq!(with("lowerIsBetter", "42"), [1.0; 3]);
        let huge = "endpoint.waiting == 5 ? 0.0 : endpoint.waiting == 0 ? -1.7e308 : 1.7e308";
        assert_eq!(with("higherIsBetter", huge), [0.0, 0.5, 1.0]);
    }

    #[test]
    fn an_endpoint_without_an_answer_has_no_score() {
        let mut world = world();
        let built = world
            .build(
                "cel-scorer",
                "{expression: 'double(endpoint.labels.cost)', normalize: lowerIsBetter}",
            )
            .unwrap();
        let scores = world.score(&built);
        assert_eq!(scores[..2], [1.0, 0.0]);
        assert!(scores[2].is_nan());
        let mut page = Exposition::default();
        built.roles.collector.as_ref().unwrap().collect(&mut page);
        assert!(page.render().ends_with("} 1\n"));
        let built = world.build("cel-scorer", "{expression: '1.0 / 0.0'}").unwrap();
        assert!(world.score(&built).iter().all(|score| score.is_nan()));
    }

    #[test]
    fn metrics_count_as_read_only_where_they_are() {
        let mut world = world();
        let mut reads = |expression: &str| {
            let parameters = format!("{{expression: '{expression}'}}");
            let built = world.build("cel-scorer", &parameters).unwrap();
            built.roles.scorer.unwrap().reads_metrics()
        };
        assert!(reads("endpoint.waiting"));
        assert!(!reads("endpoint.port"));
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{expression: endpoint.name}", "expression"),
            ("{expression: 'endpoint.waiting >'}", "expression"),
            ("{normalize: softmax, expression: '1'}", "normalize"),
            ("{expr: '1'}", "expr"),
        ] {
            let error = world.build("cel-scorer", parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
        assert!(world.build("cel-scorer", "").is_err());
    }
}

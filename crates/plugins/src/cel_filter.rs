//! `cel-filter`: keeps endpoints for which an expression of the user's own is true.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::cel::decision::{Candidate, Columns, Declare, Field, Producers};
use crate::cel::{Errors, Kind, Program, Value};

/// The type `cel-filter`.
pub const TYPE: PluginType = PluginType::new("cel-filter", build);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// True for endpoints to keep.
    expression: String,
    /// What happens to an endpoint for which the expression has no answer.
    on_error: Verdict,
    /// Whether everybody stays when the expression is true for nobody.
    fallback_on_empty: bool,
    prefix_match_info_producer_name: String,
    in_flight_load_producer_name: String,
    latency_prediction_info_producer_name: String,
}

/// What is done with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
enum Verdict {
    /// It is dropped.
    Fail,
    /// It stays.
    #[default]
    Pass,
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
    if program.kind().is_some_and(|kind| kind != Kind::Bool) {
        return Err(BuildError::field("expression", "must be true or false"));
    }
    let filter = CelFilter {
        program,
        columns: names.columns,
        on_error: parameters.on_error,
        fallback_on_empty: parameters.fallback_on_empty,
        errors: Arc::clone(&errors),
    };
    Ok(Roles::default().filter(Arc::new(filter)).collector(errors))
}

/// Keeps an endpoint iff the expression is true for it.
#[derive(Debug)]
struct CelFilter {
    program: Program<Field>,
    columns: Columns,
    on_error: Verdict,
    fallback_on_empty: bool,
    errors: Arc<Errors>,
}

impl Filter for CelFilter {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let Some(&first) = candidates.as_slice().first() else { return Ok(()) };
        let facts = |endpoint| Candidate { cx, columns: &self.columns, endpoint };
        let frame = self.program.begin(&facts(first));
        let verdict = |endpoint| match self.program.eval(&facts(endpoint), &frame) {
            Ok(Value::Bool(true)) => Ok(Ok(())),
            Ok(Value::Bool(false)) => Ok(Err("the expression is false")),
            _ if self.on_error == Verdict::Pass => Err(Ok(())),
            _ => Err(Err("the expression has no answer")),
        };
        let keeps = |endpoint| matches!(verdict(endpoint), Ok(Ok(())) | Err(Ok(())));
        if self.fallback_on_empty && !candidates.as_slice().iter().any(|&ix| keeps(ix)) {
            return Ok(());
        }
        let mut errors = 0;
        candidates.retain(|endpoint| {
            verdict(endpoint).unwrap_or_else(|verdict| {
                errors += 1;
                verdict
            })
        });
        self.errors.add(errors);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::{InFlight, PrefixMatch};
    use inlane_core::decision::Rejection;
    use inlane_core::exposition::Exposition;
    use inlane_core::plugin::Candidates;
    use inlane_core::request::Request;
    use inlane_core::state::RequestAttribute;

    use crate::testing::World;

    fn world() -> World {
        let mut world = World::labelled(&[
            &[("gpu", "h100"), ("example.com/tier", "gold")],
            &[("gpu", "a100")],
            &[],
        ]);
        let metrics = &mut world.columns.metrics;
        (metrics.waiting, metrics.kv_usage) = (vec![0, 4, 9], vec![0.1, 0.95, 0.5]);
        world
    }

    /// The endpoints kept, and the errors counted.
    fn run(world: &mut World, parameters: &str, request: &Request<'_>) -> (Vec<u32>, String) {
        let built = world.build("cel-filter", parameters).unwrap();
        let (mut kept, mut rejections) = (world.all(), Vec::<Rejection>::new());
        let mut candidates = Candidates::new(&mut kept, &mut rejections, 0);
        built.roles.filter.unwrap().filter(&world.cycle(request), &mut candidates).unwrap();
        let mut page = Exposition::default();
        built.roles.collector.unwrap().collect(&mut page);
        (kept, page.render().rsplit(' ').next().unwrap().trim().to_owned())
    }

    fn kept(expression: &str, request: &Request<'_>) -> Vec<u32> {
        let parameters = format!("{{onError: Fail, expression: {expression:?}}}");
        run(&mut world(), &parameters, request).0
    }

    #[test]
    fn expressions_see_endpoint_and_request() {
        let headers = [("x-tier", "gold"), ("x-max", "5")];
        let request = Request {
            headers: &headers,
            model: "llama-70b",
            target_model: "llama-70b-v2",
            priority: -1,
            body_bytes: 900,
            streaming: true,
            ..Default::default()
        };
        for (expression, expected) in [
            ("true", &[0, 1, 2][..]),
            ("endpoint.waiting < 5 && endpoint.kv_usage < 0.9", &[0]),
            ("endpoint.waiting * 2.0 >= 8.0", &[1, 2]),
            ("endpoint.labels['gpu'] == 'h100'", &[0]),
            ("endpoint.labels.gpu != 'h100'", &[1]),
            ("'gpu' in endpoint.labels && endpoint.labels.gpu.startsWith('a')", &[1]),
            ("has(endpoint.labels.gpu)", &[0, 1]),
            ("!has(endpoint.labels.gpu) || endpoint.labels.gpu in ['x', 'h100']", &[0, 2]),
            ("endpoint.labels['example.com/tier'] == request.headers['X-Tier']", &[0]),
            ("endpoint.waiting < int(request.headers['x-max'])", &[0, 1]),
            ("request.priority < 0 ? endpoint.waiting == 0 : true", &[0]),
            ("request.streaming && request.model.contains('70b')", &[0, 1, 2]),
            ("request.target_model.endsWith('v2') && request.body_bytes > 500", &[0, 1, 2]),
            ("request.model.size() == 9", &[0, 1, 2]),
            ("has(request.max_output_tokens)", &[]),
            ("endpoint.id == 'default/000b' || endpoint.name == 'c'", &[1, 2]),
            ("endpoint.pod == 'a' && endpoint.port == 8000 && endpoint.rank == 0", &[0]),
            ("endpoint.labels.gpu == 'h100' || endpoint.waiting == 9", &[0, 2]),
            ("endpoint.labels.gpu == 'h100' && endpoint.waiting == 9", &[]),
            ("math.greatest(endpoint.waiting, 4) == 4", &[0, 1]),
            ("math.least(endpoint.waiting, endpoint.kv_usage) > 0.4", &[1, 2]),
            ("-endpoint.waiting <= -4", &[1, 2]),
            ("endpoint.waiting % 3 == 0", &[0, 2]),
            ("endpoint.waiting / 0 == 1", &[]),
            ("endpoint.labels.gpu.matches('^h1[0-9]{2}$')", &[0]),
            ("matches(request.model, '70b')", &[0, 1, 2]),
            ("endpoint.labels.gpu.matches('')", &[0, 1]),
            ("['h', 'x'].exists(p, endpoint.labels.gpu.startsWith(p))", &[0]),
            ("[endpoint.waiting, 9].all(n, n > 3 && n < 9 || n == 9)", &[1, 2]),
            ("['a', 'b'].exists(x, ['b', 'c'].exists(y, x == y && endpoint.name == x))", &[1]),
            ("['c'].exists(x, [x, 'a'].exists(x, endpoint.name == x))", &[0, 2]),
            ("[].all(x, x == 1) && ![].exists(x, true) && endpoint.waiting == 0", &[0]),
        ] {
            assert_eq!(kept(expression, &request), expected, "{expression}");
        }
    }

    #[test]
    fn columns_are_declared_and_read() {
        let mut world = world();
        let col = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        world.columns.get_mut(col)[1] =
            Some(PrefixMatch { match_blocks: 3, total_blocks: 4, ..Default::default() });
        let col = world.column::<InFlight>("mine");
        world.columns.get_mut(col)[2] = Some(InFlight { requests: 7, tokens: 90, word: 0 });
        let request = Request::default();
        let mut kept = |expression: &str| {
            let parameters =
                format!("{{inFlightLoadProducerName: mine, expression: {expression:?}}}");
            run(&mut world, &parameters, &request).0
        };
        assert_eq!(kept("endpoint.prefix_ratio >= 0.75"), [1]);
        assert_eq!(kept("!has(endpoint.prefix_ratio)"), [0, 2]);
        assert_eq!(kept("endpoint.in_flight_requests < 7"), [0, 1]);
        let built = world
            .build(
                "cel-filter",
                "{expression: 'endpoint.prefix_ratio > 0.0 && endpoint.waiting > 0'}",
            )
            .unwrap();
        assert_eq!(built.data.requires.len(), 1);
        assert_eq!(built.data.uses.len(), 1);
    }

    #[test]
    fn attributes_and_custom_metrics_are_maps() {
        let mut world = world();
        let request = Request::default();
        let expression = "{expression: 'endpoint.metrics[\"depth\"] > 3.0', onError: Fail}";
        assert_eq!(run(&mut world, expression, &request), (vec![], "3".to_owned()));
        let built = world.build("cel-filter", expression).unwrap();
        assert_eq!(built.data.uses[0].name, "depth");
        let text = "{expression: 'request.attributes[\"session\"] == \"s\"'}";
        let built = world.build("cel-filter", text).unwrap();
        let producer = String::new();
        world.state.set_attribute(RequestAttribute {
            name: "session".into(),
            producer,
            value: "t".into(),
        });
        assert!(world.filter(&built).is_empty());
    }

    #[test]
    fn an_expression_without_an_answer_is_neutral_and_counted() {
        let (mut world, request) = (world(), Request::default());
        let gold = "expression: 'endpoint.labels.gpu == \"h100\"'";
        assert_eq!(run(&mut world, &format!("{{{gold}}}"), &request), (vec![0, 2], "1".into()));
        let strict = format!("{{{gold}, onError: Fail}}");
        assert_eq!(run(&mut world, &strict, &request), (vec![0], "1".into()));
        let nobody = "{expression: 'endpoint.waiting > 99', fallbackOnEmpty: true}";
        assert_eq!(run(&mut world, nobody, &request), (vec![0, 1, 2], "0".into()));
        assert_eq!(run(&mut World::new(0), nobody, &request).0, [0u32; 0]);
    }

    #[test]
    fn what_cannot_be_evaluated_is_refused() {
        let mut world = World::new(0);
        let deep = format!("{}1{}", "(".repeat(200), ")".repeat(200));
        let long = format!("true{}", " || true".repeat(300));
        let items = "1, ".repeat(20) + "1";
        let many = format!("[{items}].all(x, [{items}].all(y, x == y))");
        for expression in [
            "",
            "1 +",
            "endpoint.waiting",
            "'text'",
            "endpoint.queue > 1",
            "pod.waiting > 1",
            "endpoint.labels == 'x'",
            "endpoint.waiting + 'a' == 'b'",
            "endpoint.name < 3",
            "endpoint.waiting && true",
            "[1, 2].exists_one(x, x == 1)",
            "[1, 2].exists(x, x)",
            "[1, 2].exists(endpoint, endpoint.waiting == 1)",
            "[1, 2].filter(x, x == 1) == [1]",
            "endpoint.labels.exists(x, x == 'a')",
            "x == 1",
            "[1].exists(x, true) && x == 1",
            "endpoint.name.matches('a(')",
            "endpoint.name.matches(endpoint.pod)",
            "endpoint.waiting.matches('1')",
            "endpoint.name.matches('(a{99}){99}{99}')",
            &many,
            "{'a': 1}['a'] == 1",
            "timestamp('2020-01-01T00:00:00Z') > timestamp('2019-01-01T00:00:00Z')",
            "endpoint.labels['a', 'b'] == 'x'",
            &deep,
            &long,
            &" ".repeat(5_000),
        ] {
            let parameters = format!("{{expression: {expression:?}}}");
            let error = world.build("cel-filter", &parameters).err().expect(expression);
            assert_eq!(error.field.as_deref(), Some("expression"), "{expression}");
        }
        assert!(world.build("cel-filter", "").is_err());
        let error = world.build("cel-filter", "{expression: 'endpoint.queue > 1'}").err().unwrap();
        assert!(error.message.contains("endpoint.queue is not known"), "{}", error.message);
        assert!(error.message.contains("waiting"), "{}", error.message);
    }
}

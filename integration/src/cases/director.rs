//! Cases about the whole request path, from the request to destination or answer.

use inlane_core::registry::Registry;
use serde_json::{Value, json};

use super::bench::Bench;
use super::check::Checks;
use super::pool::Pool;
use super::request::LiveRequest;
use super::schedule::{Path, Proxy};
use super::schema::{Case, PluginSpec};

const DROP_REASON: &str = "x-llm-d-request-dropped-reason";
const PREFIX_PRODUCER: &str = "approx-prefix-cache-producer";

/// What the client or the upstream sees.
#[derive(Default)]
struct Answer {
    status: u16,
    headers: serde_json::Map<String, Value>,
    destination: String,
}

pub(super) fn director(
    case: &Case,
    registry: &Registry,
    checks: &mut Checks,
) -> Result<(), String> {
    let pool = Pool::new(&case.endpoints)?;
    let config = case.config.clone().unwrap_or_else(|| config_of(case, registry));
    let mut proxy = Proxy::new(&config, registry, &pool)?;
    let mut request = LiveRequest::new(&case.request);
    proxy.tokenize(&mut request)?;
    let answer = serve(&mut proxy, &mut request, &pool)?;

    let expect = &case.expect;
    if let Some(expected) = expect.get("http_status") {
        checks.equal("http_status", expected, &json!(answer.status));
    }
    for (name, expected) in expect["response_headers"].as_object().into_iter().flatten() {
        let got = answer.headers.get(name).unwrap_or(&Value::Null);
        checks.equal(&format!("response_headers.{name}"), expected, got);
    }
    if let Some(expected) = expect.get("destination") {
        checks.equal("destination", expected, &json!(answer.destination));
    }
    match expect.get("targets") {
        None => {}
        Some(expected @ Value::Array(_)) => {
            let targets = json!(pool.names(proxy.primary_targets()));
            checks.equal("targets", expected, &targets);
        }
        Some(expected) => checks.equal("targets", expected, &proxy.targets(&pool)),
    }
    Ok(())
}

fn serve(proxy: &mut Proxy, request: &mut LiveRequest, pool: &Pool) -> Result<Answer, String> {
    let candidates = pool.candidates(None)?;
    match proxy.serve(request, pool, &candidates, Path::Whole) {
        Ok(target) => {
            let headers = proxy.response_headers(request, target);
            let headers = headers.into_iter().map(|(name, value)| (name, json!(value))).collect();
            let destination = proxy.destination(pool);
            Ok(Answer { status: 200, headers, destination })
        }
        Err(error) => {
            let http = error.http();
            let reason = http.drop_reason.map(|reason| (DROP_REASON.to_owned(), json!(reason)));
            let headers = reason.into_iter().collect();
            Ok(Answer { status: http.status, headers, ..Answer::default() })
        }
    }
}

/// The configuration that the case's plugins make: those that fit a profile are in the only one. A
/// case that gives prefix matches has somebody who produces them.
fn config_of(case: &Case, registry: &Registry) -> Value {
    let mut plugins: Vec<Value> = case.plugins.iter().map(plugin).collect();
    let given = case.endpoints.iter().any(|e| !e.attributes.prefix.is_empty());
    let listed = case.plugins.iter().any(|p| p.name() == PREFIX_PRODUCER);
    if given && !listed {
        plugins.push(json!({"type": PREFIX_PRODUCER}));
    }
    let mut bench = Bench::new(registry);
    let fits = |spec: &&PluginSpec| {
        // One that cannot be built is an error of the whole configuration.
        bench.build(spec).ok().and_then(|at| bench.instances.get(at)).is_none_or(|instance| {
            let roles = &instance.roles;
            roles.filter.is_some() || roles.scorer.is_some() || roles.picker.is_some()
        })
    };
    let of_profile = case.plugins.iter().filter(fits).map(reference).collect::<Vec<_>>();
    json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": plugins,
        "schedulingProfiles": [{"name": "default", "plugins": of_profile}],
    })
}

fn plugin(spec: &PluginSpec) -> Value {
    json!({"type": spec.type_name, "name": spec.name(), "parameters": spec.parameters})
}

fn reference(spec: &PluginSpec) -> Value {
    json!({"pluginRef": spec.name(), "weight": spec.weight})
}

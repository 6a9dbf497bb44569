//! Cases about the whole request path, from the request to destination or answer.

use inlane_core::plugin::RequestFacts;
use inlane_core::registry::Registry;
use serde_json::{Value, json};

use super::check::Checks;
use super::pool::Pool;
use super::request::LiveRequest;
use super::schedule::Proxy;
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
    let config = case.config.clone().unwrap_or_else(|| config_of(case));
    let mut proxy = Proxy::new(&config, registry, &pool)?;
    let mut request = LiveRequest::new(&case.request);
    if proxy.tokenizes() {
        request.tokenize()?;
    }
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
    if let Err(refusal) = proxy.pre_call(request, &mut RequestFacts::default()) {
        return Ok(Answer { status: refusal.status, ..Answer::default() });
    }
    let candidates = pool.candidates(None)?;
    match proxy.serve(request, pool, &candidates, true) {
        Ok(_) => {
            let hosts =
                proxy.primary_targets().iter().map(|&ix| pool.endpoints[ix].host_port.as_str());
            let destination = hosts.collect::<Vec<_>>().join(",");
            Ok(Answer { status: 200, destination, ..Answer::default() })
        }
        Err(error) => {
            let http = error.http();
            let reason = http.drop_reason.map(|reason| (DROP_REASON.to_owned(), json!(reason)));
            let headers = reason.into_iter().collect();
            Ok(Answer { status: http.status, headers, ..Answer::default() })
        }
    }
}

/// The configuration that the case's plugins make. A case that gives prefix matches has somebody
/// who produces them.
fn config_of(case: &Case) -> Value {
    let mut plugins: Vec<Value> = case.plugins.iter().map(plugin).collect();
    let given = case.endpoints.iter().any(|e| !e.attributes.prefix.is_empty());
    let listed = case.plugins.iter().any(|p| p.name() == PREFIX_PRODUCER);
    if given && !listed {
        plugins.push(json!({"type": PREFIX_PRODUCER}));
    }
    json!({
        "apiVersion": "llm-d.ai/v1alpha1",
        "kind": "EndpointPickerConfig",
        "plugins": plugins,
        "schedulingProfiles": [{
            "name": "default",
            "plugins": case.plugins.iter().map(reference).collect::<Vec<_>>(),
        }],
    })
}

fn plugin(spec: &PluginSpec) -> Value {
    json!({"type": spec.type_name, "name": spec.name(), "parameters": spec.parameters})
}

fn reference(spec: &PluginSpec) -> Value {
    json!({"pluginRef": spec.name(), "weight": spec.weight})
}

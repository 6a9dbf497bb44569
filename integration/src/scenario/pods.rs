//! Faults of simulated pods, and what arrived at them.

use std::io::{self, Read};

use inlane_cli::lab::{Client, Lab, Pod};
use serde_json::{Value, json};

/// Every completion is read and then answered with a connection reset.
pub const RESETS: &str = r#"{"fault-reset-rate": 100}"#;
/// Completions are answered again.
pub const ANSWERS: &str = r#"{"fault-reset-rate": 0}"#;

/// Changes settings of a pod while it runs.
///
/// # Panics
/// When the pod does not take them.
pub fn configure(pod: &Pod, settings: &str) {
    let answer = Client::new(pod.port).post("/admin/config", &[], settings.as_bytes());
    let answer = answer.unwrap_or_else(|e| panic!("{}: {e}", pod.name));
    assert_eq!(answer.status, 200, "{}: {}", pod.name, answer.text());
}

/// The headers of the completions that a pod has answered, oldest first.
///
/// # Panics
/// When the pod cannot be asked.
pub fn arrived(pod: &Pod) -> Vec<Value> {
    let page = Client::new(pod.port).get("/debug/requests").and_then(|answer| answer.json());
    let page = page.unwrap_or_else(|e| panic!("{}: {e}", pod.name));
    page.as_array().into_iter().flatten().map(|request| request["headers"].clone()).collect()
}

/// The names of the pods that a recorded decision ranked, best first.
pub fn ranking(decision: &Value) -> Vec<String> {
    names(&decision["profiles"][0]["ranking"])
}

/// The name of the pod that a recorded decision chose.
pub fn chosen(decision: &Value) -> &str {
    name(&decision["endpoint"])
}

/// A score of the decision's first profile, of the pod with that name.
pub fn score(decision: &Value, scorer: &str, pod: &str) -> Option<f64> {
    let rows = decision["profiles"][0]["endpoints"].as_array()?;
    rows.iter().find(|row| name(&row["endpoint"]) == pod)?["scores"][scorer].as_f64()
}

/// Bookings of the pod with that name, as the module sees them.
///
/// # Panics
/// When the module cannot be asked or does not know the pod.
pub fn in_flight(lab: &Lab, pod: &str) -> u64 {
    let pool = lab.pool().unwrap_or_else(|e| panic!("{e}"));
    let found = pool["endpoints"].as_array().into_iter().flatten().find(|e| e["name"] == pod);
    let bookings = found.and_then(|endpoint| endpoint["in_flight_requests"].as_u64());
    bookings.unwrap_or_else(|| panic!("no pod {pod} in {pool}"))
}

/// Sends a streamed completion of exactly so many tokens and reads its first bytes: from then on it
/// is under way at the pod whose name is returned. Dropping the reader ends it.
///
/// # Errors
/// No answer with 200.
pub fn open_stream(
    lab: &Lab,
    id: &str,
    max_tokens: u32,
) -> io::Result<(String, impl Read + use<>)> {
    let body = json!({
        "model": "random", "prompt": "a long story", "max_tokens": max_tokens, "stream": true,
        "ignore_eos": true,
    });
    let headers = [("x-request-id", id)];
    let body = body.to_string();
    let mut answer = lab.client().post_streaming("/v1/completions", &headers, body.as_bytes())?;
    let pod = answer.headers.get("x-inference-pod").and_then(|pod| pod.to_str().ok());
    let pod = pod.unwrap_or_default().to_owned();
    if answer.status != 200 || answer.read(&mut [0; 64])? == 0 {
        return Err(io::Error::other(format!("no stream: {}", answer.status)));
    }
    Ok((pod, answer))
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|id| name(id).to_owned()).collect()
}

/// The name in an id `namespace/name`.
fn name(id: &Value) -> &str {
    id.as_str().and_then(|id| id.rsplit('/').next()).unwrap_or_default()
}

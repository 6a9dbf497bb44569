//! Looking into pods and breaking them, over HTTP.
//!
//! Every request may name another pod of the process with `?pod=NAME`: a killed pod cannot hear that it is to be
//! revived.

use std::{sync::Arc, time::Duration};

use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{body::Payload, error::ApiError, respond};
use crate::{
    config::duration::GoDuration,
    pod::Pod,
    server::{Command, Connection},
};

/// Answers a request for `/admin/…` or `/debug/…`; `None` if there is nothing at that path.
pub(super) async fn handle(
    pod: &Arc<Pod>,
    connection: &Connection,
    method: &Method,
    path: &str,
    query: &str,
    body: &[u8],
) -> Option<Response<Payload>> {
    let target = match parameter(query, "pod") {
        None => Arc::clone(pod),
        Some(name) => match pod.peer(name) {
            Some(peer) => peer,
            None => {
                let error = ApiError::new(404, format!("There is no pod `{name}`."));
                return Some(error.into_response());
            }
        },
    };
    let result = match (method, path) {
        (&Method::GET, "/admin/config") => Ok(config(&target)),
        (&Method::POST, "/admin/config") => configure(&target, body).await,
        (&Method::POST, "/admin/kill") => {
            connection.spare();
            kill(&target, parameter(query, "for")).await
        }
        (&Method::POST, "/admin/revive") => {
            control(&target, Command::Revive).await.map(|()| json!({"pod": target.name}))
        }
        (&Method::GET, "/debug/cache") => Ok(cache(&target, parameter(query, "limit"))),
        (&Method::GET, "/debug/requests") => Ok(target.log.to_json()),
        _ => return None,
    };
    let mut response = match result {
        Ok(value) => respond::json(StatusCode::OK, value.to_string()),
        Err(error) => error.into_response(),
    };
    if path == "/admin/kill" {
        // This connection outlives the pod just long enough for the answer.
        let close = hyper::header::HeaderValue::from_static("close");
        response.headers_mut().insert(hyper::header::CONNECTION, close);
    }
    Some(response)
}

/// The value of a parameter in a query string. No value here needs escapes.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
}

fn config(pod: &Pod) -> Value {
    let mut config = pod.config.as_ref().clone();
    config.tunables = pod.tunables().as_ref().clone();
    config.port = pod.address.port();
    config.pod_name = Some(pod.name.clone());
    // Plain data with string keys is always JSON.
    serde_json::to_value(config).unwrap_or_default()
}

async fn configure(pod: &Pod, body: &[u8]) -> Result<Value, ApiError> {
    let invalid = |error: &dyn std::fmt::Display| ApiError::bad_request(error.to_string());
    let patch: Value = serde_json::from_slice(body).map_err(|error| invalid(&error))?;
    let patch = patch.as_object().ok_or_else(|| ApiError::bad_request("not a JSON object"))?;
    let tunables = pod.tunables().patched(patch).map_err(|error| invalid(&error))?;
    pod.set_tunables(tunables);
    control(pod, Command::Apply).await?;
    Ok(config(pod))
}

async fn kill(pod: &Arc<Pod>, duration: Option<&str>) -> Result<Value, ApiError> {
    let duration: Option<GoDuration> = duration
        .map(str::parse)
        .transpose()
        .map_err(|error| ApiError::bad_request(format!("for: {error}")))?;
    control(pod, Command::Kill).await?;
    if let Some(GoDuration(duration)) = duration {
        let pod = Arc::clone(pod);
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            // There is nobody left to tell if the port has been taken.
            let _ = control(&pod, Command::Revive).await;
        });
    }
    let seconds = duration.map_or(Duration::ZERO, |duration| duration.0).as_secs_f64();
    Ok(json!({"pod": pod.name, "for_seconds": seconds}))
}

/// Executes a command and waits until it is done.
async fn control(
    pod: &Pod,
    command: impl FnOnce(oneshot::Sender<std::io::Result<()>>) -> Command,
) -> Result<(), ApiError> {
    let (done, outcome) = oneshot::channel();
    pod.command(command(done));
    match outcome.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ApiError::new(500, format!("cannot listen: {error}"))),
        Err(_) => Err(ApiError::new(503, "server is shutting down")),
    }
}

/// The blocks of the cache: first the free ones, next to be handed out first, then those in use.
fn cache(pod: &Pod, limit: Option<&str>) -> Value {
    let limit = limit.and_then(|limit| limit.parse().ok()).unwrap_or(1000);
    let life = pod.life();
    let Some(cache) = life.engine.cache() else { return json!({"enabled": false}) };
    let entries = cache.entries().filter(|entry| entry.key.is_some() || entry.references > 0);
    let blocks: Vec<_> = entries
        .take(limit)
        .map(|e| json!({"id": e.block.index(), "hash": e.key, "references": e.references}))
        .collect();
    json!({
        "enabled": true,
        "block_size": life.engine.limits().block_size,
        "capacity": cache.capacity(),
        "in_use": cache.referenced(),
        "cached": cache.keys(),
        "blocks": blocks,
    })
}

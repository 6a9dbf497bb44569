//! The HTTP API: paths, and what happens before a request reaches its handler.

mod admin;
mod answer;
mod body;
mod error;
mod forms;
mod frames;
mod generate;
mod prompt;
mod request;
mod respond;
mod stream;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use serde::Deserialize;
use serde_json::json;

use self::{
    answer::Api,
    body::{Payload, Reset},
    error::ApiError,
};
use crate::{
    config::lora::LoraModule,
    metrics::http::Exchange,
    pod::{LogEntry, Pod},
    server::Connection,
};

/// What a path stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Route {
    EventSources,
    Generate(Api),
    Health,
    LoadLora,
    Metrics,
    Models,
    Other,
    Ready,
    Render(Api),
    ResetCache,
    Tokenize,
    UnloadLora,
}

impl Route {
    /// The route, and the name under which it is counted.
    fn of(method: &Method, path: &str) -> (Self, &'static str) {
        let post = match path {
            "/v1/chat/completions" => Some((Self::Generate(Api::Chat), "/v1/chat/completions")),
            "/v1/completions" => Some((Self::Generate(Api::Text), "/v1/completions")),
            "/v1/messages" => Some((Self::Generate(Api::Messages), "/v1/messages")),
            "/v1/responses" => Some((Self::Generate(Api::Responses), "/v1/responses")),
            "/inference/v1/generate" => {
                Some((Self::Generate(Api::Generate), "/inference/v1/generate"))
            }
            "/v1/chat/completions/render" => {
                Some((Self::Render(Api::Chat), "/v1/chat/completions/render"))
            }
            "/v1/completions/render" => Some((Self::Render(Api::Text), "/v1/completions/render")),
            "/reset_prefix_cache" => Some((Self::ResetCache, "/reset_prefix_cache")),
            "/tokenize" => Some((Self::Tokenize, "/tokenize")),
            "/v1/load_lora_adapter" => Some((Self::LoadLora, "/v1/load_lora_adapter")),
            "/v1/unload_lora_adapter" => Some((Self::UnloadLora, "/v1/unload_lora_adapter")),
            _ => None,
        };
        let get = match path {
            "/metrics" => Some((Self::Metrics, "/metrics")),
            "/health" => Some((Self::Health, "/health")),
            "/health/ready" => Some((Self::Ready, "/health/ready")),
            "/kv_event_sources" => Some((Self::EventSources, "/kv_event_sources")),
            "/v1/models" => Some((Self::Models, "/v1/models")),
            _ => None,
        };
        let known = match *method {
            Method::POST => post,
            Method::GET => get,
            _ => None,
        };
        known.unwrap_or((Self::Other, "none"))
    }
}

/// Answers one request, or resets its connection.
pub(crate) async fn handle(
    pod: Arc<Pod>,
    connection: Connection,
    request: Request<Incoming>,
) -> Result<Response<Payload>, Reset> {
    let arrived = Instant::now();
    let (parts, incoming) = request.into_parts();
    let (route, handler) = Route::of(&parts.method, parts.uri.path());
    let request_bytes = body::declared_length(&parts.headers);
    let limit = pod.config.max_request_body_size_mb as usize * 1024 * 1024;
    let read = body::read(&parts.headers, incoming, limit).await;

    let response = match (read, route) {
        (Err(error), _) => error.into_response(),
        (Ok(bytes), Route::Generate(api)) => {
            let (response, id) = match fault(&pod, &connection).await? {
                Some(error) => (error.into_response(), String::new()),
                None => generate::generate(&pod, &connection, api, &parts.headers, &bytes).await,
            };
            let status = response.status().as_u16();
            pod.log.push(LogEntry { path: handler, id, status, headers: parts.headers });
            response
        }
        (Ok(bytes), route) => {
            let path_and_query = (parts.uri.path(), parts.uri.query().unwrap_or_default());
            simple(&pod, &connection, route, &parts.method, path_and_query, &bytes).await
        }
    };
    // Scrapes would count themselves, and are not counted by the real server either.
    if !matches!(route, Route::Metrics | Route::Health | Route::Ready) {
        let exchange = Exchange {
            handler,
            method: method_name(&parts.method),
            status: response.status().as_u16(),
            request_bytes,
            response_bytes: response.body().len(),
            elapsed: arrived.elapsed(),
        };
        pod.life().http.record(exchange);
    }
    Ok(response)
}

/// Everything but generation.
async fn simple(
    pod: &Arc<Pod>,
    connection: &Connection,
    route: Route,
    method: &Method,
    (path, query): (&str, &str),
    body: &[u8],
) -> Response<Payload> {
    match route {
        Route::Health => respond::empty(StatusCode::OK),
        Route::Ready if pod.is_ready() => respond::empty(StatusCode::OK),
        Route::Ready => respond::empty(StatusCode::SERVICE_UNAVAILABLE),
        Route::Metrics => respond::metrics(pod.metrics()),
        Route::EventSources => respond::json(StatusCode::OK, pod.event_sources().to_string()),
        Route::Models => respond::serialized(&pod.models.list()),
        Route::ResetCache => {
            let success = pod.life().engine.reset_cache();
            respond::json(StatusCode::OK, format!(r#"{{"success":{success}}}"#))
        }
        Route::Render(api) => render(pod, api, body).unwrap_or_else(ApiError::into_response),
        Route::Tokenize => tokenize(pod, body).unwrap_or_else(ApiError::into_response),
        Route::LoadLora | Route::UnloadLora => {
            lora(pod, route, body).unwrap_or_else(ApiError::into_response)
        }
        Route::Generate(_) | Route::Other => {
            let answer = admin::handle(pod, connection, method, path, query, body).await;
            answer.unwrap_or_else(|| respond::text(StatusCode::NOT_FOUND, "Not Found"))
        }
    }
}

/// The faults that strike before a request is looked at.
async fn fault(pod: &Pod, connection: &Connection) -> Result<Option<ApiError>, Reset> {
    let tunables = pod.tunables();
    if pod.chance(tunables.fault_reset_rate) {
        connection.reset_on_close();
        return Err(Reset);
    }
    if !tunables.fault_response_delay.0.is_zero() {
        tokio::time::sleep(tunables.fault_response_delay.0).await;
    }
    if pod.chance(tunables.fault_unavailable_rate) {
        return Ok(Some(ApiError::new(503, "The server is overloaded or not ready yet.")));
    }
    if pod.draining.load(Ordering::Relaxed) {
        return Ok(Some(ApiError::new(503, "server is shutting down")));
    }
    Ok(None)
}

fn tokenize(pod: &Pod, body: &[u8]) -> Result<Response<Payload>, ApiError> {
    let fields: request::Body<'_> = parse(body)?;
    let api = match (&fields.prompt, &fields.messages) {
        (Some(prompts), None) => match prompts.0.as_slice() {
            [request::Prompt::Text(_)] => Api::Text,
            _ => return Err(ApiError::bad_request("prompt must be a string")),
        },
        (None, Some(_)) => Api::Chat,
        _ => return Err(ApiError::bad_request("exactly one of prompt and messages is needed")),
    };
    let tokens = prompt::tokens(pod, api, &fields, body)?.pop().unwrap_or_default();
    let (length, count) = (pod.config.max_model_len, tokens.len());
    let ids: Vec<_> = tokens.iter().map(u32::to_string).collect();
    let ids = ids.join(",");
    let answer = format!(
        r#"{{"max_model_len":{length},"count":{count},"tokens":[{ids}],"token_strs":null}}"#
    );
    Ok(respond::json(StatusCode::OK, answer))
}

/// Only the token ids of a request.
fn render(pod: &Pod, api: Api, body: &[u8]) -> Result<Response<Payload>, ApiError> {
    let fields: request::Body<'_> = parse(body)?;
    let model = fields.model.as_deref().unwrap_or_default();
    let served = pod.models.find(model).ok_or_else(|| ApiError::unknown_model(model))?;
    if served.adapter.is_some() {
        return Err(ApiError::bad_request("prompts of LoRA adapters are not rendered"));
    }
    let (uuid, _) = pod.next_request();
    let prompts = prompt::tokens(pod, api, &fields, body)?;
    let rendered = prompts.iter().enumerate().map(|(index, ids)| match (api, prompts.len()) {
        (Api::Chat, _) => json!({"request_id": format!("chatcmpl-{uuid}"), "token_ids": ids}),
        (_, 1) => json!({"request_id": format!("cmpl-{uuid}"), "token_ids": ids}),
        _ => json!({"request_id": format!("cmpl-{uuid}-{index}"), "token_ids": ids}),
    });
    let rendered: Vec<_> = rendered.collect();
    Ok(match api {
        Api::Chat => respond::serialized(&rendered.first()),
        _ => respond::serialized(&rendered),
    })
}

fn lora(pod: &Pod, route: Route, body: &[u8]) -> Result<Response<Payload>, ApiError> {
    #[derive(Deserialize)]
    struct Adapter {
        lora_name: String,
        #[serde(default)]
        lora_path: String,
    }
    let Adapter { lora_name, lora_path } = parse(body)?;
    if route == Route::UnloadLora {
        pod.models.unload(&lora_name);
    } else {
        let module = LoraModule { name: lora_name, path: lora_path, base_model_name: None };
        pod.models.load(&module);
    }
    Ok(respond::empty(StatusCode::OK))
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::bad_request(format!("Failed to read and parse request body, {error}"))
    })
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::DELETE => "DELETE",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        _ => "OTHER",
    }
}

//! Small responses.

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::Serialize;

use super::body::Payload;

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// What Prometheus servers ask for by default.
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// The names of a pod's identity headers, in the order of the pod's values.
pub(super) const IDENTITY: [HeaderName; 3] = [
    HeaderName::from_static("x-inference-pod"),
    HeaderName::from_static("x-inference-port"),
    HeaderName::from_static("x-inference-namespace"),
];

pub(super) fn empty(status: StatusCode) -> Response<Payload> {
    let mut response = Response::new(Payload::empty());
    *response.status_mut() = status;
    response
}

pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Payload> {
    with_type(status, JSON, body)
}

/// 200 with `value` as JSON. Values whose maps have string keys, as all here, always have such a form.
pub(super) fn serialized(value: &impl Serialize) -> Response<Payload> {
    json(StatusCode::OK, serde_json::to_vec(value).unwrap_or_default())
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Payload> {
    with_type(status, TEXT, body)
}

pub(super) fn metrics(page: String) -> Response<Payload> {
    with_type(StatusCode::OK, METRICS, page)
}

fn with_type(
    status: StatusCode,
    content_type: HeaderValue,
    body: impl Into<Bytes>,
) -> Response<Payload> {
    let mut response = Response::new(Payload::full(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

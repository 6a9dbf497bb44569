//! The HTTP server: metrics, health, debugging.
//!
//! It answers from memory and never waits. Connections are few and short-lived by nature; their
//! number is bounded, and one that does not speak is closed.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::pages;
use crate::scrape::Scrapers;
use crate::shared::Shared;

/// Where the index of cached blocks is emptied.
const RESET: &str = "/debug/kv/reset";

/// Connections at a time; further ones are closed at once.
const MAX_CONNECTIONS: u32 = 64;

/// How long a connection may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves on `listener` for as long as the runtime lives.
pub(crate) fn spawn(listener: TcpListener, shared: Rc<Shared>, scrapers: Rc<Scrapers>) {
    tokio::task::spawn_local(async move {
        let open = Rc::new(Cell::new(0));
        loop {
            match listener.accept().await {
                Ok((stream, _)) if open.get() < MAX_CONNECTIONS => {
                    let guard = Open::enter(Rc::clone(&open));
                    let (shared, scrapers) = (Rc::clone(&shared), Rc::clone(&scrapers));
                    tokio::task::spawn_local(async move {
                        serve(stream, shared, scrapers).await;
                        drop(guard);
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    // Out of descriptors, most likely: let others give some back.
                    tracing::warn!(error = %error, "cannot accept a connection");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
}

async fn serve(stream: TcpStream, shared: Rc<Shared>, scrapers: Rc<Scrapers>) {
    let service = service_fn(move |request| {
        let response = answer(&request, &shared, &scrapers);
        async move { Ok::<_, Infallible>(response) }
    });
    let result = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(error = %error, "HTTP connection failed");
    }
}

fn answer(
    request: &Request<Incoming>,
    shared: &Shared,
    scrapers: &Scrapers,
) -> Response<Full<Bytes>> {
    let resets = request.uri().path() == RESET;
    if matches!(*request.method(), Method::GET | Method::HEAD) == resets {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        let allowed = if resets { "POST" } else { "GET, HEAD" };
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        return refusal;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut page = text(StatusCode::OK, pages::metrics(shared, scrapers));
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            page.headers_mut().insert(CONTENT_TYPE, format);
            page
        }
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" => {
            let ready = shared.ready.get();
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(status, &pages::readiness(shared))
        }
        RESET if *request.method() == Method::POST => match &*shared.events.borrow() {
            Some(events) => {
                events.reset();
                text(StatusCode::OK, "reset\n")
            }
            None => text(StatusCode::CONFLICT, "no KV-cache events are followed\n"),
        },
        "/debug/kv" => json(StatusCode::OK, &pages::events(shared)),
        "/debug/endpoints" => json(StatusCode::OK, &pages::endpoints(shared)),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let format = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = text(status, format!("{body:#}\n"));
    let format = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, format);
    response
}

/// Counts an open connection.
struct Open(Rc<Cell<u32>>);

impl Open {
    fn enter(count: Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

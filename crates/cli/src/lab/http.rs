//! A small blocking HTTP client for loopback.

use std::io::{self, Read};
use std::time::Duration;

use serde_json::Value;
use ureq::http;

/// An answer, completely read.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// A body that is no JSON; the message has it.
    pub fn json(&self) -> io::Result<Value> {
        serde_json::from_slice(&self.body)
            .map_err(|e| io::Error::other(format!("status {}: {e}: {}", self.status, self.text())))
    }

    /// A header's value, empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The name of the pod that answered.
    pub fn pod(&self) -> &str {
        self.header("x-inference-pod")
    }
}

/// An answer whose body is still to be read.
pub struct Streaming {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    reader: ureq::BodyReader<'static>,
}

impl std::fmt::Debug for Streaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streaming").field("status", &self.status).finish_non_exhaustive()
    }
}

impl Streaming {
    /// Reads the rest of the body.
    ///
    /// # Errors
    /// A stream that breaks off.
    pub fn finish(mut self) -> io::Result<Answer> {
        let mut body = Vec::new();
        self.reader.read_to_end(&mut body)?;
        Ok(Answer { status: self.status, headers: self.headers, body })
    }
}

impl Read for Streaming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// A client of one port of this machine. Keeps connections alive; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    agent: ureq::Agent,
    base: String,
}

impl Client {
    /// A client of `127.0.0.1:port`.
    pub fn new(port: u16) -> Self {
        Self::at("127.0.0.1", port)
    }

    /// A client of a port of another loopback address.
    pub fn at(address: &str, port: u16) -> Self {
        Self::of(format!("http://{address}:{port}"))
    }

    /// A client of the same place with no connections yet.
    pub fn anew(&self) -> Self {
        Self::of(self.base.clone())
    }

    fn of(base: String) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .max_idle_connections_per_host(64)
            .build();
        Self { agent: config.into(), base }
    }

    /// GET.
    ///
    /// # Errors
    /// Connection errors; any status is an answer.
    pub fn get(&self, path: &str) -> io::Result<Answer> {
        let url = format!("{}{path}", self.base);
        streaming(self.agent.get(url).call())?.finish()
    }

    /// POST with headers.
    ///
    /// # Errors
    /// Connection errors; any status is an answer.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Answer> {
        self.post_streaming(path, headers, body)?.finish()
    }

    /// POST, leaving the body of the answer to be read.
    ///
    /// # Errors
    /// Connection errors; any status is an answer.
    pub fn post_streaming(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Streaming> {
        let mut request = self
            .agent
            .post(format!("{}{path}", self.base))
            .header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        streaming(request.send(body))
    }

    /// POST /v1/completions with a request id.
    ///
    /// # Errors
    /// Connection errors; any status is an answer.
    pub fn complete(&self, request_id: &str, prompt: &str, max_tokens: u32) -> io::Result<Answer> {
        let body = serde_json::json!({
            "model": "random", "prompt": prompt, "max_tokens": max_tokens,
        });
        let headers = [("x-request-id", request_id)];
        self.post("/v1/completions", &headers, body.to_string().as_bytes())
    }
}

fn streaming(result: Result<http::Response<ureq::Body>, ureq::Error>) -> io::Result<Streaming> {
    let answer = result.map_err(ureq::Error::into_io)?;
    let (parts, body) = answer.into_parts();
    let reader = body.into_with_config().limit(u64::MAX).reader();
    Ok(Streaming { status: parts.status.as_u16(), headers: parts.headers, reader })
}

//! A page: status, kind and bytes.

use serde_json::Value;

/// An answer of the admin filter.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) status: u32,
    pub(super) kind: &'static str,
    pub(super) allow: Option<&'static str>,
    pub(super) body: Vec<u8>,
}

impl Page {
    pub(super) fn text(status: u32, text: impl Into<Vec<u8>>) -> Self {
        Self { status, kind: "text/plain; charset=utf-8", allow: None, body: text.into() }
    }

    pub(super) fn json(value: &Value) -> Self {
        // A value made of maps with string keys always serialises.
        let body = serde_json::to_vec(value).unwrap_or_default();
        Self { status: 200, kind: "application/json", allow: None, body }
    }

    pub(super) fn lines(body: Vec<u8>) -> Self {
        Self { status: 200, kind: "application/x-ndjson", allow: None, body }
    }

    pub(super) fn metrics(body: Vec<u8>) -> Self {
        Self { status: 200, kind: "text/plain; version=0.0.4", allow: None, body }
    }

    pub(super) fn not_allowed(allow: &'static str) -> Self {
        Self { allow: Some(allow), ..Self::text(405, "method not allowed\n") }
    }
}

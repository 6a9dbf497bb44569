//! The last inference requests, for tests that ask what arrived.

use std::collections::VecDeque;

use hyper::HeaderMap;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// A bounded list; the oldest entries are dropped.
#[derive(Debug)]
pub(crate) struct RequestLog {
    limit: usize,
    entries: Mutex<VecDeque<LogEntry>>,
}

/// One request as it arrived, and how it was answered.
#[derive(Debug)]
pub(crate) struct LogEntry {
    pub(crate) path: &'static str,
    /// The id under which it was answered; empty when it was refused before it got one.
    pub(crate) id: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
}

impl RequestLog {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, entries: Mutex::default() }
    }

    pub(crate) fn push(&self, entry: LogEntry) {
        if self.limit == 0 {
            return;
        }
        let mut entries = self.entries.lock();
        if entries.len() == self.limit {
            entries.pop_front();
        }
        entries.push_back(entry);
    }

    /// Oldest first.
    pub(crate) fn to_json(&self) -> Value {
        self.entries.lock().iter().map(LogEntry::to_json).collect()
    }
}

impl LogEntry {
    /// Repeated headers become one value, joined by a comma.
    fn to_json(&self) -> Value {
        let mut headers = Map::new();
        for name in self.headers.keys() {
            let values = self.headers.get_all(name).iter();
            let values: Vec<_> =
                values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
            headers.insert(name.as_str().to_owned(), Value::String(values.join(",")));
        }
        json!({"path": self.path, "id": self.id, "status": self.status, "headers": headers})
    }
}

//! The `admin` filter: Inlane's own pages, answered by Envoy itself.
//!
//! A terminal filter for a listener of its own. Pages are rendered on the worker that has the
//! request; they read what decisions leave behind and hold up nobody.

mod decisions;
mod page;
mod pool;
pub(crate) mod records;
mod text;

use std::sync::Arc;

use envoy_proxy_dynamic_modules_rust_sdk::{EnvoyHttpFilterExt, HttpFilter, HttpFilterConfig, abi};

use crate::runtime::Runtime;
use page::Page;

use abi::envoy_dynamic_module_type_on_http_filter_request_headers_status as HeadersStatus;

/// One configuration of the filter.
#[derive(Debug)]
pub struct AdminConfig {
    runtime: Option<Arc<Runtime>>,
}

impl AdminConfig {
    /// A configuration; without a runtime (validation mode) no stream is ever made.
    pub fn new(runtime: Option<Arc<Runtime>>) -> Self {
        Self { runtime }
    }
}

impl<EHF: EnvoyHttpFilterExt> HttpFilterConfig<EHF> for AdminConfig {
    fn new_http_filter(&self, _envoy: &mut EHF) -> Box<dyn HttpFilter<EHF>> {
        Box::new(Admin { runtime: self.runtime.clone() })
    }
}

struct Admin {
    runtime: Option<Arc<Runtime>>,
}

impl Admin {
    fn page(&self, method: &str, path: &str) -> Page {
        let Some(runtime) = &self.runtime else { return Page::text(503, "not running\n") };
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        match (method, path) {
            ("GET", "/metrics") => Page::metrics(text::render(runtime)),
            ("GET", "/healthz") => text::health(runtime),
            ("GET", "/debug/decisions") => Page::json(&decisions::page(runtime, query)),
            ("GET", "/debug/records") => Page::lines(records::page(runtime)),
            ("GET", "/debug/pool") => Page::json(&pool::page(runtime)),
            ("POST", "/debug/prefix/reset") => Page::json(&pool::reset_prefixes(runtime)),
            ("GET", "/") => Page::text(200, INDEX),
            (
                _,
                "/metrics" | "/healthz" | "/debug/decisions" | "/debug/records" | "/debug/pool"
                | "/",
            ) => Page::not_allowed("GET"),
            (_, "/debug/prefix/reset") => Page::not_allowed("POST"),
            _ => Page::text(404, "no such page; see /\n"),
        }
    }
}

const INDEX: &str = "Inlane
GET  /metrics              Prometheus text
GET  /healthz              200 when decisions can be made
GET  /debug/decisions      the last decisions with their score tables (?request_id=, ?limit=)
GET  /debug/records        what they were made of, for `inlane replay` (setting recordInputs)
GET  /debug/pool           endpoints, their numbers and ages, generations, bookings
POST /debug/prefix/reset   forget which pod holds which prefix
";

impl<EHF: EnvoyHttpFilterExt> HttpFilter<EHF> for Admin {
    fn on_request_headers(&mut self, envoy: &mut EHF, _end_of_stream: bool) -> HeadersStatus {
        let text = |name: &str| {
            let value = envoy.get_request_header_value(name);
            value.map(|v| String::from_utf8_lossy(v.as_slice()).into_owned()).unwrap_or_default()
        };
        let page = self.page(&text(":method"), &text(":path"));
        let mut headers = vec![("content-type", page.kind.as_bytes())];
        if let Some(allow) = page.allow {
            headers.push(("allow", allow.as_bytes()));
        }
        envoy.send_response(page.status, &headers, Some(&page.body), Some("inlane_admin"));
        HeadersStatus::StopIteration
    }
}

//! The `scheduler` filter: reads the request, decides, books, and watches the response.
//!
//! ```text
//! headers   strip control headers, refuse by length, hold
//! body      scan and hash each piece where it lies; at the end decide and book
//! held      for the prompt's tokens, or for a window to close, where the configuration says so
//! retries   the `pods` cluster asks again by token; see `crate::cluster`
//! response  first byte gives projected tokens back; usage is read in passing
//! drop      the claim is released, whatever happened
//! ```
//!
//! Nothing is copied out of Envoy's buffers but a body that is to be tokenized, and no request leaves
//! the proxy to be decided on.

mod answer;
mod body;
mod book;
mod control_headers;
mod decide;
mod filter;
mod forward;
mod headers;
mod path;
mod prompts;
mod response;
mod route;
mod shadow;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tokens;
mod trace;
mod usage;

use std::sync::Arc;

use envoy_proxy_dynamic_modules_rust_sdk::{EnvoyHttpFilterExt, HttpFilter, HttpFilterConfig};

pub use book::claim;
pub use control_headers::STREAM_TOKEN;
pub use decide::Step;
pub use forward::TOKEN_STATE;
pub use path::Parsers;
pub use prompts::PromptSink;

use crate::runtime::Runtime;
use crate::settings::Settings;

/// One configuration of the filter.
#[derive(Debug)]
pub struct SchedulerConfig {
    settings: Arc<Settings>,
    runtime: Option<Arc<Runtime>>,
}

impl SchedulerConfig {
    /// A configuration; without a runtime (validation mode) no stream is ever made.
    pub fn new(settings: Settings, runtime: Option<Arc<Runtime>>) -> Self {
        Self { settings: Arc::new(settings), runtime }
    }
}

/// A filter that does nothing: what a configuration without a runtime makes.
struct Idle;

impl<EHF: EnvoyHttpFilterExt> HttpFilter<EHF> for Idle {}

impl<EHF: EnvoyHttpFilterExt> HttpFilterConfig<EHF> for SchedulerConfig {
    fn new_http_filter(&self, _envoy: &mut EHF) -> Box<dyn HttpFilter<EHF>> {
        match &self.runtime {
            Some(runtime) => {
                Box::new(filter::Filter::new(Arc::clone(&self.settings), Arc::clone(runtime)))
            }
            None => Box::new(Idle),
        }
    }
}

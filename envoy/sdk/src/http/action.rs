//! What a hook decides about its stream, carried out when the hook has returned.
//!
//! Answering, resetting or continuing a stream makes Envoy call further hooks of the same filter, up to its destruction,
//! before the call comes back. Were that done while the filter's method still runs, the filter would be borrowed twice or
//! freed under its own feet. So these calls are queued, in order, and made after the method has returned and before the
//! exported function does: Envoy cannot tell the difference.
//!
//! Cost: nothing is allocated for continuing a stream; an answer is copied.

use std::ffi::c_void;

use smallvec::SmallVec;

use crate::abi::envoy_dynamic_module_type_http_filter_stream_reset_reason as ResetReason;
use crate::buffer::{absent, module};
use crate::callout::{HeaderList, Headers};
use crate::host::call;

/// Headers that are kept until the hook has returned.
#[derive(Debug)]
pub(super) struct OwnedHeaders(Vec<(String, Vec<u8>)>);

impl OwnedHeaders {
    pub(super) fn new(headers: Headers<'_>) -> Self {
        Self(headers.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect())
    }

    fn lend(&self) -> HeaderList {
        let headers: SmallVec<[(&str, &[u8]); 16]> =
            self.0.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        HeaderList::new(&headers)
    }
}

/// One queued call.
#[derive(Debug)]
pub(super) enum Action {
    ContinueDecoding,
    ContinueEncoding,
    Respond { status: u32, headers: OwnedHeaders, body: Option<Vec<u8>>, details: Option<String> },
    ResponseHeaders { headers: OwnedHeaders, end: bool },
    ResponseData { data: Vec<u8>, end: bool },
    ResponseTrailers { trailers: OwnedHeaders },
    Reset { reason: ResetReason, details: String },
    GoAway { graceful: bool },
}

/// The calls of one hook, in order.
pub(super) type Actions = SmallVec<[Action; 1]>;

impl Action {
    /// Whether the stream's answer is complete with this, so that nothing more can be said to the client.
    pub(super) fn ends_stream(&self) -> bool {
        match self {
            Self::Respond { .. } | Self::ResponseTrailers { .. } | Self::Reset { .. } => true,
            Self::ResponseHeaders { end, .. } | Self::ResponseData { end, .. } => *end,
            Self::ContinueDecoding | Self::ContinueEncoding | Self::GoAway { .. } => false,
        }
    }

    /// Whether a response of the module's own begins with this.
    pub(super) fn begins_response(&self) -> bool {
        matches!(self, Self::ResponseHeaders { .. })
    }

    /// Makes the call for the stream `filter`, which must not have been destroyed.
    pub(super) fn perform(self, filter: *mut c_void) {
        match self {
            Self::ContinueDecoding => call!(http_filter_continue_decoding(filter) or ()),
            Self::ContinueEncoding => call!(http_filter_continue_encoding(filter) or ()),
            Self::Respond { status, headers, body, details } => {
                let mut headers = headers.lend();
                call!(
                    http_send_response(
                        filter,
                        status,
                        headers.first(),
                        headers.count(),
                        body.as_deref().map_or(absent(), module),
                        details.as_deref().map_or(absent(), module),
                    ) or ()
                );
            }
            Self::ResponseHeaders { headers, end } => {
                let mut headers = headers.lend();
                call!(
                    http_send_response_headers(filter, headers.first(), headers.count(), end)
                        or ()
                );
            }
            Self::ResponseData { data, end } => {
                call!(http_send_response_data(filter, module(&data), end) or ());
            }
            Self::ResponseTrailers { trailers } => {
                let mut trailers = trailers.lend();
                call!(
                    http_send_response_trailers(filter, trailers.first(), trailers.count()) or ()
                );
            }
            Self::Reset { reason, details } => {
                call!(http_filter_reset_stream(filter, reason as u32, module(&details)) or ());
            }
            Self::GoAway { graceful } => {
                call!(http_filter_send_go_away_and_close(filter, graceful) or ());
            }
        }
    }
}

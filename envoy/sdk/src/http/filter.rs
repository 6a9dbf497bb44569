//! What a module implements per stream.

use crate::abi::*;
use crate::buffer::EnvoyBuffer;
use crate::http::EnvoyHttpFilter;

/// One stream. All hooks run on one worker thread, never at once, and none may block.
///
/// Response hooks and [`on_stream_complete`](Self::on_stream_complete) may run for a stream whose request hooks never did
/// (an earlier filter has answered it). `Drop` is the last thing that happens to a stream, whatever its end: release there
/// what the stream holds.
///
/// A hook that panics is not called again on its stream: the stream is answered with 500, or reset when its response has
/// begun.
#[allow(unused_variables)]
pub trait HttpFilter<EHF: EnvoyHttpFilter> {
    /// The request's headers. With `end_of_stream` there is no body.
    fn on_request_headers(
        &mut self,
        envoy_filter: &mut EHF,
        end_of_stream: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_request_headers_status {
        envoy_dynamic_module_type_on_http_filter_request_headers_status::Continue
    }

    /// A part of the request's body. The body is what is buffered followed by what is received.
    fn on_request_body(
        &mut self,
        envoy_filter: &mut EHF,
        end_of_stream: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_request_body_status {
        envoy_dynamic_module_type_on_http_filter_request_body_status::Continue
    }

    /// The request's trailers; the body has then ended without an `end_of_stream`.
    fn on_request_trailers(
        &mut self,
        envoy_filter: &mut EHF,
    ) -> envoy_dynamic_module_type_on_http_filter_request_trailers_status {
        envoy_dynamic_module_type_on_http_filter_request_trailers_status::Continue
    }

    /// The response's headers.
    fn on_response_headers(
        &mut self,
        envoy_filter: &mut EHF,
        end_of_stream: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_response_headers_status {
        envoy_dynamic_module_type_on_http_filter_response_headers_status::Continue
    }

    /// A part of the response's body.
    fn on_response_body(
        &mut self,
        envoy_filter: &mut EHF,
        end_of_stream: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_response_body_status {
        envoy_dynamic_module_type_on_http_filter_response_body_status::Continue
    }

    /// The response's trailers.
    fn on_response_trailers(
        &mut self,
        envoy_filter: &mut EHF,
    ) -> envoy_dynamic_module_type_on_http_filter_response_trailers_status {
        envoy_dynamic_module_type_on_http_filter_response_trailers_status::Continue
    }

    /// The stream has ended; its attributes can be read for the last time.
    fn on_stream_complete(&mut self, envoy_filter: &mut EHF) {}

    /// A one-shot callout has ended. Headers and body are there on success only.
    fn on_http_callout_done(
        &mut self,
        envoy_filter: &mut EHF,
        callout_id: u64,
        result: envoy_dynamic_module_type_http_callout_result,
        response_headers: Option<&[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)]>,
        response_body: Option<&[EnvoyBuffer<'_>]>,
    ) {
    }

    /// The headers of a streamed callout's response.
    fn on_http_stream_headers(
        &mut self,
        envoy_filter: &mut EHF,
        stream_handle: u64,
        response_headers: &[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)],
        end_stream: bool,
    ) {
    }

    /// A part of a streamed callout's response body.
    fn on_http_stream_data(
        &mut self,
        envoy_filter: &mut EHF,
        stream_handle: u64,
        response_data: &[EnvoyBuffer<'_>],
        end_stream: bool,
    ) {
    }

    /// The trailers of a streamed callout's response.
    fn on_http_stream_trailers(
        &mut self,
        envoy_filter: &mut EHF,
        stream_handle: u64,
        response_trailers: &[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)],
    ) {
    }

    /// A streamed callout has ended in good order.
    fn on_http_stream_complete(&mut self, envoy_filter: &mut EHF, stream_handle: u64) {}

    /// A streamed callout was reset.
    fn on_http_stream_reset(
        &mut self,
        envoy_filter: &mut EHF,
        stream_handle: u64,
        reset_reason: envoy_dynamic_module_type_http_stream_reset_reason,
    ) {
    }

    /// A scheduler of this stream was committed with `event_id`.
    fn on_scheduled(&mut self, envoy_filter: &mut EHF, event_id: u64) {}

    /// The client reads more slowly than the response is written (terminal filters).
    fn on_downstream_above_write_buffer_high_watermark(&mut self, envoy_filter: &mut EHF) {}

    /// The client has caught up (terminal filters).
    fn on_downstream_below_write_buffer_low_watermark(&mut self, envoy_filter: &mut EHF) {}

    /// Envoy (or this filter) answers the stream itself.
    fn on_local_reply(
        &mut self,
        envoy_filter: &mut EHF,
        response_code: u32,
        details: EnvoyBuffer<'_>,
        reset_imminent: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_local_reply_status {
        envoy_dynamic_module_type_on_http_filter_local_reply_status::Continue
    }
}

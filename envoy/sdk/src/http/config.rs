//! The configuration of an HTTP filter: what a module implements, and what Envoy offers while one is made.

use std::ffi::c_void;

use crate::abi::*;
use crate::buffer::{EnvoyBuffer, module};
use crate::callout::{CalloutInit, HeaderList, Headers, one_shot, streamed};
use crate::host::call;
use crate::http::scheduler::{EnvoyHttpFilterConfigScheduler, for_config};
use crate::http::{EnvoyHttpFilter, HttpFilter};
use crate::metrics::*;

/// One configuration of a filter, shared by all workers.
///
/// Only [`new_http_filter`](Self::new_http_filter) runs on workers, the other hooks on the main thread.
#[allow(unused_variables)]
pub trait HttpFilterConfig<EHF: EnvoyHttpFilter>: Sync {
    /// Makes the filter of a new stream, on its worker. The stream has not begun: nothing can be sent or continued here.
    fn new_http_filter(&self, envoy: &mut EHF) -> Box<dyn HttpFilter<EHF>>;

    /// A scheduler of this configuration was committed with `event_id`.
    fn on_scheduled(&self, event_id: u64) {}

    /// A one-shot callout has ended. Headers and body are there on success only.
    fn on_http_callout_done(
        &self,
        envoy_config: &mut EnvoyHttpFilterConfigImpl,
        callout_id: u64,
        result: envoy_dynamic_module_type_http_callout_result,
        response_headers: Option<&[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)]>,
        response_body: Option<&[EnvoyBuffer<'_>]>,
    ) {
    }

    /// The headers of a streamed callout's response.
    fn on_http_stream_headers(
        &self,
        envoy_config: &mut EnvoyHttpFilterConfigImpl,
        stream_handle: u64,
        response_headers: &[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)],
        end_stream: bool,
    ) {
    }

    /// A part of a streamed callout's response body.
    fn on_http_stream_data(
        &self,
        envoy_config: &mut EnvoyHttpFilterConfigImpl,
        stream_handle: u64,
        response_data: &[EnvoyBuffer<'_>],
        end_stream: bool,
    ) {
    }

    /// The trailers of a streamed callout's response.
    fn on_http_stream_trailers(
        &self,
        envoy_config: &mut EnvoyHttpFilterConfigImpl,
        stream_handle: u64,
        response_trailers: &[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)],
    ) {
    }

    /// A streamed callout has ended in good order.
    fn on_http_stream_complete(
        &self,
        envoy_config: &mut EnvoyHttpFilterConfigImpl,
        stream_handle: u64,
    ) {
    }

    /// A streamed callout was reset.
    fn on_http_stream_reset(
        &self,
        envoy_config: &mut EnvoyHttpFilterConfigImpl,
        stream_handle: u64,
        reset_reason: envoy_dynamic_module_type_http_stream_reset_reason,
    ) {
    }
}

/// What Envoy offers to a filter configuration, on the main thread.
///
/// Metrics can be defined only while the configuration is made; afterwards the answer is `Frozen`.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[allow(clippy::needless_lifetimes)] // mockall needs the lifetimes of nested references spelt out
pub trait EnvoyHttpFilterConfig {
    /// Defines a counter.
    fn define_counter(&mut self, name: &str) -> MetricsResult<EnvoyCounterId>;
    /// Defines a counter with labels.
    fn define_counter_vec<'a>(
        &mut self,
        name: &str,
        labels: &[&'a str],
    ) -> MetricsResult<EnvoyCounterVecId>;
    /// Defines a gauge.
    fn define_gauge(&mut self, name: &str) -> MetricsResult<EnvoyGaugeId>;
    /// Defines a gauge with labels.
    fn define_gauge_vec<'a>(
        &mut self,
        name: &str,
        labels: &[&'a str],
    ) -> MetricsResult<EnvoyGaugeVecId>;
    /// Defines a histogram.
    fn define_histogram(&mut self, name: &str) -> MetricsResult<EnvoyHistogramId>;
    /// Defines a histogram with labels.
    fn define_histogram_vec<'a>(
        &mut self,
        name: &str,
        labels: &[&'a str],
    ) -> MetricsResult<EnvoyHistogramVecId>;
    /// A handle that wakes this configuration from any thread.
    fn new_scheduler(&self) -> Box<dyn EnvoyHttpFilterConfigScheduler>;
    /// Makes a request; `headers` hold `:method`, `:path` and `host`.
    fn send_http_callout<'a>(
        &mut self,
        cluster_name: &str,
        headers: &'a [(&'a str, &'a [u8])],
        body: Option<&'a [u8]>,
        timeout_milliseconds: u64,
    ) -> CalloutInit;
    /// Starts a request whose response is streamed. A timeout of 0 is none.
    fn start_http_stream<'a>(
        &mut self,
        cluster_name: &str,
        headers: &'a [(&'a str, &'a [u8])],
        body: Option<&'a [u8]>,
        end_stream: bool,
        timeout_milliseconds: u64,
    ) -> CalloutInit;
    /// Sends a part of a streamed request's body.
    ///
    /// # Safety
    /// The stream must be one of this configuration that has not ended.
    unsafe fn send_http_stream_data(&mut self, id: u64, data: &[u8], end_stream: bool) -> bool;
    /// Ends a streamed request with trailers.
    ///
    /// # Safety
    /// The stream must be one of this configuration that has not ended.
    unsafe fn send_http_stream_trailers<'a>(
        &mut self,
        id: u64,
        trailers: &'a [(&'a str, &'a [u8])],
    ) -> bool;
    /// Cancels a streamed request.
    ///
    /// # Safety
    /// The stream must be one of this configuration that has not ended.
    unsafe fn reset_http_stream(&mut self, id: u64);
}

/// A filter configuration inside of Envoy.
#[derive(Debug)]
pub struct EnvoyHttpFilterConfigImpl {
    raw: *mut c_void,
}

impl EnvoyHttpFilterConfigImpl {
    /// # Safety
    /// `raw` is the configuration of the running hook, and the value is not kept beyond it.
    pub(crate) unsafe fn new(raw: *mut c_void) -> Self {
        Self { raw }
    }
}

impl EnvoyHttpFilterConfig for EnvoyHttpFilterConfigImpl {
    fn define_counter(&mut self, name: &str) -> MetricsResult<EnvoyCounterId> {
        define!(http_filter_config_define_counter, self.raw, name, &[] => EnvoyCounterId)
    }

    fn define_counter_vec(
        &mut self,
        name: &str,
        labels: &[&str],
    ) -> MetricsResult<EnvoyCounterVecId> {
        define!(http_filter_config_define_counter, self.raw, name, labels => EnvoyCounterVecId)
    }

    fn define_gauge(&mut self, name: &str) -> MetricsResult<EnvoyGaugeId> {
        define!(http_filter_config_define_gauge, self.raw, name, &[] => EnvoyGaugeId)
    }

    fn define_gauge_vec(&mut self, name: &str, labels: &[&str]) -> MetricsResult<EnvoyGaugeVecId> {
        define!(http_filter_config_define_gauge, self.raw, name, labels => EnvoyGaugeVecId)
    }

    fn define_histogram(&mut self, name: &str) -> MetricsResult<EnvoyHistogramId> {
        define!(http_filter_config_define_histogram, self.raw, name, &[] => EnvoyHistogramId)
    }

    fn define_histogram_vec(
        &mut self,
        name: &str,
        labels: &[&str],
    ) -> MetricsResult<EnvoyHistogramVecId> {
        define!(http_filter_config_define_histogram, self.raw, name, labels => EnvoyHistogramVecId)
    }

    fn new_scheduler(&self) -> Box<dyn EnvoyHttpFilterConfigScheduler> {
        Box::new(for_config(self.raw))
    }

    fn send_http_callout(
        &mut self,
        cluster_name: &str,
        headers: Headers<'_>,
        body: Option<&[u8]>,
        timeout_milliseconds: u64,
    ) -> CalloutInit {
        one_shot!(
            http_filter_config_http_callout,
            self.raw,
            cluster_name,
            headers,
            body,
            timeout_milliseconds
        )
    }

    fn start_http_stream(
        &mut self,
        cluster_name: &str,
        headers: Headers<'_>,
        body: Option<&[u8]>,
        end_stream: bool,
        timeout_milliseconds: u64,
    ) -> CalloutInit {
        streamed!(
            http_filter_config_start_http_stream,
            self.raw,
            cluster_name,
            headers,
            body,
            end_stream,
            timeout_milliseconds
        )
    }

    unsafe fn send_http_stream_data(&mut self, id: u64, data: &[u8], end_stream: bool) -> bool {
        call!(
            http_filter_config_stream_send_data(self.raw, id, module(data), end_stream) or false
        )
    }

    unsafe fn send_http_stream_trailers(&mut self, id: u64, trailers: Headers<'_>) -> bool {
        let mut trailers = HeaderList::new(trailers);
        call!(
            http_filter_config_stream_send_trailers(
                self.raw,
                id,
                trailers.first(),
                trailers.count(),
            ) or false
        )
    }

    unsafe fn reset_http_stream(&mut self, id: u64) {
        call!(http_filter_config_reset_http_stream(self.raw, id) or ());
    }
}

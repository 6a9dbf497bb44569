//! The stream as Envoy shows it to a filter.
//!
//! Written out in full rather than by macro, because the mock is generated from it and it is the API's reference page.
//! Getters lend Envoy's memory until the hook returns; the borrow on `self` ends it earlier when a setter is called.

use std::any::Any;
use std::sync::Arc;

use crate::abi::*;
use crate::buffer::{EnvoyBuffer, EnvoyMutBuffer};
use crate::callout::CalloutInit;
use crate::http::{EnvoyChildSpan, EnvoyHttpFilterScheduler, EnvoySpan};
use crate::metrics::*;

/// How many hosts a cluster has at one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClusterHostCount {
    /// All hosts.
    pub total: usize,
    /// The healthy ones.
    pub healthy: usize,
    /// The degraded ones.
    pub degraded: usize,
}

/// One stream, inside a hook of its filter.
///
/// Calls that move the stream (`send_response…`, `reset_stream`, `continue_…`, `send_go_away_and_close`) are made, in their
/// order, when the hook has returned: Envoy answers them with further hooks of the same filter. An answer's headers and
/// body are copied for that.
///
/// Header names are lower case. A `false` answer means that nothing was changed, a `None` that the value is not there.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
#[allow(clippy::needless_lifetimes)] // mockall needs the lifetimes of nested references spelt out
pub trait EnvoyHttpFilter {
    // --- request headers ---

    /// The first value of a request header.
    fn get_request_header_value<'a>(&'a self, key: &str) -> Option<EnvoyBuffer<'a>>;
    /// All values of a request header.
    fn get_request_header_values<'a>(&'a self, key: &str) -> Vec<EnvoyBuffer<'a>>;
    /// All request headers.
    fn get_request_headers<'a>(&'a self) -> Vec<(EnvoyBuffer<'a>, EnvoyBuffer<'a>)>;
    /// Sets a request header, replacing all its values.
    fn set_request_header(&mut self, key: &str, value: &[u8]) -> bool;
    /// Adds a value to a request header.
    fn add_request_header(&mut self, key: &str, value: &[u8]) -> bool;
    /// Removes a request header.
    fn remove_request_header(&mut self, key: &str) -> bool;

    // --- request trailers ---

    /// The first value of a request trailer.
    fn get_request_trailer_value<'a>(&'a self, key: &str) -> Option<EnvoyBuffer<'a>>;
    /// All values of a request trailer.
    fn get_request_trailer_values<'a>(&'a self, key: &str) -> Vec<EnvoyBuffer<'a>>;
    /// All request trailers.
    fn get_request_trailers<'a>(&'a self) -> Vec<(EnvoyBuffer<'a>, EnvoyBuffer<'a>)>;
    /// Sets a request trailer, replacing all its values.
    fn set_request_trailer(&mut self, key: &str, value: &[u8]) -> bool;
    /// Adds a value to a request trailer.
    fn add_request_trailer(&mut self, key: &str, value: &[u8]) -> bool;
    /// Removes a request trailer.
    fn remove_request_trailer(&mut self, key: &str) -> bool;

    // --- response headers ---

    /// The first value of a response header.
    fn get_response_header_value<'a>(&'a self, key: &str) -> Option<EnvoyBuffer<'a>>;
    /// All values of a response header.
    fn get_response_header_values<'a>(&'a self, key: &str) -> Vec<EnvoyBuffer<'a>>;
    /// All response headers.
    fn get_response_headers<'a>(&'a self) -> Vec<(EnvoyBuffer<'a>, EnvoyBuffer<'a>)>;
    /// Sets a response header, replacing all its values.
    fn set_response_header(&mut self, key: &str, value: &[u8]) -> bool;
    /// Adds a value to a response header.
    fn add_response_header(&mut self, key: &str, value: &[u8]) -> bool;
    /// Removes a response header.
    fn remove_response_header(&mut self, key: &str) -> bool;

    // --- response trailers ---

    /// The first value of a response trailer.
    fn get_response_trailer_value<'a>(&'a self, key: &str) -> Option<EnvoyBuffer<'a>>;
    /// All values of a response trailer.
    fn get_response_trailer_values<'a>(&'a self, key: &str) -> Vec<EnvoyBuffer<'a>>;
    /// All response trailers.
    fn get_response_trailers<'a>(&'a self) -> Vec<(EnvoyBuffer<'a>, EnvoyBuffer<'a>)>;
    /// Sets a response trailer, replacing all its values.
    fn set_response_trailer(&mut self, key: &str, value: &[u8]) -> bool;
    /// Adds a value to a response trailer.
    fn add_response_trailer(&mut self, key: &str, value: &[u8]) -> bool;
    /// Removes a response trailer.
    fn remove_response_trailer(&mut self, key: &str) -> bool;

    // --- the part of the request body that this hook brings ---

    /// The chunks of the part of the request body that this hook brings.
    fn get_received_request_body<'a>(&'a mut self) -> Option<Vec<EnvoyMutBuffer<'a>>>;
    /// The bytes in the part of the request body that this hook brings.
    fn get_received_request_body_size(&mut self) -> usize;
    /// Removes bytes from the front of the part of the request body that this hook brings.
    fn drain_received_request_body(&mut self, number_of_bytes: usize) -> bool;
    /// Appends to the part of the request body that this hook brings. The `content-length` is the caller's to correct.
    fn append_received_request_body(&mut self, data: &[u8]) -> bool;

    // --- the part of the request body that Envoy has kept ---

    /// The chunks of the part of the request body that Envoy has kept.
    fn get_buffered_request_body<'a>(&'a mut self) -> Option<Vec<EnvoyMutBuffer<'a>>>;
    /// The bytes in the part of the request body that Envoy has kept.
    fn get_buffered_request_body_size(&mut self) -> usize;
    /// Removes bytes from the front of the part of the request body that Envoy has kept.
    fn drain_buffered_request_body(&mut self, number_of_bytes: usize) -> bool;
    /// Appends to the part of the request body that Envoy has kept. The `content-length` is the caller's to correct.
    fn append_buffered_request_body(&mut self, data: &[u8]) -> bool;

    // --- the part of the response body that this hook brings ---

    /// The chunks of the part of the response body that this hook brings.
    fn get_received_response_body<'a>(&'a mut self) -> Option<Vec<EnvoyMutBuffer<'a>>>;
    /// The bytes in the part of the response body that this hook brings.
    fn get_received_response_body_size(&mut self) -> usize;
    /// Removes bytes from the front of the part of the response body that this hook brings.
    fn drain_received_response_body(&mut self, number_of_bytes: usize) -> bool;
    /// Appends to the part of the response body that this hook brings. The `content-length` is the caller's to correct.
    fn append_received_response_body(&mut self, data: &[u8]) -> bool;

    // --- the part of the response body that Envoy has kept ---

    /// The chunks of the part of the response body that Envoy has kept.
    fn get_buffered_response_body<'a>(&'a mut self) -> Option<Vec<EnvoyMutBuffer<'a>>>;
    /// The bytes in the part of the response body that Envoy has kept.
    fn get_buffered_response_body_size(&mut self) -> usize;
    /// Removes bytes from the front of the part of the response body that Envoy has kept.
    fn drain_buffered_response_body(&mut self, number_of_bytes: usize) -> bool;
    /// Appends to the part of the response body that Envoy has kept. The `content-length` is the caller's to correct.
    fn append_buffered_response_body(&mut self, data: &[u8]) -> bool;

    // --- bodies and limits ---

    /// Whether the body this hook brings is the one that was buffered before.
    fn received_buffered_request_body(&mut self) -> bool;
    /// As above, for the response.
    fn received_buffered_response_body(&mut self) -> bool;
    /// How many bytes Envoy buffers for this stream before it answers 413; 0 is no limit.
    fn get_buffer_limit(&self) -> u64;
    /// Sets that limit for this stream, in bytes. The same limit bounds what can be retried.
    fn set_buffer_limit(&mut self, limit: u64);

    // --- replies ---

    /// Answers the stream. Return a stopping status afterwards. `details` is a short token without spaces.
    fn send_response<'a>(
        &mut self,
        status_code: u32,
        headers: &'a [(&'a str, &'a [u8])],
        body: Option<&'a [u8]>,
        details: Option<&'a str>,
    );
    /// Begins a streamed answer; `headers` hold `:status`.
    fn send_response_headers<'a>(&mut self, headers: &'a [(&'a str, &'a [u8])], end_stream: bool);
    /// Sends a part of a streamed answer.
    fn send_response_data(&mut self, body: &[u8], end_stream: bool);
    /// Ends a streamed answer with trailers.
    fn send_response_trailers<'a>(&mut self, trailers: &'a [(&'a str, &'a [u8])]);
    /// Adds a flag to the access log's response flags; no spaces.
    fn add_custom_flag(&mut self, flag: &str);

    // --- flow ---

    /// Lets a held request go on.
    fn continue_decoding(&mut self);
    /// Lets a held response go on.
    fn continue_encoding(&mut self);
    /// Resets the stream.
    fn reset_stream(
        &mut self,
        reason: envoy_dynamic_module_type_http_filter_stream_reset_reason,
        details: &str,
    );
    /// Closes the client's connection, at once or after its streams.
    fn send_go_away_and_close(&mut self, graceful: bool);
    /// Runs the request again from the start, with other headers if given. The whole request must have been received.
    fn recreate_stream<'a>(&mut self, headers: Option<&'a [(&'a str, &'a [u8])]>) -> bool;

    // --- route and upstream ---

    /// Has the route chosen again, for changed headers.
    fn clear_route_cache(&mut self);
    /// Has the cluster of the same route chosen again.
    fn clear_route_cluster_cache(&mut self);
    /// The route's own configuration of this filter, if it has one.
    fn get_most_specific_route_config(&self) -> Option<Arc<dyn Any>>;
    /// Sends the stream to `host` ("ip:port"). When it is not in the cluster: 503 if `strict`, else any host. False when
    /// the address does not parse; the load balancer then decides. Not with a cluster of the module's own.
    fn set_upstream_override_host(&mut self, host: &str, strict: bool) -> bool;
    /// The name of the route's cluster.
    fn get_cluster_name<'a>(&'a self) -> Option<EnvoyBuffer<'a>>;
    /// The size of the route's cluster at a priority.
    fn get_cluster_host_count(&self, priority: u32) -> Option<ClusterHostCount>;

    // --- metadata ---

    /// A number in metadata.
    fn get_metadata_number(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
    ) -> Option<f64>;
    /// A string in metadata.
    fn get_metadata_string<'a>(
        &'a self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
    ) -> Option<EnvoyBuffer<'a>>;
    /// A truth value in metadata.
    fn get_metadata_bool(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
    ) -> Option<bool>;
    /// Sets a number in the stream's metadata.
    fn set_dynamic_metadata_number(&mut self, namespace: &str, key: &str, value: f64);
    /// Sets a string in the stream's metadata.
    fn set_dynamic_metadata_string(&mut self, namespace: &str, key: &str, value: &str);
    /// Sets a truth value in the stream's metadata.
    fn set_dynamic_metadata_bool(&mut self, namespace: &str, key: &str, value: bool);
    /// Sets several strings of one namespace; before 1.39 one call each.
    fn set_dynamic_metadata_string_batch<'a>(
        &mut self,
        namespace: &str,
        pairs: &'a [(&'a str, &'a str)],
    );
    /// The keys of a namespace.
    fn get_metadata_keys<'a>(
        &'a self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
    ) -> Option<Vec<EnvoyBuffer<'a>>>;
    /// The namespaces that have metadata.
    fn get_metadata_namespaces<'a>(
        &'a self,
        source: envoy_dynamic_module_type_metadata_source,
    ) -> Option<Vec<EnvoyBuffer<'a>>>;
    /// Appends a number to a list in the stream's metadata.
    fn add_dynamic_metadata_list_number(&mut self, namespace: &str, key: &str, value: f64) -> bool;
    /// Appends a string to a list in the stream's metadata.
    fn add_dynamic_metadata_list_string(&mut self, namespace: &str, key: &str, value: &str)
    -> bool;
    /// Appends a truth value to a list in the stream's metadata.
    fn add_dynamic_metadata_list_bool(&mut self, namespace: &str, key: &str, value: bool) -> bool;
    /// The length of a list in metadata.
    fn get_metadata_list_size(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
    ) -> Option<usize>;
    /// A number of a list in metadata.
    fn get_metadata_list_number(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
        index: usize,
    ) -> Option<f64>;
    /// A string of a list in metadata.
    fn get_metadata_list_string<'a>(
        &'a self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
        index: usize,
    ) -> Option<EnvoyBuffer<'a>>;
    /// A truth value of a list in metadata.
    fn get_metadata_list_bool(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
        index: usize,
    ) -> Option<bool>;

    // --- filter state and attributes ---

    /// Bytes in the stream's filter state.
    fn get_filter_state_bytes<'a>(&'a self, key: &[u8]) -> Option<EnvoyBuffer<'a>>;
    /// Sets bytes in the stream's filter state; a cluster of the module's own reads them on 1.39 and newer.
    fn set_filter_state_bytes(&mut self, key: &[u8], value: &[u8]) -> bool;
    /// The serialised form of a typed object in the filter state.
    fn get_filter_state_typed<'a>(&'a self, key: &[u8]) -> Option<EnvoyBuffer<'a>>;
    /// Sets a typed object, made by the factory that Envoy has registered for the key.
    fn set_filter_state_typed(&mut self, key: &[u8], value: &[u8]) -> bool;
    /// A string attribute. `None` for one that this release lacks.
    fn get_attribute_string<'a>(
        &'a self,
        attribute_id: envoy_dynamic_module_type_attribute_id,
    ) -> Option<EnvoyBuffer<'a>>;
    /// A number attribute. `None` for one that this release lacks.
    fn get_attribute_int(
        &self,
        attribute_id: envoy_dynamic_module_type_attribute_id,
    ) -> Option<i64>;
    /// A truth value attribute. `None` for one that this release lacks.
    fn get_attribute_bool(
        &self,
        attribute_id: envoy_dynamic_module_type_attribute_id,
    ) -> Option<bool>;

    // --- callouts ---

    /// Makes a request; `headers` hold `:method`, `:path` and `host`. After `Success` hold the stream until
    /// `on_http_callout_done`.
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
    /// The stream must be one of this filter that has not ended.
    unsafe fn send_http_stream_data(&mut self, id: u64, data: &[u8], end_stream: bool) -> bool;
    /// Ends a streamed request with trailers.
    ///
    /// # Safety
    /// The stream must be one of this filter that has not ended.
    unsafe fn send_http_stream_trailers<'a>(
        &mut self,
        id: u64,
        trailers: &'a [(&'a str, &'a [u8])],
    ) -> bool;
    /// Cancels a streamed request.
    ///
    /// # Safety
    /// The stream must be one of this filter that has not ended.
    unsafe fn reset_http_stream(&mut self, id: u64);

    // --- threads ---

    /// A handle that wakes this stream from any thread.
    fn new_scheduler(&self) -> impl EnvoyHttpFilterScheduler + 'static;
    /// The worker's index, below the concurrency.
    fn get_worker_index(&self) -> u32;

    // --- metrics ---

    /// Adds to a counter.
    fn increment_counter(&self, id: EnvoyCounterId, value: u64) -> MetricsResult<()>;
    /// Adds to a counter with labels.
    fn increment_counter_vec<'a>(
        &self,
        id: EnvoyCounterVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;
    /// Adds to a gauge.
    fn increase_gauge(&self, id: EnvoyGaugeId, value: u64) -> MetricsResult<()>;
    /// Adds to a gauge with labels.
    fn increase_gauge_vec<'a>(
        &self,
        id: EnvoyGaugeVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;
    /// Subtracts from a gauge.
    fn decrease_gauge(&self, id: EnvoyGaugeId, value: u64) -> MetricsResult<()>;
    /// Subtracts from a gauge with labels.
    fn decrease_gauge_vec<'a>(
        &self,
        id: EnvoyGaugeVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;
    /// Sets a gauge.
    fn set_gauge(&self, id: EnvoyGaugeId, value: u64) -> MetricsResult<()>;
    /// Sets a gauge with labels.
    fn set_gauge_vec<'a>(
        &self,
        id: EnvoyGaugeVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;
    /// Records a value in a histogram.
    fn record_histogram_value(&self, id: EnvoyHistogramId, value: u64) -> MetricsResult<()>;
    /// Records a value in a histogram with labels.
    fn record_histogram_value_vec<'a>(
        &self,
        id: EnvoyHistogramVecId,
        labels: &[&'a str],
        value: u64,
    ) -> MetricsResult<()>;

    // --- tracing ---

    /// The stream's span; `None` when it is not traced.
    fn get_active_span(&self) -> Option<Box<dyn EnvoySpan>>;
    /// Starts a child of the stream's span.
    fn spawn_child_span(&self, operation_name: &str) -> Option<Box<dyn EnvoyChildSpan>>;
}

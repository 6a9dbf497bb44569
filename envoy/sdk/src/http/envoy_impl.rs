//! [`EnvoyHttpFilter`] over the real Envoy.
//!
//! Data: the stream's pointer, and the calls that wait for the hook to return (see `action`). The value lives on the stack of
//! one hook.

use std::any::Any;
use std::ffi::c_void;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::abi::envoy_dynamic_module_type_attribute_id as Attribute;
use crate::abi::envoy_dynamic_module_type_http_body_type as Body;
use crate::abi::envoy_dynamic_module_type_http_header_type as Map;
use crate::abi::*;
use crate::buffer::{EnvoyBuffer, EnvoyMutBuffer, absent, module};
use crate::callout::{CalloutInit, HeaderList, Headers, one_shot, streamed};
use crate::host::{call, callbacks, read};
use crate::http::action::{Action, Actions, OwnedHeaders};
use crate::http::envoy::{ClusterHostCount, EnvoyHttpFilter};
use crate::http::scheduler::{EnvoyHttpFilterScheduler, for_filter};
use crate::http::span::{self, EnvoyChildSpan, EnvoySpan};
use crate::metrics::*;

/// A stream inside of Envoy.
#[derive(Debug)]
pub struct EnvoyHttpFilterImpl {
    pub(super) raw: *mut c_void,
    actions: Actions,
}

impl EnvoyHttpFilterImpl {
    /// # Safety
    /// `raw` is the stream of the running hook, and the value is not kept beyond it.
    pub(crate) unsafe fn new(raw: *mut c_void) -> Self {
        Self { raw, actions: Actions::new() }
    }

    /// The calls to make now that the hook has returned.
    pub(super) fn into_actions(self) -> Actions {
        self.actions
    }
}

/// The methods of one header map.
macro_rules! header_methods {
    ($map:ident: $value:ident, $values:ident, $all:ident, $set:ident, $add:ident, $remove:ident) => {
        fn $value(&self, key: &str) -> Option<EnvoyBuffer<'_>> {
            self.header(Map::$map, key, 0, &mut 0)
        }

        fn $values(&self, key: &str) -> Vec<EnvoyBuffer<'_>> {
            self.header_values(Map::$map, key)
        }

        fn $all(&self) -> Vec<(EnvoyBuffer<'_>, EnvoyBuffer<'_>)> {
            self.headers(Map::$map).into_vec()
        }

        fn $set(&mut self, key: &str, value: &[u8]) -> bool {
            self.set(Map::$map, key, module(value))
        }

        fn $add(&mut self, key: &str, value: &[u8]) -> bool {
            call!(
                http_add_header(self.raw, Map::$map as u32, module(key), module(value)) or false
            )
        }

        fn $remove(&mut self, key: &str) -> bool {
            self.set(Map::$map, key, absent())
        }
    };
}

/// The methods of one body buffer.
macro_rules! body_methods {
    ($body:ident: $all:ident, $size:ident, $drain:ident, $append:ident) => {
        fn $all(&mut self) -> Option<Vec<EnvoyMutBuffer<'_>>> {
            self.chunks(Body::$body)
        }

        fn $size(&mut self) -> usize {
            call!(http_get_body_size(self.raw, Body::$body as u32) or 0)
        }

        fn $drain(&mut self, number_of_bytes: usize) -> bool {
            call!(http_drain_body(self.raw, Body::$body as u32, number_of_bytes) or false)
        }

        fn $append(&mut self, data: &[u8]) -> bool {
            call!(http_append_body(self.raw, Body::$body as u32, module(data)) or false)
        }
    };
}

/// The methods that change one kind of metric.
macro_rules! metric_methods {
    ($($callback:ident: $plain:ident($id:ident), $labelled:ident($vec_id:ident);)*) => {$(
        fn $plain(&self, id: $id, value: u64) -> MetricsResult<()> {
            change!($callback, self.raw, id, &[], value)
        }

        fn $labelled(&self, id: $vec_id, labels: &[&str], value: u64) -> MetricsResult<()> {
            change!($callback, self.raw, id, labels, value)
        }
    )*};
}

impl EnvoyHttpFilter for EnvoyHttpFilterImpl {
    header_methods!(RequestHeader: get_request_header_value, get_request_header_values, get_request_headers, set_request_header, add_request_header, remove_request_header);
    header_methods!(RequestTrailer: get_request_trailer_value, get_request_trailer_values, get_request_trailers, set_request_trailer, add_request_trailer, remove_request_trailer);
    header_methods!(ResponseHeader: get_response_header_value, get_response_header_values, get_response_headers, set_response_header, add_response_header, remove_response_header);
    header_methods!(ResponseTrailer: get_response_trailer_value, get_response_trailer_values, get_response_trailers, set_response_trailer, add_response_trailer, remove_response_trailer);

    body_methods!(ReceivedRequestBody: get_received_request_body,
        get_received_request_body_size, drain_received_request_body, append_received_request_body);
    body_methods!(BufferedRequestBody: get_buffered_request_body,
        get_buffered_request_body_size, drain_buffered_request_body, append_buffered_request_body);
    body_methods!(ReceivedResponseBody: get_received_response_body,
        get_received_response_body_size, drain_received_response_body, append_received_response_body);
    body_methods!(BufferedResponseBody: get_buffered_response_body,
        get_buffered_response_body_size, drain_buffered_response_body, append_buffered_response_body);

    fn received_buffered_request_body(&mut self) -> bool {
        call!(http_received_buffered_request_body(self.raw) or false)
    }

    fn received_buffered_response_body(&mut self) -> bool {
        call!(http_received_buffered_response_body(self.raw) or false)
    }

    fn get_buffer_limit(&self) -> u64 {
        call!(http_get_buffer_limit(self.raw) or 0)
    }

    fn set_buffer_limit(&mut self, limit: u64) {
        call!(http_set_buffer_limit(self.raw, limit) or ());
    }

    fn send_response(
        &mut self,
        status_code: u32,
        headers: Headers<'_>,
        body: Option<&[u8]>,
        details: Option<&str>,
    ) {
        self.actions.push(Action::Respond {
            status: status_code,
            headers: OwnedHeaders::new(headers),
            body: body.map(<[u8]>::to_vec),
            details: details.map(str::to_owned),
        });
    }

    fn send_response_headers(&mut self, headers: Headers<'_>, end_stream: bool) {
        let headers = OwnedHeaders::new(headers);
        self.actions.push(Action::ResponseHeaders { headers, end: end_stream });
    }

    fn send_response_data(&mut self, body: &[u8], end_stream: bool) {
        self.actions.push(Action::ResponseData { data: body.to_vec(), end: end_stream });
    }

    fn send_response_trailers(&mut self, trailers: Headers<'_>) {
        self.actions.push(Action::ResponseTrailers { trailers: OwnedHeaders::new(trailers) });
    }

    fn add_custom_flag(&mut self, flag: &str) {
        call!(http_add_custom_flag(self.raw, module(flag)) or ());
    }

    fn continue_decoding(&mut self) {
        self.actions.push(Action::ContinueDecoding);
    }

    fn continue_encoding(&mut self) {
        self.actions.push(Action::ContinueEncoding);
    }

    fn reset_stream(
        &mut self,
        reason: envoy_dynamic_module_type_http_filter_stream_reset_reason,
        details: &str,
    ) {
        self.actions.push(Action::Reset { reason, details: details.to_owned() });
    }

    fn send_go_away_and_close(&mut self, graceful: bool) {
        self.actions.push(Action::GoAway { graceful });
    }

    fn recreate_stream(&mut self, headers: Option<Headers<'_>>) -> bool {
        let mut list = HeaderList::new(headers.unwrap_or_default());
        let first = if headers.is_some() { list.first() } else { std::ptr::null_mut() };
        call!(http_filter_recreate_stream(self.raw, first, list.count()) or false)
    }

    fn clear_route_cache(&mut self) {
        call!(http_clear_route_cache(self.raw) or ());
    }

    fn clear_route_cluster_cache(&mut self) {
        call!(http_clear_route_cluster_cache(self.raw) or ());
    }

    fn get_most_specific_route_config(&self) -> Option<Arc<dyn Any>> {
        let config = call!(get_most_specific_route_config(self.raw) or std::ptr::null());
        if config.is_null() {
            return None;
        }
        // SAFETY: Envoy hands back what `per_route_config_new` gave it, which is a boxed `Arc`, destroyed after the last
        // stream that can see it.
        Some(unsafe { Arc::clone(&*config.cast::<Arc<dyn Any>>()) })
    }

    fn set_upstream_override_host(&mut self, host: &str, strict: bool) -> bool {
        call!(http_set_upstream_override_host(self.raw, module(host), strict) or false)
    }

    fn get_cluster_name(&self) -> Option<EnvoyBuffer<'_>> {
        read!(http_get_cluster_name(self.raw) -> EnvoyBuffer<'_>)
    }

    fn get_cluster_host_count(&self, priority: u32) -> Option<ClusterHostCount> {
        let mut hosts = ClusterHostCount::default();
        call!(
            http_get_cluster_host_count(
                self.raw,
                priority,
                &raw mut hosts.total,
                &raw mut hosts.healthy,
                &raw mut hosts.degraded,
            ) or false
        )
        .then_some(hosts)
    }

    fn get_metadata_number(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
    ) -> Option<f64> {
        read!(http_get_metadata_number(self.raw, source as u32, module(namespace), module(key)) -> f64)
    }

    fn get_metadata_string(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
    ) -> Option<EnvoyBuffer<'_>> {
        read!(http_get_metadata_string(self.raw, source as u32, module(namespace), module(key)) -> EnvoyBuffer<'_>)
    }

    fn get_metadata_bool(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
    ) -> Option<bool> {
        read!(http_get_metadata_bool(self.raw, source as u32, module(namespace), module(key)) -> bool)
    }

    fn set_dynamic_metadata_number(&mut self, namespace: &str, key: &str, value: f64) {
        call!(
            http_set_dynamic_metadata_number(self.raw, module(namespace), module(key), value)
                or ()
        );
    }

    fn set_dynamic_metadata_string(&mut self, namespace: &str, key: &str, value: &str) {
        call!(
            http_set_dynamic_metadata_string(
                self.raw,
                module(namespace),
                module(key),
                module(value),
            ) or ()
        );
    }

    fn set_dynamic_metadata_bool(&mut self, namespace: &str, key: &str, value: bool) {
        call!(
            http_set_dynamic_metadata_bool(self.raw, module(namespace), module(key), value) or ()
        );
    }

    fn set_dynamic_metadata_string_batch(&mut self, namespace: &str, pairs: &[(&str, &str)]) {
        if callbacks().http_set_dynamic_metadata_string_batch.is_none() {
            for (key, value) in pairs {
                self.set_dynamic_metadata_string(namespace, key, value);
            }
            return;
        }
        let lend = |(key, value): &(&str, &str)| envoy_dynamic_module_type_module_key_value_pair {
            key_ptr: key.as_ptr().cast(),
            key_length: key.len(),
            value_ptr: value.as_ptr().cast(),
            value_length: value.len(),
        };
        let pairs: SmallVec<[_; 16]> = pairs.iter().map(lend).collect();
        call!(
            http_set_dynamic_metadata_string_batch(
                self.raw,
                module(namespace),
                pairs.as_ptr(),
                pairs.len(),
            ) or ()
        );
    }

    fn get_metadata_keys(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
    ) -> Option<Vec<EnvoyBuffer<'_>>> {
        let count =
            call!(http_get_metadata_keys_count(self.raw, source as u32, module(namespace)) or 0);
        let mut keys = vec![EnvoyBuffer::default(); count];
        (count > 0
            && call!(
                http_get_metadata_keys(
                    self.raw,
                    source as u32,
                    module(namespace),
                    keys.as_mut_ptr().cast(),
                ) or false
            ))
        .then_some(keys)
    }

    fn get_metadata_namespaces(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
    ) -> Option<Vec<EnvoyBuffer<'_>>> {
        let count = call!(http_get_metadata_namespaces_count(self.raw, source as u32) or 0);
        let mut namespaces = vec![EnvoyBuffer::default(); count];
        (count > 0
            && call!(
                http_get_metadata_namespaces(
                    self.raw,
                    source as u32,
                    namespaces.as_mut_ptr().cast(),
                ) or false
            ))
        .then_some(namespaces)
    }

    fn add_dynamic_metadata_list_number(&mut self, namespace: &str, key: &str, value: f64) -> bool {
        call!(
            http_add_dynamic_metadata_list_number(self.raw, module(namespace), module(key), value)
                or false
        )
    }

    fn add_dynamic_metadata_list_string(
        &mut self,
        namespace: &str,
        key: &str,
        value: &str,
    ) -> bool {
        call!(
            http_add_dynamic_metadata_list_string(
                self.raw,
                module(namespace),
                module(key),
                module(value),
            ) or false
        )
    }

    fn add_dynamic_metadata_list_bool(&mut self, namespace: &str, key: &str, value: bool) -> bool {
        call!(
            http_add_dynamic_metadata_list_bool(self.raw, module(namespace), module(key), value)
                or false
        )
    }

    fn get_metadata_list_size(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
    ) -> Option<usize> {
        read!(http_get_metadata_list_size(self.raw, source as u32, module(namespace), module(key)) -> usize)
    }

    fn get_metadata_list_number(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
        index: usize,
    ) -> Option<f64> {
        read!(http_get_metadata_list_number(self.raw, source as u32, module(namespace), module(key), index) -> f64)
    }

    fn get_metadata_list_string(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
        index: usize,
    ) -> Option<EnvoyBuffer<'_>> {
        read!(http_get_metadata_list_string(self.raw, source as u32, module(namespace), module(key), index) -> EnvoyBuffer<'_>)
    }

    fn get_metadata_list_bool(
        &self,
        source: envoy_dynamic_module_type_metadata_source,
        namespace: &str,
        key: &str,
        index: usize,
    ) -> Option<bool> {
        read!(http_get_metadata_list_bool(self.raw, source as u32, module(namespace), module(key), index) -> bool)
    }

    fn get_filter_state_bytes(&self, key: &[u8]) -> Option<EnvoyBuffer<'_>> {
        read!(http_get_filter_state_bytes(self.raw, module(key)) -> EnvoyBuffer<'_>)
    }

    fn set_filter_state_bytes(&mut self, key: &[u8], value: &[u8]) -> bool {
        call!(http_set_filter_state_bytes(self.raw, module(key), module(value)) or false)
    }

    fn get_filter_state_typed(&self, key: &[u8]) -> Option<EnvoyBuffer<'_>> {
        read!(http_get_filter_state_typed(self.raw, module(key)) -> EnvoyBuffer<'_>)
    }

    fn set_filter_state_typed(&mut self, key: &[u8], value: &[u8]) -> bool {
        call!(http_set_filter_state_typed(self.raw, module(key), module(value)) or false)
    }

    fn get_attribute_string(&self, attribute_id: Attribute) -> Option<EnvoyBuffer<'_>> {
        if !Self::has_attribute(attribute_id) {
            return None;
        }
        read!(http_filter_get_attribute_string(self.raw, attribute_id as u32) -> EnvoyBuffer<'_>)
    }

    fn get_attribute_int(&self, attribute_id: Attribute) -> Option<i64> {
        if !Self::has_attribute(attribute_id) {
            return None;
        }
        read!(http_filter_get_attribute_int(self.raw, attribute_id as u32) -> u64)
            .map(u64::cast_signed)
    }

    fn get_attribute_bool(&self, attribute_id: Attribute) -> Option<bool> {
        read!(http_filter_get_attribute_bool(self.raw, attribute_id as u32) -> bool)
    }

    fn send_http_callout(
        &mut self,
        cluster_name: &str,
        headers: Headers<'_>,
        body: Option<&[u8]>,
        timeout_milliseconds: u64,
    ) -> CalloutInit {
        one_shot!(
            http_filter_http_callout,
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
            http_filter_start_http_stream,
            self.raw,
            cluster_name,
            headers,
            body,
            end_stream,
            timeout_milliseconds
        )
    }

    unsafe fn send_http_stream_data(&mut self, id: u64, data: &[u8], end_stream: bool) -> bool {
        call!(http_stream_send_data(self.raw, id, module(data), end_stream) or false)
    }

    unsafe fn send_http_stream_trailers(&mut self, id: u64, trailers: Headers<'_>) -> bool {
        let mut trailers = HeaderList::new(trailers);
        call!(
            http_stream_send_trailers(self.raw, id, trailers.first(), trailers.count()) or false
        )
    }

    unsafe fn reset_http_stream(&mut self, id: u64) {
        call!(http_filter_reset_http_stream(self.raw, id) or ());
    }

    fn new_scheduler(&self) -> impl EnvoyHttpFilterScheduler + 'static {
        for_filter(self.raw)
    }

    fn get_worker_index(&self) -> u32 {
        call!(http_filter_get_worker_index(self.raw) or 0)
    }

    metric_methods! {
        http_filter_increment_counter: increment_counter(EnvoyCounterId), increment_counter_vec(EnvoyCounterVecId);
        http_filter_increment_gauge: increase_gauge(EnvoyGaugeId), increase_gauge_vec(EnvoyGaugeVecId);
        http_filter_decrement_gauge: decrease_gauge(EnvoyGaugeId), decrease_gauge_vec(EnvoyGaugeVecId);
        http_filter_set_gauge: set_gauge(EnvoyGaugeId), set_gauge_vec(EnvoyGaugeVecId);
        http_filter_record_histogram_value:
            record_histogram_value(EnvoyHistogramId), record_histogram_value_vec(EnvoyHistogramVecId);
    }

    fn get_active_span(&self) -> Option<Box<dyn EnvoySpan>> {
        span::active(self.raw).map(|span| Box::new(span) as Box<dyn EnvoySpan>)
    }

    fn spawn_child_span(&self, operation_name: &str) -> Option<Box<dyn EnvoyChildSpan>> {
        span::active(self.raw)?.spawn_child(operation_name)
    }
}

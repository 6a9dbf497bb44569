// The part of Envoy's dynamic-module ABI that the SDK uses.
//
// Written from the facts of the interface as it is in Envoy 1.38, 1.39 and 1.40. The ABI promises that nothing which
// has shipped changes its name, parameters, layout or numbers, so one header serves all of them. What an older release
// lacks is marked "1.39+" or "1.40+": the SDK looks every callback up at load and does without the absent ones.
//
// This file is the single source of every signature: build.rs turns the types into Rust, the callbacks into a table
// of optional function pointers, and the hooks into function types that the SDK's exports are checked against.
//
// Conventions: strings are pointer and length, not NUL-terminated, not promised to be UTF-8. A buffer given by Envoy is
// valid until the running hook returns or a setter changes what it points into. A `false` result means "not available",
// and the out-parameters are then untouched. Everything belongs to the thread that Envoy called the module on, unless
// "any thread" is said. All enums are `int` sized and numbered from 0 unless a number is given.

#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---------------------------------------------------------------------------------------------------------------------
// Pointers. `envoy_ptr` is owned by Envoy, `module_ptr` by the module.
// ---------------------------------------------------------------------------------------------------------------------

typedef void* envoy_dynamic_module_type_http_filter_config_envoy_ptr;
typedef const void* envoy_dynamic_module_type_http_filter_config_module_ptr;
typedef const void* envoy_dynamic_module_type_http_filter_per_route_config_module_ptr;
typedef void* envoy_dynamic_module_type_http_filter_envoy_ptr;
typedef const void* envoy_dynamic_module_type_http_filter_module_ptr;
typedef void* envoy_dynamic_module_type_http_filter_scheduler_module_ptr;
typedef void* envoy_dynamic_module_type_http_filter_config_scheduler_module_ptr;
typedef void* envoy_dynamic_module_type_span_envoy_ptr;
typedef void* envoy_dynamic_module_type_child_span_module_ptr;

typedef void* envoy_dynamic_module_type_cluster_config_envoy_ptr;
typedef const void* envoy_dynamic_module_type_cluster_config_module_ptr;
typedef void* envoy_dynamic_module_type_cluster_envoy_ptr;
typedef const void* envoy_dynamic_module_type_cluster_module_ptr;
typedef void* envoy_dynamic_module_type_cluster_lb_envoy_ptr;
typedef const void* envoy_dynamic_module_type_cluster_lb_module_ptr;
typedef void* envoy_dynamic_module_type_cluster_lb_context_envoy_ptr;
typedef void* envoy_dynamic_module_type_cluster_lb_async_handle_module_ptr;
typedef void* envoy_dynamic_module_type_cluster_host_envoy_ptr;
typedef void* envoy_dynamic_module_type_cluster_scheduler_module_ptr;
typedef void* envoy_dynamic_module_type_cluster_worker_timer_module_ptr;

typedef void* envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr;
typedef const void* envoy_dynamic_module_type_bootstrap_extension_config_module_ptr;
typedef void* envoy_dynamic_module_type_bootstrap_extension_envoy_ptr;
typedef const void* envoy_dynamic_module_type_bootstrap_extension_module_ptr;
typedef void* envoy_dynamic_module_type_bootstrap_extension_config_scheduler_module_ptr;
typedef void* envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr;

/// Tells Envoy that a shutdown hook has finished; called exactly once with the context given to the hook.
typedef void (*envoy_dynamic_module_type_event_cb)(void* context);

// ---------------------------------------------------------------------------------------------------------------------
// Buffers
// ---------------------------------------------------------------------------------------------------------------------

/// Bytes in Envoy's memory.
typedef struct {
  const char* ptr;
  size_t length;
} envoy_dynamic_module_type_envoy_buffer;

/// Bytes in the module's memory.
typedef struct {
  const char* ptr;
  size_t length;
} envoy_dynamic_module_type_module_buffer;

/// A header in Envoy's memory.
typedef struct {
  const char* key_ptr;
  size_t key_length;
  const char* value_ptr;
  size_t value_length;
} envoy_dynamic_module_type_envoy_http_header;

/// A header in the module's memory.
typedef struct {
  const char* key_ptr;
  size_t key_length;
  const char* value_ptr;
  size_t value_length;
} envoy_dynamic_module_type_module_http_header;

/// A key and its value in the module's memory.
typedef struct {
  const char* key_ptr;
  size_t key_length;
  const char* value_ptr;
  size_t value_length;
} envoy_dynamic_module_type_module_key_value_pair;

// ---------------------------------------------------------------------------------------------------------------------
// Enums
// ---------------------------------------------------------------------------------------------------------------------

#define E(name, variant) envoy_dynamic_module_type_##name##_##variant

/// Which header map of a stream.
typedef enum {
  E(http_header_type, RequestHeader),
  E(http_header_type, RequestTrailer),
  E(http_header_type, ResponseHeader),
  E(http_header_type, ResponseTrailer),
} envoy_dynamic_module_type_http_header_type;

/// Which body buffer of a stream: the chunk of this call, or what an earlier call had Envoy keep.
typedef enum {
  E(http_body_type, ReceivedRequestBody),
  E(http_body_type, BufferedRequestBody),
  E(http_body_type, ReceivedResponseBody),
  E(http_body_type, BufferedResponseBody),
} envoy_dynamic_module_type_http_body_type;

/// Severity of a log line.
typedef enum {
  E(log_level, Trace),
  E(log_level, Debug),
  E(log_level, Info),
  E(log_level, Warn),
  E(log_level, Error),
  E(log_level, Critical),
  E(log_level, Off),
} envoy_dynamic_module_type_log_level;

/// What happens after the request headers hook.
typedef enum {
  E(on_http_filter_request_headers_status, Continue),
  E(on_http_filter_request_headers_status, StopIteration),
  E(on_http_filter_request_headers_status, ContinueAndDontEndStream),
  E(on_http_filter_request_headers_status, StopAllIterationAndBuffer),
  E(on_http_filter_request_headers_status, StopAllIterationAndWatermark),
} envoy_dynamic_module_type_on_http_filter_request_headers_status;

/// What happens after the request body hook.
typedef enum {
  E(on_http_filter_request_body_status, Continue),
  E(on_http_filter_request_body_status, StopIterationAndBuffer),
  E(on_http_filter_request_body_status, StopIterationAndWatermark),
  E(on_http_filter_request_body_status, StopIterationNoBuffer),
} envoy_dynamic_module_type_on_http_filter_request_body_status;

/// What happens after the request trailers hook.
typedef enum {
  E(on_http_filter_request_trailers_status, Continue),
  E(on_http_filter_request_trailers_status, StopIteration),
} envoy_dynamic_module_type_on_http_filter_request_trailers_status;

/// What happens after the response headers hook.
typedef enum {
  E(on_http_filter_response_headers_status, Continue),
  E(on_http_filter_response_headers_status, StopIteration),
  E(on_http_filter_response_headers_status, ContinueAndDontEndStream),
  E(on_http_filter_response_headers_status, StopAllIterationAndBuffer),
  E(on_http_filter_response_headers_status, StopAllIterationAndWatermark),
} envoy_dynamic_module_type_on_http_filter_response_headers_status;

/// What happens after the response body hook.
typedef enum {
  E(on_http_filter_response_body_status, Continue),
  E(on_http_filter_response_body_status, StopIterationAndBuffer),
  E(on_http_filter_response_body_status, StopIterationAndWatermark),
  E(on_http_filter_response_body_status, StopIterationNoBuffer),
} envoy_dynamic_module_type_on_http_filter_response_body_status;

/// What happens after the response trailers hook.
typedef enum {
  E(on_http_filter_response_trailers_status, Continue),
  E(on_http_filter_response_trailers_status, StopIteration),
} envoy_dynamic_module_type_on_http_filter_response_trailers_status;

/// What happens after the local reply hook.
typedef enum {
  E(on_http_filter_local_reply_status, Continue),
  E(on_http_filter_local_reply_status, ContinueAndResetStream),
} envoy_dynamic_module_type_on_http_filter_local_reply_status;

/// How a filter resets its stream.
typedef enum {
  E(http_filter_stream_reset_reason, LocalReset),
  E(http_filter_stream_reset_reason, LocalRefusedStreamReset),
} envoy_dynamic_module_type_http_filter_stream_reset_reason;

/// Whether a callout or stream was started.
typedef enum {
  E(http_callout_init_result, Success),
  E(http_callout_init_result, MissingRequiredHeaders),
  E(http_callout_init_result, ClusterNotFound),
  E(http_callout_init_result, DuplicateCalloutId),
  E(http_callout_init_result, CannotCreateRequest),
} envoy_dynamic_module_type_http_callout_init_result;

/// How a one-shot callout ended.
typedef enum {
  E(http_callout_result, Success),
  E(http_callout_result, Reset),
  E(http_callout_result, ExceedResponseBufferLimit),
} envoy_dynamic_module_type_http_callout_result;

/// Why a streamed callout was reset.
typedef enum {
  E(http_stream_reset_reason, ConnectionFailure),
  E(http_stream_reset_reason, ConnectionTermination),
  E(http_stream_reset_reason, LocalReset),
  E(http_stream_reset_reason, LocalRefusedStreamReset),
  E(http_stream_reset_reason, Overflow),
  E(http_stream_reset_reason, RemoteReset),
  E(http_stream_reset_reason, RemoteRefusedStreamReset),
  E(http_stream_reset_reason, ProtocolError),
} envoy_dynamic_module_type_http_stream_reset_reason;

/// Outcome of defining or changing a metric.
typedef enum {
  E(metrics_result, Success),
  E(metrics_result, MetricNotFound),
  E(metrics_result, InvalidLabels),
  E(metrics_result, Frozen),
} envoy_dynamic_module_type_metrics_result;

/// Where metadata is read from.
typedef enum {
  E(metadata_source, Dynamic),
  E(metadata_source, Route),
  E(metadata_source, Cluster),
  E(metadata_source, Host),
  E(metadata_source, HostLocality),
} envoy_dynamic_module_type_metadata_source;

/// Health of a host as Envoy's load balancers see it.
typedef enum {
  E(host_health, Unhealthy),
  E(host_health, Degraded),
  E(host_health, Healthy),
} envoy_dynamic_module_type_host_health;

/// A statistic that Envoy keeps per host.
typedef enum {
  E(host_stat, CxConnectFail),
  E(host_stat, CxTotal),
  E(host_stat, RqError),
  E(host_stat, RqSuccess),
  E(host_stat, RqTimeout),
  E(host_stat, RqTotal),
  E(host_stat, CxActive),
  E(host_stat, RqActive),
} envoy_dynamic_module_type_host_stat;

/// A property of the stream. Not every one is implemented in every release.
typedef enum {
  E(attribute_id, RequestPath),
  E(attribute_id, RequestUrlPath),
  E(attribute_id, RequestHost),
  E(attribute_id, RequestScheme),
  E(attribute_id, RequestMethod),
  E(attribute_id, RequestHeaders),
  E(attribute_id, RequestReferer),
  E(attribute_id, RequestUserAgent),
  E(attribute_id, RequestTime),
  E(attribute_id, RequestId),
  E(attribute_id, RequestProtocol),
  E(attribute_id, RequestQuery),
  E(attribute_id, RequestDuration),
  E(attribute_id, RequestSize),
  E(attribute_id, RequestTotalSize),
  E(attribute_id, ResponseCode),
  E(attribute_id, ResponseCodeDetails),
  E(attribute_id, ResponseFlags),
  E(attribute_id, ResponseGrpcStatus),
  E(attribute_id, ResponseHeaders),
  E(attribute_id, ResponseTrailers),
  E(attribute_id, ResponseSize),
  E(attribute_id, ResponseTotalSize),
  E(attribute_id, ResponseBackendLatency),
  E(attribute_id, SourceAddress),
  E(attribute_id, SourcePort),
  E(attribute_id, DestinationAddress),
  E(attribute_id, DestinationPort),
  E(attribute_id, ConnectionId),
  E(attribute_id, ConnectionMtls),
  E(attribute_id, ConnectionRequestedServerName),
  E(attribute_id, ConnectionTlsVersion),
  E(attribute_id, UpstreamAddress) = 41,
  E(attribute_id, UpstreamPort),
  E(attribute_id, UpstreamTlsVersion),
  E(attribute_id, UpstreamLocalAddress) = 51,
  E(attribute_id, UpstreamTransportFailureReason),
  E(attribute_id, UpstreamRequestAttemptCount),
  E(attribute_id, UpstreamCxPoolReadyDuration),
  E(attribute_id, UpstreamLocality),
  E(attribute_id, XdsNode),
  E(attribute_id, XdsClusterName),
  E(attribute_id, XdsClusterMetadata),
  E(attribute_id, XdsListenerDirection),
  E(attribute_id, XdsListenerMetadata),
  E(attribute_id, XdsRouteName),
  E(attribute_id, XdsRouteMetadata),
  E(attribute_id, XdsVirtualHostName),
  E(attribute_id, XdsVirtualHostMetadata),
  E(attribute_id, XdsUpstreamHostMetadata),
  E(attribute_id, XdsFilterChainName),
  E(attribute_id, HealthCheck),
} envoy_dynamic_module_type_attribute_id;

#undef E

#include "hooks.h"
#include "callbacks.h"

#ifdef __cplusplus
}
#endif

// Included by abi.h.

// Functions that Envoy implements and the module calls, through a table that is filled at load. None is linked.

// --- Process ---------------------------------------------------------------------------------------------------------

/// Any thread.
void envoy_dynamic_module_callback_log(
    envoy_dynamic_module_type_log_level level, envoy_dynamic_module_type_module_buffer message);
/// 1.40+, any thread: a log line with its source location.
void envoy_dynamic_module_callback_log_v2(
    envoy_dynamic_module_type_log_level level, envoy_dynamic_module_type_module_buffer message,
    envoy_dynamic_module_type_module_buffer source_file, uint32_t source_line);
/// Any thread.
bool envoy_dynamic_module_callback_log_enabled(envoy_dynamic_module_type_log_level level);
/// 1.39+, any thread.
envoy_dynamic_module_type_log_level envoy_dynamic_module_callback_get_log_level(void);
/// Main thread: the number of workers.
uint32_t envoy_dynamic_module_callback_get_concurrency(void);
/// Main thread: whether only the configuration is being checked.
bool envoy_dynamic_module_callback_is_validation_mode(void);
/// Any thread. Pointers that modules and extensions of one process share.
bool envoy_dynamic_module_callback_register_function(envoy_dynamic_module_type_module_buffer key, void* function);
bool envoy_dynamic_module_callback_get_function(envoy_dynamic_module_type_module_buffer key, void** function_out);
bool envoy_dynamic_module_callback_register_shared_data(envoy_dynamic_module_type_module_buffer key, void* data);
bool envoy_dynamic_module_callback_get_shared_data(envoy_dynamic_module_type_module_buffer key, void** data_out);

// --- HTTP filter: headers --------------------------------------------------------------------------------------------

bool envoy_dynamic_module_callback_http_get_header(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_header_type header_type,
    envoy_dynamic_module_type_module_buffer key, envoy_dynamic_module_type_envoy_buffer* result, size_t index,
    size_t* count_or_null);
size_t envoy_dynamic_module_callback_http_get_headers_size(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_header_type header_type);
bool envoy_dynamic_module_callback_http_get_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_header_type header_type,
    envoy_dynamic_module_type_envoy_http_header* headers_out);
/// Replaces all values; a NULL value pointer removes the header.
bool envoy_dynamic_module_callback_http_set_header(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_header_type header_type,
    envoy_dynamic_module_type_module_buffer key, envoy_dynamic_module_type_module_buffer value);
bool envoy_dynamic_module_callback_http_add_header(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_header_type header_type,
    envoy_dynamic_module_type_module_buffer key, envoy_dynamic_module_type_module_buffer value);

// --- HTTP filter: bodies ---------------------------------------------------------------------------------------------

size_t envoy_dynamic_module_callback_http_get_body_size(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_body_type body_type);
size_t envoy_dynamic_module_callback_http_get_body_chunks_size(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_body_type body_type);
bool envoy_dynamic_module_callback_http_get_body_chunks(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_body_type body_type,
    envoy_dynamic_module_type_envoy_buffer* chunks_out);
bool envoy_dynamic_module_callback_http_append_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_body_type body_type,
    envoy_dynamic_module_type_module_buffer data);
/// Drains from the front; more than there is drains all.
bool envoy_dynamic_module_callback_http_drain_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_http_body_type body_type,
    size_t number_of_bytes);
bool envoy_dynamic_module_callback_http_received_buffered_request_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter);
bool envoy_dynamic_module_callback_http_received_buffered_response_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter);
/// In bytes; 0 is no limit.
uint64_t envoy_dynamic_module_callback_http_get_buffer_limit(envoy_dynamic_module_type_http_filter_envoy_ptr filter);
void envoy_dynamic_module_callback_http_set_buffer_limit(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, uint64_t limit);

// --- HTTP filter: replies and flow -----------------------------------------------------------------------------------

void envoy_dynamic_module_callback_http_send_response(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, uint32_t status,
    envoy_dynamic_module_type_module_http_header* headers, size_t headers_size,
    envoy_dynamic_module_type_module_buffer body, envoy_dynamic_module_type_module_buffer details);
/// The headers hold `:status`.
void envoy_dynamic_module_callback_http_send_response_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_http_header* headers,
    size_t headers_size, bool end_stream);
void envoy_dynamic_module_callback_http_send_response_data(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer data,
    bool end_stream);
void envoy_dynamic_module_callback_http_send_response_trailers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_http_header* trailers,
    size_t trailers_size);
void envoy_dynamic_module_callback_http_filter_continue_decoding(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter);
void envoy_dynamic_module_callback_http_filter_continue_encoding(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter);
void envoy_dynamic_module_callback_http_filter_reset_stream(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter,
    envoy_dynamic_module_type_http_filter_stream_reset_reason reason, envoy_dynamic_module_type_module_buffer details);
void envoy_dynamic_module_callback_http_filter_send_go_away_and_close(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, bool graceful);
/// The whole request must have been received; NULL headers keep the request's own.
bool envoy_dynamic_module_callback_http_filter_recreate_stream(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_http_header* headers,
    size_t headers_size);
void envoy_dynamic_module_callback_http_add_custom_flag(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer flag);

// --- HTTP filter: route and upstream ---------------------------------------------------------------------------------

void envoy_dynamic_module_callback_http_clear_route_cache(envoy_dynamic_module_type_http_filter_envoy_ptr filter);
void envoy_dynamic_module_callback_http_clear_route_cluster_cache(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter);
/// NULL when the route has none.
envoy_dynamic_module_type_http_filter_per_route_config_module_ptr envoy_dynamic_module_callback_get_most_specific_route_config(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter);
/// "ip:port"; false when that does not parse.
bool envoy_dynamic_module_callback_http_set_upstream_override_host(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer host, bool strict);
bool envoy_dynamic_module_callback_http_get_cluster_name(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_envoy_buffer* result);
bool envoy_dynamic_module_callback_http_get_cluster_host_count(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, uint32_t priority, size_t* total, size_t* healthy,
    size_t* degraded);

// --- HTTP filter: metadata, filter state, attributes -----------------------------------------------------------------

void envoy_dynamic_module_callback_http_set_dynamic_metadata_number(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer ns,
    envoy_dynamic_module_type_module_buffer key, double value);
void envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer ns,
    envoy_dynamic_module_type_module_buffer key, envoy_dynamic_module_type_module_buffer value);
void envoy_dynamic_module_callback_http_set_dynamic_metadata_bool(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer ns,
    envoy_dynamic_module_type_module_buffer key, bool value);
/// 1.39+
void envoy_dynamic_module_callback_http_set_dynamic_metadata_string_batch(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer ns,
    const envoy_dynamic_module_type_module_key_value_pair* pairs, size_t pairs_size);
bool envoy_dynamic_module_callback_http_get_metadata_number(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_module_buffer ns, envoy_dynamic_module_type_module_buffer key, double* result);
bool envoy_dynamic_module_callback_http_get_metadata_string(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_module_buffer ns, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_envoy_buffer* result);
bool envoy_dynamic_module_callback_http_get_metadata_bool(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_module_buffer ns, envoy_dynamic_module_type_module_buffer key, bool* result);
size_t envoy_dynamic_module_callback_http_get_metadata_keys_count(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_module_buffer ns);
bool envoy_dynamic_module_callback_http_get_metadata_keys(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_module_buffer ns, envoy_dynamic_module_type_envoy_buffer* keys_out);
size_t envoy_dynamic_module_callback_http_get_metadata_namespaces_count(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source);
bool envoy_dynamic_module_callback_http_get_metadata_namespaces(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_envoy_buffer* namespaces_out);
bool envoy_dynamic_module_callback_http_add_dynamic_metadata_list_number(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer ns,
    envoy_dynamic_module_type_module_buffer key, double value);
bool envoy_dynamic_module_callback_http_add_dynamic_metadata_list_string(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer ns,
    envoy_dynamic_module_type_module_buffer key, envoy_dynamic_module_type_module_buffer value);
bool envoy_dynamic_module_callback_http_add_dynamic_metadata_list_bool(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer ns,
    envoy_dynamic_module_type_module_buffer key, bool value);
bool envoy_dynamic_module_callback_http_get_metadata_list_size(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_module_buffer ns, envoy_dynamic_module_type_module_buffer key, size_t* result);
bool envoy_dynamic_module_callback_http_get_metadata_list_number(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_module_buffer ns, envoy_dynamic_module_type_module_buffer key, size_t index,
    double* result);
bool envoy_dynamic_module_callback_http_get_metadata_list_string(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_module_buffer ns, envoy_dynamic_module_type_module_buffer key, size_t index,
    envoy_dynamic_module_type_envoy_buffer* result);
bool envoy_dynamic_module_callback_http_get_metadata_list_bool(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_metadata_source source,
    envoy_dynamic_module_type_module_buffer ns, envoy_dynamic_module_type_module_buffer key, size_t index,
    bool* result);
bool envoy_dynamic_module_callback_http_set_filter_state_bytes(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_module_buffer value);
bool envoy_dynamic_module_callback_http_get_filter_state_bytes(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_envoy_buffer* result);
/// Needs an object factory that is registered under the key.
bool envoy_dynamic_module_callback_http_set_filter_state_typed(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_module_buffer value);
bool envoy_dynamic_module_callback_http_get_filter_state_typed(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_envoy_buffer* result);
bool envoy_dynamic_module_callback_http_filter_get_attribute_string(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_attribute_id attribute,
    envoy_dynamic_module_type_envoy_buffer* result);
bool envoy_dynamic_module_callback_http_filter_get_attribute_int(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_attribute_id attribute,
    uint64_t* result);
bool envoy_dynamic_module_callback_http_filter_get_attribute_bool(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_attribute_id attribute,
    bool* result);

// --- HTTP filter: callouts -------------------------------------------------------------------------------------------

envoy_dynamic_module_type_http_callout_init_result envoy_dynamic_module_callback_http_filter_http_callout(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, uint64_t* id_out,
    envoy_dynamic_module_type_module_buffer cluster, envoy_dynamic_module_type_module_http_header* headers,
    size_t headers_size, envoy_dynamic_module_type_module_buffer body, uint64_t timeout_ms);
/// A `timeout_ms` of 0 is none.
envoy_dynamic_module_type_http_callout_init_result envoy_dynamic_module_callback_http_filter_start_http_stream(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, uint64_t* id_out,
    envoy_dynamic_module_type_module_buffer cluster, envoy_dynamic_module_type_module_http_header* headers,
    size_t headers_size, envoy_dynamic_module_type_module_buffer body, bool end_stream, uint64_t timeout_ms);
bool envoy_dynamic_module_callback_http_stream_send_data(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, uint64_t stream_id,
    envoy_dynamic_module_type_module_buffer data, bool end_stream);
bool envoy_dynamic_module_callback_http_stream_send_trailers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, uint64_t stream_id,
    envoy_dynamic_module_type_module_http_header* trailers, size_t trailers_size);
void envoy_dynamic_module_callback_http_filter_reset_http_stream(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, uint64_t stream_id);
envoy_dynamic_module_type_http_callout_init_result envoy_dynamic_module_callback_http_filter_config_http_callout(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy, uint64_t* id_out,
    envoy_dynamic_module_type_module_buffer cluster, envoy_dynamic_module_type_module_http_header* headers,
    size_t headers_size, envoy_dynamic_module_type_module_buffer body, uint64_t timeout_ms);
/// A `timeout_ms` of 0 is none.
envoy_dynamic_module_type_http_callout_init_result envoy_dynamic_module_callback_http_filter_config_start_http_stream(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy, uint64_t* id_out,
    envoy_dynamic_module_type_module_buffer cluster, envoy_dynamic_module_type_module_http_header* headers,
    size_t headers_size, envoy_dynamic_module_type_module_buffer body, bool end_stream, uint64_t timeout_ms);
bool envoy_dynamic_module_callback_http_filter_config_stream_send_data(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy, uint64_t stream_id,
    envoy_dynamic_module_type_module_buffer data, bool end_stream);
bool envoy_dynamic_module_callback_http_filter_config_stream_send_trailers(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy, uint64_t stream_id,
    envoy_dynamic_module_type_module_http_header* trailers, size_t trailers_size);
void envoy_dynamic_module_callback_http_filter_config_reset_http_stream(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy, uint64_t stream_id);

// --- HTTP filter: threads --------------------------------------------------------------------------------------------

envoy_dynamic_module_type_http_filter_scheduler_module_ptr envoy_dynamic_module_callback_http_filter_scheduler_new(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter);
/// Any thread; nothing happens once the stream is gone.
void envoy_dynamic_module_callback_http_filter_scheduler_commit(
    envoy_dynamic_module_type_http_filter_scheduler_module_ptr scheduler, uint64_t event_id);
/// Any thread.
void envoy_dynamic_module_callback_http_filter_scheduler_delete(
    envoy_dynamic_module_type_http_filter_scheduler_module_ptr scheduler);
envoy_dynamic_module_type_http_filter_config_scheduler_module_ptr envoy_dynamic_module_callback_http_filter_config_scheduler_new(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy);
/// Any thread.
void envoy_dynamic_module_callback_http_filter_config_scheduler_commit(
    envoy_dynamic_module_type_http_filter_config_scheduler_module_ptr scheduler, uint64_t event_id);
/// Any thread.
void envoy_dynamic_module_callback_http_filter_config_scheduler_delete(
    envoy_dynamic_module_type_http_filter_config_scheduler_module_ptr scheduler);
uint32_t envoy_dynamic_module_callback_http_filter_get_worker_index(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter);

// --- HTTP filter: metrics --------------------------------------------------------------------------------------------

// Defined while the configuration is being made, later `Frozen`. One value per label name.
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_http_filter_config_define_counter(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy, envoy_dynamic_module_type_module_buffer name,
    const envoy_dynamic_module_type_module_buffer* label_names, size_t label_names_size, size_t* id_out);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_http_filter_config_define_gauge(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy, envoy_dynamic_module_type_module_buffer name,
    const envoy_dynamic_module_type_module_buffer* label_names, size_t label_names_size, size_t* id_out);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_http_filter_config_define_histogram(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy, envoy_dynamic_module_type_module_buffer name,
    const envoy_dynamic_module_type_module_buffer* label_names, size_t label_names_size, size_t* id_out);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_http_filter_increment_counter(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_http_filter_increment_gauge(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_http_filter_decrement_gauge(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_http_filter_set_gauge(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_http_filter_record_histogram_value(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);

// --- HTTP filter: tracing --------------------------------------------------------------------------------------------

/// NULL without tracing.
envoy_dynamic_module_type_span_envoy_ptr envoy_dynamic_module_callback_http_get_active_span(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter);
void envoy_dynamic_module_callback_http_span_set_tag(
    envoy_dynamic_module_type_span_envoy_ptr span, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_module_buffer value);
void envoy_dynamic_module_callback_http_span_set_operation(
    envoy_dynamic_module_type_span_envoy_ptr span, envoy_dynamic_module_type_module_buffer operation);
void envoy_dynamic_module_callback_http_span_log(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_span_envoy_ptr span,
    envoy_dynamic_module_type_module_buffer event);
void envoy_dynamic_module_callback_http_span_set_sampled(envoy_dynamic_module_type_span_envoy_ptr span, bool sampled);
bool envoy_dynamic_module_callback_http_span_get_baggage(
    envoy_dynamic_module_type_span_envoy_ptr span, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_envoy_buffer* result);
void envoy_dynamic_module_callback_http_span_set_baggage(
    envoy_dynamic_module_type_span_envoy_ptr span, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_module_buffer value);
bool envoy_dynamic_module_callback_http_span_get_trace_id(
    envoy_dynamic_module_type_span_envoy_ptr span, envoy_dynamic_module_type_envoy_buffer* result);
bool envoy_dynamic_module_callback_http_span_get_span_id(
    envoy_dynamic_module_type_span_envoy_ptr span, envoy_dynamic_module_type_envoy_buffer* result);
envoy_dynamic_module_type_child_span_module_ptr envoy_dynamic_module_callback_http_span_spawn_child(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter, envoy_dynamic_module_type_span_envoy_ptr span,
    envoy_dynamic_module_type_module_buffer operation);
void envoy_dynamic_module_callback_http_child_span_finish(envoy_dynamic_module_type_child_span_module_ptr span);

// --- Cluster: main thread --------------------------------------------------------------------------------------------

/// Weights are 1 to 128. An address that does not parse fails the whole batch. In 1.39+ only new hosts are written, at the front.
bool envoy_dynamic_module_callback_cluster_add_hosts(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster, uint32_t priority,
    const envoy_dynamic_module_type_module_buffer* addresses, const uint32_t* weights,
    const envoy_dynamic_module_type_module_buffer* regions, const envoy_dynamic_module_type_module_buffer* zones,
    const envoy_dynamic_module_type_module_buffer* sub_zones,
    const envoy_dynamic_module_type_module_buffer* metadata_triples, size_t triples_per_host, size_t count,
    envoy_dynamic_module_type_cluster_host_envoy_ptr* hosts_out);
/// 1.40+
bool envoy_dynamic_module_callback_cluster_add_hosts_with_hostnames(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster, uint32_t priority,
    const envoy_dynamic_module_type_module_buffer* addresses, const envoy_dynamic_module_type_module_buffer* hostnames,
    const uint32_t* weights, const envoy_dynamic_module_type_module_buffer* regions,
    const envoy_dynamic_module_type_module_buffer* zones, const envoy_dynamic_module_type_module_buffer* sub_zones,
    const envoy_dynamic_module_type_module_buffer* metadata_triples, size_t triples_per_host, size_t count,
    envoy_dynamic_module_type_cluster_host_envoy_ptr* hosts_out);
/// Returns the number removed; unknown pointers are ignored.
size_t envoy_dynamic_module_callback_cluster_remove_hosts(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster, const envoy_dynamic_module_type_cluster_host_envoy_ptr* hosts,
    size_t count);
bool envoy_dynamic_module_callback_cluster_update_host_health(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster, envoy_dynamic_module_type_cluster_host_envoy_ptr host,
    envoy_dynamic_module_type_host_health health);
envoy_dynamic_module_type_cluster_host_envoy_ptr envoy_dynamic_module_callback_cluster_find_host_by_address(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster, envoy_dynamic_module_type_module_buffer address);
void envoy_dynamic_module_callback_cluster_pre_init_complete(envoy_dynamic_module_type_cluster_envoy_ptr cluster);
/// 1.39+
void envoy_dynamic_module_callback_cluster_get_name(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster, envoy_dynamic_module_type_envoy_buffer* result);
/// 1.39+
void envoy_dynamic_module_callback_cluster_run_on_all_workers(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster, uint64_t event_id);
envoy_dynamic_module_type_cluster_scheduler_module_ptr envoy_dynamic_module_callback_cluster_scheduler_new(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster);
/// Any thread.
void envoy_dynamic_module_callback_cluster_scheduler_commit(
    envoy_dynamic_module_type_cluster_scheduler_module_ptr scheduler, uint64_t event_id);
/// Any thread.
void envoy_dynamic_module_callback_cluster_scheduler_delete(
    envoy_dynamic_module_type_cluster_scheduler_module_ptr scheduler);
envoy_dynamic_module_type_http_callout_init_result envoy_dynamic_module_callback_cluster_http_callout(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster, uint64_t* id_out,
    envoy_dynamic_module_type_module_buffer cluster_name, envoy_dynamic_module_type_module_http_header* headers,
    size_t headers_size, envoy_dynamic_module_type_module_buffer body, uint64_t timeout_ms);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_cluster_config_define_counter(
    envoy_dynamic_module_type_cluster_config_envoy_ptr config_envoy, envoy_dynamic_module_type_module_buffer name,
    const envoy_dynamic_module_type_module_buffer* label_names, size_t label_names_size, size_t* id_out);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_cluster_config_define_gauge(
    envoy_dynamic_module_type_cluster_config_envoy_ptr config_envoy, envoy_dynamic_module_type_module_buffer name,
    const envoy_dynamic_module_type_module_buffer* label_names, size_t label_names_size, size_t* id_out);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_cluster_config_define_histogram(
    envoy_dynamic_module_type_cluster_config_envoy_ptr config_envoy, envoy_dynamic_module_type_module_buffer name,
    const envoy_dynamic_module_type_module_buffer* label_names, size_t label_names_size, size_t* id_out);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_cluster_config_increment_counter(
    envoy_dynamic_module_type_cluster_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_cluster_config_increment_gauge(
    envoy_dynamic_module_type_cluster_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_cluster_config_decrement_gauge(
    envoy_dynamic_module_type_cluster_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_cluster_config_set_gauge(
    envoy_dynamic_module_type_cluster_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_cluster_config_record_histogram_value(
    envoy_dynamic_module_type_cluster_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);

// --- Cluster: load balancer, worker ----------------------------------------------------------------------------------

// In 1.38 the readers of hosts look at the main thread's set without synchronisation when a worker calls them.
size_t envoy_dynamic_module_callback_cluster_lb_get_healthy_host_count(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority);
size_t envoy_dynamic_module_callback_cluster_lb_get_hosts_count(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority);
size_t envoy_dynamic_module_callback_cluster_lb_get_degraded_hosts_count(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority);
size_t envoy_dynamic_module_callback_cluster_lb_get_priority_set_size(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb);
envoy_dynamic_module_type_cluster_host_envoy_ptr envoy_dynamic_module_callback_cluster_lb_get_healthy_host(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index);
envoy_dynamic_module_type_cluster_host_envoy_ptr envoy_dynamic_module_callback_cluster_lb_get_host(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index);
/// 1.40+; false, with the count set, when the capacity is too small.
bool envoy_dynamic_module_callback_cluster_lb_get_healthy_hosts(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority,
    envoy_dynamic_module_type_cluster_host_envoy_ptr* hosts_out, size_t capacity, size_t* count_out);
envoy_dynamic_module_type_cluster_host_envoy_ptr envoy_dynamic_module_callback_cluster_lb_find_host_by_address(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, envoy_dynamic_module_type_module_buffer address);
bool envoy_dynamic_module_callback_cluster_lb_get_host_address(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index,
    envoy_dynamic_module_type_envoy_buffer* result);
envoy_dynamic_module_type_host_health envoy_dynamic_module_callback_cluster_lb_get_host_health(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index);
bool envoy_dynamic_module_callback_cluster_lb_get_host_health_by_address(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, envoy_dynamic_module_type_module_buffer address,
    envoy_dynamic_module_type_host_health* result);
uint64_t envoy_dynamic_module_callback_cluster_lb_get_host_stat(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index,
    envoy_dynamic_module_type_host_stat stat);
bool envoy_dynamic_module_callback_cluster_lb_get_host_locality(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index,
    envoy_dynamic_module_type_envoy_buffer* region, envoy_dynamic_module_type_envoy_buffer* zone,
    envoy_dynamic_module_type_envoy_buffer* sub_zone);
uint32_t envoy_dynamic_module_callback_cluster_lb_get_host_weight(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index);
bool envoy_dynamic_module_callback_cluster_lb_get_host_metadata_string(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index,
    envoy_dynamic_module_type_module_buffer filter_name, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_envoy_buffer* result);
bool envoy_dynamic_module_callback_cluster_lb_get_host_metadata_number(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index,
    envoy_dynamic_module_type_module_buffer filter_name, envoy_dynamic_module_type_module_buffer key, double* result);
bool envoy_dynamic_module_callback_cluster_lb_get_host_metadata_bool(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, uint32_t priority, size_t index,
    envoy_dynamic_module_type_module_buffer filter_name, envoy_dynamic_module_type_module_buffer key, bool* result);
bool envoy_dynamic_module_callback_cluster_lb_get_member_update_host_address(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, size_t index, bool is_added,
    envoy_dynamic_module_type_envoy_buffer* result);
/// 1.39+
envoy_dynamic_module_type_cluster_host_envoy_ptr envoy_dynamic_module_callback_cluster_lb_get_member_update_host(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, size_t index, bool is_added);

// --- Cluster: one selection ------------------------------------------------------------------------------------------

bool envoy_dynamic_module_callback_cluster_lb_context_get_downstream_header(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_envoy_buffer* result, size_t index, size_t* count_or_null);
size_t envoy_dynamic_module_callback_cluster_lb_context_get_downstream_headers_size(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context);
bool envoy_dynamic_module_callback_cluster_lb_context_get_downstream_headers(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context,
    envoy_dynamic_module_type_envoy_http_header* headers_out);
bool envoy_dynamic_module_callback_cluster_lb_context_get_override_host(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, envoy_dynamic_module_type_envoy_buffer* address,
    bool* strict);
bool envoy_dynamic_module_callback_cluster_lb_context_compute_hash_key(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, uint64_t* hash_out);
uint32_t envoy_dynamic_module_callback_cluster_lb_context_get_host_selection_retry_count(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context);
bool envoy_dynamic_module_callback_cluster_lb_context_should_select_another_host(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context,
    uint32_t priority, size_t index);
bool envoy_dynamic_module_callback_cluster_lb_context_get_downstream_connection_sni(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, envoy_dynamic_module_type_envoy_buffer* result);
/// 1.39+, as are the calls below.
bool envoy_dynamic_module_callback_cluster_lb_context_get_filter_state_bytes(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_envoy_buffer* result);
bool envoy_dynamic_module_callback_cluster_lb_context_get_filter_state_typed(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_envoy_buffer* result);
bool envoy_dynamic_module_callback_cluster_lb_context_set_filter_state_bytes(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_module_buffer value);
bool envoy_dynamic_module_callback_cluster_lb_context_set_filter_state_typed(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, envoy_dynamic_module_type_module_buffer key,
    envoy_dynamic_module_type_module_buffer value);
/// Reads through the pointer: only for a host that is still in the cluster.
uint64_t envoy_dynamic_module_callback_cluster_lb_context_get_host_stat(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context,
    envoy_dynamic_module_type_cluster_host_envoy_ptr host, envoy_dynamic_module_type_host_stat stat);
bool envoy_dynamic_module_callback_cluster_lb_context_set_dynamic_metadata_number(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, envoy_dynamic_module_type_module_buffer ns,
    envoy_dynamic_module_type_module_buffer key, double value);
bool envoy_dynamic_module_callback_cluster_lb_context_set_dynamic_metadata_string(
    envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context, envoy_dynamic_module_type_module_buffer ns,
    envoy_dynamic_module_type_module_buffer key, envoy_dynamic_module_type_module_buffer value);
/// Any thread.
void envoy_dynamic_module_callback_cluster_lb_async_host_selection_complete(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb, envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context,
    envoy_dynamic_module_type_cluster_host_envoy_ptr host, envoy_dynamic_module_type_module_buffer details);
/// 1.39+, inside `choose_host`, as are the calls below on the same worker.
envoy_dynamic_module_type_cluster_worker_timer_module_ptr envoy_dynamic_module_callback_cluster_worker_timer_new(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb);
void envoy_dynamic_module_callback_cluster_worker_timer_enable(
    envoy_dynamic_module_type_cluster_worker_timer_module_ptr timer, uint64_t delay_ms);
void envoy_dynamic_module_callback_cluster_worker_timer_disable(
    envoy_dynamic_module_type_cluster_worker_timer_module_ptr timer);
bool envoy_dynamic_module_callback_cluster_worker_timer_enabled(
    envoy_dynamic_module_type_cluster_worker_timer_module_ptr timer);
void envoy_dynamic_module_callback_cluster_worker_timer_delete(
    envoy_dynamic_module_type_cluster_worker_timer_module_ptr timer);

// --- Bootstrap extension ---------------------------------------------------------------------------------------------

/// Exactly once, or Envoy never becomes ready.
void envoy_dynamic_module_callback_bootstrap_extension_config_signal_init_complete(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy);
envoy_dynamic_module_type_bootstrap_extension_config_scheduler_module_ptr envoy_dynamic_module_callback_bootstrap_extension_config_scheduler_new(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy);
/// Any thread.
void envoy_dynamic_module_callback_bootstrap_extension_config_scheduler_commit(
    envoy_dynamic_module_type_bootstrap_extension_config_scheduler_module_ptr scheduler, uint64_t event_id);
/// Any thread.
void envoy_dynamic_module_callback_bootstrap_extension_config_scheduler_delete(
    envoy_dynamic_module_type_bootstrap_extension_config_scheduler_module_ptr scheduler);
envoy_dynamic_module_type_http_callout_init_result envoy_dynamic_module_callback_bootstrap_extension_http_callout(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy, uint64_t* id_out,
    envoy_dynamic_module_type_module_buffer cluster, envoy_dynamic_module_type_module_http_header* headers,
    size_t headers_size, envoy_dynamic_module_type_module_buffer body, uint64_t timeout_ms);
/// One-shot; armed again in its hook.
envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr envoy_dynamic_module_callback_bootstrap_extension_timer_new(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy);
void envoy_dynamic_module_callback_bootstrap_extension_timer_enable(
    envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr timer, uint64_t delay_ms);
void envoy_dynamic_module_callback_bootstrap_extension_timer_disable(
    envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr timer);
bool envoy_dynamic_module_callback_bootstrap_extension_timer_enabled(
    envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr timer);
void envoy_dynamic_module_callback_bootstrap_extension_timer_delete(
    envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr timer);
/// The file must exist. Events: 1 moved to, 2 modified.
bool envoy_dynamic_module_callback_bootstrap_extension_file_watcher_add_watch(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_module_buffer path, uint32_t events);
bool envoy_dynamic_module_callback_bootstrap_extension_register_admin_handler(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_module_buffer path_prefix, envoy_dynamic_module_type_module_buffer help, bool removable,
    bool mutates);
bool envoy_dynamic_module_callback_bootstrap_extension_remove_admin_handler(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_module_buffer path_prefix);
void envoy_dynamic_module_callback_bootstrap_extension_admin_set_response(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_module_buffer body);
bool envoy_dynamic_module_callback_bootstrap_extension_enable_cluster_lifecycle(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy);
bool envoy_dynamic_module_callback_bootstrap_extension_enable_listener_lifecycle(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy);
bool envoy_dynamic_module_callback_bootstrap_extension_get_counter_value(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension_envoy,
    envoy_dynamic_module_type_module_buffer name, uint64_t* result);
bool envoy_dynamic_module_callback_bootstrap_extension_get_gauge_value(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension_envoy,
    envoy_dynamic_module_type_module_buffer name, uint64_t* result);
bool envoy_dynamic_module_callback_bootstrap_extension_get_histogram_summary(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension_envoy,
    envoy_dynamic_module_type_module_buffer name, uint64_t* count, double* sum);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_bootstrap_extension_config_define_counter(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_module_buffer name, const envoy_dynamic_module_type_module_buffer* label_names,
    size_t label_names_size, size_t* id_out);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_bootstrap_extension_config_define_gauge(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_module_buffer name, const envoy_dynamic_module_type_module_buffer* label_names,
    size_t label_names_size, size_t* id_out);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_bootstrap_extension_config_define_histogram(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_module_buffer name, const envoy_dynamic_module_type_module_buffer* label_names,
    size_t label_names_size, size_t* id_out);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_bootstrap_extension_config_increment_counter(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_bootstrap_extension_config_increment_gauge(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_bootstrap_extension_config_decrement_gauge(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_bootstrap_extension_config_set_gauge(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);
envoy_dynamic_module_type_metrics_result envoy_dynamic_module_callback_bootstrap_extension_config_record_histogram_value(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy, size_t id,
    const envoy_dynamic_module_type_module_buffer* label_values, size_t label_values_size, uint64_t value);


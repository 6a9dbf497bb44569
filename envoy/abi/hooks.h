// Included by abi.h.

// Functions that the module exports and Envoy calls. A missing mandatory one rejects the configuration that needs it;
// those marked "optional" may be left out. The thread is the main thread for configurations, clusters and the bootstrap
// extension, and the stream's or balancer's worker for the rest.

// --- Load ------------------------------------------------------------------------------------------------------------

/// Runs once per load, before anything else. Returns the ABI version (NUL-terminated), or NULL to refuse the load.
const char* envoy_dynamic_module_on_program_init(void);

// --- HTTP filter -----------------------------------------------------------------------------------------------------

/// A filter configuration; NULL rejects it.
envoy_dynamic_module_type_http_filter_config_module_ptr envoy_dynamic_module_on_http_filter_config_new(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy, envoy_dynamic_module_type_envoy_buffer name,
    envoy_dynamic_module_type_envoy_buffer config);
void envoy_dynamic_module_on_http_filter_config_destroy(envoy_dynamic_module_type_http_filter_config_module_ptr config);
/// Optional: a route's own configuration; NULL rejects it.
envoy_dynamic_module_type_http_filter_per_route_config_module_ptr envoy_dynamic_module_on_http_filter_per_route_config_new(
    envoy_dynamic_module_type_envoy_buffer name, envoy_dynamic_module_type_envoy_buffer config);
/// Optional.
void envoy_dynamic_module_on_http_filter_per_route_config_destroy(
    envoy_dynamic_module_type_http_filter_per_route_config_module_ptr config);
/// A stream begins; NULL closes it.
envoy_dynamic_module_type_http_filter_module_ptr envoy_dynamic_module_on_http_filter_new(
    envoy_dynamic_module_type_http_filter_config_module_ptr config,
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy);
envoy_dynamic_module_type_on_http_filter_request_headers_status envoy_dynamic_module_on_http_filter_request_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, bool end_of_stream);
envoy_dynamic_module_type_on_http_filter_request_body_status envoy_dynamic_module_on_http_filter_request_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, bool end_of_stream);
envoy_dynamic_module_type_on_http_filter_request_trailers_status envoy_dynamic_module_on_http_filter_request_trailers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter);
envoy_dynamic_module_type_on_http_filter_response_headers_status envoy_dynamic_module_on_http_filter_response_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, bool end_of_stream);
envoy_dynamic_module_type_on_http_filter_response_body_status envoy_dynamic_module_on_http_filter_response_body(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, bool end_of_stream);
envoy_dynamic_module_type_on_http_filter_response_trailers_status envoy_dynamic_module_on_http_filter_response_trailers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter);
void envoy_dynamic_module_on_http_filter_stream_complete(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter);
/// The last hook of a stream, whatever its end.
void envoy_dynamic_module_on_http_filter_destroy(envoy_dynamic_module_type_http_filter_module_ptr filter);
void envoy_dynamic_module_on_http_filter_http_callout_done(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, uint64_t callout_id,
    envoy_dynamic_module_type_http_callout_result result, envoy_dynamic_module_type_envoy_http_header* headers,
    size_t headers_size, envoy_dynamic_module_type_envoy_buffer* body_chunks, size_t body_chunks_size);
void envoy_dynamic_module_on_http_filter_http_stream_headers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, uint64_t stream_id,
    envoy_dynamic_module_type_envoy_http_header* headers, size_t headers_size, bool end_stream);
void envoy_dynamic_module_on_http_filter_http_stream_data(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, uint64_t stream_id,
    const envoy_dynamic_module_type_envoy_buffer* chunks, size_t chunks_size, bool end_stream);
void envoy_dynamic_module_on_http_filter_http_stream_trailers(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, uint64_t stream_id,
    envoy_dynamic_module_type_envoy_http_header* trailers, size_t trailers_size);
void envoy_dynamic_module_on_http_filter_http_stream_complete(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, uint64_t stream_id);
void envoy_dynamic_module_on_http_filter_http_stream_reset(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, uint64_t stream_id,
    envoy_dynamic_module_type_http_stream_reset_reason reason);
void envoy_dynamic_module_on_http_filter_scheduled(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, uint64_t event_id);
void envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter);
void envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter);
/// Optional.
envoy_dynamic_module_type_on_http_filter_local_reply_status envoy_dynamic_module_on_http_filter_local_reply(
    envoy_dynamic_module_type_http_filter_envoy_ptr filter_envoy,
    envoy_dynamic_module_type_http_filter_module_ptr filter, uint32_t response_code,
    envoy_dynamic_module_type_envoy_buffer details, bool reset_imminent);
/// Optional, as are the other hooks of the configuration.
void envoy_dynamic_module_on_http_filter_config_scheduled(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_http_filter_config_module_ptr config, uint64_t event_id);
void envoy_dynamic_module_on_http_filter_config_http_callout_done(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_http_filter_config_module_ptr config, uint64_t callout_id,
    envoy_dynamic_module_type_http_callout_result result, envoy_dynamic_module_type_envoy_http_header* headers,
    size_t headers_size, envoy_dynamic_module_type_envoy_buffer* body_chunks, size_t body_chunks_size);
void envoy_dynamic_module_on_http_filter_config_http_stream_headers(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_http_filter_config_module_ptr config, uint64_t stream_id,
    envoy_dynamic_module_type_envoy_http_header* headers, size_t headers_size, bool end_stream);
void envoy_dynamic_module_on_http_filter_config_http_stream_data(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_http_filter_config_module_ptr config, uint64_t stream_id,
    const envoy_dynamic_module_type_envoy_buffer* chunks, size_t chunks_size, bool end_stream);
void envoy_dynamic_module_on_http_filter_config_http_stream_trailers(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_http_filter_config_module_ptr config, uint64_t stream_id,
    envoy_dynamic_module_type_envoy_http_header* trailers, size_t trailers_size);
void envoy_dynamic_module_on_http_filter_config_http_stream_complete(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_http_filter_config_module_ptr config, uint64_t stream_id);
void envoy_dynamic_module_on_http_filter_config_http_stream_reset(
    envoy_dynamic_module_type_http_filter_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_http_filter_config_module_ptr config, uint64_t stream_id,
    envoy_dynamic_module_type_http_stream_reset_reason reason);

// --- Cluster ---------------------------------------------------------------------------------------------------------

/// NULL rejects the configuration.
envoy_dynamic_module_type_cluster_config_module_ptr envoy_dynamic_module_on_cluster_config_new(
    envoy_dynamic_module_type_cluster_config_envoy_ptr config_envoy, envoy_dynamic_module_type_envoy_buffer name,
    envoy_dynamic_module_type_envoy_buffer config);
void envoy_dynamic_module_on_cluster_config_destroy(envoy_dynamic_module_type_cluster_config_module_ptr config);
/// NULL rejects the cluster.
envoy_dynamic_module_type_cluster_module_ptr envoy_dynamic_module_on_cluster_new(
    envoy_dynamic_module_type_cluster_config_module_ptr config,
    envoy_dynamic_module_type_cluster_envoy_ptr cluster_envoy);
/// Must lead to `cluster_pre_init_complete`, now or later.
void envoy_dynamic_module_on_cluster_init(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster_envoy, envoy_dynamic_module_type_cluster_module_ptr cluster);
void envoy_dynamic_module_on_cluster_destroy(envoy_dynamic_module_type_cluster_module_ptr cluster);
/// Once per worker and once on the main thread; in 1.38 again at every host change.
envoy_dynamic_module_type_cluster_lb_module_ptr envoy_dynamic_module_on_cluster_lb_new(
    envoy_dynamic_module_type_cluster_module_ptr cluster, envoy_dynamic_module_type_cluster_lb_envoy_ptr lb_envoy);
void envoy_dynamic_module_on_cluster_lb_destroy(envoy_dynamic_module_type_cluster_lb_module_ptr lb);
/// Writes both outputs: a host (or NULL) and no handle, or no host and a handle for a later answer.
void envoy_dynamic_module_on_cluster_lb_choose_host(
    envoy_dynamic_module_type_cluster_lb_module_ptr lb, envoy_dynamic_module_type_cluster_lb_context_envoy_ptr context,
    envoy_dynamic_module_type_cluster_host_envoy_ptr* host_out,
    envoy_dynamic_module_type_cluster_lb_async_handle_module_ptr* async_handle_out);
/// Optional: frees the handle, after a completion as well as after a cancellation.
void envoy_dynamic_module_on_cluster_lb_cancel_host_selection(
    envoy_dynamic_module_type_cluster_lb_module_ptr lb,
    envoy_dynamic_module_type_cluster_lb_async_handle_module_ptr async_handle);
/// Optional.
void envoy_dynamic_module_on_cluster_lb_on_host_membership_update(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb_envoy, envoy_dynamic_module_type_cluster_lb_module_ptr lb,
    size_t hosts_added, size_t hosts_removed);
/// Optional, as are the hooks below.
void envoy_dynamic_module_on_cluster_scheduled(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster_envoy, envoy_dynamic_module_type_cluster_module_ptr cluster,
    uint64_t event_id);
void envoy_dynamic_module_on_cluster_server_initialized(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster_envoy, envoy_dynamic_module_type_cluster_module_ptr cluster);
void envoy_dynamic_module_on_cluster_drain_started(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster_envoy, envoy_dynamic_module_type_cluster_module_ptr cluster);
/// Calls `completion(context)` exactly once.
void envoy_dynamic_module_on_cluster_shutdown(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster_envoy, envoy_dynamic_module_type_cluster_module_ptr cluster,
    envoy_dynamic_module_type_event_cb completion, void* context);
void envoy_dynamic_module_on_cluster_http_callout_done(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster_envoy, envoy_dynamic_module_type_cluster_module_ptr cluster,
    uint64_t callout_id, envoy_dynamic_module_type_http_callout_result result,
    envoy_dynamic_module_type_envoy_http_header* headers, size_t headers_size,
    envoy_dynamic_module_type_envoy_buffer* body_chunks, size_t body_chunks_size);
/// 1.39+, on a worker.
void envoy_dynamic_module_on_cluster_worker_event(
    envoy_dynamic_module_type_cluster_envoy_ptr cluster_envoy, envoy_dynamic_module_type_cluster_module_ptr cluster,
    uint64_t event_id);
/// 1.39+, on a worker.
void envoy_dynamic_module_on_cluster_worker_timer_fired(
    envoy_dynamic_module_type_cluster_lb_envoy_ptr lb_envoy, envoy_dynamic_module_type_cluster_lb_module_ptr lb,
    envoy_dynamic_module_type_cluster_worker_timer_module_ptr timer);

// --- Bootstrap extension ---------------------------------------------------------------------------------------------

/// NULL rejects the configuration.
envoy_dynamic_module_type_bootstrap_extension_config_module_ptr envoy_dynamic_module_on_bootstrap_extension_config_new(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_envoy_buffer name, envoy_dynamic_module_type_envoy_buffer config);
void envoy_dynamic_module_on_bootstrap_extension_config_destroy(
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config);
envoy_dynamic_module_type_bootstrap_extension_module_ptr envoy_dynamic_module_on_bootstrap_extension_new(
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config,
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension_envoy);
void envoy_dynamic_module_on_bootstrap_extension_destroy(
    envoy_dynamic_module_type_bootstrap_extension_module_ptr extension);
void envoy_dynamic_module_on_bootstrap_extension_server_initialized(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension_envoy,
    envoy_dynamic_module_type_bootstrap_extension_module_ptr extension);
/// On each worker.
void envoy_dynamic_module_on_bootstrap_extension_worker_thread_initialized(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension_envoy,
    envoy_dynamic_module_type_bootstrap_extension_module_ptr extension);
void envoy_dynamic_module_on_bootstrap_extension_drain_started(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension_envoy,
    envoy_dynamic_module_type_bootstrap_extension_module_ptr extension);
/// Calls `completion(context)` exactly once.
void envoy_dynamic_module_on_bootstrap_extension_shutdown(
    envoy_dynamic_module_type_bootstrap_extension_envoy_ptr extension_envoy,
    envoy_dynamic_module_type_bootstrap_extension_module_ptr extension, envoy_dynamic_module_type_event_cb completion,
    void* context);
void envoy_dynamic_module_on_bootstrap_extension_config_scheduled(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config, uint64_t event_id);
void envoy_dynamic_module_on_bootstrap_extension_timer_fired(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config,
    envoy_dynamic_module_type_bootstrap_extension_timer_module_ptr timer);
void envoy_dynamic_module_on_bootstrap_extension_file_changed(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config, envoy_dynamic_module_type_envoy_buffer path,
    uint32_t events);
void envoy_dynamic_module_on_bootstrap_extension_http_callout_done(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config, uint64_t callout_id,
    envoy_dynamic_module_type_http_callout_result result, envoy_dynamic_module_type_envoy_http_header* headers,
    size_t headers_size, envoy_dynamic_module_type_envoy_buffer* body_chunks, size_t body_chunks_size);
/// Returns the HTTP status; the body is set with `admin_set_response`.
uint32_t envoy_dynamic_module_on_bootstrap_extension_admin_request(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config,
    envoy_dynamic_module_type_envoy_buffer method, envoy_dynamic_module_type_envoy_buffer path,
    envoy_dynamic_module_type_envoy_buffer body);
void envoy_dynamic_module_on_bootstrap_extension_cluster_add_or_update(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config,
    envoy_dynamic_module_type_envoy_buffer name);
void envoy_dynamic_module_on_bootstrap_extension_cluster_removal(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config,
    envoy_dynamic_module_type_envoy_buffer name);
void envoy_dynamic_module_on_bootstrap_extension_listener_add_or_update(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config,
    envoy_dynamic_module_type_envoy_buffer name);
void envoy_dynamic_module_on_bootstrap_extension_listener_removal(
    envoy_dynamic_module_type_bootstrap_extension_config_envoy_ptr config_envoy,
    envoy_dynamic_module_type_bootstrap_extension_config_module_ptr config,
    envoy_dynamic_module_type_envoy_buffer name);


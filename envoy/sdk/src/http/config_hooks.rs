//! The exported hooks of a filter configuration and of a route's own configuration.

use std::any::Any;
use std::sync::Arc;

use crate::abi::*;
use crate::buffer::{EnvoyBuffer, list};
use crate::guard::guard;
use crate::http::hooks::{callout_result, reset_reason, response};
use crate::http::{EnvoyHttpFilterConfigImpl, EnvoyHttpFilterImpl, HttpFilterConfig};
use crate::init::{
    NEW_HTTP_FILTER_CONFIG_FUNCTION, NEW_HTTP_FILTER_PER_ROUTE_CONFIG_FUNCTION, name_of,
};

type Envoy = envoy_dynamic_module_type_http_filter_config_envoy_ptr;
type Module = envoy_dynamic_module_type_http_filter_config_module_ptr;

/// What stands behind a configuration's pointer.
pub(super) type SharedConfig = Box<dyn HttpFilterConfig<EnvoyHttpFilterImpl>>;

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config_envoy: Envoy,
    name: envoy_dynamic_module_type_envoy_buffer,
    config: envoy_dynamic_module_type_envoy_buffer,
) -> Module {
    guard("http_filter_config_new", || {
        let new = NEW_HTTP_FILTER_CONFIG_FUNCTION.get()?;
        // SAFETY: Envoy's buffers and the configuration live until the hook returns.
        let (name, config, mut envoy) = unsafe {
            (
                name_of(name, "an HTTP filter")?,
                EnvoyBuffer::from_raw(config),
                EnvoyHttpFilterConfigImpl::new(config_envoy),
            )
        };
        let made: SharedConfig = new(&mut envoy, name, config.as_slice())?;
        Some(Box::into_raw(Box::new(made)).cast_const().cast())
    })
    .flatten()
    .unwrap_or(std::ptr::null())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: Module) {
    if !config.is_null() {
        // SAFETY: `config` came from `http_filter_config_new`, and this is its last hook.
        let config = unsafe { Box::from_raw(config.cast_mut().cast::<SharedConfig>()) };
        guard("http_filter_config_destroy", move || drop(config));
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    name: envoy_dynamic_module_type_envoy_buffer,
    config: envoy_dynamic_module_type_envoy_buffer,
) -> envoy_dynamic_module_type_http_filter_per_route_config_module_ptr {
    guard("http_filter_per_route_config_new", || {
        let new = NEW_HTTP_FILTER_PER_ROUTE_CONFIG_FUNCTION.get()?;
        // SAFETY: Envoy's buffers live until the hook returns.
        let (name, config) =
            unsafe { (name_of(name, "a route's configuration")?, EnvoyBuffer::from_raw(config)) };
        let made: Arc<dyn Any> = Arc::from(new(name, config.as_slice())?);
        Some(Box::into_raw(Box::new(made)).cast_const().cast())
    })
    .flatten()
    .unwrap_or(std::ptr::null())
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(
    config: envoy_dynamic_module_type_http_filter_per_route_config_module_ptr,
) {
    if !config.is_null() {
        // SAFETY: `config` came from `http_filter_per_route_config_new`, and this is its last hook.
        let config = unsafe { Box::from_raw(config.cast_mut().cast::<Arc<dyn Any>>()) };
        guard("http_filter_per_route_config_destroy", move || drop(config));
    }
}

/// Runs one method of a configuration.
fn ask(
    name: &'static str,
    envoy: Envoy,
    config: Module,
    method: impl FnOnce(&dyn HttpFilterConfig<EnvoyHttpFilterImpl>, &mut EnvoyHttpFilterConfigImpl),
) {
    // SAFETY: `config` is what `http_filter_config_new` returned, and Envoy calls no hook after destroying it.
    let Some(config) = (unsafe { config.cast::<SharedConfig>().as_ref() }) else { return };
    // SAFETY: the value stays on this stack.
    let mut envoy = unsafe { EnvoyHttpFilterConfigImpl::new(envoy) };
    guard(name, || method(config.as_ref(), &mut envoy));
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(
    config_envoy: Envoy,
    config: Module,
    event_id: u64,
) {
    ask("http_filter_config_scheduled", config_envoy, config, |config, _| {
        config.on_scheduled(event_id);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_callout_done(
    config_envoy: Envoy,
    config: Module,
    callout_id: u64,
    result: u32,
    headers: *mut envoy_dynamic_module_type_envoy_http_header,
    headers_size: usize,
    body_chunks: *mut envoy_dynamic_module_type_envoy_buffer,
    body_chunks_size: usize,
) {
    ask("http_filter_config_http_callout_done", config_envoy, config, |config, envoy| {
        // SAFETY: Envoy's lists live until the hook returns.
        let (headers, body) =
            unsafe { response(headers, headers_size, body_chunks, body_chunks_size) };
        config.on_http_callout_done(envoy, callout_id, callout_result(result), headers, body);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_headers(
    config_envoy: Envoy,
    config: Module,
    stream_id: u64,
    headers: *mut envoy_dynamic_module_type_envoy_http_header,
    headers_size: usize,
    end_stream: bool,
) {
    ask("http_filter_config_http_stream_headers", config_envoy, config, |config, envoy| {
        // SAFETY: Envoy's list lives until the hook returns.
        let headers = unsafe { list(headers.cast_const(), headers_size) };
        config.on_http_stream_headers(envoy, stream_id, headers, end_stream);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_data(
    config_envoy: Envoy,
    config: Module,
    stream_id: u64,
    chunks: *const envoy_dynamic_module_type_envoy_buffer,
    chunks_size: usize,
    end_stream: bool,
) {
    ask("http_filter_config_http_stream_data", config_envoy, config, |config, envoy| {
        // SAFETY: Envoy's list lives until the hook returns.
        let chunks = unsafe { list(chunks, chunks_size) };
        config.on_http_stream_data(envoy, stream_id, chunks, end_stream);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_trailers(
    config_envoy: Envoy,
    config: Module,
    stream_id: u64,
    trailers: *mut envoy_dynamic_module_type_envoy_http_header,
    trailers_size: usize,
) {
    ask("http_filter_config_http_stream_trailers", config_envoy, config, |config, envoy| {
        // SAFETY: Envoy's list lives until the hook returns.
        let trailers = unsafe { list(trailers.cast_const(), trailers_size) };
        config.on_http_stream_trailers(envoy, stream_id, trailers);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_complete(
    config_envoy: Envoy,
    config: Module,
    stream_id: u64,
) {
    ask("http_filter_config_http_stream_complete", config_envoy, config, |config, envoy| {
        config.on_http_stream_complete(envoy, stream_id);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_http_stream_reset(
    config_envoy: Envoy,
    config: Module,
    stream_id: u64,
    reason: u32,
) {
    ask("http_filter_config_http_stream_reset", config_envoy, config, |config, envoy| {
        config.on_http_stream_reset(envoy, stream_id, reset_reason(reason));
    });
}

const _: () = {
    let _: hooks::http_filter_config_new = envoy_dynamic_module_on_http_filter_config_new;
    let _: hooks::http_filter_config_destroy = envoy_dynamic_module_on_http_filter_config_destroy;
    let _: hooks::http_filter_per_route_config_new =
        envoy_dynamic_module_on_http_filter_per_route_config_new;
    let _: hooks::http_filter_per_route_config_destroy =
        envoy_dynamic_module_on_http_filter_per_route_config_destroy;
    let _: hooks::http_filter_config_scheduled =
        envoy_dynamic_module_on_http_filter_config_scheduled;
    let _: hooks::http_filter_config_http_callout_done =
        envoy_dynamic_module_on_http_filter_config_http_callout_done;
    let _: hooks::http_filter_config_http_stream_headers =
        envoy_dynamic_module_on_http_filter_config_http_stream_headers;
    let _: hooks::http_filter_config_http_stream_data =
        envoy_dynamic_module_on_http_filter_config_http_stream_data;
    let _: hooks::http_filter_config_http_stream_trailers =
        envoy_dynamic_module_on_http_filter_config_http_stream_trailers;
    let _: hooks::http_filter_config_http_stream_complete =
        envoy_dynamic_module_on_http_filter_config_http_stream_complete;
    let _: hooks::http_filter_config_http_stream_reset =
        envoy_dynamic_module_on_http_filter_config_http_stream_reset;
};

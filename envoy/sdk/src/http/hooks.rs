//! The exported hooks of a stream.
//!
//! Each finds its slot, asks the filter inside of the fence, and turns the answer into the C value. Where the filter could
//! not be asked, the answer keeps the stream where it is on the request path (it has been answered) and lets everything
//! else pass.

use crate::abi::envoy_dynamic_module_type_on_http_filter_local_reply_status as LocalReplyStatus;
use crate::abi::envoy_dynamic_module_type_on_http_filter_request_body_status as RequestBodyStatus;
use crate::abi::envoy_dynamic_module_type_on_http_filter_request_headers_status as RequestHeadersStatus;
use crate::abi::envoy_dynamic_module_type_on_http_filter_request_trailers_status as RequestTrailersStatus;
use crate::abi::envoy_dynamic_module_type_on_http_filter_response_body_status as ResponseBodyStatus;
use crate::abi::envoy_dynamic_module_type_on_http_filter_response_headers_status as ResponseHeadersStatus;
use crate::abi::envoy_dynamic_module_type_on_http_filter_response_trailers_status as ResponseTrailersStatus;
use crate::abi::*;
use crate::buffer::{EnvoyBuffer, HeaderPair, list};
use crate::guard::guard;
use crate::http::config_hooks::SharedConfig;
use crate::http::slot::{LateEnd, Slot};
use crate::http::{EnvoyHttpFilterImpl, HttpFilter};

type Envoy = envoy_dynamic_module_type_http_filter_envoy_ptr;
type Module = envoy_dynamic_module_type_http_filter_module_ptr;
type Filter = dyn HttpFilter<EnvoyHttpFilterImpl>;

/// Runs one method of the stream's filter.
fn ask<T>(
    name: &'static str,
    envoy: Envoy,
    module: Module,
    method: impl FnOnce(&mut Filter, &mut EnvoyHttpFilterImpl) -> T,
) -> Option<T> {
    if module.is_null() {
        return None;
    }
    // SAFETY: `module` is what `http_filter_new` returned for this stream, and Envoy calls no hook after destroying it.
    unsafe { Slot::hook(module.cast(), envoy, name, method) }
}

/// The stream's slot, for what does not concern its filter.
fn slot<'a>(module: Module) -> Option<&'a Slot> {
    // SAFETY: as in `ask`; the reference is used within the export.
    unsafe { module.cast::<Slot>().as_ref() }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(
    config: envoy_dynamic_module_type_http_filter_config_module_ptr,
    filter_envoy: Envoy,
) -> Module {
    if config.is_null() {
        return std::ptr::null();
    }
    let filter = guard("http_filter_new", || {
        // SAFETY: `config` is what `http_filter_config_new` returned, alive as long as one of its streams.
        let config = unsafe { &*config.cast::<SharedConfig>() };
        // SAFETY: the value stays on this stack.
        let mut envoy = unsafe { EnvoyHttpFilterImpl::new(filter_envoy) };
        config.new_http_filter(&mut envoy)
    });
    Box::into_raw(Slot::new(filter)).cast_const().cast()
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    filter_envoy: Envoy,
    filter: Module,
    end_of_stream: bool,
) -> u32 {
    ask("http_filter_request_headers", filter_envoy, filter, |filter, envoy| {
        filter.on_request_headers(envoy, end_of_stream)
    })
    .unwrap_or(RequestHeadersStatus::StopIteration) as u32
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    filter_envoy: Envoy,
    filter: Module,
    end_of_stream: bool,
) -> u32 {
    ask("http_filter_request_body", filter_envoy, filter, |filter, envoy| {
        filter.on_request_body(envoy, end_of_stream)
    })
    .unwrap_or(RequestBodyStatus::StopIterationNoBuffer) as u32
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    filter_envoy: Envoy,
    filter: Module,
) -> u32 {
    ask("http_filter_request_trailers", filter_envoy, filter, |filter, envoy| {
        filter.on_request_trailers(envoy)
    })
    .unwrap_or(RequestTrailersStatus::StopIteration) as u32
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    filter_envoy: Envoy,
    filter: Module,
    end_of_stream: bool,
) -> u32 {
    if let Some(slot) = slot(filter) {
        slot.response_begins();
    }
    ask("http_filter_response_headers", filter_envoy, filter, |filter, envoy| {
        filter.on_response_headers(envoy, end_of_stream)
    })
    .unwrap_or(ResponseHeadersStatus::Continue) as u32
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    filter_envoy: Envoy,
    filter: Module,
    end_of_stream: bool,
) -> u32 {
    ask("http_filter_response_body", filter_envoy, filter, |filter, envoy| {
        filter.on_response_body(envoy, end_of_stream)
    })
    .unwrap_or(ResponseBodyStatus::Continue) as u32
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    filter_envoy: Envoy,
    filter: Module,
) -> u32 {
    ask("http_filter_response_trailers", filter_envoy, filter, |filter, envoy| {
        filter.on_response_trailers(envoy)
    })
    .unwrap_or(ResponseTrailersStatus::Continue) as u32
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(
    filter_envoy: Envoy,
    filter: Module,
) {
    if let Some(slot) = slot(filter) {
        slot.settle();
    }
    ask("http_filter_stream_complete", filter_envoy, filter, |filter, envoy| {
        filter.on_stream_complete(envoy);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(filter: Module) {
    if !filter.is_null() {
        // SAFETY: `filter` is what `http_filter_new` returned, and this is its last hook.
        unsafe { Slot::destroy(filter.cast()) };
    }
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_http_callout_done(
    filter_envoy: Envoy,
    filter: Module,
    callout_id: u64,
    result: u32,
    headers: *mut envoy_dynamic_module_type_envoy_http_header,
    headers_size: usize,
    body_chunks: *mut envoy_dynamic_module_type_envoy_buffer,
    body_chunks_size: usize,
) {
    let result = callout_result(result);
    if slot(filter).is_some_and(|slot| slot.keep_if_busy(LateEnd::Callout(callout_id, result))) {
        return;
    }
    ask("http_filter_http_callout_done", filter_envoy, filter, |filter, envoy| {
        // SAFETY: Envoy's lists live until the hook returns.
        let (headers, body) =
            unsafe { response(headers, headers_size, body_chunks, body_chunks_size) };
        filter.on_http_callout_done(envoy, callout_id, result, headers, body);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_headers(
    filter_envoy: Envoy,
    filter: Module,
    stream_id: u64,
    headers: *mut envoy_dynamic_module_type_envoy_http_header,
    headers_size: usize,
    end_stream: bool,
) {
    ask("http_filter_http_stream_headers", filter_envoy, filter, |filter, envoy| {
        // SAFETY: Envoy's list lives until the hook returns.
        let headers = unsafe { list(headers.cast_const(), headers_size) };
        filter.on_http_stream_headers(envoy, stream_id, headers, end_stream);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_data(
    filter_envoy: Envoy,
    filter: Module,
    stream_id: u64,
    chunks: *const envoy_dynamic_module_type_envoy_buffer,
    chunks_size: usize,
    end_stream: bool,
) {
    ask("http_filter_http_stream_data", filter_envoy, filter, |filter, envoy| {
        // SAFETY: Envoy's list lives until the hook returns.
        let chunks = unsafe { list(chunks, chunks_size) };
        filter.on_http_stream_data(envoy, stream_id, chunks, end_stream);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_trailers(
    filter_envoy: Envoy,
    filter: Module,
    stream_id: u64,
    trailers: *mut envoy_dynamic_module_type_envoy_http_header,
    trailers_size: usize,
) {
    ask("http_filter_http_stream_trailers", filter_envoy, filter, |filter, envoy| {
        // SAFETY: Envoy's list lives until the hook returns.
        let trailers = unsafe { list(trailers.cast_const(), trailers_size) };
        filter.on_http_stream_trailers(envoy, stream_id, trailers);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_complete(
    filter_envoy: Envoy,
    filter: Module,
    stream_id: u64,
) {
    if slot(filter).is_some_and(|slot| slot.keep_if_busy(LateEnd::StreamComplete(stream_id))) {
        return;
    }
    ask("http_filter_http_stream_complete", filter_envoy, filter, |filter, envoy| {
        filter.on_http_stream_complete(envoy, stream_id);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_http_stream_reset(
    filter_envoy: Envoy,
    filter: Module,
    stream_id: u64,
    reason: u32,
) {
    let reason = reset_reason(reason);
    if slot(filter).is_some_and(|slot| slot.keep_if_busy(LateEnd::StreamReset(stream_id, reason))) {
        return;
    }
    ask("http_filter_http_stream_reset", filter_envoy, filter, |filter, envoy| {
        filter.on_http_stream_reset(envoy, stream_id, reason);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    filter_envoy: Envoy,
    filter: Module,
    event_id: u64,
) {
    ask("http_filter_scheduled", filter_envoy, filter, |filter, envoy| {
        filter.on_scheduled(envoy, event_id);
    });
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(
    filter_envoy: Envoy,
    filter: Module,
) {
    ask(
        "http_filter_downstream_above_write_buffer_high_watermark",
        filter_envoy,
        filter,
        |filter, envoy| {
            filter.on_downstream_above_write_buffer_high_watermark(envoy);
        },
    );
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(
    filter_envoy: Envoy,
    filter: Module,
) {
    ask(
        "http_filter_downstream_below_write_buffer_low_watermark",
        filter_envoy,
        filter,
        |filter, envoy| {
            filter.on_downstream_below_write_buffer_low_watermark(envoy);
        },
    );
}

#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn envoy_dynamic_module_on_http_filter_local_reply(
    filter_envoy: Envoy,
    filter: Module,
    response_code: u32,
    details: envoy_dynamic_module_type_envoy_buffer,
    reset_imminent: bool,
) -> u32 {
    if let Some(slot) = slot(filter) {
        slot.settle();
    }
    ask("http_filter_local_reply", filter_envoy, filter, |filter, envoy| {
        // SAFETY: Envoy's buffer lives until the hook returns.
        let details = unsafe { EnvoyBuffer::from_raw(details) };
        filter.on_local_reply(envoy, response_code, details, reset_imminent)
    })
    .unwrap_or(LocalReplyStatus::Continue) as u32
}

/// How a callout ended; a number that is not known is a failure.
pub(crate) fn callout_result(raw: u32) -> envoy_dynamic_module_type_http_callout_result {
    envoy_dynamic_module_type_http_callout_result::from_raw(raw)
        .unwrap_or(envoy_dynamic_module_type_http_callout_result::Reset)
}

/// Why a stream was reset; a number that is not known is a reset by the other side.
pub(super) fn reset_reason(raw: u32) -> envoy_dynamic_module_type_http_stream_reset_reason {
    envoy_dynamic_module_type_http_stream_reset_reason::from_raw(raw)
        .unwrap_or(envoy_dynamic_module_type_http_stream_reset_reason::RemoteReset)
}

/// A callout's response: headers and body where there are any.
///
/// # Safety
/// Both lists are null or live for `'a`.
pub(crate) unsafe fn response<'a>(
    headers: *const envoy_dynamic_module_type_envoy_http_header,
    headers_size: usize,
    body: *const envoy_dynamic_module_type_envoy_buffer,
    body_size: usize,
) -> (Option<&'a [HeaderPair<'a>]>, Option<&'a [EnvoyBuffer<'a>]>) {
    // SAFETY: as required of the caller.
    unsafe {
        (
            (!headers.is_null()).then(|| list(headers, headers_size)),
            (!body.is_null()).then(|| list(body, body_size)),
        )
    }
}

const _: () = {
    let _: hooks::http_filter_new = envoy_dynamic_module_on_http_filter_new;
    let _: hooks::http_filter_request_headers = envoy_dynamic_module_on_http_filter_request_headers;
    let _: hooks::http_filter_request_body = envoy_dynamic_module_on_http_filter_request_body;
    let _: hooks::http_filter_request_trailers =
        envoy_dynamic_module_on_http_filter_request_trailers;
    let _: hooks::http_filter_response_headers =
        envoy_dynamic_module_on_http_filter_response_headers;
    let _: hooks::http_filter_response_body = envoy_dynamic_module_on_http_filter_response_body;
    let _: hooks::http_filter_response_trailers =
        envoy_dynamic_module_on_http_filter_response_trailers;
    let _: hooks::http_filter_stream_complete = envoy_dynamic_module_on_http_filter_stream_complete;
    let _: hooks::http_filter_destroy = envoy_dynamic_module_on_http_filter_destroy;
    let _: hooks::http_filter_http_callout_done =
        envoy_dynamic_module_on_http_filter_http_callout_done;
    let _: hooks::http_filter_http_stream_headers =
        envoy_dynamic_module_on_http_filter_http_stream_headers;
    let _: hooks::http_filter_http_stream_data =
        envoy_dynamic_module_on_http_filter_http_stream_data;
    let _: hooks::http_filter_http_stream_trailers =
        envoy_dynamic_module_on_http_filter_http_stream_trailers;
    let _: hooks::http_filter_http_stream_complete =
        envoy_dynamic_module_on_http_filter_http_stream_complete;
    let _: hooks::http_filter_http_stream_reset =
        envoy_dynamic_module_on_http_filter_http_stream_reset;
    let _: hooks::http_filter_scheduled = envoy_dynamic_module_on_http_filter_scheduled;
    let _: hooks::http_filter_downstream_above_write_buffer_high_watermark =
        envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark;
    let _: hooks::http_filter_downstream_below_write_buffer_low_watermark =
        envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark;
    let _: hooks::http_filter_local_reply = envoy_dynamic_module_on_http_filter_local_reply;
};

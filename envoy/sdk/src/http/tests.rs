//! The exported hooks of a stream, called as Envoy would, over a table of fake functions.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;

use crate::abi::envoy_dynamic_module_type_envoy_buffer as RawBuffer;
use crate::abi::envoy_dynamic_module_type_http_callout_result as CalloutResult;
use crate::abi::envoy_dynamic_module_type_http_stream_reset_reason as ResetReason;
use crate::abi::envoy_dynamic_module_type_module_buffer as ModuleBuffer;
use crate::abi::envoy_dynamic_module_type_module_http_header as ModuleHeader;
use crate::abi::*;
use crate::buffer::EnvoyBuffer;
use crate::host::{Callbacks, fake};
use crate::http::config_hooks::{SharedConfig, envoy_dynamic_module_on_http_filter_config_destroy};
use crate::http::hooks::*;
use crate::http::{
    EnvoyHttpFilter, EnvoyHttpFilterExt, EnvoyHttpFilterImpl, HttpFilter, HttpFilterConfig,
};

type Module = envoy_dynamic_module_type_http_filter_module_ptr;

const STREAM: *mut c_void = ptr::dangling_mut();

thread_local! {
    /// What Envoy was asked to do, in order.
    static CALLS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// What the filter of the next stream does.
    static SCRIPT: RefCell<Script> = RefCell::new(Script::default());
    /// The stream's module pointer, for fakes that call back as Envoy does.
    static CURRENT: Cell<Module> = const { Cell::new(ptr::null()) };
    /// Whether an answer makes Envoy finish and destroy the stream before it returns.
    static ANSWER_ENDS: Cell<bool> = const { Cell::new(false) };
}

fn called(what: impl Into<String>) {
    CALLS.with_borrow_mut(|calls| calls.push(what.into()));
}

fn calls() -> Vec<String> {
    CALLS.take()
}

unsafe extern "C" fn send_response(
    _: *mut c_void,
    status: u32,
    headers: *mut ModuleHeader,
    count: usize,
    _: ModuleBuffer,
    _: ModuleBuffer,
) {
    let header = if count == 0 {
        String::new()
    } else {
        // SAFETY: one header lent by the call under test.
        let header = unsafe { &*headers };
        // SAFETY: as above.
        let key = unsafe { std::slice::from_raw_parts(header.key_ptr.cast(), header.key_length) };
        format!(" {}", String::from_utf8_lossy(key))
    };
    called(format!("respond {status}{header}"));
    // SAFETY: hooks of the stream under test.
    unsafe {
        envoy_dynamic_module_on_http_filter_local_reply(
            STREAM,
            CURRENT.get(),
            status,
            RawBuffer { ptr: ptr::null(), length: 0 },
            false,
        );
        if ANSWER_ENDS.get() {
            envoy_dynamic_module_on_http_filter_stream_complete(STREAM, CURRENT.get());
            envoy_dynamic_module_on_http_filter_destroy(CURRENT.get());
        }
    }
}

unsafe extern "C" fn reset(_: *mut c_void, _: u32, _: ModuleBuffer) {
    called("reset");
}

unsafe extern "C" fn continue_decoding(_: *mut c_void) {
    called("continue");
}

unsafe extern "C" fn log(level: u32, message: ModuleBuffer) {
    // SAFETY: a message lent by the call under test.
    let text = unsafe { std::slice::from_raw_parts(message.ptr.cast(), message.length) };
    if level == envoy_dynamic_module_type_log_level::Critical as u32 {
        called(format!("log {}", String::from_utf8_lossy(text)));
    }
}

/// Starting a stream fails at once, which Envoy tells before it returns.
unsafe extern "C" fn start_stream(
    _: *mut c_void,
    id: *mut u64,
    _: ModuleBuffer,
    _: *mut ModuleHeader,
    _: usize,
    _: ModuleBuffer,
    _: bool,
    _: u64,
) -> u32 {
    // SAFETY: an out-pointer of the call under test, and a hook of its stream.
    unsafe {
        *id = 9;
        envoy_dynamic_module_on_http_filter_http_stream_reset(
            STREAM,
            CURRENT.get(),
            9,
            ResetReason::Overflow as u32,
        );
    }
    0
}

unsafe extern "C" fn chunks_size(_: *mut c_void, _: u32) -> usize {
    100
}

unsafe extern "C" fn chunks(_: *mut c_void, _: u32, out: *mut RawBuffer) -> bool {
    for index in 0..100 {
        // SAFETY: the caller has room for as many as `chunks_size` says.
        unsafe { *out.add(index) = RawBuffer { ptr: b"abc".as_ptr().cast(), length: index % 4 } };
    }
    true
}

unsafe extern "C" fn get_header(
    _: *mut c_void,
    _: u32,
    _: ModuleBuffer,
    out: *mut RawBuffer,
    index: usize,
    count: *mut usize,
) -> bool {
    const VALUES: [&[u8]; 2] = [b"one", b"two"];
    let Some(value) = VALUES.get(index) else { return false };
    // SAFETY: out-pointers of the call under test.
    unsafe {
        *out = RawBuffer { ptr: value.as_ptr().cast(), length: value.len() };
        *count = VALUES.len();
    }
    true
}

fn install() {
    fake::install(Callbacks {
        http_send_response: Some(send_response),
        http_filter_reset_stream: Some(reset),
        http_filter_continue_decoding: Some(continue_decoding),
        http_filter_start_http_stream: Some(start_stream),
        http_get_body_chunks_size: Some(chunks_size),
        http_get_body_chunks: Some(chunks),
        http_get_header: Some(get_header),
        log: Some(log),
        ..Callbacks::default()
    });
}

/// What a test's filter does in a hook.
#[derive(Clone, Default)]
struct Script {
    panic_in: &'static str,
    answer_in: &'static str,
    stream_in: &'static str,
    dropped: Rc<Cell<u32>>,
}

struct Scripted(Script);

impl Scripted {
    fn act(&mut self, hook: &'static str, envoy: &mut EnvoyHttpFilterImpl) {
        called(hook);
        if self.0.stream_in == hook {
            envoy.start_http_stream("c", &[], None, true, 0);
            called("stream started");
        }
        if self.0.answer_in == hook {
            envoy.send_response(429, &[("retry-after", b"1")], Some(b"later"), None);
            called("answered");
        }
        assert!(self.0.panic_in != hook, "told to");
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.0.dropped.set(self.0.dropped.get() + 1);
        assert!(self.0.panic_in != "drop", "told to");
    }
}

impl HttpFilter<EnvoyHttpFilterImpl> for Scripted {
    fn on_request_headers(
        &mut self,
        envoy: &mut EnvoyHttpFilterImpl,
        _: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_request_headers_status {
        self.act("request_headers", envoy);
        envoy_dynamic_module_type_on_http_filter_request_headers_status::Continue
    }
    fn on_request_body(
        &mut self,
        envoy: &mut EnvoyHttpFilterImpl,
        _: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_request_body_status {
        self.act("request_body", envoy);
        envoy_dynamic_module_type_on_http_filter_request_body_status::StopIterationAndBuffer
    }
    fn on_request_trailers(
        &mut self,
        envoy: &mut EnvoyHttpFilterImpl,
    ) -> envoy_dynamic_module_type_on_http_filter_request_trailers_status {
        self.act("request_trailers", envoy);
        envoy_dynamic_module_type_on_http_filter_request_trailers_status::Continue
    }
    fn on_response_headers(
        &mut self,
        envoy: &mut EnvoyHttpFilterImpl,
        _: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_response_headers_status {
        self.act("response_headers", envoy);
        envoy_dynamic_module_type_on_http_filter_response_headers_status::Continue
    }
    fn on_response_body(
        &mut self,
        envoy: &mut EnvoyHttpFilterImpl,
        _: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_response_body_status {
        self.act("response_body", envoy);
        envoy_dynamic_module_type_on_http_filter_response_body_status::Continue
    }
    fn on_response_trailers(
        &mut self,
        envoy: &mut EnvoyHttpFilterImpl,
    ) -> envoy_dynamic_module_type_on_http_filter_response_trailers_status {
        self.act("response_trailers", envoy);
        envoy_dynamic_module_type_on_http_filter_response_trailers_status::Continue
    }
    fn on_stream_complete(&mut self, envoy: &mut EnvoyHttpFilterImpl) {
        self.act("stream_complete", envoy);
    }
    fn on_http_callout_done(
        &mut self,
        envoy: &mut EnvoyHttpFilterImpl,
        _: u64,
        result: CalloutResult,
        headers: Option<&[(EnvoyBuffer<'_>, EnvoyBuffer<'_>)]>,
        _: Option<&[EnvoyBuffer<'_>]>,
    ) {
        called(format!("{result:?} {}", headers.is_some()));
        self.act("callout_done", envoy);
        envoy.continue_decoding();
    }
    fn on_http_stream_reset(
        &mut self,
        envoy: &mut EnvoyHttpFilterImpl,
        id: u64,
        reason: ResetReason,
    ) {
        called(format!("{id} {reason:?}"));
        self.act("stream_reset", envoy);
    }
    fn on_scheduled(&mut self, envoy: &mut EnvoyHttpFilterImpl, _: u64) {
        self.act("scheduled", envoy);
        envoy.continue_decoding();
        called("scheduled returns");
    }
    fn on_local_reply(
        &mut self,
        envoy: &mut EnvoyHttpFilterImpl,
        _: u32,
        _: EnvoyBuffer<'_>,
        _: bool,
    ) -> envoy_dynamic_module_type_on_http_filter_local_reply_status {
        self.act("local_reply", envoy);
        envoy_dynamic_module_type_on_http_filter_local_reply_status::Continue
    }
}

struct Config;

impl HttpFilterConfig<EnvoyHttpFilterImpl> for Config {
    fn new_http_filter(
        &self,
        _: &mut EnvoyHttpFilterImpl,
    ) -> Box<dyn HttpFilter<EnvoyHttpFilterImpl>> {
        let script = SCRIPT.take();
        assert!(script.panic_in != "new", "told to");
        Box::new(Scripted(script))
    }
}

/// Begins a stream whose filter follows `script`.
fn stream(script: &Script) -> Module {
    install();
    calls();
    SCRIPT.set(script.clone());
    let config: *const SharedConfig = Box::into_raw(Box::new(Box::new(Config) as SharedConfig));
    // SAFETY: a configuration as `config_new` makes it, destroyed after its one use.
    unsafe {
        let module = envoy_dynamic_module_on_http_filter_new(config.cast(), STREAM);
        envoy_dynamic_module_on_http_filter_config_destroy(config.cast());
        CURRENT.set(module);
        module
    }
}

/// Calls the hook of a name; its status where it has one.
fn hook(name: &str, module: Module) -> Option<u32> {
    // SAFETY: hooks of the stream under test, with empty lists.
    unsafe {
        match name {
            "request_headers" => {
                Some(envoy_dynamic_module_on_http_filter_request_headers(STREAM, module, false))
            }
            "request_body" => {
                Some(envoy_dynamic_module_on_http_filter_request_body(STREAM, module, true))
            }
            "request_trailers" => {
                Some(envoy_dynamic_module_on_http_filter_request_trailers(STREAM, module))
            }
            "response_headers" => {
                Some(envoy_dynamic_module_on_http_filter_response_headers(STREAM, module, false))
            }
            "response_body" => {
                Some(envoy_dynamic_module_on_http_filter_response_body(STREAM, module, true))
            }
            "response_trailers" => {
                Some(envoy_dynamic_module_on_http_filter_response_trailers(STREAM, module))
            }
            "local_reply" => Some(envoy_dynamic_module_on_http_filter_local_reply(
                STREAM,
                module,
                503,
                RawBuffer { ptr: ptr::null(), length: 0 },
                false,
            )),
            "scheduled" => {
                envoy_dynamic_module_on_http_filter_scheduled(STREAM, module, 1);
                None
            }
            "callout_done" => {
                // A result that this SDK does not know.
                envoy_dynamic_module_on_http_filter_http_callout_done(
                    STREAM,
                    module,
                    1,
                    77,
                    ptr::null_mut(),
                    0,
                    ptr::null_mut(),
                    0,
                );
                None
            }
            "stream_complete" => {
                envoy_dynamic_module_on_http_filter_stream_complete(STREAM, module);
                None
            }
            "destroy" => {
                envoy_dynamic_module_on_http_filter_destroy(module);
                None
            }
            other => panic!("no hook {other}"),
        }
    }
}

#[test]
fn a_panic_fails_the_stream_where_it_can_and_the_filter_is_not_asked_again() {
    /// The hook, the hooks before it, its status, and what is done about the stream.
    type Case = (&'static str, &'static [&'static str], Option<u32>, Option<&'static str>);
    let cases: &[Case] = &[
        ("request_headers", &[], Some(1), Some("respond 500")),
        ("request_body", &["request_headers"], Some(3), Some("respond 500")),
        ("request_trailers", &["request_headers"], Some(1), Some("respond 500")),
        ("scheduled", &["request_headers"], None, Some("respond 500")),
        ("callout_done", &["request_headers"], None, Some("respond 500")),
        ("response_headers", &["request_headers"], Some(0), Some("reset")),
        ("response_body", &["response_headers"], Some(0), Some("reset")),
        ("response_trailers", &["response_headers"], Some(0), Some("reset")),
        ("scheduled", &["response_headers"], None, Some("reset")),
        ("local_reply", &["request_headers"], Some(0), None),
        ("stream_complete", &["response_headers"], None, None),
    ];
    for (name, before, status, remedy) in cases {
        let script = Script { panic_in: name, ..Script::default() };
        let module = stream(&script);
        for before in *before {
            hook(before, module);
        }
        calls();
        assert_eq!(hook(name, module), *status, "{name}");
        let done = calls();
        assert!(
            done.iter().any(|call| call.starts_with("log ") && call.contains("told to")),
            "{name}: {done:?}"
        );
        assert_eq!(
            done.iter()
                .find(|call| call.starts_with("respond") || *call == "reset")
                .map(String::as_str),
            *remedy,
            "{name}: {done:?}"
        );
        for later in ["request_body", "response_headers", "scheduled", "stream_complete"] {
            hook(later, module);
        }
        assert_eq!(calls(), [""; 0], "{name}: asked again, or failed twice");
        assert_eq!(script.dropped.get(), 0, "{name}");
        hook("destroy", module);
        assert_eq!(script.dropped.get(), 1, "{name}");
    }
}

#[test]
fn a_stream_whose_filter_could_not_be_made_is_answered() {
    let module = stream(&Script { panic_in: "new", ..Script::default() });
    assert!(!module.is_null());
    calls();
    assert_eq!(hook("request_headers", module), Some(1));
    assert_eq!(calls(), ["respond 500"]);
    hook("destroy", module);
}

#[test]
fn a_panic_in_drop_stays_inside() {
    let script = Script { panic_in: "drop", ..Script::default() };
    let module = stream(&script);
    hook("destroy", module);
    assert_eq!(script.dropped.get(), 1);
    assert!(calls().iter().any(|call| call.starts_with("log http_filter_destroy")));
}

#[test]
fn an_answer_is_given_after_the_hook_and_every_later_hook_is_told() {
    let script = Script { answer_in: "scheduled", ..Script::default() };
    let module = stream(&script);
    ANSWER_ENDS.set(true);
    hook("scheduled", module);
    ANSWER_ENDS.set(false);
    assert_eq!(
        calls(),
        [
            "scheduled",
            "answered",
            "scheduled returns",
            "respond 429 retry-after",
            "local_reply",
            "stream_complete",
            // The filter's "continue" of the same hook is not made: the stream is gone.
        ]
    );
    assert_eq!(script.dropped.get(), 1);
}

#[test]
fn an_answer_given_before_a_panic_stands() {
    let script =
        Script { answer_in: "request_body", panic_in: "request_body", ..Script::default() };
    let module = stream(&script);
    hook("request_body", module);
    let responses: Vec<_> =
        calls().into_iter().filter(|call| call.starts_with("respond")).collect();
    assert_eq!(responses, ["respond 429 retry-after"]);
    hook("destroy", module);
}

#[test]
fn the_end_of_a_callout_inside_its_own_start_is_told_afterwards() {
    let script = Script { stream_in: "request_headers", ..Script::default() };
    let module = stream(&script);
    assert_eq!(hook("request_headers", module), Some(0));
    assert_eq!(calls(), ["request_headers", "stream started", "9 Overflow", "stream_reset"]);
    hook("destroy", module);
}

#[test]
fn a_result_that_is_not_known_counts_as_a_failure() {
    let module = stream(&Script::default());
    hook("callout_done", module);
    assert_eq!(calls(), ["Reset false", "callout_done", "continue"]);
    hook("destroy", module);
}

#[test]
fn chunks_beyond_the_inline_room_are_visited_in_order() {
    install();
    // SAFETY: the fakes do not look at the stream.
    let mut envoy = unsafe { EnvoyHttpFilterImpl::new(STREAM) };
    let mut lengths = Vec::new();
    envoy.for_each_received_request_body_chunk(&mut |chunk| lengths.push(chunk.len()));
    assert_eq!(lengths, (0..100).map(|index| index % 4).collect::<Vec<_>>());
}

#[test]
fn all_values_of_a_header_are_read() {
    install();
    // SAFETY: the fakes do not look at the stream.
    let envoy = unsafe { EnvoyHttpFilterImpl::new(STREAM) };
    let values = envoy.get_request_header_values("x");
    assert_eq!(values.iter().map(EnvoyBuffer::as_slice).collect::<Vec<_>>(), [b"one", b"two"]);
}

#[test]
fn outside_of_envoy_everything_answers_that_it_is_not_there() {
    fake::install(Callbacks::default());
    // SAFETY: there is no function that could look at the stream.
    let mut envoy = unsafe { EnvoyHttpFilterImpl::new(STREAM) };
    assert!(envoy.get_request_header_value("x").is_none());
    assert!(envoy.get_request_headers().is_empty());
    assert!(!envoy.set_request_header("x", b"y"));
    assert!(!envoy.set_filter_state_bytes(b"k", b"v"));
    assert!(envoy.increment_counter(crate::EnvoyCounterId(1), 1).is_err());
    let (result, _) = envoy.send_http_callout("c", &[], None, 1);
    assert_eq!(result, envoy_dynamic_module_type_http_callout_init_result::CannotCreateRequest);
    envoy.for_each_buffered_request_body_chunk(&mut |_| panic!("there is no chunk"));
}

//! A stream as Envoy would show it to the filter, over the SDK's mock.
//!
//! [`Stream`] calls the hooks in Envoy's order and keeps the body between them as Envoy does: what
//! the filter asks to be buffered is shown as buffered from the next call on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_proxy_dynamic_modules_rust_sdk::{
    EnvoyBuffer, EnvoyChildSpan, EnvoyMutBuffer, EnvoySpan, HttpFilter, MockEnvoyHttpFilter,
    MockEnvoyHttpFilterScheduler, abi,
};
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use super::filter::Filter;
use crate::testing::World;

use abi::envoy_dynamic_module_type_http_callout_init_result as CalloutInit;
use abi::envoy_dynamic_module_type_http_callout_result as CalloutResult;
pub(crate) use abi::envoy_dynamic_module_type_on_http_filter_request_body_status as BodyStatus;
use abi::envoy_dynamic_module_type_on_http_filter_request_headers_status as HeadersStatus;
pub(crate) use abi::envoy_dynamic_module_type_on_http_filter_request_trailers_status as TrailersStatus;

/// An answer that the filter gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u32,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

type Headers = Vec<(String, String)>;

/// The stream's side in Envoy.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) request: Headers,
    pub(crate) response: Headers,
    /// What Envoy has kept of the body, in chunks.
    pub(crate) buffered: Vec<Vec<u8>>,
    /// What the present call brings.
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) response_body: Vec<Vec<u8>>,
    pub(crate) buffer_limit: u64,
    pub(crate) filter_state: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) filter_state_works: bool,
    pub(crate) metadata: Vec<(String, String, String)>,
    pub(crate) override_host: Option<(String, bool)>,
    pub(crate) replies: Vec<Reply>,
    /// How often the filter let the request go on after it had held it.
    pub(crate) continued: u32,
    /// Events that threads of the module have for the stream.
    pub(crate) events: Vec<u64>,
    /// Calls to servers: cluster, headers, body, timeout in ms. Their ids count from 0.
    pub(crate) calls: Vec<(String, Headers, String, u64)>,
    /// Whether Envoy traces the stream, and what became of its spans: `+ name`, `name: key=value`,
    /// `- name`.
    pub(crate) traced: bool,
    pub(crate) spans: Vec<String>,
}

/// A span that takes down what is done with it.
struct Recorder {
    seen: Arc<Mutex<Seen>>,
    name: String,
    /// Envoy's own span is not ours to end.
    own: bool,
}

impl Recorder {
    fn child(seen: &Arc<Mutex<Seen>>, name: &str) -> Box<Self> {
        seen.lock().spans.push(format!("+ {name}"));
        Box::new(Self { seen: Arc::clone(seen), name: name.to_owned(), own: true })
    }
}

impl EnvoySpan for Recorder {
    fn set_tag(&self, key: &str, value: &str) {
        self.seen.lock().spans.push(format!("{}: {key}={value}", self.name));
    }
    fn set_operation(&self, _operation: &str) {}
    fn log(&self, _event: &str) {}
    fn set_sampled(&self, _sampled: bool) {}
    fn get_baggage(&self, _key: &str) -> Option<String> {
        None
    }
    fn set_baggage(&self, _key: &str, _value: &str) {}
    fn get_trace_id(&self) -> Option<String> {
        None
    }
    fn get_span_id(&self) -> Option<String> {
        None
    }
    fn spawn_child(&self, operation: &str) -> Option<Box<dyn EnvoyChildSpan>> {
        Some(Self::child(&self.seen, operation))
    }
}

impl EnvoyChildSpan for Recorder {
    fn finish(self: Box<Self>) {}
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.own {
            self.seen.lock().spans.push(format!("- {}", self.name));
        }
    }
}

/// One stream with its filter.
pub(crate) struct Stream {
    envoy: MockEnvoyHttpFilter,
    filter: Option<Filter>,
    seen: Arc<Mutex<Seen>>,
}

/// Bytes that live as long as the mock may ask: the test's own memory, given up.
fn lend(bytes: &[u8]) -> &'static mut [u8] {
    bytes.to_vec().leak()
}

fn buffer(text: &str) -> EnvoyBuffer<'static> {
    EnvoyBuffer::new_from_slice(lend(text.as_bytes()))
}

fn chunks(chunks: &[Vec<u8>]) -> Option<Vec<EnvoyMutBuffer<'static>>> {
    Some(chunks.iter().map(|chunk| EnvoyMutBuffer::new(lend(chunk))).collect())
}

fn size(chunks: &[Vec<u8>]) -> usize {
    chunks.iter().map(Vec::len).sum()
}

fn find(headers: &Headers, name: &str) -> Option<EnvoyBuffer<'static>> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| buffer(value))
}

fn set(headers: &mut Headers, name: &str, value: &[u8]) -> bool {
    headers.retain(|(key, _)| key != name);
    headers.push((name.to_owned(), String::from_utf8(value.to_vec()).unwrap()));
    true
}

impl Stream {
    /// A stream to `path`, before its headers.
    pub(crate) fn new(world: &World, path: &str) -> Self {
        let seen = Seen {
            request: vec![(":path".into(), path.into()), ("x-request-id".into(), "r-1".into())],
            filter_state_works: true,
            ..Seen::default()
        };
        let seen = Arc::new(Mutex::new(seen));
        let filter = Filter::new(Arc::clone(&world.settings), Arc::clone(&world.runtime));
        Self { envoy: mock(&seen), filter: Some(filter), seen }
    }

    /// A complete request that has been sent to `/v1/completions`.
    pub(crate) fn sent(world: &World, body: &str) -> Self {
        let mut stream = Self::new(world, "/v1/completions");
        assert_eq!(stream.headers(false), HeadersStatus::StopIteration);
        stream.body(body.as_bytes(), true);
        stream
    }

    pub(crate) fn with_header(self, name: &str, value: &str) -> Self {
        self.seen().request.push((name.into(), value.into()));
        self
    }

    pub(crate) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }

    pub(crate) fn request_header(&self, name: &str) -> Option<String> {
        let seen = self.seen();
        seen.request.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    /// The answer that the filter gave; there must be exactly one.
    pub(crate) fn reply(&self) -> MappedMutexGuard<'_, Reply> {
        MutexGuard::map(self.seen(), |seen| {
            assert_eq!(seen.replies.len(), 1);
            &mut seen.replies[0]
        })
    }

    pub(crate) fn headers(&mut self, end: bool) -> HeadersStatus {
        self.filter.as_mut().unwrap().on_request_headers(&mut self.envoy, end)
    }

    /// The next piece of the body, in one chunk.
    pub(crate) fn body(&mut self, piece: &[u8], end: bool) -> BodyStatus {
        self.seen().received = vec![piece.to_vec()];
        self.body_as_shown(end)
    }

    /// A call with the body as [`Seen`] has it.
    pub(crate) fn body_as_shown(&mut self, end: bool) -> BodyStatus {
        let status = self.filter.as_mut().unwrap().on_request_body(&mut self.envoy, end);
        let mut seen = self.seen();
        let received = std::mem::take(&mut seen.received);
        if status == BodyStatus::StopIterationAndBuffer {
            seen.buffered.extend(received);
        }
        drop(seen);
        status
    }

    pub(crate) fn trailers(&mut self) -> TrailersStatus {
        self.filter.as_mut().unwrap().on_request_trailers(&mut self.envoy)
    }

    /// Waits until a thread of the module has an event for the stream, and hands it over.
    pub(crate) fn woken(&mut self) {
        let since = Instant::now();
        let event = loop {
            if let Some(event) = self.seen().events.pop() {
                break event;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "nobody wakes the stream");
            std::thread::sleep(Duration::from_millis(1));
        };
        self.scheduled(event);
    }

    /// The call with this id has ended with an answer of the server, or without.
    pub(crate) fn called(&mut self, id: u64, answer: Option<(&str, &str)>) {
        let headers = answer.map(|(status, _)| [(buffer(":status"), buffer(status))]);
        let body = answer.map(|(_, body)| [buffer(body)]);
        let result = if answer.is_some() { CalloutResult::Success } else { CalloutResult::Reset };
        let (headers, body) = (headers.as_ref().map(|h| &h[..]), body.as_ref().map(|b| &b[..]));
        let filter = self.filter.as_mut().unwrap();
        filter.on_http_callout_done(&mut self.envoy, id, result, headers, body);
    }

    /// A thread of the module has committed `event`.
    pub(crate) fn scheduled(&mut self, event: u64) {
        self.filter.as_mut().unwrap().on_scheduled(&mut self.envoy, event);
    }

    /// The response's headers.
    pub(crate) fn respond(&mut self, headers: &[(&str, &str)], end: bool) {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        self.seen().response = headers.iter().map(own).collect();
        self.filter.as_mut().unwrap().on_response_headers(&mut self.envoy, end);
    }

    /// A piece of the response's body, in the given chunks.
    pub(crate) fn respond_body(&mut self, chunks: &[&[u8]], end: bool) {
        self.seen().response_body = chunks.iter().map(|chunk| chunk.to_vec()).collect();
        self.filter.as_mut().unwrap().on_response_body(&mut self.envoy, end);
    }

    /// Envoy destroys the stream.
    pub(crate) fn destroy(&mut self) {
        self.filter = None;
    }
}

fn mock(seen: &Arc<Mutex<Seen>>) -> MockEnvoyHttpFilter {
    let mut envoy = MockEnvoyHttpFilter::new();
    // Gives each expectation its own handle on what is seen.
    macro_rules! on {
        ($($expect:ident: |$seen:ident $(, $arg:ident)*| $answer:expr;)+) => {$(
            let shared = Arc::clone(seen);
            envoy.$expect().returning(move |$($arg),*| {
                #[allow(unused_mut)]
                let mut $seen = shared.lock();
                $answer
            });
        )+};
    }
    on! {
        expect_get_request_header_value: |seen, name| find(&seen.request, name);
        expect_get_request_header_values: |seen, name| {
            let of_name = seen.request.iter().filter(|(key, _)| key == name);
            of_name.map(|(_, value)| buffer(value)).collect()
        };
        expect_get_request_headers: |seen| {
            seen.request.iter().map(|(key, value)| (buffer(key), buffer(value))).collect()
        };
        expect_set_request_header: |seen, name, value| set(&mut seen.request, name, value);
        expect_remove_request_header: |seen, name| {
            let before = seen.request.len();
            seen.request.retain(|(key, _)| key != name);
            seen.request.len() < before
        };
        expect_get_response_header_value: |seen, name| find(&seen.response, name);
        expect_set_response_header: |seen, name, value| set(&mut seen.response, name, value);
        expect_get_buffered_request_body: |seen| chunks(&seen.buffered);
        expect_get_buffered_request_body_size: |seen| size(&seen.buffered);
        expect_get_received_request_body: |seen| chunks(&seen.received);
        expect_get_received_request_body_size: |seen| size(&seen.received);
        expect_get_received_response_body: |seen| chunks(&seen.response_body);
        expect_get_received_response_body_size: |seen| size(&seen.response_body);
        expect_get_buffer_limit: |seen| seen.buffer_limit;
        expect_set_buffer_limit: |seen, limit| seen.buffer_limit = limit;
        expect_set_filter_state_bytes: |seen, key, value| {
            let works = seen.filter_state_works;
            if works {
                seen.filter_state.insert(key.to_vec(), value.to_vec());
            }
            works
        };
        expect_set_dynamic_metadata_string: |seen, namespace, key, value| {
            seen.metadata.push((namespace.into(), key.into(), value.into()));
        };
        expect_set_upstream_override_host: |seen, host, strict| {
            seen.override_host = Some((host.into(), strict));
            true
        };
        expect_continue_decoding: |seen| seen.continued += 1;
        expect_send_response: |seen, status, headers, body, _details| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), text(value)));
            let (headers, body) = (headers.collect(), text(body.unwrap_or_default()));
            seen.replies.push(Reply { status, headers, body });
        };
    }
    let shared = Arc::clone(seen);
    envoy.expect_send_http_callout().returning(move |cluster, headers, body, timeout| {
        let mut seen = shared.lock();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), text(value)));
        let call = (cluster.to_owned(), headers.collect(), text(body.unwrap()), timeout);
        seen.calls.push(call);
        (CalloutInit::Success, seen.calls.len() as u64 - 1)
    });
    let shared = Arc::clone(seen);
    envoy.expect_get_active_span().returning(move || {
        let traced = shared.lock().traced;
        let span = || Recorder { seen: Arc::clone(&shared), name: "request".into(), own: false };
        traced.then(|| Box::new(span()) as Box<dyn EnvoySpan>)
    });
    let shared = Arc::clone(seen);
    envoy.expect_spawn_child_span().returning(move |name| {
        let traced = shared.lock().traced;
        traced.then(|| Recorder::child(&shared, name) as Box<dyn EnvoyChildSpan>)
    });
    let shared = Arc::clone(seen);
    envoy.expect_new_scheduler().returning(move || {
        let shared = Arc::clone(&shared);
        let mut scheduler = MockEnvoyHttpFilterScheduler::new();
        scheduler.expect_commit().returning(move |event| shared.lock().events.push(event));
        Box::new(scheduler)
    });
    envoy
}

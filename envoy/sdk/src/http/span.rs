//! Tracing spans of a stream.
//!
//! A span belongs to Envoy and lives as long as its stream; the handles here are used within one hook. A child span is the
//! module's to finish, which dropping it does.

use std::ffi::c_void;

use crate::buffer::{EnvoyBuffer, module};
use crate::host::{call, read};

/// A span of the stream's trace.
pub trait EnvoySpan {
    /// Sets a tag.
    fn set_tag(&self, key: &str, value: &str);
    /// Names the operation.
    fn set_operation(&self, operation: &str);
    /// Adds an event at the current time.
    fn log(&self, event: &str);
    /// Decides whether the trace is exported.
    fn set_sampled(&self, sampled: bool);
    /// A baggage value.
    fn get_baggage(&self, key: &str) -> Option<String>;
    /// Sets a baggage value.
    fn set_baggage(&self, key: &str, value: &str);
    /// The trace id, as the tracer writes it.
    fn get_trace_id(&self) -> Option<String>;
    /// The span id, as the tracer writes it.
    fn get_span_id(&self) -> Option<String>;
    /// Starts a child.
    fn spawn_child(&self, operation: &str) -> Option<Box<dyn EnvoyChildSpan>>;
}

/// A span that the module has started. Finishes when dropped.
pub trait EnvoyChildSpan: EnvoySpan {
    /// Finishes the span.
    fn finish(self: Box<Self>);
}

/// A span inside the hook that asked for it.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(super) filter: *mut c_void,
    pub(super) span: *mut c_void,
}

/// A span that is finished on drop.
struct ChildSpan(Span);

/// The stream's active span, if it is traced.
pub(super) fn active(filter: *mut c_void) -> Option<Span> {
    let span = call!(http_get_active_span(filter) or std::ptr::null_mut());
    (!span.is_null()).then_some(Span { filter, span })
}

fn owned(buffer: EnvoyBuffer<'_>) -> String {
    String::from_utf8_lossy(buffer.as_slice()).into_owned()
}

impl EnvoySpan for Span {
    fn set_tag(&self, key: &str, value: &str) {
        call!(http_span_set_tag(self.span, module(key), module(value)) or ());
    }

    fn set_operation(&self, operation: &str) {
        call!(http_span_set_operation(self.span, module(operation)) or ());
    }

    fn log(&self, event: &str) {
        call!(http_span_log(self.filter, self.span, module(event)) or ());
    }

    fn set_sampled(&self, sampled: bool) {
        call!(http_span_set_sampled(self.span, sampled) or ());
    }

    fn get_baggage(&self, key: &str) -> Option<String> {
        read!(http_span_get_baggage(self.span, module(key)) -> EnvoyBuffer<'_>).map(owned)
    }

    fn set_baggage(&self, key: &str, value: &str) {
        call!(http_span_set_baggage(self.span, module(key), module(value)) or ());
    }

    fn get_trace_id(&self) -> Option<String> {
        read!(http_span_get_trace_id(self.span) -> EnvoyBuffer<'_>).map(owned)
    }

    fn get_span_id(&self) -> Option<String> {
        read!(http_span_get_span_id(self.span) -> EnvoyBuffer<'_>).map(owned)
    }

    fn spawn_child(&self, operation: &str) -> Option<Box<dyn EnvoyChildSpan>> {
        let span = call!(
            http_span_spawn_child(self.filter, self.span, module(operation))
                or std::ptr::null_mut()
        );
        (!span.is_null())
            .then(|| Box::new(ChildSpan(Span { span, ..*self })) as Box<dyn EnvoyChildSpan>)
    }
}

impl EnvoySpan for ChildSpan {
    fn set_tag(&self, key: &str, value: &str) {
        self.0.set_tag(key, value);
    }
    fn set_operation(&self, operation: &str) {
        self.0.set_operation(operation);
    }
    fn log(&self, event: &str) {
        self.0.log(event);
    }
    fn set_sampled(&self, sampled: bool) {
        self.0.set_sampled(sampled);
    }
    fn get_baggage(&self, key: &str) -> Option<String> {
        self.0.get_baggage(key)
    }
    fn set_baggage(&self, key: &str, value: &str) {
        self.0.set_baggage(key, value);
    }
    fn get_trace_id(&self) -> Option<String> {
        self.0.get_trace_id()
    }
    fn get_span_id(&self) -> Option<String> {
        self.0.get_span_id()
    }
    fn spawn_child(&self, operation: &str) -> Option<Box<dyn EnvoyChildSpan>> {
        self.0.spawn_child(operation)
    }
}

impl EnvoyChildSpan for ChildSpan {
    fn finish(self: Box<Self>) {}
}

impl Drop for ChildSpan {
    fn drop(&mut self) {
        call!(http_child_span_finish(self.0.span) or ());
    }
}

//! The promise to finish a shutdown.

use std::ffi::c_void;

use crate::abi::envoy_dynamic_module_type_event_cb;

/// Tells Envoy that a shutdown hook has finished. Envoy waits for it, so dropping it counts as done; it is told exactly
/// once. Stays on the main thread.
#[derive(Debug)]
pub struct CompletionCallback {
    completion: envoy_dynamic_module_type_event_cb,
    context: *mut c_void,
}

impl CompletionCallback {
    /// # Safety
    /// The pair is what Envoy gave to the hook, and is wrapped once.
    pub(crate) unsafe fn new(
        completion: envoy_dynamic_module_type_event_cb,
        context: *mut c_void,
    ) -> Self {
        Self { completion, context }
    }

    /// Finishes the shutdown.
    pub fn done(self) {
        drop(self);
    }
}

impl Drop for CompletionCallback {
    fn drop(&mut self) {
        if let Some(completion) = self.completion {
            // SAFETY: the pair is Envoy's own, called once because this is the only place and runs once.
            unsafe { completion(self.context) };
        }
    }
}

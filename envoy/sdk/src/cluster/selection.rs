//! The answer to "which host", now or later.

use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::buffer::module;
use crate::cluster::ClusterHost;
use crate::host::call;

/// What `choose_host` answers.
pub enum HostSelectionResult {
    /// This host.
    Selected(ClusterHost),
    /// None: the client gets 503 `no_healthy_upstream`, which Envoy does not retry.
    NoHost,
    /// Later, through [`EnvoyAsyncHostSelectionComplete`]. The route's timeout does not run meanwhile.
    AsyncPending(Box<dyn AsyncHostSelectionHandle>),
}

impl std::fmt::Debug for HostSelectionResult {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Selected(host) => f.debug_tuple("Selected").field(host).finish(),
            Self::NoHost => f.write_str("NoHost"),
            Self::AsyncPending(_) => f.write_str("AsyncPending"),
        }
    }
}

/// A selection that is pending. Dropped when Envoy has lost interest, which is after an answer too.
pub trait AsyncHostSelectionHandle {
    /// Envoy has lost interest: an answer comes too late from here on.
    fn cancel(&mut self) {}
}

/// Answers a pending selection.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait EnvoyAsyncHostSelectionComplete: Send {
    /// Answers with a host, or with none and a short reason. Only the first answer counts, and none after a
    /// cancellation. Answer on the selection's own worker: from another thread an answer can cross a cancellation, which
    /// only 1.40 is known to withstand.
    fn async_host_selection_complete(&self, host: Option<ClusterHost>, details: &str);
}

/// One selection's way back into Envoy.
pub(super) struct Completion {
    lb: *mut c_void,
    context: *mut c_void,
    over: Arc<AtomicBool>,
}

// SAFETY: Envoy takes the answer on any thread; the pointers are only passed back to it.
unsafe impl Send for Completion {}

impl Completion {
    pub(super) fn new(lb: *mut c_void, context: *mut c_void, over: Arc<AtomicBool>) -> Self {
        Self { lb, context, over }
    }
}

impl EnvoyAsyncHostSelectionComplete for Completion {
    fn async_host_selection_complete(&self, host: Option<ClusterHost>, details: &str) {
        if !self.over.swap(true, Ordering::AcqRel) {
            call!(
                cluster_lb_async_host_selection_complete(
                    self.lb,
                    self.context,
                    host.unwrap_or(std::ptr::null_mut()),
                    module(details),
                ) or ()
            );
        }
    }
}

/// What Envoy holds for a pending selection.
pub(super) struct Pending {
    pub(super) handle: Box<dyn AsyncHostSelectionHandle>,
    pub(super) over: Arc<AtomicBool>,
}

impl Pending {
    pub(super) fn cancel(mut self) {
        self.over.store(true, Ordering::Release);
        self.handle.cancel();
    }
}

//! Waking a cluster: from any thread to the main thread, and by timer on a worker.

use std::ffi::c_void;
use std::time::Duration;

use crate::host::call;
use crate::http::scheduler_handle;

/// Wakes a cluster on the main thread. Kept beyond the cluster's end it does nothing.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait EnvoyClusterScheduler: Send + Sync {
    /// Has the cluster's `on_scheduled` called with `event_id`, from any thread.
    fn commit(&self, event_id: u64);
}

scheduler_handle!(
    ClusterScheduler,
    EnvoyClusterScheduler,
    cluster_scheduler_commit,
    cluster_scheduler_delete
);

pub(super) fn for_cluster(cluster: *mut c_void) -> ClusterScheduler {
    ClusterScheduler(call!(cluster_scheduler_new(cluster) or std::ptr::null_mut()))
}

/// A one-shot timer on one worker (1.39 and newer). Deleted when dropped, on that worker.
pub trait EnvoyClusterWorkerTimer {
    /// Tells timers apart.
    fn id(&self) -> usize;
    /// Starts the timer, with millisecond resolution.
    fn enable(&self, delay: Duration);
    /// Stops it.
    fn disable(&self);
    /// Whether it runs.
    fn enabled(&self) -> bool;
}

/// A timer of Envoy's, owned or lent by the hook of its expiry.
pub(super) struct WorkerTimer {
    raw: *mut c_void,
    owned: bool,
}

impl WorkerTimer {
    /// A new timer; `None` where Envoy lacks them.
    pub(super) fn new(lb: *mut c_void) -> Option<Self> {
        let raw = call!(cluster_worker_timer_new(lb) or std::ptr::null_mut());
        (!raw.is_null()).then_some(Self { raw, owned: true })
    }

    /// A timer that somebody else owns.
    pub(super) fn lent(raw: *mut c_void) -> Self {
        Self { raw, owned: false }
    }
}

impl EnvoyClusterWorkerTimer for WorkerTimer {
    fn id(&self) -> usize {
        self.raw.addr()
    }

    fn enable(&self, delay: Duration) {
        call!(cluster_worker_timer_enable(self.raw, milliseconds(delay)) or ());
    }

    fn disable(&self) {
        call!(cluster_worker_timer_disable(self.raw) or ());
    }

    fn enabled(&self) -> bool {
        call!(cluster_worker_timer_enabled(self.raw) or false)
    }
}

impl Drop for WorkerTimer {
    fn drop(&mut self) {
        if self.owned {
            call!(cluster_worker_timer_delete(self.raw) or ());
        }
    }
}

/// A delay as Envoy takes it.
pub(crate) fn milliseconds(delay: Duration) -> u64 {
    u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)
}

//! Waking a bootstrap extension: from any thread, and by timer.

use std::ffi::c_void;
use std::time::Duration;

use crate::cluster::milliseconds;
use crate::host::call;
use crate::http::scheduler_handle;

/// Wakes a bootstrap extension's configuration on the main thread. Kept beyond its end it does nothing.
pub trait EnvoyBootstrapExtensionConfigScheduler: Send + Sync {
    /// Has the configuration's `on_scheduled` called with `event_id`, from any thread.
    fn commit(&self, event_id: u64);
}

scheduler_handle!(
    BootstrapScheduler,
    EnvoyBootstrapExtensionConfigScheduler,
    bootstrap_extension_config_scheduler_commit,
    bootstrap_extension_config_scheduler_delete
);

pub(super) fn for_config(config: *mut c_void) -> BootstrapScheduler {
    BootstrapScheduler(
        call!(bootstrap_extension_config_scheduler_new(config) or std::ptr::null_mut()),
    )
}

/// A one-shot timer on the main thread, deleted when dropped. It may be kept anywhere but is used, and dropped, there.
pub trait EnvoyBootstrapExtensionTimer: Send + Sync {
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
pub(super) struct BootstrapTimer {
    raw: *mut c_void,
    owned: bool,
}

// SAFETY: the pointer is only passed back to Envoy; that this happens on the main thread is the trait's contract.
unsafe impl Send for BootstrapTimer {}
// SAFETY: as above.
unsafe impl Sync for BootstrapTimer {}

impl BootstrapTimer {
    pub(super) fn new(config: *mut c_void) -> Self {
        let raw = call!(bootstrap_extension_timer_new(config) or std::ptr::null_mut());
        Self { raw, owned: true }
    }

    /// A timer that somebody else owns.
    pub(super) fn lent(raw: *mut c_void) -> Self {
        Self { raw, owned: false }
    }
}

impl EnvoyBootstrapExtensionTimer for BootstrapTimer {
    fn id(&self) -> usize {
        self.raw.addr()
    }

    fn enable(&self, delay: Duration) {
        if !self.raw.is_null() {
            call!(bootstrap_extension_timer_enable(self.raw, milliseconds(delay)) or ());
        }
    }

    fn disable(&self) {
        if !self.raw.is_null() {
            call!(bootstrap_extension_timer_disable(self.raw) or ());
        }
    }

    fn enabled(&self) -> bool {
        !self.raw.is_null() && call!(bootstrap_extension_timer_enabled(self.raw) or false)
    }
}

impl Drop for BootstrapTimer {
    fn drop(&mut self) {
        if self.owned && !self.raw.is_null() {
            call!(bootstrap_extension_timer_delete(self.raw) or ());
        }
    }
}

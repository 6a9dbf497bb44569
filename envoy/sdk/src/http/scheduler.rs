//! Handing work back from another thread.
//!
//! Data: an opaque pointer of Envoy's, freed when the handle drops. Committing for a stream or configuration that has
//! ended does nothing. A commit wakes the owning thread; the event number comes out of its `on_scheduled`.

use std::ffi::c_void;

use crate::host::call;

/// Wakes a stream on its worker. Kept beyond the end of the stream it does nothing.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait EnvoyHttpFilterScheduler: Send + Sync {
    /// Has the filter's `on_scheduled` called with `event_id`, from any thread.
    fn commit(&self, event_id: u64);
}

impl EnvoyHttpFilterScheduler for Box<dyn EnvoyHttpFilterScheduler> {
    fn commit(&self, event_id: u64) {
        (**self).commit(event_id);
    }
}

/// Wakes a filter configuration on the main thread. Kept beyond its end it does nothing.
#[cfg_attr(any(test, feature = "mock"), mockall::automock)]
pub trait EnvoyHttpFilterConfigScheduler: Send + Sync {
    /// Has the configuration's `on_scheduled` called with `event_id`, from any thread.
    fn commit(&self, event_id: u64);
}

impl EnvoyHttpFilterConfigScheduler for Box<dyn EnvoyHttpFilterConfigScheduler> {
    fn commit(&self, event_id: u64) {
        (**self).commit(event_id);
    }
}

/// Defines a handle over one family of `scheduler_{commit,delete}` functions.
macro_rules! scheduler_handle {
    ($name:ident, $interface:path, $commit:ident, $delete:ident) => {
        pub(crate) struct $name(pub(crate) *mut ::std::ffi::c_void);

        // SAFETY: Envoy allows commit and delete on any thread, at the same time.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl $interface for $name {
            fn commit(&self, event_id: u64) {
                if !self.0.is_null() {
                    $crate::host::call!($commit(self.0, event_id) or ());
                }
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                if !self.0.is_null() {
                    $crate::host::call!($delete(self.0) or ());
                }
            }
        }
    };
}
pub(crate) use scheduler_handle;

scheduler_handle!(
    FilterScheduler,
    EnvoyHttpFilterScheduler,
    http_filter_scheduler_commit,
    http_filter_scheduler_delete
);
scheduler_handle!(
    ConfigScheduler,
    EnvoyHttpFilterConfigScheduler,
    http_filter_config_scheduler_commit,
    http_filter_config_scheduler_delete
);

pub(super) fn for_filter(filter: *mut c_void) -> FilterScheduler {
    FilterScheduler(call!(http_filter_scheduler_new(filter) or std::ptr::null_mut()))
}

pub(super) fn for_config(config: *mut c_void) -> ConfigScheduler {
    ConfigScheduler(call!(http_filter_config_scheduler_new(config) or std::ptr::null_mut()))
}

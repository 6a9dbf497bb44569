//! What belongs to the process and to no stream: concurrency, validation mode, shared pointers, the log level.

use std::ffi::c_void;
use std::ptr;

use crate::abi::envoy_dynamic_module_type_log_level as Level;
use crate::buffer::module;
use crate::host::call;

/// The number of worker threads; 0 outside of Envoy.
///
/// # Safety
/// Only on the main thread (for instance while a configuration is made).
#[must_use]
pub unsafe fn get_server_concurrency() -> u32 {
    call!(get_concurrency() or 0)
}

/// Whether Envoy only checks the configuration (`--mode validate`): start no threads, open no sockets.
///
/// # Safety
/// Only on the main thread (for instance while a configuration is made).
#[must_use]
pub unsafe fn is_validation_mode() -> bool {
    call!(is_validation_mode() or false)
}

/// Registers a function under a name for other modules of the process; false when the name is taken.
///
/// # Safety
/// The pointer must stay valid for the life of the process, and every reader must agree on its type.
pub unsafe fn register_function(key: &str, function: *const c_void) -> bool {
    call!(register_function(module(key), function.cast_mut()) or false)
}

/// The function registered under a name. Takes a lock: resolve once, while a configuration is made.
#[must_use]
pub fn get_function(key: &str) -> Option<*const c_void> {
    let mut out = ptr::null_mut();
    call!(get_function(module(key), &raw mut out) or false).then_some(out.cast_const())
}

/// Registers data under a name for other extensions and modules of the process; false when the name is taken.
///
/// # Safety
/// The pointer must stay valid for the life of the process, and every reader must agree on its type.
pub unsafe fn register_shared_data(key: &str, data: *const c_void) -> bool {
    call!(register_shared_data(module(key), data.cast_mut()) or false)
}

/// The data registered under a name. Takes a lock: resolve once, while a configuration is made.
#[must_use]
pub fn get_shared_data(key: &str) -> Option<*const c_void> {
    let mut out = ptr::null_mut();
    call!(get_shared_data(module(key), &raw mut out) or false).then_some(out.cast_const())
}

/// The level of the `dynamic_modules` logger; before 1.39 the lowest level that is enabled.
#[must_use]
pub fn get_log_level() -> Level {
    let newest = call!(get_log_level() or u32::MAX);
    Level::from_raw(newest).unwrap_or_else(|| {
        (Level::Trace as u32..Level::Off as u32)
            .filter_map(Level::from_raw)
            .find(|level| is_log_enabled(*level))
            .unwrap_or(Level::Off)
    })
}

/// Whether a line of this level would be written. True outside of Envoy.
#[must_use]
pub fn is_log_enabled(level: Level) -> bool {
    call!(log_enabled(level as u32) or true)
}

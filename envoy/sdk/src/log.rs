//! Logging into Envoy's `dynamic_modules` logger.
//!
//! A line below the logger's level costs one call into Envoy and formats nothing. Outside of Envoy (unit tests) lines go
//! to standard error.

use std::fmt;

use crate::abi::envoy_dynamic_module_type_log_level as Level;
use crate::buffer::module;
use crate::host::{call, callbacks};
use crate::process::is_log_enabled;

/// Writes one line; the macros call it.
#[doc(hidden)]
pub fn write(level: Level, file: &str, line: u32, message: fmt::Arguments<'_>) {
    if !is_log_enabled(level) {
        return;
    }
    let owned;
    let text = match message.as_str() {
        Some(text) => text,
        None => {
            owned = message.to_string();
            &owned
        }
    };
    if callbacks().log_v2.is_some() {
        call!(log_v2(level as u32, module(text), module(file), line) or ());
    } else {
        call!(log(level as u32, module(text)) or eprintln!("[{level:?}] {text}"));
    }
}

/// Logs at a level: `envoy_log!(level, "format {}", arguments)`.
#[macro_export]
macro_rules! envoy_log {
    ($level:expr, $($message:tt)+) => {
        $crate::__private::log($level, file!(), line!(), format_args!($($message)+))
    };
}

/// Logs at trace level.
#[macro_export]
macro_rules! envoy_log_trace {
    ($($message:tt)+) => {
        $crate::envoy_log!($crate::abi::envoy_dynamic_module_type_log_level::Trace, $($message)+)
    };
}

/// Logs at debug level.
#[macro_export]
macro_rules! envoy_log_debug {
    ($($message:tt)+) => {
        $crate::envoy_log!($crate::abi::envoy_dynamic_module_type_log_level::Debug, $($message)+)
    };
}

/// Logs at info level.
#[macro_export]
macro_rules! envoy_log_info {
    ($($message:tt)+) => {
        $crate::envoy_log!($crate::abi::envoy_dynamic_module_type_log_level::Info, $($message)+)
    };
}

/// Logs at warning level.
#[macro_export]
macro_rules! envoy_log_warn {
    ($($message:tt)+) => {
        $crate::envoy_log!($crate::abi::envoy_dynamic_module_type_log_level::Warn, $($message)+)
    };
}

/// Logs at error level.
#[macro_export]
macro_rules! envoy_log_error {
    ($($message:tt)+) => {
        $crate::envoy_log!($crate::abi::envoy_dynamic_module_type_log_level::Error, $($message)+)
    };
}

/// Logs at critical level.
#[macro_export]
macro_rules! envoy_log_critical {
    ($($message:tt)+) => {
        $crate::envoy_log!($crate::abi::envoy_dynamic_module_type_log_level::Critical, $($message)+)
    };
}

//! Isolation of plugin calls.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::decision::PluginError;

/// Runs a plugin; a panic becomes an error.
///
/// Asserting unwind safety is sound for the cycle: whatever a plugin was given to write is reset
/// or overwritten by the caller when the plugin fails.
///
/// # Errors
/// Those of the plugin, or that it panicked.
pub fn isolate<T>(call: impl FnOnce() -> Result<T, PluginError>) -> Result<T, PluginError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|payload| Err(PluginError::Panicked(message(&*payload))))
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("panicked without a message").to_owned()
}

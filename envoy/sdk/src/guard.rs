//! The outer fence of every exported function.
//!
//! A panic that left an `extern "C"` function would abort Envoy with every connection in it. [`guard`] catches it, logs
//! where and why, and gives the caller the chance to fail the stream instead.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::abi::envoy_dynamic_module_type_log_level as Level;
use crate::log;

/// Runs one hook. `None` when it panicked, which has then been logged under the hook's name.
///
/// What the hook leaves half-changed is the caller's to discard: a filter that panicked is not asked again.
pub(crate) fn guard<T>(hook: &'static str, body: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(value) => Some(value),
        Err(payload) => {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                log::write(
                    Level::Critical,
                    file!(),
                    line!(),
                    format_args!("{hook}: the module panicked: {}", describe(&*payload)),
                );
            }));
            discard(payload);
            None
        }
    }
}

fn describe(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "a payload that is not text"
    }
}

/// Drops a payload whose own destructor may panic; what that throws in turn is forgotten.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
        std::mem::forget(second);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    #[test]
    fn the_value_passes_and_a_panic_does_not() {
        assert_eq!(guard("a", || 1), Some(1));
        assert_eq!(guard("a", || -> u8 { panic!("no {}", "way") }), None);
        assert_eq!(guard("a", || -> u8 { panic_any(7_u8) }), None);
    }

    #[test]
    fn a_payload_that_panics_when_dropped_is_held_back_too() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("the payload's own");
            }
        }
        assert_eq!(guard("a", || -> u8 { panic_any(Bomb) }), None);
    }
}

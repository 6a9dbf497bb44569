//! The table of Envoy's functions.
//!
//! Data: one [`Callbacks`] for the process, filled by the first use (in practice by `program_init`) with `dlsym` over the
//! symbols that the Envoy binary exports, and never changed. Invariant: an entry is either absent or the function of that
//! name, whose signature the ABI promises never to change.
//!
//! Cost of a call: one acquire load and one branch before the indirect call.

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

pub(crate) use table::Callbacks;

// One transmute per function: what makes each right is said once, at `resolve` and in build.rs.
#[allow(clippy::type_complexity, clippy::undocumented_unsafe_blocks)]
mod table {
    use crate::abi::*;

    include!(concat!(env!("OUT_DIR"), "/callbacks.rs"));
}

static TABLE: OnceLock<Callbacks> = OnceLock::new();

/// The functions of the Envoy that this module is loaded into. Empty outside of Envoy.
pub(crate) fn callbacks() -> &'static Callbacks {
    #[cfg(test)]
    if let Some(table) = fake::current() {
        return table;
    }
    // SAFETY: symbols with these names are exported by Envoy alone.
    TABLE.get_or_init(|| unsafe { Callbacks::resolve(symbol) })
}

fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: the name is NUL-terminated; RTLD_DEFAULT searches what is loaded and loads nothing.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// Calls a function of Envoy by its short name, or evaluates to the part after `or` where Envoy lacks it.
///
/// Every caller holds the invariants of the ABI: the first argument is a pointer that Envoy handed out and that its
/// wrapper type keeps to the lifetime Envoy gives it; buffers borrow from slices that live across the call; out-pointers
/// point to initialised locals of the caller.
macro_rules! call {
    ($name:ident($($argument:expr),* $(,)?) or $absent:expr) => {
        match $crate::host::callbacks().$name {
            // SAFETY: the invariants stated at this macro.
            Some(function) => unsafe { function($($argument),*) },
            None => $absent,
        }
    };
}
pub(crate) use call;

/// Calls a function of Envoy that reports with `true` that it has written its last argument, a `$type`.
macro_rules! read {
    ($name:ident($($argument:expr),* $(,)?) -> $type:ty) => {{
        let mut out = <$type>::default();
        $crate::host::call!($name($($argument,)* (&raw mut out).cast()) or false).then_some(out)
    }};
}
pub(crate) use read;

/// Replaces the table for the tests of one thread.
#[cfg(test)]
pub(crate) mod fake {
    use std::cell::Cell;

    use super::Callbacks;

    thread_local! {
        static CURRENT: Cell<Option<&'static Callbacks>> = const { Cell::new(None) };
    }

    pub(super) fn current() -> Option<&'static Callbacks> {
        CURRENT.get()
    }

    /// Installs `table` on this thread (each test has its own).
    pub(crate) fn install(table: Callbacks) {
        CURRENT.set(Some(Box::leak(Box::new(table))));
    }
}

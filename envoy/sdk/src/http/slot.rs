//! The life of one filter between Envoy's hooks.
//!
//! Data: the filter, how far its stream has come, and which of its hooks are on the stack. Everything is on the stream's
//! worker, so plain cells do.
//!
//! Invariants
//! * The filter is borrowed by at most one hook. A hook that Envoy calls while another one's method runs (possible only
//!   under the few calls that are not queued, see `action`) is answered neutrally; the end of a callout is kept and told
//!   afterwards.
//! * The slot is freed by the outermost export that leaves it after Envoy has destroyed the stream. The filter itself is
//!   dropped at once, unless its own method is what led there.
//! * A filter that has panicked is never called again, only dropped.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::c_void;

use smallvec::SmallVec;

use crate::abi::*;
use crate::guard::guard;
use crate::http::action::{Action, Actions, OwnedHeaders};
use crate::http::{EnvoyHttpFilterImpl, HttpFilter};

type Filter = Box<dyn HttpFilter<EnvoyHttpFilterImpl>>;

/// How far a stream has come, which decides what can be done when its filter panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing has been said to the client.
    Request,
    /// A response has begun: the stream can only be reset.
    Response,
    /// The answer is complete.
    Ended,
}

/// The end of a callout that came while the filter's method ran.
#[derive(Clone, Copy, Debug)]
pub(super) enum LateEnd {
    Callout(u64, envoy_dynamic_module_type_http_callout_result),
    StreamReset(u64, envoy_dynamic_module_type_http_stream_reset_reason),
    StreamComplete(u64),
}

/// What `http_filter_new` hands to Envoy.
pub(super) struct Slot {
    /// `None` once the filter has panicked in its making, or has been dropped.
    filter: UnsafeCell<Option<Filter>>,
    stage: Cell<Stage>,
    /// A method of the filter is running.
    borrowed: Cell<bool>,
    panicked: Cell<bool>,
    /// Exports on the stack that hold this slot.
    depth: Cell<u32>,
    /// Envoy has destroyed the stream.
    destroyed: Cell<bool>,
    late: RefCell<SmallVec<[LateEnd; 1]>>,
}

impl Slot {
    /// A slot for a new stream; without a filter when making one panicked.
    pub(super) fn new(filter: Option<Filter>) -> Box<Self> {
        let panicked = Cell::new(filter.is_none());
        Box::new(Self {
            filter: UnsafeCell::new(filter),
            stage: Cell::new(Stage::Request),
            borrowed: Cell::new(false),
            panicked,
            depth: Cell::new(0),
            destroyed: Cell::new(false),
            late: RefCell::new(SmallVec::new()),
        })
    }

    /// The response is passing, whoever made it.
    pub(super) fn response_begins(&self) {
        if self.stage.get() == Stage::Request {
            self.stage.set(Stage::Response);
        }
    }

    /// Nothing more can or need be said to the client, whatever happens.
    pub(super) fn settle(&self) {
        self.stage.set(Stage::Ended);
    }

    /// Runs a hook. `None` when the filter could not be asked: it panicked now or earlier, or is busy.
    ///
    /// # Safety
    /// `slot` is a slot that Envoy has not destroyed, `envoy` its stream.
    pub(super) unsafe fn hook<T>(
        slot: *const Self,
        envoy: *mut c_void,
        name: &'static str,
        method: impl FnOnce(
            &mut (dyn HttpFilter<EnvoyHttpFilterImpl> + 'static),
            &mut EnvoyHttpFilterImpl,
        ) -> T,
    ) -> Option<T> {
        // SAFETY: the slot lives until the outermost export leaves it, which `Visit` counts.
        let visit = unsafe { Visit::enter(slot) };
        let value = visit.slot().run(envoy, name, method);
        // What came in the meantime, in its order; telling it may bring more.
        while !visit.slot().borrowed.get() {
            let late = std::mem::take(&mut *visit.slot().late.borrow_mut());
            if late.is_empty() {
                break;
            }
            for end in late {
                visit.slot().run(envoy, name, |filter, envoy| end.tell(filter, envoy));
            }
        }
        value
    }

    /// Keeps the end of a callout when the filter cannot be told now. Whether it was kept.
    pub(super) fn keep_if_busy(&self, end: LateEnd) -> bool {
        let busy = self.borrowed.get();
        if busy {
            self.late.borrow_mut().push(end);
        }
        busy
    }

    fn run<T>(
        &self,
        envoy: *mut c_void,
        name: &'static str,
        method: impl FnOnce(
            &mut (dyn HttpFilter<EnvoyHttpFilterImpl> + 'static),
            &mut EnvoyHttpFilterImpl,
        ) -> T,
    ) -> Option<T> {
        if self.borrowed.get() || self.destroyed.get() {
            return None;
        }
        if self.panicked.get() {
            self.fail(envoy);
            return None;
        }
        // SAFETY: nobody else has the filter while `borrowed` is false; the stream is the hook's own.
        let filter = unsafe { (*self.filter.get()).as_mut()? };
        // SAFETY: the value stays on this stack.
        let mut stream = unsafe { EnvoyHttpFilterImpl::new(envoy) };
        self.borrowed.set(true);
        let value = guard(name, || method(filter.as_mut(), &mut stream));
        self.borrowed.set(false);
        if self.destroyed.get() {
            self.drop_filter();
            return value;
        }
        let actions = stream.into_actions();
        if value.is_none() {
            self.panicked.set(true);
            if actions.iter().any(Action::ends_stream) {
                self.perform(actions, envoy);
            } else {
                self.fail(envoy);
            }
        } else {
            self.perform(actions, envoy);
        }
        value
    }

    /// Makes the queued calls, as long as the stream is there.
    fn perform(&self, actions: Actions, envoy: *mut c_void) {
        for action in actions {
            if self.destroyed.get() {
                return;
            }
            if action.begins_response() {
                self.response_begins();
            }
            if action.ends_stream() {
                self.stage.set(Stage::Ended);
            }
            action.perform(envoy);
        }
    }

    /// Ends the stream of a filter that panicked: 500 if the client has heard nothing yet, else a reset.
    fn fail(&self, envoy: *mut c_void) {
        let action = match self.stage.get() {
            Stage::Ended => return,
            Stage::Request => Action::Respond {
                status: 500,
                headers: OwnedHeaders::new(&[]),
                body: None,
                details: Some("dynamic_module_panic".to_owned()),
            },
            Stage::Response => Action::Reset {
                reason: envoy_dynamic_module_type_http_filter_stream_reset_reason::LocalReset,
                details: "dynamic_module_panic".to_owned(),
            },
        };
        self.stage.set(Stage::Ended);
        action.perform(envoy);
    }

    fn drop_filter(&self) {
        // SAFETY: called with `borrowed` false only.
        let filter = unsafe { (*self.filter.get()).take() };
        guard("http_filter_destroy", move || drop(filter));
    }

    /// The last hook of a stream.
    ///
    /// # Safety
    /// `slot` came from [`Slot::new`] through `Box::into_raw` and has not been destroyed.
    pub(super) unsafe fn destroy(slot: *const Self) {
        // SAFETY: as required of the caller.
        let visit = unsafe { Visit::enter(slot) };
        visit.slot().destroyed.set(true);
        if !visit.slot().borrowed.get() {
            visit.slot().drop_filter();
        }
    }
}

impl LateEnd {
    fn tell(
        self,
        filter: &mut dyn HttpFilter<EnvoyHttpFilterImpl>,
        envoy: &mut EnvoyHttpFilterImpl,
    ) {
        match self {
            Self::Callout(id, result) => {
                filter.on_http_callout_done(envoy, id, result, None, None);
            }
            Self::StreamReset(id, reason) => filter.on_http_stream_reset(envoy, id, reason),
            Self::StreamComplete(id) => filter.on_http_stream_complete(envoy, id),
        }
    }
}

/// An export's hold on a slot.
struct Visit(*const Slot);

impl Visit {
    /// # Safety
    /// `slot` is a live slot from `Box::into_raw`.
    unsafe fn enter(slot: *const Slot) -> Self {
        let visit = Self(slot);
        visit.slot().depth.set(visit.slot().depth.get() + 1);
        visit
    }

    fn slot(&self) -> &Slot {
        // SAFETY: a slot with a visit is not freed.
        unsafe { &*self.0 }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let slot = self.slot();
        slot.depth.set(slot.depth.get() - 1);
        if slot.depth.get() == 0 && slot.destroyed.get() {
            // SAFETY: Envoy has destroyed the stream and no export is on the stack: this is the last use.
            drop(unsafe { Box::from_raw(self.0.cast_mut()) });
        }
    }
}

//! What the values of one render may take in all.
//!
//! Fuel bounds the steps of a template, not what a step makes: a text that is doubled forty times,
//! or one to which each message of a long conversation is appended, costs few steps and any amount
//! of memory or copying. So whatever a step makes or prints is charged in bytes. Filters and methods
//! that can make much out of little ask before they do.
//!
//! Operators and calls are the template library's own: [`charges`](super::charges) rewrites templates so
//! that their results come by here.

use std::cell::Cell;
use std::fmt::{self, Write};

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};

/// What an item of a list or a member of a dict is charged with.
const ITEM: usize = size_of::<Value>();

#[derive(Clone, Copy)]
struct Budget {
    left: usize,
    exceeded: bool,
}

thread_local! {
    // A render stays on its thread. The library's own state is found by name through all scopes,
    // which is too slow for something that every step asks for.
    static BUDGET: Cell<Budget> = const { Cell::new(Budget { left: usize::MAX, exceeded: false }) };
}

/// Runs a render whose values may take this many bytes, and says whether they would have taken more.
pub(super) fn within<T>(bytes: usize, render: impl FnOnce() -> T) -> (T, bool) {
    /// Puts back what was there, also when the render panics.
    struct Outer(Budget);
    impl Drop for Outer {
        fn drop(&mut self) {
            BUDGET.set(self.0);
        }
    }
    let _outer = Outer(BUDGET.replace(Budget { left: bytes, exceeded: false }));
    let rendered = render();
    (rendered, BUDGET.get().exceeded)
}

/// Takes bytes from the budget.
pub(super) fn charge(bytes: usize) -> Result<(), Error> {
    let Budget { left, .. } = BUDGET.get();
    match left.checked_sub(bytes) {
        Some(left) => {
            BUDGET.set(Budget { left, exceeded: false });
            Ok(())
        }
        None => Err(exceeded()),
    }
}

/// Whether a value of this many bytes may be made.
pub(super) fn allow(bytes: usize) -> Result<(), Error> {
    if bytes <= BUDGET.get().left { Ok(()) } else { Err(exceeded()) }
}

/// Charges a value that has been made.
pub(super) fn value(value: Value) -> Result<Value, Error> {
    charge(match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or(0).saturating_mul(ITEM),
    })?;
    Ok(value)
}

/// Charges the text that stands in the body of a loop, once for each time that it is printed.
pub(super) fn body(bytes: usize) -> Result<usize, Error> {
    charge(bytes).map(|()| bytes)
}

fn exceeded() -> Error {
    BUDGET.set(Budget { left: 0, exceeded: true });
    Error::new(ErrorKind::InvalidOperation, "values take too many bytes")
}

/// Charges what is printed.
pub(super) struct Charged<'a>(pub(super) &'a mut dyn Write);

impl Write for Charged<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        charge(text.len()).map_err(|_| fmt::Error)?;
        self.0.write_str(text)
    }
}

/// A text that does not grow beyond what is left. It is charged as a value, when it is done.
#[derive(Default)]
pub(super) struct Text(pub(super) String);

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        allow(self.0.len().saturating_add(text.len())).map_err(|_| fmt::Error)?;
        self.0.push_str(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_charged_is_gone_and_what_is_allowed_is_not() {
        let (fits, over) = within(10, || {
            [allow(10).is_ok(), charge(6).is_ok(), charge(4).is_ok(), allow(0).is_ok()]
        });
        assert_eq!((fits, over), ([true; 4], false));
        assert_eq!(within(10, || allow(11).is_ok()), (false, true));
        // Nothing fits behind what did not: a template cannot go on with smaller steps.
        assert_eq!(within(10, || [charge(11).is_ok(), charge(1).is_ok()]), ([false; 2], true));
    }

    #[test]
    fn beyond_a_render_nothing_is_bounded() {
        let panics = || within(1, || panic!("of a filter"));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert!(charge(1 << 40).is_ok());
    }

    #[test]
    fn a_text_stops_growing_before_it_is_too_large() {
        let write = || {
            let mut text = Text::default();
            let results = ["abc", "de", "f"].map(|piece| text.write_str(piece).is_ok());
            (text.0, results)
        };
        assert_eq!(within(4, write), (("abc".to_owned(), [true, false, false]), true));
    }
}

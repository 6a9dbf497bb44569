//! What is refused, with the evidence.

/// A configuration, a feature row, an observation or a document that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Bytes that no version of this crate wrote, or that were damaged since.
    #[error("the document is damaged: {field} is {found}, expected {expected}")]
    Damaged {
        /// The field that decided.
        field: &'static str,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: f64,
    },
    /// A number outside its range: of a configuration, a row or an observation.
    #[error("{field} is {found}, expected {expected}")]
    OutOfRange {
        /// The quantity.
        field: &'static str,
        /// Its range.
        expected: &'static str,
        /// What was given.
        found: f64,
    },
}

/// Refuses a number unless `accepted`; NaN fails every comparison and with it every such test.
pub(crate) fn require(
    field: &'static str,
    found: f64,
    expected: &'static str,
    accepted: bool,
) -> Result<(), Error> {
    if accepted { Ok(()) } else { Err(Error::OutOfRange { field, expected, found }) }
}

/// Refuses a field of a document unless `accepted`.
pub(crate) fn intact(
    field: &'static str,
    found: f64,
    expected: &'static str,
    accepted: bool,
) -> Result<(), Error> {
    if accepted { Ok(()) } else { Err(Error::Damaged { field, expected, found }) }
}

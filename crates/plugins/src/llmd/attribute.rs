//! Numbers that a pod reports under a name of its own, as parameters refer to them.

use inlane_core::columns::{Col, Columns, Scalar};
use inlane_core::endpoint::EndpointIx;
use inlane_core::registry::{Build, BuildError, CORE_METRICS_EXTRACTOR};

/// The column of the number `name`, which the parameter `field` names. Without a producer it is
/// one of the engine's custom metrics; the empty producer means whoever reports it.
///
/// # Errors
/// No name, or one that looks like name and producer in one.
pub(super) fn column(
    build: &mut Build<'_>,
    field: &str,
    name: &str,
    producer: Option<&str>,
) -> Result<Col<Scalar>, BuildError> {
    if name.is_empty() {
        return Err(BuildError::field(field, "expected the name of an attribute"));
    }
    if let (None, Some((attribute, reporter))) = (producer, name.split_once('/')) {
        let message = format!(
            "{name:?} contains '/' but no producer is set: write {field}: {attribute:?} and \
             producer: {reporter:?}, or set producer if '/' is part of the name"
        );
        return Err(BuildError::field(field, message));
    }
    Ok(build.scalar(name, producer.unwrap_or(CORE_METRICS_EXTRACTOR)))
}

/// The number of one endpoint; what is no number counts as missing.
pub(super) fn value(columns: &Columns, col: Col<Scalar>, ix: EndpointIx) -> Option<f64> {
    let found = columns.get(col).get(ix as usize).copied().flatten();
    found.map(|Scalar(value)| value).filter(|value| !value.is_nan())
}

//! `shadow`: a second configuration that decides beside the first and moves no request.
//!
//! ```yaml
//! shadow:
//!   fraction: 0.1          # share of the requests, 1 unless given
//!   config:                # an EndpointPickerConfig; apiVersion and kind may be left out
//!     plugins: …
//!     schedulingProfiles: …
//! ```
//!
//! An addition of ours. State that plugins keep between requests is found by type, name and
//! parameters: an instance that both configurations have shares it.

use std::sync::Arc;

use super::assembly::Assembly;
use super::document::ShadowSpec;
use super::error::Fault;
use super::loaded::Shadow;
use super::{build, check_kind, decode};

/// Loads the second configuration. Its faults and warnings are told as below `shadow.config`.
pub(super) fn load(
    spec: ShadowSpec,
    assembly: &mut Assembly<'_>,
    allow_experimental: bool,
) -> Result<Shadow, Fault> {
    let fraction = spec.fraction.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&fraction) {
        let text = format!("expected a number from 0 to 1, found {fraction}");
        return Err(Fault::at("shadow.fraction", text));
    }
    let value = spec.config;
    if value.is_null() {
        return Err(Fault::at("shadow.config", "expected a configuration, found nothing"));
    }
    if value.get("shadow").is_some() {
        return Err(Fault::at("shadow.config.shadow", "a shadow has no shadow of its own"));
    }
    let named = value.get("apiVersion").is_some() || value.get("kind").is_some();
    let checked = if named { check_kind(&value) } else { Ok(()) };
    let config = checked
        .and_then(|()| decode(value))
        .and_then(|spec| build(spec, assembly.beside(), allow_experimental))
        .map_err(|fault| {
            let path = match fault.path.as_str() {
                "" => "shadow.config".to_owned(),
                path => format!("shadow.config.{path}"),
            };
            Fault { path, ..fault }
        })?;
    for warning in &config.warnings {
        assembly.warn(format!("shadow: {warning}"));
    }
    Ok(Shadow { fraction, config: Arc::new(config) })
}

//! Which Envoy this is.
//!
//! Envoy exports no version, so it is told from the functions that a release was the first to have.

use std::fmt;

use crate::host::callbacks;

/// A release line of Envoy, oldest first. A newer line than those named counts as the newest named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EnvoyVersion {
    /// 1.38
    V1_38,
    /// 1.39
    V1_39,
    /// 1.40 or newer
    V1_40,
}

impl fmt::Display for EnvoyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1_38 => "1.38",
            Self::V1_39 => "1.39",
            Self::V1_40 => "1.40",
        })
    }
}

impl EnvoyVersion {
    /// The ABI version string that this release expects of a module.
    pub(crate) fn abi(self) -> &'static std::ffi::CStr {
        match self {
            Self::V1_38 | Self::V1_39 => c"v0.1.0",
            Self::V1_40 => c"v0.2.0",
        }
    }
}

/// Addition: the Envoy that this module is loaded into; `None` outside of Envoy, or when it is older than 1.38.
#[must_use]
pub fn envoy_version() -> Option<EnvoyVersion> {
    let table = callbacks();
    if table.log_v2.is_some() {
        Some(EnvoyVersion::V1_40)
    } else if table.get_log_level.is_some() {
        Some(EnvoyVersion::V1_39)
    } else if table.http_set_upstream_override_host.is_some() {
        Some(EnvoyVersion::V1_38)
    } else {
        None
    }
}

/// Whether this is 1.39 or newer.
pub(crate) fn at_least_1_39() -> bool {
    envoy_version() >= Some(EnvoyVersion::V1_39)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::*;
    use crate::host::{Callbacks, fake};

    unsafe extern "C" fn log_v2(
        _: u32,
        _: envoy_dynamic_module_type_module_buffer,
        _: envoy_dynamic_module_type_module_buffer,
        _: u32,
    ) {
    }
    unsafe extern "C" fn log_level() -> u32 {
        0
    }
    unsafe extern "C" fn override_host(
        _: envoy_dynamic_module_type_http_filter_envoy_ptr,
        _: envoy_dynamic_module_type_module_buffer,
        _: bool,
    ) -> bool {
        false
    }

    #[test]
    fn the_newest_known_function_decides() {
        let mut table = Callbacks::default();
        fake::install(table);
        assert_eq!(envoy_version(), None);
        table.http_set_upstream_override_host = Some(override_host);
        fake::install(table);
        assert_eq!(envoy_version(), Some(EnvoyVersion::V1_38));
        assert!(!at_least_1_39());
        table.get_log_level = Some(log_level);
        fake::install(table);
        assert_eq!(envoy_version(), Some(EnvoyVersion::V1_39));
        table.log_v2 = Some(log_v2);
        fake::install(table);
        assert_eq!(envoy_version(), Some(EnvoyVersion::V1_40));
    }
}

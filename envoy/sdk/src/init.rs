//! What a module declares, and the check of the Envoy that loads it.

use std::any::Any;
use std::ffi::c_char;
use std::ptr;
use std::sync::{Arc, OnceLock};

use crate::abi::envoy_dynamic_module_type_envoy_buffer;
use crate::bootstrap::{BootstrapExtensionConfig, EnvoyBootstrapExtensionConfig};
use crate::buffer::EnvoyBuffer;
use crate::cluster::{ClusterConfig, EnvoyClusterMetrics};
use crate::guard::guard;
use crate::http::{EnvoyHttpFilterConfigImpl, EnvoyHttpFilterImpl, HttpFilterConfig};
use crate::version::envoy_version;

/// Process-wide set-up of a module; false refuses the load.
pub type ProgramInitFunction = fn() -> bool;

/// Makes an HTTP filter configuration from its name and bytes; `None` rejects it.
pub type NewHttpFilterConfigFunction<EC, EHF> =
    fn(envoy: &mut EC, name: &str, config: &[u8]) -> Option<Box<dyn HttpFilterConfig<EHF>>>;

/// Makes a route's own configuration of an HTTP filter; `None` rejects it. It is read by all workers at once: its type must
/// be `Send` and `Sync`, which this signature, being the upstream one, cannot say.
pub type NewHttpFilterPerRouteConfigFunction =
    fn(name: &str, config: &[u8]) -> Option<Box<dyn Any>>;

/// Makes a bootstrap extension's configuration; `None` rejects it.
pub type NewBootstrapExtensionConfigFunction = fn(
    envoy: &mut dyn EnvoyBootstrapExtensionConfig,
    name: &str,
    config: &[u8],
) -> Option<Box<dyn BootstrapExtensionConfig>>;

/// Makes a cluster's configuration; `None` rejects it.
pub type NewClusterConfigFunction = fn(
    name: &str,
    config: &[u8],
    metrics: Arc<dyn EnvoyClusterMetrics>,
) -> Option<Box<dyn ClusterConfig>>;

/// The module's HTTP filter.
pub static NEW_HTTP_FILTER_CONFIG_FUNCTION: OnceLock<
    NewHttpFilterConfigFunction<EnvoyHttpFilterConfigImpl, EnvoyHttpFilterImpl>,
> = OnceLock::new();

/// The module's route configuration.
pub static NEW_HTTP_FILTER_PER_ROUTE_CONFIG_FUNCTION: OnceLock<
    NewHttpFilterPerRouteConfigFunction,
> = OnceLock::new();

/// The module's bootstrap extension.
pub static NEW_BOOTSTRAP_EXTENSION_CONFIG_FUNCTION: OnceLock<NewBootstrapExtensionConfigFunction> =
    OnceLock::new();

/// The module's cluster.
pub static NEW_CLUSTER_CONFIG_FUNCTION: OnceLock<NewClusterConfigFunction> = OnceLock::new();

/// Decides about the load: the ABI version of this Envoy, or null with the reason on standard error.
#[doc(hidden)]
pub fn program_init(init: ProgramInitFunction) -> *const c_char {
    let Some(version) = envoy_version() else {
        // Envoy's logger may be missing here, and its message for a null answer names no reason.
        eprintln!(
            "dynamic module refused: this Envoy lacks \
             envoy_dynamic_module_callback_http_set_upstream_override_host; 1.38 or newer is needed"
        );
        return ptr::null();
    };
    if guard("program_init", init) == Some(true) { version.abi().as_ptr() } else { ptr::null() }
}

/// The name in a configuration, which has to be UTF-8.
///
/// # Safety
/// The buffer lives for `'a`.
pub(crate) unsafe fn name_of<'a>(
    raw: envoy_dynamic_module_type_envoy_buffer,
    what: &str,
) -> Option<&'a str> {
    // SAFETY: as required of the caller.
    let name = unsafe { EnvoyBuffer::from_raw(raw) }.as_slice();
    std::str::from_utf8(name)
        .inspect_err(|error| crate::envoy_log_error!("the name of {what} is rejected: {error}"))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;
    use crate::abi::*;
    use crate::host::{Callbacks, fake};

    unsafe extern "C" fn override_host(
        _: envoy_dynamic_module_type_http_filter_envoy_ptr,
        _: envoy_dynamic_module_type_module_buffer,
        _: bool,
    ) -> bool {
        false
    }

    unsafe extern "C" fn log_v2(
        _: u32,
        _: envoy_dynamic_module_type_module_buffer,
        _: envoy_dynamic_module_type_module_buffer,
        _: u32,
    ) {
    }

    fn answer(table: Callbacks, init: ProgramInitFunction) -> Option<&'static CStr> {
        fake::install(table);
        let answer = program_init(init);
        // SAFETY: an answer is one of the constant ABI versions.
        (!answer.is_null()).then(|| unsafe { CStr::from_ptr(answer) })
    }

    #[test]
    fn the_answer_is_the_abi_version_of_this_envoy() {
        let mut table = Callbacks::default();
        assert_eq!(answer(table, || panic!("not asked in an Envoy that is too old")), None);
        table.http_set_upstream_override_host = Some(override_host);
        assert_eq!(answer(table, || true), Some(c"v0.1.0"));
        table.log_v2 = Some(log_v2);
        assert_eq!(answer(table, || true), Some(c"v0.2.0"));
        assert_eq!(answer(table, || false), None);
        assert_eq!(answer(table, || panic!("told to")), None);
    }

    #[test]
    fn a_name_has_to_be_text() {
        fake::install(Callbacks::default());
        let name = |bytes: &'static [u8]| {
            let raw = envoy_dynamic_module_type_envoy_buffer {
                ptr: bytes.as_ptr().cast(),
                length: bytes.len(),
            };
            // SAFETY: static bytes.
            unsafe { name_of(raw, "a test") }
        };
        assert_eq!(name(b"pods"), Some("pods"));
        assert_eq!(name(b"\xff"), None);
    }
}

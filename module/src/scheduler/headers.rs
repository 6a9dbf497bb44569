//! Request headers as the scheduler reads and removes them.

use envoy_proxy_dynamic_modules_rust_sdk::EnvoyHttpFilterExt;
use inlane_core::request::Headers;

/// Reads headers from Envoy's memory.
pub(super) struct EnvoyHeaders<'a, EHF>(pub &'a EHF);

impl<EHF: EnvoyHttpFilterExt> Headers for EnvoyHeaders<'_, EHF> {
    fn get(&self, name: &str) -> Option<&str> {
        // The usual answer is "absent", which costs no allocation; of several values the last counts.
        self.0.get_request_header_value(name)?;
        let last = self.0.get_request_header_values(name).last().copied()?;
        std::str::from_utf8(last.as_slice()).ok()
    }
}

/// The value of the first of the names that is present, copied.
pub(super) fn copy<EHF: EnvoyHttpFilterExt>(envoy: &EHF, names: &[&str]) -> Option<String> {
    let value = names.iter().find_map(|name| envoy.get_request_header_value(name))?;
    Some(String::from_utf8_lossy(value.as_slice()).into_owned())
}

/// Removes headers that are present.
pub(super) fn remove<EHF: EnvoyHttpFilterExt>(envoy: &mut EHF, names: &[&str]) {
    for name in names {
        if envoy.get_request_header_value(name).is_some() {
            envoy.remove_request_header(name);
        }
    }
}

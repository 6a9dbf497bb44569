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

/// Removes headers that are present. One pass over the request's headers finds out which: there are
/// fewer of them than lookups would cost.
pub(super) fn remove<EHF: EnvoyHttpFilterExt>(envoy: &mut EHF, names: &[&str]) {
    debug_assert!(names.len() <= u32::BITS as usize);
    let mut present = 0u32;
    envoy.for_each_request_header(&mut |key, _| {
        // All of them start alike, and few other headers do.
        if key.starts_with(b"x-")
            && let Some(at) = names.iter().position(|name| name.as_bytes() == key)
        {
            present |= 1 << at;
        }
    });
    for (at, name) in names.iter().enumerate() {
        if present >> at & 1 == 1 {
            envoy.remove_request_header(name);
        }
    }
}

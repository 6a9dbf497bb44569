//! Telling Envoy where a decided request goes.

use envoy_proxy_dynamic_modules_rust_sdk::{
    EnvoyHttpFilterExt, EnvoyVersion, envoy_log_warn, envoy_version,
};
use inlane_core::snapshot::FailureMode;

use super::control_headers::{CONTROL, DESTINATION, STREAM_TOKEN};
use super::decide::Routed;
use super::headers::remove;
use crate::settings::{Destination, Settings};

/// Key of the filter state that carries the token to the cluster.
pub const TOKEN_STATE: &[u8] = b"inlane.stream";

/// Removes what clients say to the scheduler, unless model servers are to see it.
pub(super) fn forget_control_headers<EHF: EnvoyHttpFilterExt>(
    settings: &Settings,
    envoy: &mut EHF,
) {
    if settings.strip_control_headers {
        remove(envoy, CONTROL);
    }
}

/// Sets headers, metadata and what else the route's cluster finds the destination by. Under
/// `FailOpen` an override host that the cluster does not have is replaced by any other.
pub(super) fn forward<EHF: EnvoyHttpFilterExt>(
    settings: &Settings,
    mode: FailureMode,
    envoy: &mut EHF,
    routed: &Routed,
) {
    forget_control_headers(settings, envoy);
    for (name, value) in &routed.headers {
        match value {
            Some(value) => envoy.set_request_header(name, value.as_bytes()),
            None => envoy.remove_request_header(name),
        };
    }
    // With the `override_host` policy a retry takes the next address of the list.
    let destination = match settings.destination {
        Destination::Header => &routed.ranking,
        Destination::Cluster | Destination::OverrideHost => &routed.destination,
    };
    envoy.set_request_header(DESTINATION, destination.as_bytes());
    envoy.set_dynamic_metadata_string("envoy.lb", DESTINATION, destination);
    match settings.destination {
        Destination::Cluster => {
            let token = routed.token.encode();
            let carried = envoy.set_filter_state_bytes(TOKEN_STATE, &token);
            if !carried || !cluster_sees_filter_state(envoy_version()) {
                envoy.set_request_header(STREAM_TOKEN, &token);
            }
        }
        Destination::OverrideHost => {
            let first = routed.destination.split(',').next().unwrap_or_default();
            if !envoy.set_upstream_override_host(first, mode == FailureMode::FailClose) {
                envoy_log_warn!("inlane: Envoy does not take {first} as a destination");
            }
        }
        Destination::Header => {}
    }
}

/// Envoy 1.38 does not show filter state to a cluster.
fn cluster_sees_filter_state(version: Option<EnvoyVersion>) -> bool {
    version >= Some(EnvoyVersion::V1_39)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_state_reaches_clusters_from_1_39_on() {
        assert!(!cluster_sees_filter_state(None));
        assert!(!cluster_sees_filter_state(Some(EnvoyVersion::V1_38)));
        assert!(cluster_sees_filter_state(Some(EnvoyVersion::V1_39)));
        assert!(cluster_sees_filter_state(Some(EnvoyVersion::V1_40)));
    }
}

//! `header-based-testing-filter`: the client says which endpoints may serve. For conformance tests.

use std::net::IpAddr;
use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::{Endpoint, EndpointIx};
use inlane_core::plugin::{Candidates, Cycle, Filter, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};

use crate::ignored::ignore;

/// The header with the endpoints.
const HEADER: &str = "test-epp-endpoint-selection";

/// The type `header-based-testing-filter`.
pub const TYPE: PluginType = PluginType::new("header-based-testing-filter", build);

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    ignore(build, params);
    Ok(Roles::default().filter(Arc::new(HeaderBasedTesting)))
}

/// Keeps the endpoints that the header lists as `ip` or `ip:port` (an IPv6 address with a port in
/// brackets), comma separated, in the order of the header: of each entry the first endpoint that
/// fits, each endpoint once (gateway-api-inference-extension, conformance tests). No header, no
/// endpoint.
#[derive(Debug)]
struct HeaderBasedTesting;

impl Filter for HeaderBasedTesting {
    fn filter(&self, cx: &Cycle<'_>, candidates: &mut Candidates<'_>) -> Result<(), PluginError> {
        let list = cx.request.headers.get(HEADER).unwrap_or_default();
        let mut order: Vec<EndpointIx> = Vec::new();
        for wanted in list.split(',').filter_map(Wanted::parse) {
            let fits = |ix: &EndpointIx| cx.endpoints.get(*ix).is_some_and(|e| wanted.fits(e));
            if let Some(ix) = candidates.as_slice().iter().copied().find(fits)
                && !order.contains(&ix)
            {
                order.push(ix);
            }
        }
        candidates.keep_in_order(&order, "not listed by the request");
        Ok(())
    }
}

/// One entry of the header.
#[derive(Debug, PartialEq)]
struct Wanted {
    address: IpAddr,
    port: Option<u16>,
}

impl Wanted {
    fn parse(entry: &str) -> Option<Self> {
        let entry = entry.trim();
        let bare = entry.strip_prefix('[').and_then(|e| e.strip_suffix(']')).unwrap_or(entry);
        if let Ok(address) = bare.parse() {
            return Some(Self { address, port: None });
        }
        let (host, port) = entry.rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Some(Self { address: host.parse().ok()?, port: Some(port.parse().ok()?) })
    }

    fn fits(&self, endpoint: &Endpoint) -> bool {
        self.port.is_none_or(|port| port == endpoint.port)
            && endpoint.address.parse() == Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::endpoint::{Endpoint, EndpointSet};
    use inlane_core::request::Request;

    use super::HEADER;
    use crate::testing::World;

    fn kept(list: &str) -> Vec<u32> {
        let mut world = World::new(4);
        let places = [("10.0.0.1", 8000), ("10.0.0.1", 8001), ("10.0.0.2", 8000), ("fd00::1", 80)];
        let mut endpoints = world.endpoints.as_slice().to_vec();
        for (endpoint, (address, port)) in endpoints.iter_mut().zip(places) {
            (endpoint.address, endpoint.port) = (address.into(), port);
            endpoint.host_port = Endpoint::join_host_port(address, port);
        }
        world.endpoints = EndpointSet::new(2, endpoints);
        let filter = world.build("header-based-testing-filter", "").unwrap();
        let headers = [(HEADER, list)];
        world.filter_for(&filter, &Request { headers: &headers, ..Default::default() })
    }

    #[test]
    fn the_order_is_that_of_the_header() {
        assert_eq!(kept("10.0.0.2,10.0.0.1"), [2, 0]);
        assert_eq!(kept(" 10.0.0.1:8001 , 10.0.0.1:8000 "), [1, 0]);
    }

    #[test]
    fn each_endpoint_is_kept_once() {
        assert_eq!(kept("10.0.0.1,10.0.0.1:8000,10.0.0.1"), [0]);
    }

    #[test]
    fn ipv6_has_brackets_when_there_is_a_port() {
        assert_eq!(kept("fd00::1"), [3]);
        assert_eq!(kept("[fd00::1]:80"), [3]);
        assert_eq!(kept("[fd00:0::1]"), [3]);
        assert_eq!(kept("[fd00::1]:81"), [0u32; 0]);
    }

    #[test]
    fn what_is_not_found_is_left_out() {
        for list in ["", ",", "10.0.0.9", "10.0.0.1:9", "pod-a", "10.0.0.1:", "10.0.0.1:99999"] {
            assert_eq!(kept(list), [0u32; 0], "{list}");
        }
        let mut world = World::new(1);
        let filter = world.build("header-based-testing-filter", "").unwrap();
        assert_eq!(world.filter(&filter), [0u32; 0]);
    }
}

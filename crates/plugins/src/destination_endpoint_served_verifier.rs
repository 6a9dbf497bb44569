//! `destination-endpoint-served-verifier`: tells the client which endpoint served it.
//!
//! For conformance tests of gateways, which compare it with where they sent the request.

use std::sync::Arc;

use inlane_core::plugin::{AfterResponse, Responding, Roles};
use inlane_core::registry::PluginType;

use crate::ignored::ignore;

/// The header that names the endpoint.
const HEADER: &str = "x-conformance-test-served-endpoint";

/// The type `destination-endpoint-served-verifier`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType =
    PluginType::new("destination-endpoint-served-verifier", |build, params| {
        ignore(build, params);
        Ok(Roles::default().after_response(Arc::new(ServedVerifier)))
    });

/// Sets the header on the response to `address:port` of the endpoint that served (gateway API
/// inference extension, conformance tests).
#[derive(Debug)]
struct ServedVerifier;

impl AfterResponse for ServedVerifier {
    fn response_headers(&self, cx: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        if let Some(endpoint) = cx.endpoint {
            headers.push((HEADER.to_owned(), endpoint.host_port.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::plugin::Responding;

    use crate::testing::World;

    #[test]
    fn the_endpoint_is_named() {
        let mut world = World::new(1);
        let built = world.build("destination-endpoint-served-verifier", "").unwrap();
        let mut cx = Responding {
            endpoints: &world.endpoints,
            profiles: &[],
            targets: &[],
            kept: &[],
            request_id: "r",
            endpoint: world.endpoints.get(0),
            streaming: true,
            status: 200,
            first_byte_ms: Some(1.0),
            total_ms: 1.0,
            complete: true,
            prompt_tokens: None,
            completion_tokens: None,
            cached_tokens: None,
            tells_cached: true,
        };
        let hook = built.roles.after_response.as_ref().unwrap();
        let mut headers = Vec::new();
        hook.response_headers(&cx, &mut headers);
        let expected =
            ("x-conformance-test-served-endpoint".to_owned(), "10.0.0.1:8000".to_owned());
        assert_eq!(headers, [expected]);
        cx.endpoint = None;
        hook.response_headers(&cx, &mut headers);
        assert_eq!(headers.len(), 1);
    }
}

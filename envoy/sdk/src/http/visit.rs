//! Reading headers and bodies without an allocation.
//!
//! These are additions to the upstream API and stand apart from it: a module that uses them and is to be built against the
//! upstream SDK needs only a copy of this trait's defaults there.

use crate::abi::envoy_dynamic_module_type_http_body_type as Body;
use crate::abi::envoy_dynamic_module_type_http_header_type as Map;
use crate::http::{EnvoyHttpFilter, EnvoyHttpFilterImpl};

/// Visits headers and body chunks in place. In Envoy nothing is allocated for up to 64 of them; on a mock the visit
/// goes through the `get_` method of the same thing.
pub trait EnvoyHttpFilterExt: EnvoyHttpFilter {
    /// Visits key and value of all request headers.
    fn for_each_request_header(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in self.get_request_headers() {
            visit(key.as_slice(), value.as_slice());
        }
    }

    /// Visits key and value of all request trailers.
    fn for_each_request_trailer(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in self.get_request_trailers() {
            visit(key.as_slice(), value.as_slice());
        }
    }

    /// Visits key and value of all response headers.
    fn for_each_response_header(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in self.get_response_headers() {
            visit(key.as_slice(), value.as_slice());
        }
    }

    /// Visits key and value of all response trailers.
    fn for_each_response_trailer(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in self.get_response_trailers() {
            visit(key.as_slice(), value.as_slice());
        }
    }

    /// Visits the chunks of the request body that this hook brings.
    fn for_each_received_request_body_chunk(&mut self, visit: &mut dyn FnMut(&[u8])) {
        for chunk in self.get_received_request_body().into_iter().flatten() {
            visit(chunk.as_slice());
        }
    }

    /// Visits the chunks of the request body that Envoy has kept.
    fn for_each_buffered_request_body_chunk(&mut self, visit: &mut dyn FnMut(&[u8])) {
        for chunk in self.get_buffered_request_body().into_iter().flatten() {
            visit(chunk.as_slice());
        }
    }

    /// Visits the chunks of the response body that this hook brings.
    fn for_each_received_response_body_chunk(&mut self, visit: &mut dyn FnMut(&[u8])) {
        for chunk in self.get_received_response_body().into_iter().flatten() {
            visit(chunk.as_slice());
        }
    }

    /// Visits the chunks of the response body that Envoy has kept.
    fn for_each_buffered_response_body_chunk(&mut self, visit: &mut dyn FnMut(&[u8])) {
        for chunk in self.get_buffered_response_body().into_iter().flatten() {
            visit(chunk.as_slice());
        }
    }
}

#[cfg(any(test, feature = "mock"))]
impl EnvoyHttpFilterExt for crate::http::MockEnvoyHttpFilter {}

impl EnvoyHttpFilterExt for EnvoyHttpFilterImpl {
    fn for_each_request_header(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.for_each_header(Map::RequestHeader, visit);
    }

    fn for_each_request_trailer(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.for_each_header(Map::RequestTrailer, visit);
    }

    fn for_each_response_header(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.for_each_header(Map::ResponseHeader, visit);
    }

    fn for_each_response_trailer(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        self.for_each_header(Map::ResponseTrailer, visit);
    }

    fn for_each_received_request_body_chunk(&mut self, visit: &mut dyn FnMut(&[u8])) {
        self.for_each_chunk(Body::ReceivedRequestBody, visit);
    }

    fn for_each_buffered_request_body_chunk(&mut self, visit: &mut dyn FnMut(&[u8])) {
        self.for_each_chunk(Body::BufferedRequestBody, visit);
    }

    fn for_each_received_response_body_chunk(&mut self, visit: &mut dyn FnMut(&[u8])) {
        self.for_each_chunk(Body::ReceivedResponseBody, visit);
    }

    fn for_each_buffered_response_body_chunk(&mut self, visit: &mut dyn FnMut(&[u8])) {
        self.for_each_chunk(Body::BufferedResponseBody, visit);
    }
}

//! Reading and changing the header maps and body buffers of a stream, one call into Envoy per operation.

use smallvec::SmallVec;

use crate::abi::envoy_dynamic_module_type_attribute_id as Attribute;
use crate::abi::envoy_dynamic_module_type_http_body_type as Body;
use crate::abi::envoy_dynamic_module_type_http_header_type as Map;
use crate::abi::envoy_dynamic_module_type_module_buffer;
use crate::buffer::{EnvoyBuffer, EnvoyMutBuffer, HeaderPair, module};
use crate::host::call;
use crate::http::EnvoyHttpFilterImpl;
use crate::version::at_least_1_39;

/// As many headers or chunks are read without an allocation.
const INLINE: usize = 64;

impl EnvoyHttpFilterImpl {
    pub(super) fn header(
        &self,
        map: Map,
        key: &str,
        index: usize,
        count: &mut usize,
    ) -> Option<EnvoyBuffer<'_>> {
        let mut out = EnvoyBuffer::default();
        call!(
            http_get_header(
                self.raw,
                map as u32,
                module(key),
                (&raw mut out).cast(),
                index,
                count,
            ) or false
        )
        .then_some(out)
    }

    pub(super) fn header_values(&self, map: Map, key: &str) -> Vec<EnvoyBuffer<'_>> {
        let mut count = 0;
        let Some(first) = self.header(map, key, 0, &mut count) else { return Vec::new() };
        let mut values = Vec::with_capacity(count.max(1));
        values.push(first);
        values.extend((1..count).filter_map(|index| self.header(map, key, index, &mut 0)));
        values
    }

    pub(super) fn headers(&self, map: Map) -> SmallVec<[HeaderPair<'_>; INLINE]> {
        let count = call!(http_get_headers_size(self.raw, map as u32) or 0);
        let mut headers: SmallVec<[HeaderPair<'_>; INLINE]> =
            SmallVec::from_elem(HeaderPair::default(), count);
        let got = count > 0
            && call!(
                http_get_headers(self.raw, map as u32, headers.as_mut_ptr().cast()) or false
            );
        if !got {
            headers.clear();
        }
        headers
    }

    pub(super) fn for_each_header(&self, map: Map, visit: &mut dyn FnMut(&[u8], &[u8])) {
        for (key, value) in self.headers(map) {
            visit(key.as_slice(), value.as_slice());
        }
    }

    pub(super) fn set(
        &mut self,
        map: Map,
        key: &str,
        value: envoy_dynamic_module_type_module_buffer,
    ) -> bool {
        call!(http_set_header(self.raw, map as u32, module(key), value) or false)
    }

    /// The number of chunks, and their list through `read` if there are any.
    pub(super) fn chunk_count(&self, body: Body) -> usize {
        call!(http_get_body_chunks_size(self.raw, body as u32) or 0)
    }

    pub(super) fn chunks(&mut self, body: Body) -> Option<Vec<EnvoyMutBuffer<'_>>> {
        let mut chunks = Vec::new();
        chunks.resize_with(self.chunk_count(body), EnvoyMutBuffer::default);
        call!(
            http_get_body_chunks(self.raw, body as u32, chunks.as_mut_ptr().cast()) or false
        )
        .then_some(chunks)
    }

    pub(super) fn for_each_chunk(&self, body: Body, visit: &mut dyn FnMut(&[u8])) {
        let count = self.chunk_count(body);
        let mut chunks: SmallVec<[EnvoyBuffer<'_>; INLINE]> =
            SmallVec::from_elem(EnvoyBuffer::default(), count);
        let got = count > 0
            && call!(
                http_get_body_chunks(self.raw, body as u32, chunks.as_mut_ptr().cast()) or false
            );
        if got {
            chunks.iter().for_each(|chunk| visit(chunk.as_slice()));
        }
    }

    /// Attributes 16, 17 and 53 are not in 1.38, which writes an error line for each attempt to read them.
    pub(super) fn has_attribute(attribute: Attribute) -> bool {
        !matches!(
            attribute,
            Attribute::ResponseCodeDetails
                | Attribute::ResponseFlags
                | Attribute::UpstreamRequestAttemptCount
        ) || at_least_1_39()
    }
}

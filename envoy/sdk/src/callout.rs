//! Requests that a module makes through Envoy: the shape that HTTP filters, their configurations, clusters and the
//! bootstrap extension share.

use smallvec::SmallVec;

use crate::abi::{
    envoy_dynamic_module_type_http_callout_init_result as InitResult,
    envoy_dynamic_module_type_module_buffer, envoy_dynamic_module_type_module_http_header,
};
use crate::buffer::{absent, module};

/// Headers to send: keys in lower case.
pub type Headers<'a> = &'a [(&'a str, &'a [u8])];

/// Whether a callout was started, and its id (meaningful after `Success`). A failure brings no later call of a hook.
pub type CalloutInit = (InitResult, u64);

/// Headers lent to Envoy for one call. Thirty-two fit without an allocation.
pub(crate) struct HeaderList(SmallVec<[envoy_dynamic_module_type_module_http_header; 32]>);

impl HeaderList {
    pub(crate) fn new(headers: Headers<'_>) -> Self {
        let lend = |(key, value): &(&str, &[u8])| envoy_dynamic_module_type_module_http_header {
            key_ptr: key.as_ptr().cast(),
            key_length: key.len(),
            value_ptr: value.as_ptr().cast(),
            value_length: value.len(),
        };
        Self(headers.iter().map(lend).collect())
    }

    pub(crate) fn first(&mut self) -> *mut envoy_dynamic_module_type_module_http_header {
        self.0.as_mut_ptr()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

/// A body lent to Envoy, or none.
pub(crate) fn body(bytes: Option<&[u8]>) -> envoy_dynamic_module_type_module_buffer {
    bytes.map_or(absent(), module)
}

/// The answer to starting a callout. A number that is not known counts as a failure.
pub(crate) fn started(raw: u32, id: u64) -> CalloutInit {
    (InitResult::from_raw(raw).unwrap_or(InitResult::CannotCreateRequest), id)
}

/// What starting a callout is answered with when there is no Envoy.
pub(crate) const ABSENT: u32 = InitResult::CannotCreateRequest as u32;

/// Starts a one-shot callout: `one_shot!(callback, pointer, cluster, headers, body, timeout)`.
macro_rules! one_shot {
    ($callback:ident, $envoy:expr, $cluster:expr, $headers:expr, $body:expr, $timeout:expr) => {{
        let mut headers = $crate::callout::HeaderList::new($headers);
        let mut id = 0;
        let raw = $crate::host::call!(
            $callback(
                $envoy,
                &raw mut id,
                $crate::buffer::module($cluster),
                headers.first(),
                headers.count(),
                $crate::callout::body($body),
                $timeout,
            ) or $crate::callout::ABSENT
        );
        $crate::callout::started(raw, id)
    }};
}
pub(crate) use one_shot;

/// Starts a streamed callout: `streamed!(callback, pointer, cluster, headers, body, end, timeout)`.
macro_rules! streamed {
    ($callback:ident, $envoy:expr, $cluster:expr, $headers:expr, $body:expr, $end:expr, $timeout:expr) => {{
        let mut headers = $crate::callout::HeaderList::new($headers);
        let mut id = 0;
        let raw = $crate::host::call!(
            $callback(
                $envoy,
                &raw mut id,
                $crate::buffer::module($cluster),
                headers.first(),
                headers.count(),
                $crate::callout::body($body),
                $end,
                $timeout,
            ) or $crate::callout::ABSENT
        );
        $crate::callout::started(raw, id)
    }};
}
pub(crate) use streamed;

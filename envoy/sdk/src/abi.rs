//! The types of Envoy's ABI, generated from `envoy/abi/abi.h`.
//!
//! Names are those of the C header; the variants of an enum lose their C prefix
//! (`envoy_dynamic_module_type_http_callout_result::Reset`). Each enum has `from_raw` to convert a number that came from
//! Envoy, which may be newer than this header and know more.

// Names and comments are the header's.
#![allow(missing_docs, non_camel_case_types, clippy::all, unused_qualifications)]

include!(concat!(env!("OUT_DIR"), "/abi_types.rs"));

/// Function types of the hooks that a module exports.
pub(crate) mod hooks {
    use super::*;
    include!(concat!(env!("OUT_DIR"), "/hooks.rs"));
}

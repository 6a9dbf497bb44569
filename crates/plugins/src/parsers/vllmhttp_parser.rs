//! `vllmhttp-parser`: reads vLLM's own generate API.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `vllmhttp-parser`. Parameters are ignored, as in the reference. The proxy reads the path that it
/// claims.
pub const TYPE: PluginType =
    PluginType::new("vllmhttp-parser", |build, params| parser(build, params, None));

//! `vllmhttp-parser`: reads vLLM's own generate API.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `vllmhttp-parser`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("vllmhttp-parser", |build, params| {
    parser(build, params, Some("requests for .../inference/v1/generate are not read yet"))
});

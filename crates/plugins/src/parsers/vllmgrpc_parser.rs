//! `vllmgrpc-parser`: reads vLLM's gRPC API.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `vllmgrpc-parser`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("vllmgrpc-parser", |build, params| {
    parser(build, params, Some("requests for vllm.grpc.engine.VllmEngine are not read yet"))
});

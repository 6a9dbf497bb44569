//! `vertexai-parser`: reads Vertex AI's prediction API over gRPC.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `vertexai-parser`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("vertexai-parser", |build, params| {
    parser(build, params, Some("requests for PredictionService are not read yet"))
});

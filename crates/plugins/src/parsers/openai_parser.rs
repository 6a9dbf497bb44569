//! `openai-parser`: reads the OpenAI API.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `openai-parser`. Parameters are ignored, as in the reference. The proxy reads all paths
/// that it claims.
pub const TYPE: PluginType =
    PluginType::new("openai-parser", |build, params| parser(build, params, None));

//! `openai-parser`: reads the OpenAI API.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `openai-parser`. Parameters are ignored, as in the reference. Of the paths that it claims the
/// proxy reads `chat/completions`, `completions`, `embeddings` and `responses`.
pub const TYPE: PluginType =
    PluginType::new("openai-parser", |build, params| parser(build, params, None));

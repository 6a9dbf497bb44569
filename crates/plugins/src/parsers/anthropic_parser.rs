//! `anthropic-parser`: reads the Anthropic messages API.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `anthropic-parser`. Parameters are ignored, as in the reference. Of the paths that it claims
/// the proxy reads `messages`; requests for `messages/count_tokens` are decided on unread.
pub const TYPE: PluginType =
    PluginType::new("anthropic-parser", |build, params| parser(build, params, None));

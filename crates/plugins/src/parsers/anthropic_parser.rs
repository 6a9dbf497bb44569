//! `anthropic-parser`: reads the Anthropic messages API.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `anthropic-parser`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("anthropic-parser", |build, params| {
    parser(build, params, Some("requests for .../messages are not read yet"))
});

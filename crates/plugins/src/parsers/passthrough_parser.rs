//! `passthrough-parser`: takes requests that no other parser reads, as they are.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `passthrough-parser`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType =
    PluginType::new("passthrough-parser", |build, params| parser(build, params, None));

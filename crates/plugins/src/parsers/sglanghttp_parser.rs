//! `sglanghttp-parser`: reads SGLang's own generate API.

use inlane_core::registry::PluginType;

use super::parser;

/// The type `sglanghttp-parser`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("sglanghttp-parser", |build, params| {
    parser(build, params, Some("requests for /generate are not read yet"))
});

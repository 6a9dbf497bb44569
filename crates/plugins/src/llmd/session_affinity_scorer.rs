//! `session-affinity-scorer`: prefers the endpoint that a request's session went to before.

use inlane_core::registry::PluginType;

use super::session;

/// The type `session-affinity-scorer`.
pub const TYPE: PluginType = PluginType::new("session-affinity-scorer", session::scorer).alpha();

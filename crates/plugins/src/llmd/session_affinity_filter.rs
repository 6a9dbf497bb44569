//! `session-affinity-filter`: keeps the endpoint that a request's session went to before.

use inlane_core::registry::PluginType;

use super::session;

/// The type `session-affinity-filter`.
pub const TYPE: PluginType = PluginType::new("session-affinity-filter", session::filter).alpha();

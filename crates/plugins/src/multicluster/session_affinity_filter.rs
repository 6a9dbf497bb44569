//! `multicluster-session-affinity-filter`: keeps the cluster that a request's session went to before.

use inlane_core::registry::PluginType;

use crate::llmd::session;

/// The type `multicluster-session-affinity-filter`.
pub const TYPE: PluginType =
    PluginType::new("multicluster-session-affinity-filter", session::filter).alpha();

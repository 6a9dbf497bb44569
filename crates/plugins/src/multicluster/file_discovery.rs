//! `multicluster-file-discovery`: the pool's members are clusters, listed in a file.
//!
//! The parameters are those of [`crate::file_discovery`]. In the file an address may be IPv4, IPv6 or
//! a DNS name, and the labels `metricsAddress` and `metricsPort` say where a cluster's metrics are.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::PluginType;

use crate::file_discovery::Parameters;

/// The type `multicluster-file-discovery`.
pub const TYPE: PluginType = PluginType::new("multicluster-file-discovery", |_, params| {
    Parameters::read(params).map(|_| Roles::default().part(Part::Discovery))
})
.alpha();

/// Label with the address of a cluster's metrics page.
pub const METRICS_ADDRESS: &str = "metricsAddress";
/// Label with the port of a cluster's metrics page; the serving port without it.
pub const METRICS_PORT: &str = "metricsPort";

#[cfg(test)]
mod tests {
    use inlane_core::plugin::Part;

    use crate::testing::World;

    #[test]
    fn path_is_required() {
        let mut world = World::new(0);
        let built = world.build("multicluster-file-discovery", "{path: /c.yaml}").unwrap();
        assert!(built.roles.plays(Part::Discovery));
        assert!(world.build("multicluster-file-discovery", "").is_err());
    }
}

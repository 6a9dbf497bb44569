//! `endpoint-notification-source`: tells extractors about endpoints that come and go.
//!
//! Every part that needs to know follows the topology here, so the source has nothing to do. It
//! is accepted because configurations name it.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{BuildError, PluginType};
use serde::Deserialize;

/// The type `endpoint-notification-source`. It has no parameters.
pub const TYPE: PluginType = PluginType::new("endpoint-notification-source", |_, params| {
    let NoParameters {} = params.decode()?;
    Ok::<_, BuildError>(Roles::default().part(Part::DataSource))
});

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

#[cfg(test)]
mod tests {
    use crate::testing::World;

    #[test]
    fn takes_no_parameters() {
        let mut world = World::new(0);
        assert!(world.build("endpoint-notification-source", "{}").is_ok());
        assert!(world.build("endpoint-notification-source", "{a: 1}").is_err());
    }
}

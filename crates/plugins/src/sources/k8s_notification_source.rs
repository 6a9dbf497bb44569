//! `k8s-notification-source`: tells extractors about Kubernetes objects of a kind.
//!
//! Every part that needs to know watches the objects itself, so the source has nothing to do. It is
//! accepted because configurations name it.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

/// The type `k8s-notification-source`.
pub const TYPE: PluginType = PluginType::new("k8s-notification-source", build);

/// The kind that is watched.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Parameters {
    /// API group; empty = the core one.
    #[serde(rename = "group")]
    _group: String,
    version: String,
    kind: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    for (field, value) in [("version", &parameters.version), ("kind", &parameters.kind)] {
        if value.is_empty() {
            return Err(BuildError::field(field, "must be given"));
        }
    }
    build.warn("nothing listens to it here: what needs objects of Kubernetes watches them itself");
    Ok(Roles::default().part(Part::DataSource))
}

#[cfg(test)]
mod tests {
    use inlane_core::plugin::Part;

    use crate::testing::World;

    #[test]
    fn the_kind_is_required() {
        let mut world = World::new(0);
        let built = world
            .build("k8s-notification-source", "{group: apps, version: v1, kind: Pod}")
            .unwrap();
        assert!(built.roles.plays(Part::DataSource) && built.warnings.len() == 1);
        for (parameters, field) in [
            ("{kind: Pod}", "version"),
            ("{version: v1}", "kind"),
            ("{version: v1, kind: Pod, name: x}", "name"),
        ] {
            let error = world.build("k8s-notification-source", parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
        assert!(world.build("k8s-notification-source", "").is_err());
    }
}

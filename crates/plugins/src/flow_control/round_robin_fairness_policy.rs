//! `round-robin-fairness-policy`: flows take turns.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::PluginType;

use crate::ignored::ignore;

/// The type `round-robin-fairness-policy`. It goes through the
/// flows by key, from the one after the last that was served, and takes the first that is not empty.
pub const TYPE: PluginType = PluginType::new("round-robin-fairness-policy", |build, params| {
    ignore(build, params);
    Ok(Roles::default().part(Part::FairnessPolicy))
});

#[cfg(test)]
mod tests {
    use inlane_core::plugin::Part;

    use crate::testing::World;

    #[test]
    fn parameters_are_ignored_with_a_warning() {
        let mut world = World::new(0);
        let built = world.build("round-robin-fairness-policy", "").unwrap();
        assert!(built.roles.plays(Part::FairnessPolicy) && built.warnings.is_empty());
        assert_eq!(world.build("round-robin-fairness-policy", "{x: 1}").unwrap().warnings.len(), 1);
    }
}

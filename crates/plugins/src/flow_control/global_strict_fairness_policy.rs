//! `global-strict-fairness-policy`: the best request of all flows goes first, whoever sent it.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::PluginType;

use crate::ignored::ignore;

/// The type `global-strict-fairness-policy`. It looks at
/// the head of every flow and takes the best one by the ordering policy: no fairness.
pub const TYPE: PluginType = PluginType::new("global-strict-fairness-policy", |build, params| {
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
        let built = world.build("global-strict-fairness-policy", "").unwrap();
        assert!(built.roles.plays(Part::FairnessPolicy) && built.warnings.is_empty());
        assert_eq!(
            world.build("global-strict-fairness-policy", "{x: 1}").unwrap().warnings.len(),
            1
        );
    }
}

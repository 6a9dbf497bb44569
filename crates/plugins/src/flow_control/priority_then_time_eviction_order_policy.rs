//! `priority-then-time-eviction-order-policy`: whom eviction takes first.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::PluginType;

use crate::ignored::ignore;

/// The type `priority-then-time-eviction-order-policy`. The
/// lowest priority goes first, of several the one that was dispatched last. `enableEviction` uses it by
/// itself.
pub const TYPE: PluginType =
    PluginType::new("priority-then-time-eviction-order-policy", |build, params| {
        ignore(build, params);
        Ok(Roles::default().part(Part::EvictionPolicy))
    })
    .alpha();

#[cfg(test)]
mod tests {
    use inlane_core::plugin::Part;

    use crate::testing::World;

    #[test]
    fn parameters_are_ignored_with_a_warning() {
        let mut world = World::new(0);
        let built = world.build("priority-then-time-eviction-order-policy", "").unwrap();
        assert!(built.roles.plays(Part::EvictionPolicy) && built.warnings.is_empty());
        assert_eq!(
            world
                .build("priority-then-time-eviction-order-policy", "{x: 1}")
                .unwrap()
                .warnings
                .len(),
            1
        );
    }
}

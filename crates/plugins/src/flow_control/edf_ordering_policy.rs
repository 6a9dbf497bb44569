//! `edf-ordering-policy`: the request whose time in the queue ends first leaves it first.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::PluginType;

use crate::ignored::ignore;

/// The type `edf-ordering-policy`. It orders by `enqueue
/// time + time to live`; requests that never expire come last; ties go to the earlier one.
pub const TYPE: PluginType = PluginType::new("edf-ordering-policy", |build, params| {
    ignore(build, params);
    Ok(Roles::default().part(Part::OrderingPolicy))
});

#[cfg(test)]
mod tests {
    use inlane_core::plugin::Part;

    use crate::testing::World;

    #[test]
    fn parameters_are_ignored_with_a_warning() {
        let mut world = World::new(0);
        let built = world.build("edf-ordering-policy", "").unwrap();
        assert!(built.roles.plays(Part::OrderingPolicy) && built.warnings.is_empty());
        assert_eq!(world.build("edf-ordering-policy", "{x: 1}").unwrap().warnings.len(), 1);
    }
}

//! `fcfs-ordering-policy`: the request that came first leaves its queue first.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::PluginType;

use crate::ignored::ignore;

/// The type `fcfs-ordering-policy`. It orders by the time of
/// enqueueing.
pub const TYPE: PluginType = PluginType::new("fcfs-ordering-policy", |build, params| {
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
        let built = world.build("fcfs-ordering-policy", "").unwrap();
        assert!(built.roles.plays(Part::OrderingPolicy) && built.warnings.is_empty());
        assert_eq!(world.build("fcfs-ordering-policy", "{x: 1}").unwrap().warnings.len(), 1);
    }
}

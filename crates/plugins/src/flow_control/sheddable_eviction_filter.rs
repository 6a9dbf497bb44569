//! `sheddable-eviction-filter`: only requests of negative priority may be evicted.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::PluginType;

use crate::ignored::ignore;

/// The type `sheddable-eviction-filter`. `enableEviction`
/// uses it by itself.
pub const TYPE: PluginType = PluginType::new("sheddable-eviction-filter", |build, params| {
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
        let built = world.build("sheddable-eviction-filter", "").unwrap();
        assert!(built.roles.plays(Part::EvictionPolicy) && built.warnings.is_empty());
        assert_eq!(world.build("sheddable-eviction-filter", "{x: 1}").unwrap().warnings.len(), 1);
    }
}

//! `slo-deadline-ordering-policy`: the request whose first token is due first leaves its queue first.

use inlane_core::plugin::{Part, Roles};
use inlane_core::registry::PluginType;

use crate::ignored::ignore;

/// The type `slo-deadline-ordering-policy`. It orders by
/// `time of receipt + x-llm-d-slo-ttft-ms`; requests without a valid target come last; ties go to the
/// earlier one.
pub const TYPE: PluginType = PluginType::new("slo-deadline-ordering-policy", |build, params| {
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
        let built = world.build("slo-deadline-ordering-policy", "").unwrap();
        assert!(built.roles.plays(Part::OrderingPolicy) && built.warnings.is_empty());
        assert_eq!(
            world.build("slo-deadline-ordering-policy", "{x: 1}").unwrap().warnings.len(),
            1
        );
    }
}

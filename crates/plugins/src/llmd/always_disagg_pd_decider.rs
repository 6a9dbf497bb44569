//! `always-disagg-pd-decider`: every prompt is computed on a pod of its own.

use std::sync::Arc;

use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Cycle, Decider, Roles};
use inlane_core::registry::PluginType;

/// The type `always-disagg-pd-decider`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("always-disagg-pd-decider", |_, _| {
    Ok(Roles::default().decider(Arc::new(Always)))
});

/// Yes (llm-d-router `always-disagg-pd-decider`).
#[derive(Debug)]
struct Always;

impl Decider for Always {
    fn decide(&self, _cx: &Cycle<'_>, _decode: Option<EndpointIx>) -> Result<bool, PluginError> {
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::request::Request;

    use crate::testing::World;

    #[test]
    fn says_yes_to_everything() {
        let mut world = World::new(1);
        let built = world.build("always-disagg-pd-decider", "{whatever: 1}").unwrap();
        let decider = built.roles.decider.as_ref().unwrap();
        let request = Request::default();
        assert_eq!(decider.decide(&world.cycle(&request), Some(0)), Ok(true));
        assert_eq!(decider.decide(&world.cycle(&request), None), Ok(true));
    }
}

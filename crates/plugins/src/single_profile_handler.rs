//! `single-profile-handler`: runs the one profile there is.

use std::sync::Arc;

use inlane_core::decision::{Decision, ProfileIx, ScheduleError};
use inlane_core::plugin::{Cycle, ProfileHandler, Roles};
use inlane_core::registry::{PluginType, Stability};

/// The type `single-profile-handler`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType {
    name: "single-profile-handler",
    deprecated_names: &[],
    stability: Stability::Beta,
    default_producer_of: &[],
    build: |_, _| Ok(Roles::default().handler(Arc::new(SingleProfileHandler))),
};

/// The one configured profile; its result is the primary one (llm-d-router
/// `single-profile-handler`).
#[derive(Debug)]
struct SingleProfileHandler;

impl ProfileHandler for SingleProfileHandler {
    fn validate(&self, profiles: &[String]) -> Result<(), String> {
        if profiles.len() > 1 {
            return Err("SingleProfileHandler cannot support multiple scheduling profiles".into());
        }
        Ok(())
    }

    fn next(
        &self,
        _cx: &Cycle<'_>,
        decision: &Decision,
        run: &mut Vec<ProfileIx>,
    ) -> Result<(), ScheduleError> {
        run.extend((0..).zip(&decision.profiles).filter(|(_, p)| !p.ran).map(|(ix, _)| ix));
        Ok(())
    }

    fn primary(&self, _cx: &Cycle<'_>, decision: &Decision) -> Result<ProfileIx, ScheduleError> {
        match decision.profiles.as_slice() {
            [only] if only.ran && !only.targets.is_empty() => Ok(0),
            [only] => Err(ScheduleError::Handler(format!(
                "single profile handler: profile {} has no target",
                only.name
            ))),
            several => Err(ScheduleError::Handler(format!(
                "single profile handler is intended to be used with a single profile, found {}",
                several.len()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::decision::{Decision, ProfileRun};
    use inlane_core::request::Request;

    use crate::testing::World;

    #[test]
    fn the_profile_runs_once_and_is_primary() {
        let mut world = World::new(1);
        let built = world.build("single-profile-handler", "{whatever: 1}").unwrap();
        let handler = built.roles.handler.as_ref().unwrap();
        let request = Request::default();
        let cx = world.cycle(&request);
        let mut decision = Decision { primary: 0, profiles: vec![ProfileRun::default()] };

        let mut run = Vec::new();
        handler.next(&cx, &decision, &mut run).unwrap();
        assert_eq!(run, [0]);
        decision.profiles[0].ran = true;
        run.clear();
        handler.next(&cx, &decision, &mut run).unwrap();
        assert!(run.is_empty());

        assert!(handler.primary(&cx, &decision).is_err());
        decision.profiles[0].targets.push(0);
        assert_eq!(handler.primary(&cx, &decision), Ok(0));
    }

    #[test]
    fn more_profiles_are_refused() {
        let mut world = World::new(0);
        let built = world.build("single-profile-handler", "").unwrap();
        let handler = built.roles.handler.as_ref().unwrap();
        assert_eq!(handler.validate(&["a".into()]), Ok(()));
        assert!(handler.validate(&["a".into(), "b".into()]).unwrap_err().contains("multiple"));
    }
}

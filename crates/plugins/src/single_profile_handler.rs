//! `single-profile-handler`: runs the one profile there is.

use std::sync::Arc;

use inlane_core::decision::{Decision, ScheduleError};
use inlane_core::plugin::{Cycle, Primary, ProfileHandler, Roles, Round};
use inlane_core::registry::PluginType;

/// The type `single-profile-handler`. Parameters are ignored, as in the reference.
pub const TYPE: PluginType = PluginType::new("single-profile-handler", |_, _| {
    Ok(Roles::default().handler(Arc::new(SingleProfileHandler)))
});

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
        round: &mut Round,
    ) -> Result<(), ScheduleError> {
        round.run.extend((0..).zip(&decision.profiles).filter(|(_, p)| !p.ran).map(|(ix, _)| ix));
        Ok(())
    }

    fn primary(&self, _cx: &Cycle<'_>, decision: &Decision) -> Result<Primary, ScheduleError> {
        match decision.profiles.as_slice() {
            [only] if only.ran && !only.targets.is_empty() => Ok(Primary::from(0)),
            [only] => Err(ScheduleError::Handler(format!(
                "failed to run scheduler profile '{}'",
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
    use inlane_core::plugin::{Primary, Round};
    use inlane_core::request::Request;

    use crate::testing::World;

    #[test]
    fn the_profile_runs_once_and_is_primary() {
        let mut world = World::new(1);
        let built = world.build("single-profile-handler", "{whatever: 1}").unwrap();
        let handler = built.roles.handler.as_ref().unwrap();
        let request = Request::default();
        let cx = world.cycle(&request);
        let mut decision =
            Decision { profiles: vec![ProfileRun::default()], ..Decision::default() };

        let mut round = Round::default();
        handler.next(&cx, &decision, &mut round).unwrap();
        assert_eq!(round.run, [0]);
        decision.profiles[0].ran = true;
        round.run.clear();
        handler.next(&cx, &decision, &mut round).unwrap();
        assert!(round.run.is_empty());

        assert!(handler.primary(&cx, &decision).is_err());
        decision.profiles[0].targets.push(0);
        assert_eq!(handler.primary(&cx, &decision), Ok(Primary::from(0)));
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

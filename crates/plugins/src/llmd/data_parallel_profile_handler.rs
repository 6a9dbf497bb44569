//! `data-parallel-profile-handler`: picks a rank, sends the request to the pod's primary port.

use std::sync::Arc;

use inlane_core::decision::{Decision, ScheduleError};
use inlane_core::effect::Effects;
use inlane_core::plugin::{Cycle, PostChoice, Primary, ProfileHandler, Roles, Round};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use super::disagg::destination_headers;

/// The type `data-parallel-profile-handler`.
pub const TYPE: PluginType = PluginType::new("data-parallel-profile-handler", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Port that requests go to; 0 = the rank's own.
    primary_port: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self { primary_port: 8_000 }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { primary_port } = params.decode()?;
    let port = port("primaryPort", primary_port)?;
    build.warn("deprecated: endpoints with several ports are picked by port without it");
    if port.is_none() {
        build.warn("primaryPort is 0: requests go to the port of the rank");
    }
    let plugin = Arc::new(DataParallelProfileHandler { port });
    Ok(Roles::default().handler(plugin.clone()).post_choice(plugin))
}

/// A port number; 0 is none.
pub(super) fn port(field: &str, value: i64) -> Result<Option<u16>, BuildError> {
    let port = u16::try_from(value)
        .map_err(|_| BuildError::field(field, format!("must be 0 to 65535, found {value}")));
    Ok(Some(port?).filter(|&port| port > 0))
}

/// Runs the one profile; its targets keep their addresses and get the primary port, the header
/// `x-data-parallel-host-port` names the rank that was picked (llm-d-router
/// `data-parallel-profile-handler`).
#[derive(Debug)]
struct DataParallelProfileHandler {
    port: Option<u16>,
}

impl ProfileHandler for DataParallelProfileHandler {
    fn next(
        &self,
        _cx: &Cycle<'_>,
        decision: &Decision,
        round: &mut Round,
    ) -> Result<(), ScheduleError> {
        if let [only] = decision.profiles.as_slice()
            && !only.ran
        {
            round.run.push(0);
        }
        Ok(())
    }

    fn primary(&self, _cx: &Cycle<'_>, decision: &Decision) -> Result<Primary, ScheduleError> {
        match decision.profiles.as_slice() {
            [only] if !only.targets.is_empty() => Ok(Primary { profile: 0, port: self.port }),
            _ => Err(ScheduleError::Handler(
                "data parallel profile handler: the profile has no target".into(),
            )),
        }
    }
}

impl PostChoice for DataParallelProfileHandler {
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        destination_headers(cx, decision, effects);
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::effect::Effect;
    use inlane_core::plugin::Primary;
    use inlane_core::request::Request;

    use crate::testing::{World, rounds};

    const NAME: &str = "data-parallel-profile-handler";

    #[test]
    fn the_port_is_replaced_and_the_rank_is_named() {
        let mut world = World::new(2);
        for (parameters, port) in
            [("", Some(8_000)), ("{primaryPort: 9000}", Some(9_000)), ("{primaryPort: 0}", None)]
        {
            let built = world.build(NAME, parameters).unwrap();
            let request = Request::default();
            let cx = world.cycle(&request);
            let mut decision = World::decision(&["default"]);
            assert_eq!(rounds(&built, &cx, &mut decision, |_| vec![1, 0]), [[0]]);
            let handler = built.roles.handler.as_ref().unwrap();
            assert_eq!(handler.primary(&cx, &decision), Ok(Primary { profile: 0, port }));
            let effects = world.choose(&built, &request, &[("default", 1)]);
            let [Effect::RequestHeader { name, value }] = &effects[..] else {
                panic!("{effects:?}")
            };
            assert_eq!(name, "x-data-parallel-host-port");
            assert_eq!(value.as_deref(), Some("10.0.0.1:8000"));
        }
    }

    #[test]
    fn several_profiles_run_nothing() {
        let mut world = World::new(1);
        let built = world.build(NAME, "").unwrap();
        let request = Request::default();
        let cx = world.cycle(&request);
        let mut decision = World::decision(&["a", "b"]);
        assert!(rounds(&built, &cx, &mut decision, |_| vec![0]).is_empty());
        assert!(built.roles.handler.as_ref().unwrap().primary(&cx, &decision).is_err());
    }

    #[test]
    fn ports_are_checked() {
        let mut world = World::new(0);
        for value in ["-1", "65536", "eight"] {
            let error = world.build(NAME, &format!("{{primaryPort: {value}}}")).err().unwrap();
            assert_eq!(error.field.as_deref(), Some("primaryPort"), "{value}");
        }
        assert!(world.build(NAME, "{primaryPort: 65535}").is_ok());
    }
}

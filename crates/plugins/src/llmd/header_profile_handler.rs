//! `header-profile-handler`: a request header names the profile.

use std::sync::Arc;

use inlane_core::decision::{Decision, ProfileIx, ScheduleError};
use inlane_core::plugin::{Cycle, Primary, ProfileHandler, Roles, Round};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use super::disagg::{DECODE_PROFILE, or_default};

/// The type `header-profile-handler`.
pub const TYPE: PluginType = PluginType::new("header-profile-handler", build).alpha();

/// Header that names the profile.
const HEADER: &str = "epp-profile";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Header that names the profile; empty = `epp-profile`.
    header_name: String,
    /// Profile of requests without the header; empty = `decode`.
    default_profile: String,
}

fn build(_build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { header_name, default_profile } = params.decode()?;
    Ok(Roles::default().handler(Arc::new(HeaderProfileHandler {
        header: or_default(header_name.trim().to_lowercase(), HEADER),
        default: or_default(default_profile.trim().to_owned(), DECODE_PROFILE),
    })))
}

/// Runs the profile that the trimmed header value names, the default one when it is blank; a
/// single profile runs whatever the header says (llm-d-router `header-profile-handler`).
#[derive(Debug)]
struct HeaderProfileHandler {
    header: String,
    default: String,
}

impl ProfileHandler for HeaderProfileHandler {
    fn next(
        &self,
        cx: &Cycle<'_>,
        decision: &Decision,
        round: &mut Round,
    ) -> Result<(), ScheduleError> {
        if decision.profiles.iter().any(|run| run.ran) {
            return Ok(());
        }
        if let [_] = decision.profiles.as_slice() {
            round.run.push(0);
            return Ok(());
        }
        let named = cx.request.headers.get(&self.header).map(str::trim).unwrap_or_default();
        let name = if named.is_empty() { &self.default } else { named };
        let profiles = (0..).zip(&decision.profiles);
        round.run.extend(profiles.filter(|(_, run)| run.name == name).map(|(ix, _)| ix));
        Ok(())
    }

    fn primary(&self, _cx: &Cycle<'_>, decision: &Decision) -> Result<Primary, ScheduleError> {
        let ran = decision.profiles.iter().position(|run| run.ran && !run.targets.is_empty());
        let ran = ran.and_then(|at| ProfileIx::try_from(at).ok()).map(Primary::from);
        ran.ok_or_else(|| ScheduleError::Handler("the requested profile has no target".into()))
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::decision::ProfileIx;
    use inlane_core::plugin::Primary;
    use inlane_core::request::Request;

    use crate::testing::{Built, World, rounds};

    /// The profiles that run, of `decode` and `kv`.
    fn run(built: &Built, world: &World, headers: &[(&str, &str)]) -> Vec<ProfileIx> {
        let headers = headers.to_vec();
        let request = Request { headers: &headers, ..Request::default() };
        let mut decision = World::decision(&["decode", "kv"]);
        rounds(built, &world.cycle(&request), &mut decision, |_| vec![0]).concat()
    }

    #[test]
    fn the_header_names_the_profile() {
        let mut world = World::new(1);
        let built = world.build("header-profile-handler", "").unwrap();
        assert_eq!(run(&built, &world, &[("epp-profile", " kv ")]), [1]);
        assert_eq!(run(&built, &world, &[("epp-profile", "decode")]), [0]);
        assert_eq!(run(&built, &world, &[]), [0]);
        assert_eq!(run(&built, &world, &[("epp-profile", "  ")]), [0]);
        assert!(run(&built, &world, &[("epp-profile", "KV")]).is_empty());
    }

    #[test]
    fn names_are_configurable() {
        let mut world = World::new(1);
        let parameters = "{headerName: ' X-Stage ', defaultProfile: ' kv '}";
        let built = world.build("header-profile-handler", parameters).unwrap();
        assert_eq!(run(&built, &world, &[("x-stage", "decode"), ("epp-profile", "kv")]), [0]);
        assert_eq!(run(&built, &world, &[]), [1]);
        let blank = world.build("header-profile-handler", "{headerName: ' '}").unwrap();
        assert_eq!(run(&blank, &world, &[("epp-profile", "kv")]), [1]);
        assert!(world.build("header-profile-handler", "{header: x}").is_err());
    }

    #[test]
    fn a_single_profile_ignores_the_header() {
        let mut world = World::new(1);
        let built = world.build("header-profile-handler", "").unwrap();
        let request = Request { headers: &[("epp-profile", "nope")], ..Request::default() };
        let mut decision = World::decision(&["only"]);
        let cx = world.cycle(&request);
        assert_eq!(rounds(&built, &cx, &mut decision, |_| vec![0]), [[0]]);
        let handler = built.roles.handler.as_ref().unwrap();
        assert_eq!(handler.primary(&cx, &decision), Ok(Primary::from(0)));
        decision.profiles[0].targets.clear();
        assert!(handler.primary(&cx, &decision).is_err());
    }
}

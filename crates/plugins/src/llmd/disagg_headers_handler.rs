//! `disagg-headers-handler`: tells the orchestrator where prefill and encode run.

use std::sync::Arc;

use inlane_core::decision::Decision;
use inlane_core::effect::Effects;
use inlane_core::plugin::{Cycle, PostChoice, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use super::disagg::{ENCODE_PROFILE, or_default, stage_headers};
use crate::PREFILL_PROFILE;

/// The type `disagg-headers-handler`.
pub const TYPE: PluginType =
    PluginType::new("disagg-headers-handler", build).deprecated_names(&["prefill-header-handler"]);

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Name of the prefill profile; empty = `prefill`.
    prefill_profile: String,
    /// Name of the encode profile; empty = `encode`.
    encode_profile: String,
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let Parameters { prefill_profile, encode_profile } = params.decode()?;
    build.warn("deprecated: disagg-profile-handler sets these headers itself");
    Ok(Roles::default().post_choice(Arc::new(DisaggHeadersHandler {
        prefill: or_default(prefill_profile, PREFILL_PROFILE),
        encode: or_default(encode_profile, ENCODE_PROFILE),
    })))
}

/// The headers that `disagg-profile-handler` sets, for handlers that do not (llm-d-router
/// `disagg-headers-handler`).
#[derive(Debug)]
struct DisaggHeadersHandler {
    prefill: String,
    encode: String,
}

impl PostChoice for DisaggHeadersHandler {
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        stage_headers(cx, decision, &self.prefill, &self.encode, effects);
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::effect::Effect;
    use inlane_core::request::Request;

    use crate::testing::World;

    fn header(name: &'static str, value: Option<&str>) -> Effect {
        Effect::RequestHeader { name: name.into(), value: value.map(str::to_owned) }
    }

    #[test]
    fn headers_follow_the_results() {
        let mut world = World::new(2);
        let built = world.build("prefill-header-handler", "").unwrap();
        let request = Request::default();
        let effects = world.choose(&built, &request, &[("decode", 0), ("prefill", 1)]);
        let prefill = header("x-prefiller-host-port", Some("10.0.0.1:8000"));
        assert_eq!(effects, [prefill, header("x-encoder-hosts-ports", None)]);
        let effects = world.choose(&built, &request, &[("decode", 0), ("encode", 1)]);
        let encode = header("x-encoder-hosts-ports", Some("10.0.0.1:8000"));
        assert_eq!(effects, [header("x-prefiller-host-port", None), encode]);
    }

    #[test]
    fn profiles_can_be_named() {
        let mut world = World::new(2);
        let parameters = "{prefillProfile: p, encodeProfile: e}";
        let built = world.build("disagg-headers-handler", parameters).unwrap();
        let effects =
            world.choose(&built, &Request::default(), &[("decode", 0), ("prefill", 1), ("e", 1)]);
        assert_eq!(effects[0], header("x-prefiller-host-port", None));
        assert_eq!(effects[1], header("x-encoder-hosts-ports", Some("10.0.0.1:8000")));
        assert!(world.build("disagg-headers-handler", "{decodeProfile: d}").is_err());
    }
}

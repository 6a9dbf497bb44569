//! `pd-profile-handler`: the older handler of disaggregated serving, decode then prefill.

use std::sync::Arc;

use inlane_core::columns::PrefixMatch;
use inlane_core::decision::{Decision, ScheduleError};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::exposition::Exposition;
use inlane_core::plugin::{
    Collector, Cycle, Decider, PostChoice, Primary, ProfileHandler, Roles, Round,
};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use serde::Deserialize;

use super::data_parallel_profile_handler::port;
use super::disagg::{DECODE_PROFILE, Decisions, Kind, Stages, destination_headers, or_default};
use super::prefix_based_pd_decider;
use crate::{PREFILL_PROFILE, approx_prefix_cache_producer, token_producer};

/// The type `pd-profile-handler`.
pub const TYPE: PluginType = PluginType::new("pd-profile-handler", build).references(|params| {
    params.decode().map(|p: Parameters| vec![p.decider()]).unwrap_or_default()
});

/// Unknown names are accepted, as in the reference.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Parameters {
    /// Name of the decode profile; empty = `decode`.
    decode_profile: String,
    /// Name of the prefill profile; empty = `prefill`.
    prefill_profile: String,
    /// Instance that decides on prefill; empty = `prefix-based-pd-decider`.
    decider_plugin_name: String,
    /// Port that requests go to; 0 = the target's own.
    primary_port: i64,
    /// Instance that publishes matches, only to have it made.
    prefix_match_info_producer_name: String,
}

impl Parameters {
    fn decider(&self) -> String {
        or_default(self.decider_plugin_name.clone(), prefix_based_pd_decider::TYPE.name)
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    build.warn("deprecated, use disagg-profile-handler");
    let name = parameters.decider();
    let roles = build.refer("deciderPluginName", &name)?;
    let decider = roles.decider.clone().ok_or_else(|| {
        BuildError::field("deciderPluginName", format!("the plugin '{name}' is not a decider"))
    })?;
    let primary_port = port("primaryPort", parameters.primary_port)?;
    let producer = &parameters.prefix_match_info_producer_name;
    build.require::<PrefixMatch>(producer, approx_prefix_cache_producer::TYPE.name);
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    let plugin = Arc::new(PdProfileHandler {
        stages: Stages::new(or_default(parameters.decode_profile, DECODE_PROFILE)),
        prefill: or_default(parameters.prefill_profile, PREFILL_PROFILE),
        decider,
        port: primary_port,
        instance: build.instance(),
        name: build.name().to_owned(),
        type_name: build.type_name(),
        decisions: build.kept_state("decisions", Decisions::default),
    });
    Ok(Roles::default().handler(plugin.clone()).post_choice(plugin.clone()).collector(plugin))
}

/// Decode, then prefill iff the decider says yes (llm-d-router `pd-profile-handler`). Every profile
/// runs once at most.
struct PdProfileHandler {
    stages: Stages,
    prefill: String,
    decider: Arc<dyn Decider>,
    port: Option<u16>,
    instance: PluginIx,
    name: String,
    type_name: &'static str,
    decisions: Arc<Decisions>,
}

impl ProfileHandler for PdProfileHandler {
    fn next(
        &self,
        cx: &Cycle<'_>,
        decision: &Decision,
        round: &mut Round,
    ) -> Result<(), ScheduleError> {
        if let Ok(target) = self.stages.decoded(decision, round) {
            Stages::run_or_skip(decision, &self.prefill, round, || {
                self.stages.ask(Some(&self.decider), cx, Some(target))
            });
        }
        Ok(())
    }

    fn primary(&self, _cx: &Cycle<'_>, decision: &Decision) -> Result<Primary, ScheduleError> {
        let primary = self.stages.primary(decision)?;
        Ok(Primary { port: self.port, ..primary })
    }
}

impl PostChoice for PdProfileHandler {
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        if self.port.is_some() {
            destination_headers(cx, decision, effects);
        }
        let prefill = decision.profile(&self.prefill).is_some_and(|run| !run.targets.is_empty());
        Decisions::ask(decision, self.instance, Kind::of(false, prefill), effects);
    }

    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        self.decisions.apply(cx, effect, self.instance);
    }
}

impl Collector for PdProfileHandler {
    fn collect(&self, page: &mut Exposition) {
        let instance = (self.name.as_str(), self.type_name);
        self.decisions.collect(page, "pd_decision_total", instance);
        self.stages.collect(page, instance);
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::decision::Decision;
    use inlane_core::effect::Effect;
    use inlane_core::exposition::Exposition;
    use inlane_core::plugin::Primary;
    use inlane_core::request::Request;

    use crate::testing::{Built, World, rounds};

    const NAME: &str = "pd-profile-handler";
    const ALWAYS: &str = "deciderPluginName: always-disagg-pd-decider";

    fn handler(world: &mut World, parameters: &str) -> Built {
        world.build("always-disagg-pd-decider", "").unwrap();
        world.build("prefix-based-pd-decider", "").unwrap();
        world.build(NAME, parameters).unwrap()
    }

    fn run(world: &World, built: &Built, profiles: &[&str]) -> (Vec<Vec<u16>>, Decision) {
        let request = Request::default();
        let mut decision = World::decision(profiles);
        let ran = rounds(built, &world.cycle(&request), &mut decision, |ix| vec![ix.into()]);
        (ran, decision)
    }

    #[test]
    fn prefill_runs_when_the_decider_says_yes() {
        let mut world = World::new(3);
        let built = handler(&mut world, &format!("{{{ALWAYS}, whatever: 1}}"));
        let (ran, decision) = run(&world, &built, &["prefill", "decode"]);
        assert_eq!(ran, [[1], [0]]);
        let request = Request::default();
        let primary = built.roles.handler.as_ref().unwrap();
        assert_eq!(primary.primary(&world.cycle(&request), &decision), Ok(Primary::from(1)));

        let built = handler(&mut world, "");
        assert_eq!(run(&world, &built, &["prefill", "decode"]).0, [[1]]);
    }

    #[test]
    fn a_third_profile_does_not_make_it_run_for_ever() {
        let mut world = World::new(3);
        let built = handler(&mut world, &format!("{{{ALWAYS}}}"));
        let (ran, _) = run(&world, &built, &["decode", "prefill", "other"]);
        assert_eq!(ran, [[0], [1]]);
    }

    #[test]
    fn the_primary_port_names_the_rank() {
        let mut world = World::new(3);
        let built = handler(&mut world, &format!("{{{ALWAYS}, primaryPort: 9000}}"));
        let (_, decision) = run(&world, &built, &["decode", "prefill"]);
        let request = Request::default();
        let cx = world.cycle(&request);
        let primary = built.roles.handler.as_ref().unwrap().primary(&cx, &decision);
        assert_eq!(primary, Ok(Primary { profile: 0, port: Some(9_000) }));
        let effects = world.choose(&built, &request, &[("decode", 0)]);
        assert!(matches!(&effects[0], Effect::RequestHeader { name, .. }
            if name == "x-data-parallel-host-port"));
    }

    #[test]
    fn decisions_are_counted_under_their_own_name() {
        let mut world = World::new(2);
        let built = handler(&mut world, &format!("{{{ALWAYS}}}"));
        let request = Request { target_model: "m", ..Request::default() };
        let effects = world.choose(&built, &request, &[("decode", 0), ("prefill", 1)]);
        world.apply(&built, &request, &effects);
        let mut page = Exposition::default();
        built.roles.collector.as_ref().unwrap().collect(&mut page);
        let page = page.render();
        assert!(page.contains(
            "llm_d_epp_pd_decision_total{plugin_name=\"pd-profile-handler\",\
             plugin_type=\"pd-profile-handler\",model_name=\"m\",decision_type=\"prefill-decode\"} 1"
        ), "{page}");
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        world.build("max-score-picker", "").unwrap();
        for (parameters, field) in [
            ("", "deciderPluginName"),
            ("{deciderPluginName: max-score-picker}", "deciderPluginName"),
        ] {
            let error = world.build(NAME, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
        world.build("always-disagg-pd-decider", "").unwrap();
        let error = world.build(NAME, &format!("{{{ALWAYS}, primaryPort: 70000}}")).err().unwrap();
        assert_eq!(error.field.as_deref(), Some("primaryPort"));
    }
}

//! `disagg-profile-handler`: decode, prefill and encode on pods of their own.

use std::sync::Arc;

use inlane_core::columns::PrefixMatch;
use inlane_core::decision::{Decision, ScheduleError};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::exposition::Exposition;
use inlane_core::plugin::{
    Collector, Cycle, Decider, PostChoice, Primary, ProfileHandler, Roles, Round,
};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};

use super::disagg::{Decisions, Kind, Parameters, Stages, stage_headers};
use crate::{approx_prefix_cache_producer, token_producer};

/// The type `disagg-profile-handler`.
pub const TYPE: PluginType = PluginType::new("disagg-profile-handler", build)
    .references(|params| Parameters::decode(params).map(|p| p.deciders()).unwrap_or_default());

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters = Parameters::decode(params)?;
    for field in &parameters.deprecated {
        build.warn(format!("{field} is deprecated, use stageOrder, profiles and deciders"));
    }
    let prefill_decider = decider(build, "deciders.prefill", &parameters.prefill_decider)?;
    let encode_decider = decider(build, "deciders.encode", &parameters.encode_decider)?;
    // Needed with or without deciders in the reference, so that both producers exist.
    build.require::<PrefixMatch>("", approx_prefix_cache_producer::TYPE.name);
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    let plugin = Arc::new(DisaggProfileHandler {
        prefill_first: parameters.prefill_first,
        stages: Stages::new(parameters.decode),
        prefill: parameters.prefill,
        encode: parameters.encode,
        prefill_decider,
        encode_decider,
        instance: build.instance(),
        name: build.name().to_owned(),
        type_name: build.type_name(),
        decisions: build.kept_state("decisions", Decisions::default),
    });
    Ok(Roles::default().handler(plugin.clone()).post_choice(plugin.clone()).collector(plugin))
}

fn decider(
    build: &Build<'_>,
    field: &str,
    name: &str,
) -> Result<Option<Arc<dyn Decider>>, BuildError> {
    if name.is_empty() {
        return Ok(None);
    }
    let missing = |_| BuildError::field(field, format!("{field} plugin not found: {name}"));
    let roles = build.refer(field, name).map_err(missing)?;
    let decider = roles.decider.clone();
    let text = || format!("{field} plugin does not implement a decider: {name}");
    decider.map(Some).ok_or_else(|| BuildError::field(field, text()))
}

/// Runs the stages one after another (llm-d-router `disagg-profile-handler`).
///
/// ```text
/// decode-first:  decode; encode iff its decider says yes; prefill iff its decider says yes
/// prefill-first: prefill; encode iff its decider says yes; decode
/// ```
///
/// A stage without a profile is left out, one without a decider does not run. Decode is the primary
/// result; prefill and encode may fail, and decode then does their part.
struct DisaggProfileHandler {
    prefill_first: bool,
    stages: Stages,
    prefill: String,
    encode: String,
    prefill_decider: Option<Arc<dyn Decider>>,
    encode_decider: Option<Arc<dyn Decider>>,
    instance: PluginIx,
    name: String,
    type_name: &'static str,
    decisions: Arc<Decisions>,
}

impl ProfileHandler for DisaggProfileHandler {
    fn next(
        &self,
        cx: &Cycle<'_>,
        decision: &Decision,
        round: &mut Round,
    ) -> Result<(), ScheduleError> {
        if self.prefill_first {
            let wanted = || self.stages.ask(self.encode_decider.as_ref(), cx, None);
            if !Stages::run_or_skip(decision, &self.prefill, round, || true)
                && !Stages::run_or_skip(decision, &self.encode, round, wanted)
            {
                self.stages.decode_last(decision, &self.prefill, round);
            }
            return Ok(());
        }
        let Ok(target) = self.stages.decoded(decision, round) else { return Ok(()) };
        let ask = |decider| self.stages.ask(decider, cx, Some(target));
        let encode = || ask(self.encode_decider.as_ref());
        let prefill = || ask(self.prefill_decider.as_ref());
        if !Stages::run_or_skip(decision, &self.encode, round, encode)
            && Stages::run_or_skip(decision, &self.prefill, round, prefill)
        {
            round.peer = Some(target);
        }
        Ok(())
    }

    fn primary(&self, _cx: &Cycle<'_>, decision: &Decision) -> Result<Primary, ScheduleError> {
        self.stages.primary(decision)
    }
}

impl PostChoice for DisaggProfileHandler {
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        stage_headers(cx, decision, &self.prefill, &self.encode, effects);
        let found = |name: &str| decision.profile(name).is_some_and(|run| !run.targets.is_empty());
        let kind = Kind::of(found(&self.encode), found(&self.prefill));
        Decisions::ask(decision, self.instance, kind, effects);
    }

    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        self.decisions.apply(cx, effect, self.instance);
    }
}

impl Collector for DisaggProfileHandler {
    fn collect(&self, page: &mut Exposition) {
        let instance = (self.name.as_str(), self.type_name);
        self.decisions.collect(page, "disagg_decision_total", instance);
        self.stages.collect(page, instance);
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::effect::Effect;
    use inlane_core::endpoint::EndpointIx;
    use inlane_core::exposition::Exposition;
    use inlane_core::request::{Media, Request};

    use crate::testing::{Built, World, rounds};

    const NAME: &str = "disagg-profile-handler";
    const PROFILES: [&str; 3] = ["decode", "prefill", "encode"];

    fn handler(world: &mut World, parameters: &str) -> Built {
        for decider in ["always-disagg-pd-decider", "always-disagg-multimodal-decider"] {
            world.build(decider, "").unwrap();
        }
        world.build(NAME, parameters).unwrap()
    }

    /// The profiles that run, in order; profile `n` finds endpoint `n` unless it is in `failing`.
    fn stages(parameters: &str, with_image: bool, failing: &[u16]) -> Vec<u16> {
        let mut world = World::new(3);
        let built = handler(&mut world, parameters);
        let media = [Media { modality: "image", hash: "1", prompt: 0, offset: 0, length: 1 }];
        let media = if with_image { &media[..] } else { &[] };
        let request = Request { media, ..Request::default() };
        let mut decision = World::decision(&PROFILES);
        let found = |ix: u16| -> Vec<EndpointIx> {
            if failing.contains(&ix) { Vec::new() } else { vec![ix.into()] }
        };
        rounds(&built, &world.cycle(&request), &mut decision, found).concat()
    }

    const BOTH: &str = "{deciders: {prefill: always-disagg-pd-decider, \
                        encode: always-disagg-multimodal-decider}}";

    #[test]
    fn decode_comes_first() {
        assert_eq!(stages(BOTH, true, &[]), [0, 2, 1]);
        assert_eq!(stages(BOTH, false, &[]), [0, 1]);
        assert_eq!(stages("", true, &[]), [0]);
        assert_eq!(stages("{deciders: {prefill: always-disagg-pd-decider}}", true, &[]), [0, 1]);
        assert_eq!(stages(BOTH, true, &[0]), [0]);
        assert_eq!(stages(BOTH, true, &[2, 1]), [0, 2, 1]);
    }

    #[test]
    fn prefill_comes_first_when_asked_to() {
        for order in ["prefill-first", "PREFILL_FIRST", "prefill", "PrefillFirst"] {
            assert_eq!(stages(&format!("{{stageOrder: {order}}}"), true, &[]), [1, 0], "{order}");
        }
        let encode = "{stageOrder: prefill-first, \
                      deciders: {encode: always-disagg-multimodal-decider}}";
        assert_eq!(stages(encode, true, &[]), [1, 2, 0]);
        assert_eq!(stages(encode, true, &[1, 2]), [1, 2, 0]);
        assert_eq!(stages(encode, false, &[]), [1, 0]);
    }

    #[test]
    fn the_older_parameters_mean_the_same() {
        assert_eq!(stages("{deciderPluginName: always-disagg-pd-decider}", true, &[]), [0, 1]);
        let flat = "{prefillDeciderPluginName: always-disagg-pd-decider, \
                    deciderPluginName: always-disagg-multimodal-decider, \
                    encodeDeciderPluginName: always-disagg-multimodal-decider}";
        assert_eq!(stages(flat, false, &[]), [0, 1]);
        assert_eq!(stages("{decodeProfile: prefill, prefillProfile: decode}", false, &[]), [1]);
        let mut world = World::new(0);
        assert_eq!(handler(&mut world, flat).warnings.len(), 3);
        assert!(handler(&mut world, BOTH).warnings.is_empty());
    }

    #[test]
    fn each_stage_is_close_to_the_one_before() {
        let mut world = World::new(3);
        let request = Request::default();
        let decode_first = handler(&mut world, "{deciders: {prefill: always-disagg-pd-decider}}");
        let prefill_first = world.build(NAME, "{stageOrder: prefill-first}").unwrap();
        for (built, peers) in [(decode_first, [None, Some(0)]), (prefill_first, [None, Some(1)])] {
            let mut decision = World::decision(&PROFILES);
            let cx = world.cycle(&request);
            let mut seen = Vec::new();
            rounds(&built, &cx, &mut decision, |ix| vec![ix.into()]);
            let mut again = World::decision(&PROFILES);
            let handler = built.roles.handler.as_ref().unwrap();
            for _ in 0..2 {
                let mut round = inlane_core::plugin::Round::default();
                handler.next(&cx, &again, &mut round).unwrap();
                seen.push(round.peer);
                for &ix in &round.run {
                    again.profiles[usize::from(ix)].ran = true;
                    again.profiles[usize::from(ix)].targets.push(ix.into());
                }
            }
            assert_eq!(seen, peers);
        }
    }

    #[test]
    fn a_missing_profile_is_no_stage() {
        let mut world = World::new(3);
        let built = handler(&mut world, BOTH);
        let request = Request::default();
        let cx = world.cycle(&request);
        let mut decision = World::decision(&["other", "decode"]);
        assert_eq!(rounds(&built, &cx, &mut decision, |_| vec![0]), [[1]]);
        let mut decision = World::decision(&["other"]);
        assert!(rounds(&built, &cx, &mut decision, |_| vec![0]).is_empty());
        let error = built.roles.handler.as_ref().unwrap().primary(&cx, &decision).unwrap_err();
        assert!(error.to_string().contains("failed to find available decode workers"));
    }

    #[test]
    fn headers_and_counts_follow_what_was_found() {
        let mut world = World::new(3);
        let built = handler(&mut world, BOTH);
        for (model, results) in [
            ("m", &[("decode", 0)][..]),
            ("m", &[("decode", 0), ("prefill", 1)]),
            ("", &[("decode", 0), ("encode", 1)]),
            ("m", &[("decode", 0), ("encode", 1), ("prefill", 1)]),
        ] {
            let request = Request { target_model: model, ..Request::default() };
            let effects = world.choose(&built, &request, results);
            let set = effects
                .iter()
                .filter(|e| matches!(e, Effect::RequestHeader { value: Some(_), .. }));
            assert_eq!(set.count(), results.len() - 1);
            world.apply(&built, &request, &effects);
        }
        let mut page = Exposition::default();
        built.roles.collector.as_ref().unwrap().collect(&mut page);
        let page = page.render();
        for (model, kind) in [
            ("m", "decode-only"),
            ("m", "prefill-decode"),
            ("unknown", "encode-decode"),
            ("m", "encode-prefill-decode"),
        ] {
            let labels = format!("model_name=\"{model}\",decision_type=\"{kind}\"}} 1");
            let names = format!("{{plugin_name=\"{NAME}\",plugin_type=\"{NAME}\",");
            let line = format!("llm_d_epp_disagg_decision_total{names}{labels}");
            assert!(page.contains(&line), "{line} in {page}");
            let old = format!("llm_d_inference_scheduler_disagg_decision_total{{{labels}");
            assert!(page.contains(&old), "{old} in {page}");
        }
    }

    #[test]
    fn both_producers_come_along() {
        let mut world = World::new(0);
        let keys: Vec<_> =
            handler(&mut world, "").data.requires.iter().map(|key| key.to_string()).collect();
        assert_eq!(
            keys,
            [
                "PrefixCacheMatchInfoDataKey/approx-prefix-cache-producer",
                "TokenizedPrompt/token-producer"
            ]
        );
    }

    #[test]
    fn errors_name_the_field() {
        let mut world = World::new(0);
        world.build("always-disagg-pd-decider", "").unwrap();
        world.build("max-score-picker", "").unwrap();
        for (parameters, field, text) in [
            ("{stageOrder: sideways}", "stageOrder", "invalid stage order \"sideways\""),
            ("{deciders: {prefill: nope}}", "deciders.prefill", "plugin not found: nope"),
            ("{deciders: {encode: nope}}", "deciders.encode", "plugin not found: nope"),
            ("{deciders: {prefill: max-score-picker}}", "deciders.prefill", "not implement"),
            ("{profiles: {decode: x}, decodeProfile: y}", "decodeProfile", "mixed"),
            ("{profiles: {draft: x}}", "profiles.draft", "unknown"),
            ("{decodeProfile: x, decode: y}", "decode", "unknown"),
            (
                "{stageOrder: prefill-first, deciders: {prefill: always-disagg-pd-decider}}",
                "deciders.prefill",
                "not supported in prefill-first stage order",
            ),
            (
                "{stageOrder: prefill_first, deciderPluginName: always-disagg-pd-decider}",
                "deciderPluginName",
                "not supported in prefill-first stage order",
            ),
        ] {
            let error = world.build(NAME, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}: {error}");
            assert!(error.message.contains(text), "{parameters}: {error}");
        }
    }
}

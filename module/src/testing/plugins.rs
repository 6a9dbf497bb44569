//! Plugins for unit tests.
//!
//! `least-booked` scores `1 / (1 + requests)`. `probe` plays the roles around a decision and does in
//! each what the test's [`script`] says; everything happens on the test's own thread.

use std::cell::RefCell;
use std::sync::Arc;

use inlane_core::columns::{Col, InFlight};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects};
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{
    AfterResponse, Category, Cycle, PostChoice, PreCall, Refusal, RequestFacts, Responding, Roles,
    Scorer,
};
use inlane_core::registry::{PluginType, Registry};
use inlane_core::request::{Prompt, Request};

/// A configuration that prefers the endpoint with the fewest bookings.
pub(crate) const LEAST_BOOKED: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: inflight-load-producer
- type: least-booked
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: least-booked
  - pluginRef: max-score-picker
";

/// The same, with a probe.
pub(crate) const PROBED: &str = "
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins:
- type: inflight-load-producer
- type: least-booked
- type: probe
- type: max-score-picker
schedulingProfiles:
- name: default
  plugins:
  - pluginRef: least-booked
  - pluginRef: probe
  - pluginRef: max-score-picker
";

/// The plugins of the product and those of this file.
pub(crate) fn registry() -> Registry {
    let mut registry = inlane_plugins::registry();
    registry.register(PluginType::new("least-booked", |build, _| {
        let load = build.require::<InFlight>("", "inflight-load-producer");
        Ok(Roles::default().scorer(Arc::new(LeastBooked(load))))
    }));
    registry.register(PluginType::new("probe", |_, _| {
        let probe = Arc::new(Probe);
        let roles = Roles::default().scorer(probe.clone()).pre_call(probe.clone());
        Ok(roles.post_choice(probe.clone()).after_response(probe))
    }));
    registry
}

struct LeastBooked(Col<InFlight>);

impl Scorer for LeastBooked {
    fn category(&self) -> Category {
        Category::Distribution
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let load = cx.columns.get(self.0);
        for (&ix, out) in candidates.iter().zip(out) {
            if let Some(load) = load.get(ix as usize).copied().flatten() {
                *out = 1.0 / (1.0 + f64::from(load.requests));
            }
        }
        Ok(())
    }
}

type PreCallScript = fn(&Request<'_>, &mut RequestFacts) -> Result<(), Refusal>;

/// What the probe does, and what it has seen.
#[derive(Default)]
pub(crate) struct Script {
    /// Called when the probe is asked for scores; it scores nobody.
    pub(crate) score: Option<Box<dyn FnMut()>>,
    pub(crate) pre_call: Option<PreCallScript>,
    /// What the probe asks for after the choice.
    pub(crate) effects: Vec<Effect>,
    /// Priority and fairness id of the requests decided on.
    pub(crate) decided: Vec<(i32, String)>,
    /// Their prompts: ids of tokens, or the number of blocks.
    pub(crate) prompts: Vec<Vec<Shown>>,
    /// Endpoint and status of the responses whose headers came.
    pub(crate) answered: Vec<(String, u16)>,
    /// Endpoint, status and completion tokens of the streams that ended.
    pub(crate) completed: Vec<(String, u16, Option<u64>)>,
}

/// A prompt as plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    Blocks(usize),
    Tokens(Vec<u32>),
}

impl Shown {
    pub(crate) fn of(prompt: &Prompt<'_>) -> Self {
        match prompt {
            Prompt::Blocks { contents, .. } => Self::Blocks(contents.len()),
            Prompt::Tokens(ids) => Self::Tokens(ids.to_vec()),
        }
    }
}

thread_local! {
    static SCRIPT: RefCell<Script> = RefCell::new(Script::default());
}

/// Reads or changes this test's script.
pub(crate) fn script<R>(run: impl FnOnce(&mut Script) -> R) -> R {
    SCRIPT.with_borrow_mut(run)
}

struct Probe;

fn name(response: &Responding<'_>) -> String {
    response.endpoint.map(|endpoint| endpoint.name.clone()).unwrap_or_default()
}

impl Scorer for Probe {
    fn category(&self) -> Category {
        Category::Balance
    }

    fn score(
        &self,
        _cx: &Cycle<'_>,
        _candidates: &[EndpointIx],
        _out: &mut [f64],
    ) -> Result<(), PluginError> {
        if let Some(mut run) = script(|script| script.score.take()) {
            run();
            script(|script| script.score = Some(run));
        }
        Ok(())
    }
}

impl PreCall for Probe {
    fn pre_call(&self, request: &Request<'_>, facts: &mut RequestFacts) -> Result<(), Refusal> {
        script(|script| script.pre_call).map_or(Ok(()), |run| run(request, facts))
    }
}

impl PostChoice for Probe {
    fn post_choice(&self, cx: &Cycle<'_>, _decision: &Decision, effects: &mut Effects) {
        script(|script| {
            script.decided.push((cx.request.priority, cx.request.fairness_id.to_owned()));
            script.prompts.push(cx.request.prompts.iter().map(Shown::of).collect());
            effects.extend(script.effects.iter().cloned());
        });
    }
}

impl AfterResponse for Probe {
    fn response_headers(&self, cx: &Responding<'_>, headers: &mut Vec<(String, String)>) {
        headers.push(("x-served-by".into(), name(cx)));
        script(|script| script.answered.push((name(cx), cx.status)));
    }

    fn complete(&self, cx: &Responding<'_>) {
        script(|script| script.completed.push((name(cx), cx.status, cx.completion_tokens)));
    }
}

//! How often a request was split, and how.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use inlane_core::decision::Decision;
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::exposition::Exposition;
use inlane_core::plugin::Cycle;

/// Models counted by name; clients choose the names, so there must be an end to it.
const MODELS: usize = 256;
/// The name under which all others are counted.
const OTHER: &str = "other";
/// Reference's word for a request without a model.
const UNKNOWN: &str = "unknown";

/// How a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    DecodeOnly,
    PrefillDecode,
    EncodeDecode,
    EncodePrefillDecode,
}

impl Kind {
    const ALL: [Self; 4] =
        [Self::DecodeOnly, Self::PrefillDecode, Self::EncodeDecode, Self::EncodePrefillDecode];

    /// From the stages that found a target of their own.
    pub(crate) fn of(encode: bool, prefill: bool) -> Self {
        match (encode, prefill) {
            (false, false) => Self::DecodeOnly,
            (false, true) => Self::PrefillDecode,
            (true, false) => Self::EncodeDecode,
            (true, true) => Self::EncodePrefillDecode,
        }
    }

    /// Value of the label `decision_type`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DecodeOnly => "decode-only",
            Self::PrefillDecode => "prefill-decode",
            Self::EncodeDecode => "encode-decode",
            Self::EncodePrefillDecode => "encode-prefill-decode",
        }
    }
}

/// Decisions by model. Written after a decision, under a lock held for one look-up.
#[derive(Debug, Default)]
pub(crate) struct Decisions(Mutex<BTreeMap<String, [u64; 4]>>);

impl Decisions {
    /// Asks for a decision to be counted.
    pub(crate) fn ask(decision: &Decision, plugin: PluginIx, kind: Kind, effects: &mut Effects) {
        if let Some(endpoint) = decision.target() {
            effects.push(Effect::Record { plugin, endpoint, note: kind as u64 });
        }
    }

    /// Counts it.
    pub(crate) fn apply(&self, cx: &Cycle<'_>, effect: &Effect, instance: PluginIx) {
        let &Effect::Record { plugin, note, .. } = effect else { return };
        if plugin != instance {
            return;
        }
        let model = match cx.request.target_model {
            "" => UNKNOWN,
            model => model,
        };
        let mut models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let full = models.len() >= MODELS;
        let counts = match models.get_mut(model) {
            Some(counts) => counts,
            None => models.entry(if full { OTHER } else { model }.to_owned()).or_default(),
        };
        if let Some(count) = usize::try_from(note).ok().and_then(|at| counts.get_mut(at)) {
            *count += 1;
        }
    }

    /// Shows the counts as `llm_d_epp_<name>` with the instance's labels and under the deprecated
    /// prefix without.
    pub(crate) fn collect(&self, page: &mut Exposition, name: &str, instance: (&str, &str)) {
        let models = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let current = format!("llm_d_epp_{name}");
        let old = format!("llm_d_inference_scheduler_{name}");
        let help = "Decisions by how the request is split.";
        let deprecated = format!("[Deprecated: Use {current}] {help}");
        for (model, counts) in models.iter() {
            for (kind, &count) in Kind::ALL.iter().zip(counts).filter(|(_, count)| **count > 0) {
                let [model, kind] =
                    [("model_name", model.as_str()), ("decision_type", kind.as_str())];
                let (plugin_name, plugin_type) = instance;
                let names = [("plugin_name", plugin_name), ("plugin_type", plugin_type)];
                let labels = [names[0], names[1], model, kind];
                page.counter(&current, &format!("[ALPHA] {help}"), &labels, count as f64);
                page.counter(&old, &deprecated, &[model, kind], count as f64);
            }
        }
    }
}

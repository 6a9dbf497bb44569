//! `/debug/records`: what the last decisions were made of, one JSON object a line, for
//! `inlane replay` and `inlane explain`.

use std::collections::BTreeMap;
use std::sync::Arc;

use inlane_core::plan::Plan;
use inlane_core::record::{Line, RecordedDecision, Setting};

use crate::runtime::Runtime;

/// The page: the settings that the decisions refer to, then the decisions, oldest first.
pub(crate) fn page(runtime: &Runtime) -> Vec<u8> {
    let mut settings: BTreeMap<u64, Arc<Plan>> = BTreeMap::new();
    let mut decisions: Vec<RecordedDecision> = Vec::new();
    runtime.log.read(|entry| {
        let (Some(plan), Some(inputs)) = (&entry.plan, &entry.inputs) else { return };
        settings.entry(entry.epoch).or_insert_with(|| Arc::clone(plan));
        let numbers = (entry.sequence, entry.epoch, entry.unix_ms);
        decisions.push(inputs.line(plan, &entry.decision, &entry.error, numbers));
    });
    decisions.sort_unstable_by_key(|decision| decision.sequence);
    let settings =
        settings.into_iter().map(|(epoch, plan)| Line::Setting(Setting::of(&plan, epoch)));
    let decisions = decisions.into_iter().map(|decision| Line::Decision(Box::new(decision)));
    let mut page = Vec::new();
    for line in settings.chain(decisions) {
        // Writing JSON of strings and numbers to memory does not fail.
        let _ = serde_json::to_writer(&mut page, &line);
        page.push(b'\n');
    }
    page
}

//! Taking a decision's inputs down while it is made.

use std::cell::RefCell;

use crate::columns::{Attribute, Columns, KindVisitor};
use crate::cycle::Scratch;
use crate::decision::Decision;
use crate::endpoint::EndpointIx;
use crate::explain::Explanation;
use crate::plan::Plan;
use crate::registry::Schema;
use crate::request::{Headers, Request};
use crate::snapshot::Topology;
use crate::state::RequestAttribute;

use super::lines::{
    RecordedColumn, RecordedDecision, RecordedMedia, RecordedMetrics, RecordedRequest,
    RecordedState, Setting,
};

/// Headers that remember which of them were asked for.
pub struct Noting<'a> {
    headers: &'a dyn Headers,
    asked: RefCell<Vec<(String, Option<String>)>>,
}

impl std::fmt::Debug for Noting<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Noting").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl<'a> Noting<'a> {
    /// Looks through to `headers`.
    pub fn new(headers: &'a dyn Headers) -> Self {
        Self { headers, asked: RefCell::default() }
    }
}

impl Headers for Noting<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        let value = self.headers.get(name);
        let mut asked = self.asked.borrow_mut();
        if asked.iter().all(|(known, _)| known != name) {
            asked.push((name.to_owned(), value.map(str::to_owned)));
        }
        value
    }
}

/// The inputs of one decision. Memory is reused from one to the next.
#[derive(Debug, Default)]
pub struct Inputs {
    now_ms: u64,
    seed: u64,
    request: RecordedRequest,
    candidates: Vec<EndpointIx>,
    columns: Columns,
    /// Per state of the configuration where its words end.
    state_ends: Vec<usize>,
    state: Vec<u64>,
    attributes: Vec<RequestAttribute>,
}

impl Inputs {
    /// Takes down what `scratch` holds after a decision, and the request; `noting` were its
    /// headers. Copies the columns: about 60 bytes per endpoint and attribute.
    pub fn take_down(
        &mut self,
        plan: &Plan,
        scratch: &Scratch,
        request: &Request<'_>,
        noting: &Noting<'_>,
        now_ms: u64,
        seed: u64,
    ) {
        (self.now_ms, self.seed) = (now_ms, seed);
        self.candidates.clone_from(&scratch.candidates);
        self.columns.copy_from(&scratch.columns);
        self.state.clear();
        self.state_ends.clear();
        for index in 0..plan.config().states().owners().count() {
            scratch.state.record(index, &mut self.state);
            self.state_ends.push(self.state.len());
        }
        self.attributes.clear();
        self.attributes.extend_from_slice(scratch.state.attributes());
        let media = request.media.iter().map(|m| RecordedMedia {
            modality: m.modality.to_owned(),
            hash: m.hash.to_owned(),
            prompt: m.prompt,
            offset: m.offset,
            length: m.length,
        });
        self.request = RecordedRequest {
            id: request.id.to_owned(),
            model: request.model.to_owned(),
            target_model: request.target_model.to_owned(),
            headers: noting.asked.borrow().clone(),
            priority: request.priority,
            fairness_id: request.fairness_id.to_owned(),
            prompts: request.prompts.iter().map(|prompt| prompt.token_count()).collect(),
            media: media.collect(),
            prompt_bytes: request.prompt_bytes,
            max_output_tokens: request.max_output_tokens,
            body_bytes: request.body_bytes,
            streaming: request.streaming,
        };
    }

    /// The record of the decision, made on `plan` in `epoch`.
    pub fn line(
        &self,
        plan: &Plan,
        decision: &Decision,
        error: &str,
        (sequence, epoch, unix_ms): (u64, u64, u64),
    ) -> RecordedDecision {
        let metrics = &self.columns.metrics;
        let rows = || self.candidates.iter().map(|ix| *ix as usize);
        fn pick<T: Copy + Default>(column: &[T], rows: impl Iterator<Item = usize>) -> Vec<T> {
            rows.map(|row| column.get(row).copied().unwrap_or_default()).collect()
        }
        let adapters = if metrics.with_adapters { pick(&metrics.adapters, rows()) } else { vec![] };
        let config = plan.config();
        let mut writer = Writer {
            columns: &self.columns,
            schema: &config.schema,
            candidates: &self.candidates,
            written: Vec::new(),
        };
        Columns::visit_kinds(&mut writer);
        let columns = writer.written;
        RecordedDecision {
            sequence,
            epoch,
            unix_ms,
            now_ms: self.now_ms,
            seed: self.seed,
            request: self.request.clone(),
            candidates: self.candidates.clone(),
            metrics: RecordedMetrics {
                waiting: pick(&metrics.waiting, rows()),
                running: pick(&metrics.running, rows()),
                kv_usage: pick(&metrics.kv_usage, rows()),
                cache_block_size: pick(&metrics.cache_block_size, rows()),
                cache_num_blocks: pick(&metrics.cache_num_blocks, rows()),
                fresh: pick(&metrics.fresh, rows()),
                age_ms: pick(&metrics.age_ms, rows()),
                adapters,
            },
            columns,
            state: self.states(plan),
            attributes: self.attributes.clone(),
            outcome: Explanation::of(plan, decision, error),
        }
    }

    fn states(&self, plan: &Plan) -> Vec<RecordedState> {
        let mut states: Vec<RecordedState> = Vec::new();
        let mut start = 0;
        for (owner, &end) in plan.config().states().owners().zip(&self.state_ends) {
            let nth = states.iter().filter(|state| state.owner == owner).count();
            let words = self.state.get(start..end).unwrap_or_default().to_vec();
            states.push(RecordedState { owner: owner.to_owned(), nth, words });
            start = end;
        }
        states.retain(|state| !state.words.is_empty());
        states
    }
}

impl Setting {
    /// What decisions on `plan` refer to as `epoch`.
    pub fn of(plan: &Plan, epoch: u64) -> Self {
        Self {
            epoch,
            config: plan.config().document.clone(),
            topology: Topology::of(plan.endpoints()),
            stale_metrics: plan.stale_metrics,
            denial_status: plan.denial_status,
        }
    }
}

/// Writes the columns that have a value.
struct Writer<'a> {
    columns: &'a Columns,
    schema: &'a Schema,
    candidates: &'a [EndpointIx],
    written: Vec<RecordedColumn>,
}

impl KindVisitor for Writer<'_> {
    fn visit<T: Attribute>(&mut self) {
        for (key, col) in self.schema.keys::<T>() {
            let column = self.columns.get(col);
            let value = |ix: &EndpointIx| column.get(*ix as usize).copied().flatten();
            if self.candidates.iter().all(|ix| value(ix).is_none()) {
                continue;
            }
            // An attribute is a struct of numbers, which always has a JSON form.
            let json = |ix| serde_json::to_value(value(ix)).unwrap_or_default();
            self.written.push(RecordedColumn {
                kind: T::KEY.to_owned(),
                name: key.name.to_string(),
                producer: key.producer.clone(),
                values: self.candidates.iter().map(json).collect(),
            });
        }
    }
}

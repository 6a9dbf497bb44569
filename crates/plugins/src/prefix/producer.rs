//! The data producer on top of the index: matches before a decision, a record after it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use inlane_core::columns::{Col, Columns, Metrics, PrefixMatch};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::endpoint::EndpointIx;
use inlane_core::exposition::Exposition;
use inlane_core::plugin::{Collector, Cycle, DataProducer, PostChoice, Producing, Roles};
use inlane_core::registry::{
    Build, BuildError, CORE_METRICS_EXTRACTOR, TOKENIZED_PROMPT, metric_keys,
};
use inlane_core::request::{BlockUnit, Request};
use inlane_core::state::{CycleData, CycleState, StateSlot};
use inlane_segment::table::MAX_SLOTS;

use super::settings::{block_bytes, block_tokens};
use super::{BlockSize, PrefixIndex, Settings, hash};
use crate::{PREFILL_PROFILE, token_producer};

/// Fills the [`PrefixMatch`] column from a [`PrefixIndex`] and records choices in it.
#[derive(Debug)]
pub struct PrefixProducer {
    settings: Settings,
    index: Arc<PrefixIndex>,
    instance: PluginIx,
    /// Labels of its metrics.
    name: String,
    type_name: &'static str,
    column: Col<PrefixMatch>,
    state: StateSlot<PromptHashes>,
}

/// The hashes of the running request's prompts, and room to count.
#[derive(Debug, Default)]
struct PromptHashes {
    /// Of all prompts, one after the other.
    hashes: Vec<u64>,
    /// Where each prompt's hashes end.
    ends: Vec<usize>,
    /// Matches by slot.
    counts: Vec<u32>,
    /// Bytes of text per block.
    block_bytes: u64,
    /// Whether the choice was counted; a prefill target is recorded, but not counted.
    observed: AtomicBool,
}

impl CycleData for PromptHashes {
    fn clear(&mut self) {
        self.hashes.clear();
        self.ends.clear();
        self.observed = AtomicBool::new(false);
    }
}

impl PrefixProducer {
    /// Makes the producer of the instance being built; the column is published under its name.
    ///
    /// The index outlives reloads, except for a change of the capacity: that is fixed per endpoint
    /// when the endpoint is first used.
    ///
    /// # Errors
    /// When there is no memory for the index.
    pub fn build(build: &mut Build<'_>, settings: Settings) -> Result<Self, BuildError> {
        build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
        if settings.tune_capacity || matches!(settings.block, BlockSize::Tuned(_)) {
            build.use_key(metric_keys::CACHE_INFO, CORE_METRICS_EXTRACTOR);
        }
        let variant = format!("lru={},tuned={}", settings.capacity, settings.tune_capacity);
        let index = build
            .try_kept_state(&variant, PrefixIndex::new)
            .map_err(|e| BuildError::new(format!("no memory for the prefix index: {e}")))?;
        Ok(Self {
            settings,
            index,
            instance: build.instance(),
            name: build.name().to_owned(),
            type_name: build.type_name(),
            column: build.produce(),
            state: build.cycle_state(),
        })
    }

    /// The column that it fills.
    pub fn column(&self) -> Col<PrefixMatch> {
        self.column
    }

    /// Adds its roles.
    pub fn into_roles(self, roles: Roles) -> Roles {
        let plugin = Arc::new(self);
        roles.producer(plugin.clone()).post_choice(plugin.clone()).collector(plugin)
    }

    fn hash_prompts(&self, request: &Request<'_>, unit: BlockUnit, state: &mut PromptHashes) {
        let limit = self.settings.limit(unit);
        let seed = hash::seed(request.target_model, request.cache_salt);
        for prompt in request.packed() {
            hash::chain_prompt(seed, prompt, unit, limit, &mut state.hashes);
            state.ends.push(state.hashes.len());
        }
    }
}

impl DataProducer for PrefixProducer {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let Some(&first) = cx.candidates.first() else { return Ok(()) };
        let state = state.get_mut(self.state).ok_or_else(foreign_state)?;
        state.clear();
        let unit = self.settings.unit(&columns.metrics, first);
        state.block_bytes = block_bytes(unit);
        self.hash_prompts(cx.request, unit, state);

        let slots = cx.endpoints.slots();
        let own = cx.candidates.iter().filter_map(|&ix| slots.get(ix as usize));
        let bound = own.map(|slot| slot.index as usize + 1).max().unwrap_or(0);
        let PromptHashes { hashes, ends, counts, .. } = state;
        counts.clear();
        counts.resize(bound.min(MAX_SLOTS), 0);
        let mut start = 0;
        for &end in ends.iter() {
            self.index.count_matches(&hashes[start..end], counts);
            start = end;
        }

        let total_blocks = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        let block_size_tokens = block_tokens(unit);
        let column = columns.get_mut(self.column);
        for &ix in cx.candidates {
            let ix = ix as usize;
            let (Some(&slot), Some(cell)) = (slots.get(ix), column.get_mut(ix)) else { continue };
            let found = counts.get(slot.index as usize).copied().unwrap_or(0);
            let found = if found > 0 && self.index.is_tenant(slot) { found } else { 0 };
            let match_blocks = found.min(total_blocks);
            *cell = Some(PrefixMatch {
                match_blocks,
                total_blocks,
                block_size_tokens,
                cached_blocks: match_blocks,
            });
        }
        Ok(())
    }

    fn block_unit(&self, metrics: &Metrics, first: EndpointIx) -> Option<BlockUnit> {
        Some(self.settings.unit(metrics, first))
    }

    fn block_limit(&self, unit: BlockUnit) -> usize {
        self.settings.limit(unit)
    }
}

impl PostChoice for PrefixProducer {
    /// Records the destination, and the endpoint that computes the prompt for it.
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        if cx.state.get(self.state).is_none_or(|state| state.hashes.is_empty()) {
            return;
        }
        let destination = decision.target();
        let prefill =
            decision.profile(PREFILL_PROFILE).and_then(|run| run.targets.first().copied());
        let plugin = self.instance;
        effects.extend(destination.map(|endpoint| Effect::record(plugin, endpoint)));
        if prefill != destination {
            effects.extend(prefill.map(|endpoint| Effect::record(plugin, endpoint)));
        }
    }

    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        let &Effect::Record { plugin, endpoint, .. } = effect else { return };
        let Some(state) = cx.state.get(self.state).filter(|_| plugin == self.instance) else {
            return;
        };
        let Some(target) = cx.endpoints.get(endpoint) else { return };
        let capacity = self.settings.capacity(&cx.columns.metrics, endpoint);
        self.index.record(target.slot, capacity, &state.hashes);
        // The destination is recorded first.
        if state.observed.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(Some(found)) = cx.columns.get(self.column).get(endpoint as usize) {
            let stats = self.index.stats();
            stats.observe(found.match_blocks, found.total_blocks, state.block_bytes);
        }
    }
}

impl Collector for PrefixProducer {
    /// Under today's names with the instance as labels, and under the deprecated ones without.
    fn collect(&self, page: &mut Exposition) {
        let (current, old) = ("llm_d_epp_prefix_indexer", "inference_extension_prefix_indexer");
        let labels = [("plugin_name", self.name.as_str()), ("plugin_type", self.type_name)];
        let deprecated =
            |name: &str, help: &str| format!("[ALPHA] [Deprecated: Use {current}_{name}] {help}");
        let help = "Entries of the approximate prefix index.";
        let size = self.index.size() as f64;
        page.gauge(&format!("{current}_size"), &format!("[ALPHA] {help}"), &labels, size);
        page.gauge(&format!("{old}_size"), &deprecated("size", help), &[], size);
        let stats = self.index.stats();
        for (name, help, histogram) in [
            (
                "hit_ratio",
                "Ratio of matched to all blocks at the chosen endpoint.",
                &stats.hit_ratio,
            ),
            ("hit_bytes", "Bytes of matched blocks at the chosen endpoint.", &stats.hit_bytes),
        ] {
            let now = histogram.snapshot();
            let title = format!("[ALPHA] {help}");
            page.histogram(&format!("{current}_{name}"), &title, &labels, now.clone());
            page.histogram(&format!("{old}_{name}"), &deprecated(name, help), &[], now);
        }
    }
}

fn foreign_state() -> PluginError {
    PluginError::new("the cycle state belongs to another configuration")
}

//! `precise-prefix-cache-producer`: how much of the prompt the engines say they hold.

use std::sync::Arc;

use inlane_core::columns::{CachedTiers, Col, Columns, PrefixMatch};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects, KEPT, Kept, PluginIx};
use inlane_core::endpoint::{EndpointIx, EndpointSet};
use inlane_core::exposition::Exposition;
use inlane_core::plugin::{
    AfterResponse, Collector, Cycle, DataProducer, Part, PostChoice, Producing, Responding, Roles,
};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use inlane_core::request::Request;
use inlane_core::state::{CycleData, CycleState, StateSlot};

use super::keying::Keying;
use super::parameters::Parameters;
use super::score::{Standing, TierWeights, Walk};
use super::stats::LookupStats;
use super::truth::Sample;
use super::truth::counters::Served;
use super::{Inquiry, PreciseIndex, PreciseSource};
use crate::{PREFILL_PROFILE, token_producer};

/// The type `precise-prefix-cache-producer`.
pub const TYPE: PluginType = PluginType::new("precise-prefix-cache-producer", build);

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let source = build.kept_state("source", PreciseSource::default);
    with_source(build, &params.decode()?, source)
}

/// A producer over an index of one's own, for a plugin type of one's own: its build function decodes
/// what it needs and ends with this. `make` is called once; the index outlives reloads.
///
/// # Errors
/// The parameter that is not as it should be.
pub fn over(
    build: &mut Build<'_>,
    parameters: &Parameters,
    make: impl FnOnce() -> Box<dyn PreciseIndex>,
) -> Result<Roles, BuildError> {
    let source = build.kept_state("source", PreciseSource::default);
    if !source.is_attached() {
        source.attach(make());
    }
    with_source(build, parameters, source)
}

fn with_source(
    build: &mut Build<'_>,
    parameters: &Parameters,
    source: Arc<PreciseSource>,
) -> Result<Roles, BuildError> {
    parameters.check(build, false)?;
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    let ttl = u64::try_from(parameters.speculative_ttl()?.as_millis()).unwrap_or(u64::MAX);
    if parameters.speculative_indexing {
        let room = source.engines().make_room();
        room.map_err(|e| BuildError::new(format!("no memory for what is expected: {e}")))?;
    }
    let plugin = Arc::new(PrecisePrefixCacheProducer {
        source,
        keying: parameters.keying()?,
        weights: parameters.weights(),
        speculative_ms: parameters.speculative_indexing.then_some(ttl),
        index_metrics: parameters.indexer_config.kv_block_index_config.enable_metrics,
        stats: build.kept_state("stats", LookupStats::default),
        name: build.name().to_owned(),
        instance: build.instance(),
        found: build.produce(),
        tiers: build.produce(),
        state: build.cycle_state(),
    });
    let roles = Roles::default().producer(plugin.clone()).post_choice(plugin.clone());
    let roles = roles.after_response(plugin.clone());
    Ok(roles.collector(plugin).part(Part::Extractor))
}

/// `trunc(sum over the prompts of the weighted longest prefix)` of the blocks of all prompts
/// (llm-d-router `precise-prefix-cache-producer`). Without an index, without token ids and without a
/// whole block nothing is written.
#[derive(Debug)]
struct PrecisePrefixCacheProducer {
    source: Arc<PreciseSource>,
    keying: Keying,
    weights: TierWeights,
    /// For how long blocks are expected where a request went; `None` = not.
    speculative_ms: Option<u64>,
    /// Whether the numbers about lookups are shown.
    index_metrics: bool,
    stats: Arc<LookupStats>,
    name: String,
    instance: PluginIx,
    found: Col<PrefixMatch>,
    tiers: Col<CachedTiers>,
    state: StateSlot<Lookup>,
}

/// The keys of the running request's prompts, and memory to work in.
#[derive(Debug, Default)]
struct Lookup {
    /// Of all prompts, one after the other.
    keys: Vec<u64>,
    /// Where each prompt's keys end.
    ends: Vec<usize>,
    walk: Walk,
    sums: Vec<Sum>,
    blocks: u32,
}

impl CycleData for Lookup {
    fn clear(&mut self) {
        self.keys.clear();
        self.ends.clear();
        self.blocks = 0;
    }
}

impl Lookup {
    /// The keys of prompt number `prompt`.
    fn keys(&self, prompt: usize) -> &[u64] {
        let start = prompt.checked_sub(1).and_then(|before| self.ends.get(before));
        let range = start.copied().unwrap_or(0)..self.ends.get(prompt).copied().unwrap_or(0);
        self.keys.get(range).unwrap_or_default()
    }
}

/// What an endpoint holds of all prompts.
#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    score: f64,
    blocks: u32,
    tiers: CachedTiers,
}

impl Sum {
    fn add(&mut self, standing: &Standing, score: f64) {
        self.score += score;
        self.blocks = self.blocks.saturating_add(standing.blocks());
        let (sum, more) = (&mut self.tiers, standing.tiers());
        for (sum, more) in [
            (&mut sum.gpu, more.gpu),
            (&mut sum.cpu, more.cpu),
            (&mut sum.other, more.other),
            (&mut sum.speculative, more.speculative),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

impl PrecisePrefixCacheProducer {
    fn look_up(&self, cx: &Producing<'_>, lookup: &mut Lookup) {
        let index = self.source.get();
        lookup.clear();
        lookup.sums.clear();
        if cx.request.prompts.is_empty() || !index.answers(&self.keying) {
            return;
        }
        for prompt in 0..cx.request.prompts.len() {
            self.keying.keys(cx.request, prompt, &mut lookup.keys);
            lookup.ends.push(lookup.keys.len());
        }
        lookup.sums.resize(cx.endpoints.len(), Sum::default());
        let mut walk = std::mem::take(&mut lookup.walk);
        let mut longest = 0_u32;
        for prompt in 0..cx.request.prompts.len() {
            walk.begin(cx.endpoints.len());
            let inquiry = self.inquiry(cx.request, cx.endpoints, lookup, prompt);
            let blocks = index.walk(&inquiry, &mut walk);
            lookup.blocks = lookup.blocks.saturating_add(blocks);
            let mut most = 0;
            for (sum, (standing, score)) in lookup.sums.iter_mut().zip(walk.scored()) {
                most = most.max(standing.blocks());
                if standing.blocks() > 0 {
                    sum.add(standing, score);
                }
            }
            longest = longest.saturating_add(most);
        }
        lookup.walk = walk;
        if lookup.blocks > 0 {
            self.stats.count(longest);
        }
        // Two blocks say more of a prompt than the first, which many share.
        if let Some(&front) = lookup.keys(0).get(1) {
            self.source.truth.looked_up(front, longest > 0, cx.now_ms);
        }
    }

    fn inquiry<'a>(
        &'a self,
        request: &'a Request<'a>,
        endpoints: &'a EndpointSet,
        lookup: &'a Lookup,
        prompt: usize,
    ) -> Inquiry<'a> {
        let keys = lookup.keys(prompt);
        Inquiry { request, prompt, keys, endpoints, weights: &self.weights }
    }
}

impl DataProducer for PrecisePrefixCacheProducer {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let Some(lookup) = state.get_mut(self.state) else {
            return Err(PluginError::new("the cycle state belongs to another configuration"));
        };
        self.look_up(cx, lookup);
        if lookup.blocks == 0 {
            return Ok(());
        }
        for &ix in cx.candidates {
            let Some(sum) = lookup.sums.get(ix as usize) else { continue };
            let distrusted =
                cx.endpoints.get(ix).is_some_and(|e| self.source.truth.distrusts(e.slot));
            let sum = if distrusted { &Sum::default() } else { sum };
            if let Some(cell) = columns.get_mut(self.found).get_mut(ix as usize) {
                *cell = Some(PrefixMatch {
                    // Truncates towards zero and stays in range, whatever the weights.
                    match_blocks: sum.score as u32,
                    total_blocks: lookup.blocks,
                    block_size_tokens: self.keying.block_tokens(),
                    cached_blocks: sum.blocks,
                });
            }
            if let Some(cell) = columns.get_mut(self.tiers).get_mut(ix as usize) {
                *cell = Some(sum.tiers);
            }
        }
        Ok(())
    }
}

impl PostChoice for PrecisePrefixCacheProducer {
    /// Expects the blocks at the destination, and where the prompt is computed for it.
    fn post_choice(&self, cx: &Cycle<'_>, decision: &Decision, effects: &mut Effects) {
        let Some(lookup) = cx.state.get(self.state).filter(|lookup| lookup.blocks > 0) else {
            return;
        };
        let destination = decision.target();
        let prefill =
            decision.profile(PREFILL_PROFILE).and_then(|run| run.targets.first().copied());
        // Where another endpoint computes the prompt, its blocks come from there and not from the
        // cache. Of several prompts vLLM reports what it found of one, beside the length of all.
        if let (Some(endpoint), None, 1) = (destination, prefill, lookup.ends.len()) {
            let tokens = cx.request.prompts.first().map_or(0, |prompt| prompt.token_count());
            let slot = cx.endpoints.get(endpoint).map(|chosen| chosen.slot);
            let window = slot.map_or(0, |slot| self.source.truth.window(slot));
            let prediction = self.prediction(lookup, endpoint, tokens, window);
            effects.extend(prediction.map(Effect::Keep));
        }
        if self.speculative_ms.is_none() {
            return;
        }
        let targets = [destination, prefill.filter(|_| prefill != destination)];
        let record = |endpoint| Effect::record(self.instance, endpoint);
        effects.extend(targets.into_iter().flatten().map(record));
    }

    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        let &Effect::Record { plugin, endpoint, .. } = effect else { return };
        let Some(lookup) = cx.state.get(self.state).filter(|_| plugin == self.instance) else {
            return;
        };
        let Some(ttl_ms) = self.speculative_ms else { return };
        for prompt in 0..lookup.ends.len() {
            let inquiry = self.inquiry(cx.request, cx.endpoints, lookup, prompt);
            self.source.get().expect(&inquiry, endpoint, ttl_ms);
        }
    }
}

impl PrecisePrefixCacheProducer {
    /// What the index says of an endpoint: tokens held in one tier, tokens held at all; beside it the
    /// tokens of the prompt, and the window of the truth check. All are exact up to 2^24.
    fn prediction(
        &self,
        lookup: &Lookup,
        endpoint: EndpointIx,
        prompt: u64,
        window: u64,
    ) -> Option<Kept> {
        let Sum { blocks, tiers, .. } = lookup.sums.get(endpoint as usize)?;
        let tokens =
            |blocks: u32| (u64::from(blocks) * u64::from(self.keying.block_tokens())) as f32;
        let mut values = [0.0; KEPT];
        values[0] = tokens(tiers.gpu.max(tiers.cpu).max(tiers.other));
        values[1] = tokens(*blocks);
        values[2] = prompt as f32;
        values[3] = window as f32;
        Some(Kept { plugin: self.instance, endpoint, values })
    }
}

impl AfterResponse for PrecisePrefixCacheProducer {
    /// Holds the engine's report against what was predicted, and notes what to hold against its
    /// counters.
    fn complete(&self, cx: &Responding<'_>) {
        let Some(served) = cx.endpoint.filter(|_| cx.status == 200 && cx.complete) else { return };
        let tells = cx.tells_cached || cx.cached_tokens.is_some();
        for kept in cx.kept_by(self.instance) {
            if cx.endpoints.get(kept.endpoint).is_none_or(|chosen| chosen.slot != served.slot) {
                continue;
            }
            let [at_least, at_most, tokens, window, ..] = kept.values.map(|value| value as u64);
            // Streams tell of their tokens only where they are asked to.
            let prompt = cx.prompt_tokens.unwrap_or(tokens);
            let answered = Served { window, at_least, at_most, prompt };
            self.source.truth.served(served.slot, answered);
            if let Some(prompt) = cx.prompt_tokens.filter(|_| tells) {
                let sample = Sample { at_least, at_most, prompt, reported: cx.cached_tokens };
                self.source.truth.count(served.slot, sample);
            }
        }
    }
}

impl Collector for PrecisePrefixCacheProducer {
    fn collect(&self, page: &mut Exposition) {
        self.source.truth.collect(page, &self.name);
        if self.index_metrics {
            self.stats.collect(page);
        }
        let labels = [("plugin_name", self.name.as_str())];
        let usable = self.source.get().answers(&self.keying);
        page.gauge(
            "inlane_precise_index_usable",
            "1 where there is an index that is written with the producer's parameters, else 0.",
            &labels,
            f64::from(u8::from(usable)),
        );
        let (requests, misses) = self.stats.misses();
        page.counter(
            "inlane_precise_lookups_total",
            "Requests with whole blocks of tokens that were looked up.",
            &labels,
            requests as f64,
        );
        page.counter(
            "inlane_precise_misses_total",
            "Lookups that found no block of the prompt at any endpoint.",
            &labels,
            misses as f64,
        );
        let engines = self.source.engines();
        page.gauge(
            "inlane_precise_expected_blocks",
            "Blocks expected where requests were just sent, over all endpoints.",
            &labels,
            engines.expected_blocks() as f64,
        );
        page.counter(
            "inlane_precise_expectations_dropped_total",
            "Prompts, or parts of long ones, that were not expected because too many were.",
            &labels,
            engines.expectations_dropped() as f64,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use inlane_core::columns::{CachedTiers, PrefixMatch};
    use inlane_core::effect::Effect;
    use inlane_core::endpoint::EndpointIx;
    use inlane_core::plugin::Part;
    use inlane_core::request::{Prompt, Request};

    use crate::precise::score::Walk;
    use crate::precise::{Inquiry, PreciseIndex, PreciseSource};
    use crate::testing::{Built, Idle, World};

    const NAME: &str = "precise-prefix-cache-producer";

    /// Every prompt has four blocks: endpoint 0 holds two on the GPU and one on the CPU, endpoint 1
    /// the first on the CPU.
    #[derive(Default)]
    struct Table(Arc<Mutex<Expectations>>);

    /// Endpoint, time and number of keys.
    type Expectations = Vec<(EndpointIx, u64, usize)>;

    impl PreciseIndex for Table {
        fn walk(&self, inquiry: &Inquiry<'_>, walk: &mut Walk) -> u32 {
            if inquiry.keys.is_empty() {
                return 0;
            }
            let (gpu, cpu) = (inquiry.weights.tier("gpu"), inquiry.weights.tier("cpu"));
            walk.block([(0, gpu), (1, cpu)]);
            walk.block([(0, gpu)]);
            walk.block([(0, cpu)]);
            4
        }

        fn expect(&self, inquiry: &Inquiry<'_>, endpoint: EndpointIx, ttl_ms: u64) {
            self.0.lock().unwrap().push((endpoint, ttl_ms, inquiry.keys.len()));
        }
    }

    fn world(parameters: &str) -> (World, Built) {
        let mut world = World::new(3);
        let built = world.build(NAME, parameters).unwrap();
        (world, built)
    }

    fn attach(world: &World) -> Arc<Mutex<Expectations>> {
        let expected = Arc::default();
        let [(_, source)] = &world.kept.all::<PreciseSource>()[..] else { panic!("one source") };
        assert!(source.attach(Box::new(Table(Arc::clone(&expected)))));
        assert!(!source.attach(Box::new(Table::default())), "there is one");
        expected
    }

    fn produce(world: &mut World, built: &Built, prompts: &[usize]) -> Vec<Option<PrefixMatch>> {
        world.columns.reset(3);
        let ids = vec![0; 100];
        let prompts: Vec<_> = prompts.iter().map(|&len| Prompt::Tokens(&ids[..len])).collect();
        let request = Request { prompts: &prompts, ..Default::default() };
        world.produce(built, &request, &Idle).unwrap();
        let column = world.column::<PrefixMatch>(NAME);
        world.columns.get_mut(column).to_vec()
    }

    #[test]
    fn without_a_source_nothing_is_written() {
        let (mut world, built) = world("");
        assert_eq!(produce(&mut world, &built, &[64]), [None; 3]);
        assert_eq!(built.warnings, [""; 0]);
        assert!(built.roles.plays(Part::Extractor));
    }

    #[test]
    fn matches_are_truncated_sums_over_the_prompts() {
        let (mut world, built) = world("{tokenProcessorConfig: {blockSize: 64}}");
        attach(&world);
        let found = |match_blocks, total_blocks, cached_blocks| {
            let block_size_tokens = 64;
            Some(PrefixMatch { match_blocks, total_blocks, block_size_tokens, cached_blocks })
        };
        let one = produce(&mut world, &built, &[64]);
        assert_eq!(one, [found(2, 4, 3), found(0, 4, 1), found(0, 4, 0)]);
        // 5.6 and 1.6; a prompt without a whole block adds nothing.
        let two = produce(&mut world, &built, &[64, 5, 64]);
        assert_eq!(two, [found(5, 8, 6), found(1, 8, 2), found(0, 8, 0)]);
        let column = world.column::<CachedTiers>(NAME);
        let tiers = CachedTiers { gpu: 4, ..Default::default() };
        assert_eq!(world.columns.get(column)[0], Some(tiers));
    }

    #[test]
    fn without_a_whole_block_nothing_is_written() {
        let (mut world, built) = world("");
        attach(&world);
        assert_eq!(produce(&mut world, &built, &[5]), [None; 3]);
        assert_eq!(produce(&mut world, &built, &[]), [None; 3]);
    }

    #[test]
    fn blocks_are_expected_where_the_request_goes() {
        for (parameters, expected) in [
            ("{speculativeIndexing: true, speculativeTTL: 1500ms}", vec![(0, 1_500), (2, 1_500)]),
            ("{speculativeIndexing: true, speculativeTTL: -1s}", vec![(0, 2_000), (2, 2_000)]),
            ("{}", vec![]),
        ] {
            let (mut world, built) = world(parameters);
            let seen = attach(&world);
            produce(&mut world, &built, &[64, 20]);
            let request = Request::default();
            let effects = world.choose(&built, &request, &[("decode", 0), ("prefill", 2)]);
            world.apply(&built, &request, &effects);
            // Both prompts, of four blocks and of one.
            let both = |(endpoint, ttl)| [(endpoint, ttl, 4), (endpoint, ttl, 1)];
            let expected: Expectations = expected.into_iter().flat_map(both).collect();
            assert_eq!(*seen.lock().unwrap(), expected, "{parameters}");
        }
    }

    #[test]
    fn a_prediction_is_kept_of_a_single_prompt_served_where_it_is_computed() {
        let (mut world, built) = world("");
        attach(&world);
        let mut kept = |prompts: &[usize], targets: &[(&'static str, u32)]| {
            produce(&mut world, &built, prompts);
            let effects = world.choose(&built, &Request::default(), targets);
            let kept = effects.iter().filter(|effect| matches!(effect, Effect::Keep(_)));
            kept.count()
        };
        assert_eq!(kept(&[64], &[("decode", 0)]), 1);
        assert_eq!(kept(&[64, 64], &[("decode", 0)]), 0);
        assert_eq!(kept(&[64], &[("decode", 0), ("prefill", 2)]), 0);
    }

    #[test]
    fn parameters_are_decoded_strictly() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{blockSize: 16}", "blockSize"),
            (
                "{tokenProcessorConfig: {blockSizeTokens: -1}}",
                "tokenProcessorConfig.blockSizeTokens",
            ),
            ("{tokenProcessorConfig: {blockSize: -1}}", "tokenProcessorConfig.blockSize"),
            ("{tokenProcessorConfig: {hashAlgorithm: md5}}", "tokenProcessorConfig.hashAlgorithm"),
            ("{indexerConfig: {tokenizersPoolConfig: {}}}", "indexerConfig.tokenizersPoolConfig"),
            ("{kvEventsConfig: {engineType: trt}}", "kvEventsConfig.engineType"),
            ("{kvEventsConfig: {concurrency: 0}}", "kvEventsConfig.concurrency"),
            (
                "{kvEventsConfig: {podDiscoveryConfig: {socketPort: 70000}}}",
                "kvEventsConfig.podDiscoveryConfig.socketPort",
            ),
            (
                "{indexerConfig: {kvBlockIndexConfig: {inMemoryConfig: {size: 0}}}}",
                "indexerConfig.kvBlockIndexConfig.inMemoryConfig.size",
            ),
            (
                "{indexerConfig: {kvBlockIndexConfig: {costAwareMemoryConfig: {size: big}}}}",
                "indexerConfig.kvBlockIndexConfig.costAwareMemoryConfig.size",
            ),
            (
                "{indexerConfig: {kvBlockIndexConfig: {redisConfig: {address: 'rediss://r'}}}}",
                "indexerConfig.kvBlockIndexConfig.redisConfig.address",
            ),
            (
                "{indexerConfig: {kvBlockIndexConfig: {metricsLoggingInterval: 1m0s}}}",
                "indexerConfig.kvBlockIndexConfig.metricsLoggingInterval",
            ),
            (
                "{indexerConfig: {kvCacheBackendConfigs: [{weight: 1}]}}",
                "indexerConfig.kvCacheBackendConfigs[0].name",
            ),
            ("{speculativeTTL: soon}", "speculativeTTL"),
        ] {
            let error = world.build(NAME, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), Some(field), "{parameters}");
        }
        for parameters in [
            "{tokenProcessorConfig: {blockSizeTokens: 0, hashSeed: '42', hashAlgorithm: xxh64}}",
            "{kvEventsConfig: {podDiscoveryConfig: null, zmqEndpoint: 'tcp://*:5557'}}",
            "{kvEventsConfig: {engineType: sglang, podDiscoveryConfig: {replaySocketPort: 5560}}}",
            "{indexerConfig: {kvBlockIndexConfig: {redisConfig: {address: 'redis://r:1'}}}}",
            "{indexerConfig: {kvCacheBackendConfigs: [{name: gpu, weight: 2}]}}",
        ] {
            assert!(world.build(NAME, parameters).is_ok(), "{parameters}");
        }
    }
}

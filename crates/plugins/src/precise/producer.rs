//! `precise-prefix-cache-producer`: how much of the prompt the engines say they hold.

use std::sync::Arc;

use inlane_core::columns::{CachedTiers, Col, Columns, PrefixMatch};
use inlane_core::decision::{Decision, PluginError};
use inlane_core::effect::{Effect, Effects, PluginIx};
use inlane_core::plugin::{Cycle, DataProducer, Part, PostChoice, Producing, Roles};
use inlane_core::registry::{Build, BuildError, Params, PluginType, TOKENIZED_PROMPT};
use inlane_core::state::{CycleData, CycleState, StateSlot};

use super::PreciseSource;
use super::parameters::Parameters;
use super::score::{Standing, Walk};
use crate::{PREFILL_PROFILE, token_producer};

/// The type `precise-prefix-cache-producer`.
pub const TYPE: PluginType = PluginType::new("precise-prefix-cache-producer", build);

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    parameters.check(build, false)?;
    build.require_key(TOKENIZED_PROMPT, token_producer::TYPE.name);
    build.warn("no source of cache events can be attached yet: no endpoint will have a match");
    let ttl = u64::try_from(parameters.speculative_ttl()?.as_millis()).unwrap_or(u64::MAX);
    let plugin = Arc::new(PrecisePrefixCacheProducer {
        source: build.kept_state("source", PreciseSource::default),
        block_tokens: parameters.block_tokens()?,
        speculative_ms: parameters.speculative_indexing.then_some(ttl),
        instance: build.instance(),
        found: build.produce(),
        tiers: build.produce(),
        state: build.cycle_state(),
    });
    let roles = Roles::default().producer(plugin.clone()).post_choice(plugin);
    Ok(roles.part(Part::Extractor))
}

/// `trunc(sum over the prompts of the weighted longest prefix)` of the blocks of all prompts
/// (llm-d-router `precise-prefix-cache-producer`). Without a source, without tokens and without a
/// whole block nothing is written.
#[derive(Debug)]
struct PrecisePrefixCacheProducer {
    source: Arc<PreciseSource>,
    block_tokens: u32,
    /// For how long blocks are expected where a request went; `None` = not.
    speculative_ms: Option<u64>,
    instance: PluginIx,
    found: Col<PrefixMatch>,
    tiers: Col<CachedTiers>,
    state: StateSlot<Lookup>,
}

/// Memory to work in.
#[derive(Debug, Default)]
struct Lookup {
    walk: Walk,
    sums: Vec<Sum>,
    blocks: u32,
}

impl CycleData for Lookup {
    fn clear(&mut self) {
        self.blocks = 0;
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
    fn add(&mut self, standing: &Standing) {
        self.score += standing.score();
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

impl DataProducer for PrecisePrefixCacheProducer {
    fn produce(
        &self,
        cx: &Producing<'_>,
        columns: &mut Columns,
        state: &mut CycleState,
    ) -> Result<(), PluginError> {
        let Some(index) = self.source.get() else { return Ok(()) };
        let Some(Lookup { walk, sums, blocks }) = state.get_mut(self.state) else {
            return Err(PluginError::new("the cycle state belongs to another configuration"));
        };
        *blocks = 0;
        sums.clear();
        sums.resize(cx.endpoints.len(), Sum::default());
        for prompt in 0..cx.request.prompts.len() {
            walk.begin(cx.endpoints.len());
            *blocks = blocks.saturating_add(index.walk(cx.request, prompt, cx.endpoints, walk));
            for (sum, standing) in sums.iter_mut().zip(walk.standings()) {
                sum.add(standing);
            }
        }
        if *blocks == 0 {
            return Ok(());
        }
        for &ix in cx.candidates {
            let Some(sum) = sums.get(ix as usize) else { continue };
            if let Some(cell) = columns.get_mut(self.found).get_mut(ix as usize) {
                *cell = Some(PrefixMatch {
                    // Truncates towards zero and stays in range, whatever the weights.
                    match_blocks: sum.score as u32,
                    total_blocks: *blocks,
                    block_size_tokens: self.block_tokens,
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
        let known = cx.state.get(self.state).is_some_and(|lookup| lookup.blocks > 0);
        if self.speculative_ms.is_none() || !known {
            return;
        }
        let destination = decision.target();
        let prefill =
            decision.profile(PREFILL_PROFILE).and_then(|run| run.targets.first().copied());
        let targets = [destination, prefill.filter(|_| prefill != destination)];
        let record = |endpoint| Effect::record(self.instance, endpoint);
        effects.extend(targets.into_iter().flatten().map(record));
    }

    fn apply(&self, cx: &Cycle<'_>, effect: &Effect) {
        let &Effect::Record { plugin, endpoint, .. } = effect else { return };
        if plugin != self.instance {
            return;
        }
        if let (Some(index), Some(ttl)) = (self.source.get(), self.speculative_ms) {
            index.expect(cx.request, cx.endpoints, endpoint, cx.now_ms.saturating_add(ttl));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use inlane_core::columns::{CachedTiers, PrefixMatch};
    use inlane_core::endpoint::{EndpointIx, EndpointSet};
    use inlane_core::plugin::Part;
    use inlane_core::request::{Prompt, Request};

    use crate::precise::score::{TierWeights, Walk};
    use crate::precise::{PreciseIndex, PreciseSource};
    use crate::testing::{Built, Idle, World};

    const NAME: &str = "precise-prefix-cache-producer";

    /// Every prompt has four blocks: endpoint 0 holds two on the GPU and one on the CPU, endpoint 1
    /// the first on the CPU.
    #[derive(Default)]
    struct Table(Arc<Mutex<Vec<(EndpointIx, u64)>>>);

    impl PreciseIndex for Table {
        fn walk(&self, request: &Request<'_>, at: usize, _: &EndpointSet, walk: &mut Walk) -> u32 {
            if request.prompts[at].token_count() < 16 {
                return 0;
            }
            let weights = TierWeights::default();
            let (gpu, cpu) = (weights.tier("gpu"), weights.tier("cpu"));
            walk.block([(0, gpu), (1, cpu)]);
            walk.block([(0, gpu)]);
            walk.block([(0, cpu)]);
            4
        }

        fn expect(&self, _: &Request<'_>, _: &EndpointSet, endpoint: EndpointIx, until_ms: u64) {
            self.0.lock().unwrap().push((endpoint, until_ms));
        }
    }

    fn world(parameters: &str) -> (World, Built) {
        let mut world = World::new(3);
        let built = world.build(NAME, parameters).unwrap();
        (world, built)
    }

    fn attach(world: &World) -> Arc<Mutex<Vec<(EndpointIx, u64)>>> {
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
        assert_eq!(built.warnings.len(), 1);
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
            ("{speculativeIndexing: true, speculativeTTL: 1500ms}", vec![(0, 2_500), (2, 2_500)]),
            ("{speculativeIndexing: true, speculativeTTL: -1s}", vec![(0, 3_000), (2, 3_000)]),
            ("{}", vec![]),
        ] {
            let (mut world, built) = world(parameters);
            let seen = attach(&world);
            world.now_ms = 1_000;
            produce(&mut world, &built, &[64]);
            let request = Request::default();
            let effects = world.choose(&built, &request, &[("decode", 0), ("prefill", 2)]);
            world.apply(&built, &request, &effects);
            assert_eq!(*seen.lock().unwrap(), expected, "{parameters}");
        }
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

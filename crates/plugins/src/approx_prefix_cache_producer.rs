//! `approx-prefix-cache-producer`: how much of the prompt an endpoint was sent before.

use inlane_core::plugin::Roles;
use inlane_core::registry::{Build, BuildError, PluginType};
use serde::Deserialize;

use crate::prefix::producer::PrefixProducer;
use crate::prefix::{BlockSize, Settings};

/// Blocks remembered per endpoint, unless configured or reported by the engine.
pub(crate) const DEFAULT_CAPACITY: i64 = 31_250;
/// Tokens per block, unless configured or reported by the engine; the floor of 64 comes on top.
const DEFAULT_BLOCK_TOKENS: i64 = 16;
/// Tokens of a prompt that count.
pub(crate) const DEFAULT_MAX_TOKENS: i64 = 131_072;
/// Blocks of a prompt that count where tokens are not bounded.
pub(crate) const DEFAULT_MAX_BLOCKS: i64 = 2_048;

/// The type `approx-prefix-cache-producer`.
pub const TYPE: PluginType = PluginType::new("approx-prefix-cache-producer", |build, params| {
    let settings = Parameters::settings(params.decode()?, build)?;
    Ok(PrefixProducer::build(build, settings)?.into_roles(Roles::default()))
})
.default_producer_of(&["PrefixCacheMatchInfoDataKey"]);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct Parameters {
    /// Whether block size and number of blocks are taken from the engine's metrics.
    auto_tune: bool,
    /// Tokens per block.
    block_size_tokens: i64,
    /// Older name of `blockSizeTokens`.
    block_size: i64,
    /// Bytes of the prompt per block, in place of tokens.
    block_size_bytes: Option<i64>,
    /// Tokens of a prompt that count; 0 = `maxPrefixBlocksToMatch` decides.
    max_prefix_tokens_to_match: i64,
    /// Blocks of a prompt that count. Deprecated.
    max_prefix_blocks_to_match: Option<i64>,
    /// Blocks remembered per endpoint; not positive = the default.
    lru_capacity_per_server: i64,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            auto_tune: true,
            block_size_tokens: DEFAULT_BLOCK_TOKENS,
            block_size: 0,
            block_size_bytes: None,
            max_prefix_tokens_to_match: DEFAULT_MAX_TOKENS,
            max_prefix_blocks_to_match: None,
            lru_capacity_per_server: DEFAULT_CAPACITY,
        }
    }
}

impl Parameters {
    fn settings(self, build: &mut Build<'_>) -> Result<Settings, BuildError> {
        let mut block = self.block_size_tokens;
        if self.block_size != 0 {
            build.warn("blockSize is deprecated, use blockSizeTokens");
            if block == DEFAULT_BLOCK_TOKENS {
                block = self.block_size;
            }
        }
        if block <= 0 && !self.auto_tune {
            let message = format!("must be positive when autoTune is false, found {block}");
            return Err(BuildError::field("blockSizeTokens", message));
        }
        if self.max_prefix_blocks_to_match.is_some() && self.block_size_bytes.is_none() {
            build.warn("maxPrefixBlocksToMatch is deprecated, use maxPrefixTokensToMatch");
        }
        let Ok(max_tokens) = u64::try_from(self.max_prefix_tokens_to_match) else {
            let message =
                format!("must not be negative, found {}", self.max_prefix_tokens_to_match);
            return Err(BuildError::field("maxPrefixTokensToMatch", message));
        };
        let max_blocks = self.max_prefix_blocks_to_match.unwrap_or(DEFAULT_MAX_BLOCKS);
        let block = u32::try_from(block.max(0)).unwrap_or(u32::MAX);
        let block = match self.block_size_bytes {
            Some(bytes) => BlockSize::Bytes(positive("blockSizeBytes", bytes)?),
            None if self.auto_tune => BlockSize::Tuned(block),
            None => BlockSize::Tokens(block),
        };
        Ok(Settings {
            block,
            max_tokens,
            max_blocks: u64::try_from(max_blocks).unwrap_or(0),
            capacity: capacity(self.lru_capacity_per_server),
            // An engine's number of blocks says nothing about blocks of bytes.
            tune_capacity: self.auto_tune && self.block_size_bytes.is_none(),
        })
    }
}

/// A number of bytes, which must be positive.
pub(crate) fn positive(field: &str, bytes: i64) -> Result<u32, BuildError> {
    match u32::try_from(bytes) {
        Ok(bytes) if bytes > 0 => Ok(bytes),
        _ => {
            let message = format!("expected a positive number of bytes, got {bytes}");
            Err(BuildError::field(field, message))
        }
    }
}

/// The capacity that a configured number means.
pub(crate) fn capacity(configured: i64) -> u32 {
    let positive = if configured > 0 { configured } else { DEFAULT_CAPACITY };
    u32::try_from(positive).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use inlane_core::columns::{Metrics, PrefixMatch};
    use inlane_core::effect::Effect;
    use inlane_core::endpoint::EndpointIx;
    use inlane_core::request::{BlockUnit, Prompt, Request};

    use crate::prefix::PrefixIndex;
    use crate::prefix::hash::{chain_contents, chain_tokens, seed};
    use crate::testing::{Built, Idle, World};

    const NAME: &str = "approx-prefix-cache-producer";

    fn world(len: usize, parameters: &str) -> (World, Built, Arc<PrefixIndex>) {
        let mut world = World::new(len);
        let producer = world.build(NAME, parameters).unwrap();
        let [(_, index)] = &world.kept.all::<PrefixIndex>()[..] else { panic!("one index") };
        let index = Arc::clone(index);
        (world, producer, index)
    }

    fn ids(ranges: &[(u32, u32)]) -> Vec<u32> {
        ranges.iter().flat_map(|&(start, count)| start..start + count).collect()
    }

    /// (match, total, block size) per endpoint.
    fn matches(world: &mut World, built: &Built, request: &Request<'_>) -> Vec<(u32, u32, u32)> {
        world.produce(built, request, &Idle).unwrap();
        let column = world.column::<PrefixMatch>(NAME);
        let found = world.columns.get(column).iter().map(|found| {
            let found = found.unwrap();
            assert_eq!(found.cached_blocks, found.match_blocks);
            (found.match_blocks, found.total_blocks, found.block_size_tokens)
        });
        found.collect()
    }

    fn produce(world: &mut World, built: &Built, model: &str, ids: &[u32]) -> Vec<(u32, u32, u32)> {
        let prompts = [Prompt::Tokens(ids)];
        matches(
            world,
            built,
            &Request { target_model: model, prompts: &prompts, ..Default::default() },
        )
    }

    /// Produces, chooses, applies and drains.
    fn send(
        world: &mut World,
        built: &Built,
        index: &PrefixIndex,
        ids: &[u32],
        results: &[(&str, EndpointIx)],
    ) -> Vec<Effect> {
        let prompts = [Prompt::Tokens(ids)];
        let request = Request { target_model: "m", prompts: &prompts, ..Default::default() };
        world.produce(built, &request, &Idle).unwrap();
        let effects = world.choose(built, &request, results);
        world.apply(built, &request, &effects);
        index.drain();
        effects
    }

    #[test]
    fn an_endpoint_is_credited_with_what_it_was_sent() {
        let (mut world, producer, index) = world(2, "");
        world.columns.metrics.cache_block_size[0] = 16;
        let first = ids(&[(0, 200)]);
        assert_eq!(produce(&mut world, &producer, "m", &first), [(0, 4, 64), (0, 4, 64)]);
        send(&mut world, &producer, &index, &first, &[("default", 0)]);
        let forked = ids(&[(0, 128), (5_000, 128)]);
        assert_eq!(produce(&mut world, &producer, "m", &forked), [(2, 4, 64), (0, 4, 64)]);
        assert_eq!(produce(&mut world, &producer, "m", &first), [(4, 4, 64), (0, 4, 64)]);
        assert_eq!(produce(&mut world, &producer, "other", &first), [(0, 4, 64), (0, 4, 64)]);
        // The tail block is another one with one token more.
        assert_eq!(
            produce(&mut world, &producer, "m", &ids(&[(0, 201)])),
            [(3, 4, 64), (0, 4, 64)]
        );
    }

    #[test]
    fn the_first_candidate_sets_the_block_size_and_prefill_is_recorded_too() {
        let (mut world, producer, index) = world(3, "");
        world.columns.metrics.cache_block_size = vec![128, 256, 0];
        let prompt = ids(&[(0, 256)]);
        assert_eq!(produce(&mut world, &producer, "m", &prompt), [(0, 2, 128); 3]);
        let effects =
            send(&mut world, &producer, &index, &prompt, &[("decode", 0), ("prefill", 1)]);
        assert_eq!(effects.len(), 2);
        let expected = [(2, 2, 128), (2, 2, 128), (0, 2, 128)];
        assert_eq!(produce(&mut world, &producer, "m", &prompt), expected);
        // Only the destination is counted, with what it held when it was chosen.
        let ratio = index.stats().hit_ratio.snapshot();
        assert_eq!((ratio.counts[0], ratio.counts.iter().sum::<u64>()), (1, 1));
    }

    #[test]
    fn the_front_of_old_prefixes_is_evicted_first() {
        let parameters = "{autoTune: false, blockSizeTokens: 64, lruCapacityPerServer: 3}";
        let (mut world, producer, index) = world(2, parameters);
        let (old, new) = (ids(&[(0, 128)]), ids(&[(9_000, 128)]));
        send(&mut world, &producer, &index, &old, &[("default", 0)]);
        send(&mut world, &producer, &index, &new, &[("default", 0)]);
        assert_eq!(produce(&mut world, &producer, "m", &old), [(0, 2, 64), (0, 2, 64)]);
        assert_eq!(produce(&mut world, &producer, "m", &new), [(2, 2, 64), (0, 2, 64)]);
    }

    #[test]
    fn the_engine_sets_the_capacity_when_tuned() {
        let (mut world, producer, index) = world(1, "{lruCapacityPerServer: 9}");
        world.columns.metrics.cache_num_blocks[0] = 2;
        send(&mut world, &producer, &index, &ids(&[(0, 640)]), &[("default", 0)]);
        assert_eq!(index.size(), 2);
    }

    #[test]
    fn prompts_add_up() {
        let (mut world, producer, index) = world(1, "");
        let (one, two) = (ids(&[(0, 128)]), ids(&[(500, 65)]));
        send(&mut world, &producer, &index, &one, &[("default", 0)]);
        let prompts = [Prompt::Tokens(&two), Prompt::Tokens(&one), Prompt::Tokens(&one)];
        let request = Request { target_model: "m", prompts: &prompts, ..Default::default() };
        assert_eq!(matches(&mut world, &producer, &request), [(4, 6, 64)]);
    }

    #[test]
    fn untokenized_requests_match_nothing_and_record_nothing() {
        let (mut world, producer, _) = world(1, "");
        let request = Request { target_model: "m", ..Default::default() };
        assert_eq!(matches(&mut world, &producer, &request), [(0, 0, 64)]);
        assert_eq!(world.choose(&producer, &request, &[("default", 0)]), []);
    }

    #[test]
    fn blocks_may_be_counted_in_bytes() {
        let parameters = "{blockSizeBytes: 256, maxPrefixBlocksToMatch: 0}";
        let (mut world, producer, index) = world(2, parameters);
        world.columns.metrics.cache_block_size = vec![16, 16];
        world.columns.metrics.cache_num_blocks = vec![1, 1];
        let unit = BlockUnit::Bytes(256);
        let request = |contents| Prompt::Blocks { unit, tokens: 192, contents };
        let prompts = [request(&[1, 2, 3])];
        let sent = Request { target_model: "m", prompts: &prompts, ..Default::default() };
        world.produce(&producer, &sent, &Idle).unwrap();
        let effects = world.choose(&producer, &sent, &[("default", 0)]);
        world.apply(&producer, &sent, &effects);
        index.drain();
        assert_eq!(index.size(), 3, "the engine's blocks are no measure");
        let prompts = [request(&[1, 2, 9])];
        let forked = Request { target_model: "m", prompts: &prompts, ..Default::default() };
        assert_eq!(matches(&mut world, &producer, &forked), [(2, 3, 64), (0, 3, 64)]);
        let zero = World::new(1).build(NAME, "{blockSizeBytes: 0}").map(drop).unwrap_err();
        assert_eq!(zero.to_string(), "blockSizeBytes: expected a positive number of bytes, got 0");
    }

    #[test]
    fn packed_blocks_are_the_same_as_tokens() {
        let (mut world, producer, index) = world(1, "");
        let prompt = ids(&[(0, 128)]);
        send(&mut world, &producer, &index, &prompt, &[("default", 0)]);
        let mut contents = Vec::new();
        for block in prompt.chunks(64) {
            let bytes: Vec<u8> = block.iter().flat_map(|id| id.to_le_bytes()).collect();
            contents.push(xxhash_rust::xxh64::xxh64(&bytes, 0));
        }
        let (mut packed, mut direct) = (Vec::new(), Vec::new());
        chain_contents(seed("m", ""), &contents, 9, &mut packed);
        chain_tokens(seed("m", ""), &prompt, 64, 9, &mut direct);
        assert_eq!(packed, direct);

        let request = |unit| Prompt::Blocks { unit, tokens: 128, contents: &contents };
        let fitting = [request(BlockUnit::Tokens(64))];
        let r = Request { target_model: "m", prompts: &fitting, ..Default::default() };
        assert_eq!(matches(&mut world, &producer, &r), [(2, 2, 64)]);
        let foreign = [request(BlockUnit::Tokens(128))];
        let r = Request { target_model: "m", prompts: &foreign, ..Default::default() };
        assert_eq!(matches(&mut world, &producer, &r), [(0, 0, 64)]);
    }

    #[test]
    fn a_prompt_is_found_again_whether_or_not_its_tokens_came_in_time() {
        let (mut world, producer, index) = world(1, "");
        let unit = BlockUnit::Tokens(64);
        let packed = [Prompt::Blocks { unit, tokens: 128, contents: &[7, 8] }];
        let late = Request { target_model: "m", prompts: &packed, ..Default::default() };
        world.produce(&producer, &late, &Idle).unwrap();
        let effects = world.choose(&producer, &late, &[("default", 0)]);
        world.apply(&producer, &late, &effects);
        index.drain();
        let tokens = [Prompt::Tokens(&[1, 2, 3])];
        let in_time = Request { prompts: &tokens, packed: &packed, ..late };
        assert_eq!(matches(&mut world, &producer, &in_time), [(2, 2, 64)]);
    }

    #[test]
    fn caps_bound_what_is_hashed() {
        let total = |parameters: &str| {
            let (mut world, producer, _) = world(1, parameters);
            produce(&mut world, &producer, "m", &ids(&[(0, 640)]))[0].1
        };
        assert_eq!(total(""), 10);
        assert_eq!(total("{maxPrefixTokensToMatch: 200}"), 3);
        assert_eq!(total("{maxPrefixTokensToMatch: 63}"), 0);
        assert_eq!(total("{maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 4}"), 4);
        assert_eq!(total("{maxPrefixTokensToMatch: 320, maxPrefixBlocksToMatch: 4}"), 5);
        assert_eq!(total("{maxPrefixTokensToMatch: 0, maxPrefixBlocksToMatch: 0}"), 10);
    }

    #[test]
    fn block_sizes() {
        let unit = |parameters: &str| {
            let (world, producer, _) = world(1, parameters);
            let metrics = &Metrics { cache_block_size: vec![32], ..world.columns.metrics };
            producer.roles.producer.as_ref().unwrap().block_unit(metrics, 0).unwrap()
        };
        assert_eq!(unit(""), BlockUnit::Tokens(64));
        assert_eq!(unit("{autoTune: false, blockSizeTokens: 100}"), BlockUnit::Tokens(100));
        assert_eq!(unit("{autoTune: false, blockSize: 100}"), BlockUnit::Tokens(100));
        let both = "{autoTune: false, blockSize: 100, blockSizeTokens: 200}";
        assert_eq!(unit(both), BlockUnit::Tokens(200));
    }

    #[test]
    fn parameters_are_checked() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{autoTune: false, blockSizeTokens: 0}", Some("blockSizeTokens")),
            ("{maxPrefixTokensToMatch: -1}", Some("maxPrefixTokensToMatch")),
            ("{hashBlockSize: 5}", Some("hashBlockSize")),
            ("{lruCapacityPerServer: many}", Some("lruCapacityPerServer")),
        ] {
            let error = world.build(NAME, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), field, "{parameters}");
        }
        assert!(world.build(NAME, "{blockSizeTokens: 0}").is_ok());
        let built = world.build(NAME, "{blockSize: 8, maxPrefixBlocksToMatch: 2}").unwrap();
        assert_eq!(built.warnings.len(), 2);
    }

    #[test]
    fn the_index_survives_a_reload() {
        let (mut world, producer, index) = world(1, "");
        let prompt = ids(&[(0, 128)]);
        send(&mut world, &producer, &index, &prompt, &[("default", 0)]);
        let reloaded = world.build(NAME, "{maxPrefixTokensToMatch: 64}").unwrap();
        assert_eq!(produce(&mut world, &reloaded, "m", &prompt), [(1, 1, 64)]);
        let resized = world.build(NAME, "{lruCapacityPerServer: 7}").unwrap();
        assert_eq!(produce(&mut world, &resized, "m", &prompt), [(0, 2, 64)]);
    }
}

//! `prefix-cache-scorer`: prefers endpoints that hold much of the prompt.

use std::sync::Arc;

use inlane_core::columns::{Col, PrefixMatch};
use inlane_core::decision::PluginError;
use inlane_core::endpoint::EndpointIx;
use inlane_core::plugin::{Category, Cycle, Roles, Scorer};
use inlane_core::registry::{Build, BuildError, Params, PluginType};
use serde::Deserialize;

use crate::approx_prefix_cache_producer::{
    self, DEFAULT_MAX_BLOCKS, DEFAULT_MAX_TOKENS, capacity, positive,
};
use crate::prefix::producer::PrefixProducer;
use crate::prefix::{BlockSize, Settings};

/// Match length in tokens that counts as long, unless configured.
const DEFAULT_SCALE_TOKENS: i64 = 8_192;

/// The type `prefix-cache-scorer`.
pub const TYPE: PluginType = PluginType::new("prefix-cache-scorer", build);

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Parameters {
    /// Instance that publishes matches; empty = `approx-prefix-cache-producer`.
    prefix_match_info_producer_name: String,
    /// Weight of the match's length against its share of the prompt, 0 to 1.
    match_length_weight: f64,
    /// Match length in tokens that has the full length score.
    match_length_scale_tokens: i64,
    /// Bytes per block, from the time when the scorer kept its own index.
    hash_block_size: Option<i64>,
    /// Blocks of a prompt that count, from the same time.
    max_prefix_blocks_to_match: Option<i64>,
    /// Blocks remembered per endpoint, from the same time.
    lru_capacity_per_server: Option<i64>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            prefix_match_info_producer_name: String::new(),
            match_length_weight: 0.0,
            match_length_scale_tokens: DEFAULT_SCALE_TOKENS,
            hash_block_size: None,
            max_prefix_blocks_to_match: None,
            lru_capacity_per_server: None,
        }
    }
}

fn build(build: &mut Build<'_>, params: &Params) -> Result<Roles, BuildError> {
    let parameters: Parameters = params.decode()?;
    let weight = parameters.match_length_weight;
    let scale = parameters.match_length_scale_tokens;
    if !(0.0..=1.0).contains(&weight) {
        let message = format!("must be between 0.0 and 1.0, got {weight}");
        return Err(BuildError::field("matchLengthWeight", message));
    }
    if weight > 0.0 && scale <= 0 {
        let message =
            format!("must be greater than 0 when matchLengthWeight is greater than 0, got {scale}");
        return Err(BuildError::field("matchLengthScaleTokens", message));
    }
    let scorer = |found| PrefixCacheScorer { found, weight, scale: scale as f64 };
    if let Some(settings) = parameters.own_index()? {
        if !parameters.prefix_match_info_producer_name.is_empty() {
            return Err(BuildError::field(
                "prefixMatchInfoProducerName",
                "cannot be combined with hashBlockSize, maxPrefixBlocksToMatch or \
                 lruCapacityPerServer, which give the scorer an index of its own",
            ));
        }
        build.warn(
            "hashBlockSize, maxPrefixBlocksToMatch and lruCapacityPerServer are deprecated here, \
             configure an approx-prefix-cache-producer",
        );
        let producer = PrefixProducer::build(build, settings)?;
        let roles = Roles::default().scorer(Arc::new(scorer(producer.column())));
        return Ok(producer.into_roles(roles));
    }
    let found = build.require(
        &parameters.prefix_match_info_producer_name,
        approx_prefix_cache_producer::TYPE.name,
    );
    Ok(Roles::default().scorer(Arc::new(scorer(found))))
}

impl Parameters {
    /// The settings of the index that the older parameters ask for; `None` without them.
    ///
    /// With `hashBlockSize` a block is that many bytes of the prompt; without it, blocks are those
    /// of `approx-prefix-cache-producer`.
    fn own_index(&self) -> Result<Option<Settings>, BuildError> {
        let Self { hash_block_size, max_prefix_blocks_to_match, lru_capacity_per_server, .. } =
            *self;
        if hash_block_size.is_none()
            && max_prefix_blocks_to_match.is_none()
            && lru_capacity_per_server.is_none()
        {
            return Ok(None);
        }
        let block = match hash_block_size {
            None => BlockSize::Tuned(0),
            Some(bytes) => BlockSize::Bytes(positive("hashBlockSize", bytes)?),
        };
        let max_blocks = max_prefix_blocks_to_match.unwrap_or(DEFAULT_MAX_BLOCKS);
        let Ok(max_blocks) = u64::try_from(max_blocks) else {
            let message = format!("must not be negative, got {max_blocks}");
            return Err(BuildError::field("maxPrefixBlocksToMatch", message));
        };
        let counts_tokens = hash_block_size.is_none() && max_prefix_blocks_to_match.is_none();
        Ok(Some(Settings {
            block,
            max_tokens: if counts_tokens { DEFAULT_MAX_TOKENS.unsigned_abs() } else { 0 },
            max_blocks,
            capacity: capacity(lru_capacity_per_server.unwrap_or(0)),
            tune_capacity: false,
        }))
    }
}

/// With `m` matching of `n` blocks of `b` tokens, `w = matchLengthWeight` and
/// `s = matchLengthScaleTokens` (llm-d-router `prefix-cache-scorer`):
///
/// ```text
/// score = w * min(1, m * b / s)² + (1 - w) * m / n        0 without a match or with n = 0
/// ```
#[derive(Debug)]
struct PrefixCacheScorer {
    found: Col<PrefixMatch>,
    weight: f64,
    scale: f64,
}

impl PrefixCacheScorer {
    fn rate(&self, found: PrefixMatch) -> f64 {
        if found.total_blocks == 0 {
            return 0.0;
        }
        let matched = f64::from(found.match_blocks);
        let ratio = matched / f64::from(found.total_blocks);
        if self.weight <= 0.0 {
            return ratio;
        }
        let length = (matched * f64::from(found.block_size_tokens) / self.scale).min(1.0);
        self.weight * length * length + (1.0 - self.weight) * ratio
    }
}

impl Scorer for PrefixCacheScorer {
    fn category(&self) -> Category {
        Category::Affinity
    }

    fn score(
        &self,
        cx: &Cycle<'_>,
        candidates: &[EndpointIx],
        out: &mut [f64],
    ) -> Result<(), PluginError> {
        let column = cx.columns.get(self.found);
        for (&ix, out) in candidates.iter().zip(out) {
            let found = column.get(ix as usize).copied().flatten();
            *out = found.map_or(0.0, |found| self.rate(found));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use inlane_core::columns::PrefixMatch;
    use inlane_core::request::{BlockUnit, Prompt, Request};
    use proptest::prelude::*;

    use crate::prefix::PrefixIndex;
    use crate::testing::{Built, Idle, World};

    const NAME: &str = "prefix-cache-scorer";

    fn world(matches: &[Option<(u32, u32, u32)>], parameters: &str) -> (World, Built) {
        let mut world = World::new(matches.len());
        let scorer = world.build(NAME, parameters).unwrap();
        let column = world.column::<PrefixMatch>("approx-prefix-cache-producer");
        for (cell, found) in world.columns.get_mut(column).iter_mut().zip(matches) {
            *cell = found.map(|(match_blocks, total_blocks, block_size_tokens)| PrefixMatch {
                match_blocks,
                total_blocks,
                block_size_tokens,
                cached_blocks: match_blocks,
            });
        }
        (world, scorer)
    }

    #[test]
    fn the_matching_share_is_the_score() {
        let matches = [Some((5, 10, 64)), Some((10, 10, 64)), Some((0, 0, 64)), None];
        let (world, scorer) = world(&matches, "");
        assert_eq!(world.score(&scorer), [0.5, 1.0, 0.0, 0.0]);
        assert_eq!(
            scorer.data.requires[0].to_string(),
            "PrefixCacheMatchInfoDataKey/approx-prefix-cache-producer"
        );
    }

    #[test]
    fn length_counts_on_request() {
        let matches = [Some((4, 8, 64)), Some((16, 16, 64)), Some((4, 8, 0))];
        let (world, scorer) =
            world(&matches, "{matchLengthWeight: 0.5, matchLengthScaleTokens: 512}");
        assert_eq!(world.score(&scorer), [0.375, 1.0, 0.25]);
    }

    #[test]
    fn parameters_are_checked() {
        let mut world = World::new(0);
        for (parameters, field) in [
            ("{matchLengthWeight: 1.5}", Some("matchLengthWeight")),
            ("{matchLengthWeight: -0.1}", Some("matchLengthWeight")),
            ("{matchLengthWeight: .nan}", Some("matchLengthWeight")),
            ("{matchLengthWeight: 0.1, matchLengthScaleTokens: 0}", Some("matchLengthScaleTokens")),
            ("{hashBlockSize: 0}", Some("hashBlockSize")),
            ("{maxPrefixBlocksToMatch: -1}", Some("maxPrefixBlocksToMatch")),
            (
                "{hashBlockSize: 5, prefixMatchInfoProducerName: x}",
                Some("prefixMatchInfoProducerName"),
            ),
            ("{blockSizeTokens: 16}", Some("blockSizeTokens")),
        ] {
            let error = world.build(NAME, parameters).err().expect(parameters);
            assert_eq!(error.field.as_deref(), field, "{parameters}");
        }
        assert!(world.build(NAME, "{matchLengthScaleTokens: 0}").is_ok());
        let named = world.build(NAME, "{prefixMatchInfoProducerName: mine}").unwrap();
        assert_eq!(named.data.requires[0].producer, "mine");
    }

    /// The configuration of the first releases: blocks of 5 bytes, at most 256 of them, so that
    /// only the first 1,280 bytes of a prompt count.
    #[test]
    fn legacy_parameters_bring_an_index_of_their_own() {
        let parameters =
            "{hashBlockSize: 5, maxPrefixBlocksToMatch: 256, lruCapacityPerServer: 31250}";
        let mut world = World::new(3);
        let scorer = world.build(NAME, parameters).unwrap();
        assert_eq!(scorer.warnings.len(), 1);
        assert!(scorer.data.requires.iter().all(|key| key.name == "TokenizedPrompt"));
        let producer = scorer.roles.producer.as_ref().unwrap();
        assert_eq!(producer.block_unit(&world.columns.metrics, 0), Some(BlockUnit::Bytes(5)));

        let same: Vec<u64> = (0..1_000).collect();
        let tail: Vec<u64> = (0..256).chain(5_000..5_100).collect();
        let request =
            |contents| Prompt::Blocks { unit: BlockUnit::Bytes(5), tokens: 1_250, contents };
        let (same, tail) = ([request(&same)], [request(&tail)]);
        let mut score = |prompts: &[Prompt<'_>], target: u32| {
            let request = Request { target_model: "m", prompts, ..Default::default() };
            world.produce(&scorer, &request, &Idle).unwrap();
            let scores = world.score(&scorer);
            let effects = world.choose(&scorer, &request, &[("default", target)]);
            world.apply(&scorer, &request, &effects);
            for (_, index) in world.kept.all::<PrefixIndex>() {
                index.drain();
                assert!(index.size() <= 2 * 256);
            }
            scores
        };
        assert_eq!(score(&same, 1), [0.0, 0.0, 0.0]);
        assert_eq!(score(&same, 1), [0.0, 1.0, 0.0]);
        assert_eq!(score(&tail, 2), [0.0, 1.0, 0.0]);
        assert_eq!(score(&tail, 2), [0.0, 1.0, 1.0]);
    }

    #[test]
    fn legacy_bytes_of_token_ids_are_their_text() {
        let mut world = World::new(1);
        let scorer = world.build(NAME, "{hashBlockSize: 6}").unwrap();
        let ids = [u32::from_le_bytes(*b"abcd"), u32::from_le_bytes(*b"efgh"), 0];
        let contents: Vec<u64> = [&b"abcdef"[..], b"gh\0\0\0\0"]
            .iter()
            .map(|b| xxhash_rust::xxh64::xxh64(b, 0))
            .collect();
        let sent = [Prompt::Tokens(&ids)];
        let sent = Request { prompts: &sent, ..Default::default() };
        world.produce(&scorer, &sent, &Idle).unwrap();
        let effects = world.choose(&scorer, &sent, &[("default", 0)]);
        world.apply(&scorer, &sent, &effects);
        world.kept.all::<PrefixIndex>()[0].1.drain();
        let again = [Prompt::Blocks { unit: BlockUnit::Bytes(6), tokens: 3, contents: &contents }];
        let again = Request { prompts: &again, ..Default::default() };
        world.produce(&scorer, &again, &Idle).unwrap();
        assert_eq!(world.score(&scorer), [1.0]);
    }

    #[test]
    fn a_legacy_capacity_alone_keeps_token_blocks() {
        let mut world = World::new(1);
        let scorer = world.build(NAME, "{lruCapacityPerServer: 2}").unwrap();
        let producer = scorer.roles.producer.as_ref().unwrap();
        assert_eq!(producer.block_unit(&world.columns.metrics, 0), Some(BlockUnit::Tokens(64)));
    }

    proptest! {
        #[test]
        fn scores_are_shares_and_grow_with_the_match(
            total in 1..10_000u32,
            matched in 0..10_000u32,
            block in 0..512u32,
            weight in 0.0..=1.0f64,
        ) {
            let matched = matched.min(total - 1);
            let matches = [Some((matched, total, block)), Some((matched + 1, total, block))];
            let (world, scorer) = world(&matches, &format!("{{matchLengthWeight: {weight}}}"));
            let scores = world.score(&scorer);
            prop_assert!(scores.iter().all(|s| (0.0..=1.0 + 1e-12).contains(s)));
            prop_assert!(scores[0] <= scores[1]);
        }
    }
}

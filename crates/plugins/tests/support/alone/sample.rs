//! Columns full of plausible numbers.

use inlane_core::columns::{
    Adapters, Attribute, CachedTiers, Columns, EncoderMatch, InFlight, LatencyInfo, PrefixMatch,
    Scalar, Topology, UncachedTokens,
};
use inlane_core::registry::Schema;
use inlane_core::rng::Rng;

use super::BLOCKS;

/// A value that a producer may have written.
pub(super) trait Sample: Attribute {
    fn random(rng: &mut Rng) -> Self;
}

impl Sample for PrefixMatch {
    fn random(rng: &mut Rng) -> Self {
        let held = rng.below(BLOCKS as u32 + 1);
        Self {
            match_blocks: held,
            total_blocks: BLOCKS as u32,
            block_size_tokens: 64,
            cached_blocks: held,
        }
    }
}

impl Sample for InFlight {
    fn random(rng: &mut Rng) -> Self {
        Self { requests: rng.below(50), tokens: rng.below(100_000).into(), word: 0 }
    }
}

impl Sample for UncachedTokens {
    fn random(rng: &mut Rng) -> Self {
        Self(rng.below(64 * BLOCKS as u32).into())
    }
}

impl Sample for CachedTiers {
    fn random(rng: &mut Rng) -> Self {
        let gpu = rng.below(BLOCKS as u32);
        Self { gpu, cpu: gpu, other: gpu, speculative: gpu }
    }
}

impl Sample for LatencyInfo {
    fn random(rng: &mut Rng) -> Self {
        let (ttft, tpot) = (rng.unit() * 1_600.0, rng.unit() * 80.0);
        let (ttft_headroom, tpot_headroom) = (800.0 - ttft, 40.0 - tpot);
        let (ttft_valid, tpot_valid) = (ttft_headroom >= 0.0, tpot_headroom >= 0.0);
        let dispatched = rng.below(20);
        Self { ttft_valid, tpot_valid, ttft_headroom, tpot_headroom, ttft, tpot, dispatched }
    }
}

impl Sample for EncoderMatch {
    fn random(rng: &mut Rng) -> Self {
        Self { matched: rng.below(401).into(), requested: 400 }
    }
}

impl Sample for Topology {
    fn random(rng: &mut Rng) -> Self {
        let mut place = |of: u32| u64::from(1 + rng.below(of));
        Self { host: place(50), rack: place(10), zone: place(3), region: place(2) }
    }
}

impl Sample for Scalar {
    fn random(rng: &mut Rng) -> Self {
        Self(rng.unit())
    }
}

fn fill<T: Sample>(schema: &Schema, columns: &mut Columns, rng: &mut Rng) {
    for (_, col) in schema.keys::<T>() {
        for value in columns.get_mut(col) {
            *value = Some(T::random(rng));
        }
    }
}

pub(super) fn columns(schema: &Schema, pods: usize, rng: &mut Rng) -> Columns {
    let mut columns = Columns::default();
    columns.metrics.with_adapters = true;
    columns.reset(pods);
    let metrics = &mut columns.metrics;
    for ix in 0..pods {
        metrics.waiting[ix] = rng.below(10);
        metrics.running[ix] = rng.below(50);
        metrics.kv_usage[ix] = rng.unit();
        metrics.cache_block_size[ix] = 16;
        metrics.cache_num_blocks[ix] = 100_000;
        metrics.adapters[ix] = Adapters {
            active: rng.below(4).into(),
            waiting: rng.below(4).into(),
            served: 3,
            max_active: 4,
            loaded: rng.below(4),
        };
    }
    fill::<PrefixMatch>(schema, &mut columns, rng);
    fill::<InFlight>(schema, &mut columns, rng);
    fill::<UncachedTokens>(schema, &mut columns, rng);
    fill::<CachedTiers>(schema, &mut columns, rng);
    fill::<LatencyInfo>(schema, &mut columns, rng);
    fill::<EncoderMatch>(schema, &mut columns, rng);
    fill::<Topology>(schema, &mut columns, rng);
    fill::<Scalar>(schema, &mut columns, rng);
    columns
}

//! What a prefix producer is told: how large a block is, how many count, how much is remembered.

use inlane_core::columns::Metrics;
use inlane_core::endpoint::EndpointIx;
use inlane_core::request::BlockUnit;

/// Blocks are never smaller than this many tokens, whatever the engine or the configuration says.
const MIN_BLOCK_TOKENS: u32 = 64;

/// Where the block size comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockSize {
    /// A number of tokens, at least 64.
    Tokens(u32),
    /// The engine's own block size where it is reported, else a number of tokens; at least 64.
    Tuned(u32),
    /// A number of bytes of the prompt, as releases before the tokenizer counted.
    Bytes(u32),
}

/// Settings of a prefix producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Size of a block.
    pub block: BlockSize,
    /// Tokens of a prompt that count; 0 = see `max_blocks`.
    pub max_tokens: u64,
    /// Blocks of a prompt that count; 0 = all.
    pub max_blocks: u64,
    /// Blocks remembered per endpoint.
    pub capacity: u32,
    /// Whether an engine that reports its number of cache blocks is remembered with as many.
    pub tune_capacity: bool,
}

impl Settings {
    /// The block size for a request, which is that of the first candidate for all.
    pub fn unit(&self, metrics: &Metrics, first: EndpointIx) -> BlockUnit {
        match self.block {
            BlockSize::Bytes(bytes) => BlockUnit::Bytes(bytes.max(1)),
            BlockSize::Tokens(tokens) => BlockUnit::Tokens(tokens.max(MIN_BLOCK_TOKENS)),
            BlockSize::Tuned(tokens) => {
                let engine = metrics.cache_block_size.get(first as usize).copied();
                let tokens = engine.filter(|&size| size > 0).unwrap_or(tokens);
                BlockUnit::Tokens(tokens.max(MIN_BLOCK_TOKENS))
            }
        }
    }

    /// How many blocks of a prompt count.
    pub fn limit(&self, unit: BlockUnit) -> usize {
        let blocks = match unit {
            BlockUnit::Tokens(block) if self.max_tokens > 0 => {
                self.max_tokens / u64::from(block.max(1))
            }
            _ if self.max_blocks > 0 => self.max_blocks,
            _ => u64::MAX,
        };
        usize::try_from(blocks).unwrap_or(usize::MAX)
    }

    /// How many blocks are remembered of an endpoint.
    pub fn capacity(&self, metrics: &Metrics, endpoint: EndpointIx) -> u32 {
        let engine = metrics.cache_num_blocks.get(endpoint as usize).copied().unwrap_or(0);
        if self.tune_capacity && engine > 0 { engine } else { self.capacity }
    }
}

/// Tokens that a block stands for. A byte block counts whole tokens only, at least one, so that
/// blocks never stand for more than the prompt has.
pub(crate) fn block_tokens(unit: BlockUnit) -> u32 {
    match unit {
        BlockUnit::Tokens(tokens) => tokens,
        BlockUnit::Bytes(bytes) => (bytes / 4).max(1),
    }
}

/// Bytes of text that a block stands for.
pub(crate) fn block_bytes(unit: BlockUnit) -> u64 {
    match unit {
        BlockUnit::Tokens(tokens) => u64::from(tokens) * 4,
        BlockUnit::Bytes(bytes) => u64::from(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        block: BlockSize::Tuned(16),
        max_tokens: 131_072,
        max_blocks: 2_048,
        capacity: 31_250,
        tune_capacity: true,
    };

    #[test]
    fn the_floor_applies_to_every_source() {
        let mut metrics = Metrics::default();
        metrics.reset(2);
        metrics.cache_block_size = vec![16, 128];
        assert_eq!(SETTINGS.unit(&metrics, 0), BlockUnit::Tokens(64));
        assert_eq!(SETTINGS.unit(&metrics, 1), BlockUnit::Tokens(128));
        assert_eq!(SETTINGS.unit(&metrics, 9), BlockUnit::Tokens(64));
        let fixed = Settings { block: BlockSize::Tokens(100), ..SETTINGS };
        assert_eq!(fixed.unit(&metrics, 1), BlockUnit::Tokens(100));
        let bytes = Settings { block: BlockSize::Bytes(5), ..SETTINGS };
        assert_eq!(bytes.unit(&metrics, 1), BlockUnit::Bytes(5));
    }

    #[test]
    fn tokens_win_over_blocks() {
        let unit = BlockUnit::Tokens(64);
        assert_eq!(SETTINGS.limit(unit), 2_048);
        assert_eq!(Settings { max_tokens: 63, ..SETTINGS }.limit(unit), 0);
        assert_eq!(Settings { max_tokens: 0, max_blocks: 7, ..SETTINGS }.limit(unit), 7);
        let unlimited = Settings { max_tokens: 0, max_blocks: 0, ..SETTINGS };
        assert_eq!(unlimited.limit(unit), usize::MAX);
    }

    #[test]
    fn capacity_follows_the_engine_when_tuned() {
        let mut metrics = Metrics::default();
        metrics.reset(2);
        metrics.cache_num_blocks[1] = 500;
        assert_eq!(SETTINGS.capacity(&metrics, 0), 31_250);
        assert_eq!(SETTINGS.capacity(&metrics, 1), 500);
        let fixed = Settings { tune_capacity: false, ..SETTINGS };
        assert_eq!(fixed.capacity(&metrics, 1), 31_250);
    }
}

//! What is counted about a prefix index. Workers add, an exporter reads.

use inlane_core::exposition::Histogram;

/// Upper bounds of the hit-ratio histogram.
const RATIO_BOUNDS: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

/// Upper bounds of the hit-bytes histogram.
const BYTES_BOUNDS: &[f64] = &[
    0.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0,
    65536.0,
];

/// Fractions are added up in units of 2⁻³².
const FRACTION: f64 = (1u64 << 32) as f64;

/// Numbers about one index.
#[derive(Debug)]
pub struct PrefixStats {
    /// `prefix_indexer_hit_ratio`: matching share of the blocks at the chosen endpoint.
    pub hit_ratio: Histogram,
    /// `prefix_indexer_hit_bytes`: bytes of the matching blocks at the chosen endpoint.
    pub hit_bytes: Histogram,
}

impl Default for PrefixStats {
    fn default() -> Self {
        Self {
            hit_ratio: Histogram::new(RATIO_BOUNDS, FRACTION),
            hit_bytes: Histogram::new(BYTES_BOUNDS, 1.0),
        }
    }
}

impl PrefixStats {
    /// Counts a choice: `matched` of `total` blocks of `block_bytes` bytes each.
    pub(crate) fn observe(&self, matched: u32, total: u32, block_bytes: u64) {
        let ratio = if total == 0 { 0.0 } else { f64::from(matched) / f64::from(total) };
        self.hit_ratio.observe(ratio);
        self.hit_bytes.observe((u64::from(matched) * block_bytes) as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_land_in_their_buckets() {
        let stats = PrefixStats::default();
        stats.observe(0, 4, 256);
        stats.observe(2, 4, 256);
        stats.observe(1_000, 1_000, 256);
        stats.observe(0, 0, 256);
        let ratio = stats.hit_ratio.snapshot();
        assert_eq!(ratio.counts, [2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]);
        assert!((ratio.sum - 1.5).abs() < 1e-9);
        let bytes = stats.hit_bytes.snapshot();
        assert_eq!(bytes.counts[6], 1, "512 is the upper bound of its bucket");
        assert_eq!(bytes.counts[14], 1);
        assert_eq!(bytes.sum, 512.0 + 256_000.0);
    }
}
